"""All results on one HTML page that needs no network: a picture, a few sentences, and folded tables.

Each experiment has a small table of the methods that matter and a figure; all rows, the trainings and the commands are
folded below them. The newest stored run has a section of its own, named with its preset, below the released results.
"""

import base64
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from experiments import registry
from experiments.experiment import Experiment
from experiments.records.table import legend, wide
from experiments.report.picture import FOLDER, leading_figure
from experiments.report.results import Results, headline, newest_run, of_run, released, title
from experiments.storage import writable_folder, write_bytes


def write_report(out: Path, file: Path) -> list[Results]:
    """Writes the page.

    Args:
        out: Folder of all stored runs; it need not exist.
        file: The page.

    Returns:
        What it shows, released results and stored runs.

    Raises:
        OutputFolderError: If the file cannot be written.
        DataFileError: If results or a figure are damaged.
    """
    writable_folder(file.parent)
    results = {
        family: [shown for entry in registry.family(family).values() for shown in _results(entry, out)]
        for family in registry.families()
    }
    write_bytes(file, render(results).encode())
    return [shown for entries in results.values() for shown in entries]


def render(results: Mapping[str, Sequence[Results]]) -> str:
    """The page as HTML, from results by family."""
    loader = PackageLoader("experiments", "report")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    sections = {family: [_section(entry) for entry in entries] for family, entries in results.items() if entries}
    return environment.get_template("page.html").render(
        sections=sections,
        lead=_address((FOLDER / "lead.png").read_bytes()),
        version=metadata.version("probconserv-boon"),
        date=time.strftime("%Y-%m-%d", time.gmtime()),
    )


def _results(entry: Experiment, out: Path) -> list[Results]:
    """The released results and the newest stored run; a run of cases that are gone has nothing to show."""
    run = newest_run(entry.name, out)
    both = (released(entry), None if run is None else of_run(entry, run))
    return [results for results in both if results is not None and results.cases]


def _section(results: Results) -> dict[str, Any]:
    """What the template shows of an experiment."""
    entry, run = results.experiment, results.run
    picture = leading_figure(entry.name, run)
    return {
        "name": entry.name if run is None else f"{entry.name}-run",
        "title": title(entry.name) if run is None else f"{title(entry.name)}: stored run, preset {results.preset}",
        "summary": entry.summary,
        "run": run or "",
        "origin": f"{'Released results' if run is None else 'Results of a stored run'} ({results.origin})",
        "headline": headline(entry, results.cases, results.records),
        "rows": wide(results.records, results.labels).to_html(index=False, border=0),
        "legend": legend(results.records, entry.over),
        "trainings": _trainings(results),
        "figure": _address(picture) if picture else "",
        "commands": _commands(entry, run is None),
    }


def _trainings(results: Results) -> str:
    """Number, steps and mean time of trainings by case and method; those that methods have in common once."""
    if results.trainings.empty:
        return ""
    unique = results.trainings.drop_duplicates(["training", "seconds", "steps"])
    frame = unique.groupby(["case", "method", "steps"], sort=False)["seconds"].agg(["count", "mean"]).reset_index()
    frame = frame.rename(columns={"count": "trainings", "mean": "minutes each"})
    frame["case"] = frame["case"].replace(results.labels.cases)
    frame["method"] = frame["method"].replace(results.labels.methods)
    frame["steps"] = frame["steps"].map("{:,.0f}".format)
    frame["minutes each"] = (frame["minutes each"] / 60).map("{:.1f}".format)
    return frame.to_html(index=False, border=0)


def _commands(entry: Experiment, released: bool) -> list[tuple[str, str]]:
    """What to type, and how long it takes."""
    typed = {"reproduce": f"reproduce {entry.name}"} if released else {}
    typed |= {preset: f"run {entry.name} --preset {preset}" for preset in ("laptop", "paper")}
    return [(f"python -m experiments {words}", entry.durations.get(key, "")) for key, words in typed.items()]  # type: ignore[call-overload]


def _address(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
