"""All results on one HTML page that needs no network: a picture, a few sentences, and folded tables.

Each experiment has a small table of the methods that matter and a figure; all rows, the trainings and the commands are
folded below them. Released results come first; those of a stored run stand in where nothing is released.
"""

import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from experiments import registry
from experiments.protocol import Experiment
from experiments.records.table import legend, wide
from experiments.report.picture import leading_figure
from experiments.report.results import Headline, Results, headline, newest_run, of_run, released
from experiments.storage import writable_folder, write_bytes

LEAD = "stefan"
"""The experiment whose figure opens the page."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """One experiment on the page.

    Args:
        name: Its name.
        title: Heading.
        summary: What it shows, one sentence.
        origin: Where its results come from.
        headline: The rows that matter.
        rows: All rows as an HTML table.
        legend: What the columns mean.
        trainings: Trainings and their times as an HTML table; may be empty.
        figure: Address with the pixels of its figure; may be empty.
        commands: How to make its results, and how long that takes.
    """

    name: str
    title: str
    summary: str
    origin: str
    headline: Headline
    rows: str
    legend: str
    trainings: str
    figure: str
    commands: Sequence[tuple[str, str]]

    @property
    def gains(self) -> tuple[int, int]:
        """How many cases the last headline method makes better in the last compared score, of how many."""
        columns = [i for i, text in enumerate(self.headline.columns[1:]) if text.endswith(("↓", "↑"))]
        last = [rows[-1][1][columns[-1]].mark for _, rows in self.headline.groups if rows and columns]
        return sum(mark == "better" for mark in last), len(last)


def write_report(out: Path, file: Path) -> list[str]:
    """Writes the page.

    Args:
        out: Folder of all stored runs; it need not exist.
        file: The page.

    Returns:
        Names of the experiments on it.

    Raises:
        OutputFolderError: If the file cannot be written.
        DataFileError: If results or a figure are damaged.
    """
    writable_folder(file.parent)
    groups = registry.families() | {"studies": registry.STUDIES, "choices of the default": registry.CHOICES}
    sections = {
        family: [section(results, out) for entry in entries.values() if (results := _results(entry, out)) is not None]
        for family, entries in groups.items()
    }
    shown = [entry.name for entries in sections.values() for entry in entries]
    every = [entry.name for entries in groups.values() for entry in entries.values()]
    write_bytes(file, render(sections, [name for name in every if name not in shown]).encode())
    return shown


def render(sections: dict[str, list[Section]], missing: Sequence[str]) -> str:
    """The page as HTML.

    Args:
        sections: Experiments by family.
        missing: Names of experiments without results.
    """
    environment = Environment(
        loader=PackageLoader("experiments", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = [entry for entries in sections.values() for entry in entries]
    lead = next((entry.figure for entry in shown if entry.name == LEAD), "")
    return environment.get_template("page.html").render(
        sections={family: entries for family, entries in sections.items() if entries},
        missing=missing,
        lead=lead,
        version=metadata.version("probconserv-boon"),
        date=time.strftime("%Y-%m-%d", time.gmtime()),
    )


def section(results: Results, out: Path) -> Section:
    """What the page says of an experiment.

    Args:
        results: Its results.
        out: Folder of all stored runs, for the figure.
    """
    entry, png = results.experiment, leading_figure(results.experiment.name, out)
    return Section(
        name=entry.name,
        title=entry.name.replace("_", " ").replace("-", ": ").capitalize(),
        summary=entry.summary,
        origin=f"{'Released results' if results.released else 'Results of a stored run'} ({results.origin})",
        headline=headline(results),
        rows=wide(results.records, results.labels).to_html(index=False, border=0),
        legend=legend(results.records, entry.over),
        trainings=_trainings(results),
        figure=f"data:image/png;base64,{base64.b64encode(png).decode()}" if png else "",
        commands=_commands(entry, results.released),
    )


def _results(entry: Experiment, out: Path) -> Results | None:
    run = newest_run(entry.name, out)
    return released(entry) or (of_run(entry, run) if run is not None else None)


def _trainings(results: Results) -> str:
    """Number, steps and mean time of trainings by case and method."""
    if results.trainings.empty:
        return ""
    labels, group = results.labels, ["case", "method", "steps"]
    unique = results.trainings.drop_duplicates(["training", "seconds", "steps"])
    frame = unique.groupby(group, sort=False)["seconds"].agg(["count", "mean"]).reset_index()
    frame = pd.DataFrame(
        {
            "case": frame["case"].map(lambda key: labels.cases.get(key, key)),
            "method": frame["method"].map(lambda key: labels.methods.get(key, key)),
            "trainings": frame["count"],
            "steps": frame["steps"].map("{:,.0f}".format),
            "minutes each": (frame["mean"] / 60).map("{:.1f}".format),
        }
    )
    return frame.to_html(index=False, border=0)


def _commands(entry: Experiment, released: bool) -> list[tuple[str, str]]:
    verb = {"-study": "study", "-choice": "choose"}.get(entry.name[entry.name.rfind("-") :], "run")
    name = entry.name.rsplit("-", 1)[0] if verb != "run" else entry.name
    lines = [(f"python -m experiments reproduce {entry.name}", "reproduce")] if released else []
    lines += [(f"python -m experiments {verb} {name} --preset {preset}", preset) for preset in ("laptop", "paper")]
    return [(text, entry.durations.get(key, "")) for text, key in lines]  # type: ignore[call-overload]
