"""All results on one HTML page that needs no network: a picture, the tables of README, and a section per experiment.

Experiments of README's rows come first, studies last. Each experiment has a small table of the methods that matter and
a figure; all rows, the trainings and the commands are folded below them. The newest stored run has a section below the
released results, named with its preset.
"""

import base64
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from experiments.records.description import Description, title
from experiments.records.release import released_names
from experiments.records.storage import writable_folder, write_bytes
from experiments.records.table import legend, wide
from experiments.report import comparisons
from experiments.report.picture import FOLDER, leading_figure
from experiments.report.results import Results, headline, newest_runs, of_run, released

OTHERS, STUDIES = "further experiments", "studies"
"""Heading of runs of experiments that are not released, and of those that come last."""
COMPARED = {
    "Predictions under a law: CRPS": comparisons.laws,
    "Rollouts under a balance, operators with boundary conditions: relative L2": comparisons.operators,
    "All cases": comparisons.every_case,
}
"""The tables of README, by their headings."""


def write_report(out: Path, file: Path) -> tuple[list[Results], list[Path]]:
    """Writes the page.

    Returns what it shows, released results and stored runs, and the runs that it leaves out, since a release before 0.5
    made them.

    Raises:
        OutputFolderError: If the file cannot be written.
        DataFileError: If results or a figure are damaged.
    """
    writable_folder(file.parent)
    (runs, left_out), families = newest_runs(out), dict[str, list[Results]]()
    of_runs = {results.name: results for results in map(of_run, runs)}
    leading = [row.experiment for row in (*comparisons.LAWS, *comparisons.OPERATORS)]
    for name in sorted(released_names(), key=lambda name: (*leading, name).index(name)):
        results = released(name)
        if results is not None:
            both = [results, *filter(None, [of_runs.pop(name, None)])]
            families.setdefault(results.description.family or OTHERS, []).extend(both)
    for results in of_runs.values():
        families.setdefault(results.description.family or OTHERS, []).append(results)
    families = dict(sorted(families.items(), key=lambda family: family[0] == STUDIES))
    tables = {heading: table() for heading, table in COMPARED.items()}
    write_bytes(file, render(families, left_out, tables).encode())
    return [shown for family in families.values() for shown in family], left_out


def render(
    results: Mapping[str, Sequence[Results]],
    left_out: Sequence[Path] = (),
    tables: Mapping[str, pd.DataFrame] = MappingProxyType({}),
) -> str:
    """The page as HTML, from results by family; ``tables`` come first, by their headings."""
    loader = PackageLoader("experiments", "report")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    sections = {family: [_section(entry) for entry in entries] for family, entries in results.items() if entries}
    return environment.get_template("page.html").render(
        sections=sections,
        tables={heading: frame.to_html(index=False, border=0) for heading, frame in tables.items()},
        left_out=[str(run) for run in left_out],
        lead=_address((FOLDER / "lead.png").read_bytes()),
        version=metadata.version("probconserv-boon"),
        date=time.strftime("%Y-%m-%d", time.gmtime()),
    )


def _section(results: Results) -> dict[str, Any]:
    """Content of the template for an experiment."""
    described, name, run = results.description, results.name, results.run
    picture, references = leading_figure(name, run), dict.fromkeys(described.references.values())
    return {
        "name": name if run is None else f"{name}-run",
        "title": title(name) + ("" if run is None else f": {_kind(results)}, preset {results.preset}"),
        "summary": described.summary or described.title,
        "run": run or "",
        "verdict": results.verdict,
        "origin": f"{'Released results' if run is None else f'Results of a {_kind(results)}'} ({results.origin})",
        "headline": headline(described, results.records, scores=results.scores),
        "reference": " or ".join(described.methods.get(key, key) for key in references),
        "rows": wide(results.records, described).to_html(index=False, border=0),
        "legend": legend(results.records, described),
        "trainings": _trainings(results),
        "figure": _address(picture) if picture else "",
        "commands": _commands(described, run is None),
    }


def _kind(results: Results) -> str:
    return "reproduction" if results.verdict else "stored run"


def _trainings(results: Results) -> str:
    """Number, steps and mean time of trainings by case and method; those that methods have in common once."""
    if results.trainings.empty:
        return ""
    unique = results.trainings.drop_duplicates(["training", "seconds", "steps"])
    frame = unique.groupby(["case", "method", "steps"], sort=False)["seconds"].agg(["count", "mean"]).reset_index()
    frame = frame.rename(columns={"count": "trainings", "mean": "minutes each"})
    frame["case"] = frame["case"].replace(dict(results.description.cases))
    frame["method"] = frame["method"].replace(dict(results.description.methods))
    frame["steps"] = frame["steps"].map("{:,.0f}".format)
    frame["minutes each"] = (frame["minutes each"] / 60).map("{:.1f}".format)
    return frame.to_html(index=False, border=0)


def _commands(described: Description, released: bool) -> list[tuple[str, str]]:
    """Commands, and how long they take; none without, as of an experiment that left the library."""
    name = described.experiment
    typed = {"reproduce": f"reproduce {name}"} if released else {}
    typed |= {preset: f"run {name} --preset {preset}" for preset in ("laptop", "paper")}
    times = described.durations
    return [(f"python -m experiments {words}", times[key]) for key, words in typed.items() if key in times]


def _address(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
