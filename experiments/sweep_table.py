"""The table of a sweep: mean and standard deviation over seeds of every score of every method."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from experiments.storage import write_bytes
from experiments.tables import COLUMNS, Row, format_score, meanings, used_columns


@dataclass(frozen=True)
class SeedTable:
    """Scores of an experiment over seeds.

    Args:
        experiment: Name of the experiment.
        preset: Size of its runs.
        seeds: The seeds.
        rows: Rows whose scores are mean and standard deviation over those seeds that have them, None for one seed.
    """

    experiment: str
    preset: str
    seeds: tuple[int, ...]
    rows: list[Row]

    @property
    def title(self) -> str:
        """What the table shows."""
        word = "seed" if len(self.seeds) == 1 else "seeds"
        name = self.experiment.replace("_", " ").capitalize()
        return f"{name}, preset {self.preset}, {word} {', '.join(str(seed) for seed in self.seeds)}"

    @property
    def legend(self) -> str:
        """What the columns mean."""
        return f"Mean ± standard deviation over seeds of each seed's own table. {meanings(self.rows)}"

    @property
    def columns(self) -> list[str]:
        """Names of the scores that some row has."""
        return used_columns(self.rows)

    def cells(self) -> list[list[str]]:
        """Headings, then one line of texts per row."""
        lines = [["parameter", "method", *(COLUMNS[name].heading for name in self.columns)]]
        for row in self.rows:
            lines.append([row.parameter, row.method, *(_cell(row, name) for name in self.columns)])
        return lines

    def as_markdown(self) -> str:
        """GitHub-flavoured Markdown with title and legend."""
        head, *lines = (f"| {' | '.join(cells)} |" for cells in self.cells())
        rule = "|---|---|" + "---:|" * len(self.columns)
        return "\n".join([f"## {self.title}", "", head, rule, *lines, "", self.legend, ""])

    def as_csv(self) -> str:
        """Full precision, two columns (mean, standard deviation) per score."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["parameter", "method", *(f"{name}{end}" for name in self.columns for end in ("", "_sd"))])
        for row in self.rows:
            pairs = [row.scores.get(name, (None, None)) for name in self.columns]
            writer.writerow([row.parameter, row.method, *(value for pair in pairs for value in pair)])
        return text.getvalue()

    def as_json(self) -> dict[str, Any]:
        """Experiment, preset, seeds, and rows with ``[mean, standard deviation]`` per score."""
        rows = [{name: value for name, value in row.as_json().items() if name != "source"} for row in self.rows]
        return {"experiment": self.experiment, "preset": self.preset, "seeds": list(self.seeds), "rows": rows}

    def write(self, folder: Path) -> list[Path]:
        """Writes the table as Markdown, CSV and JSON; returns the files."""
        contents = {
            "md": self.as_markdown(),
            "csv": self.as_csv(),
            "json": json.dumps(self.as_json(), ensure_ascii=False, indent=1) + "\n",
        }
        files = [folder / f"{self.experiment}-{self.preset}.{ending}" for ending in contents]
        for file, content in zip(files, contents.values(), strict=True):
            write_bytes(file, content.encode())
        return files


def seed_table(experiment: str, preset: str, runs: Mapping[int, Sequence[Row]]) -> SeedTable:
    """The table of runs that differ in their seed only.

    Args:
        experiment: Name of the experiment.
        preset: Size of the runs.
        runs: Rows of every run by its seed; those of the papers are left out.
    """
    found: dict[tuple[str, str], list[Row]] = {}
    for rows in runs.values():
        for row in rows:
            if not row.source:
                found.setdefault((row.parameter, row.method), []).append(row)
    rows = []
    for (parameter, method), alike in found.items():
        values = {name: [row.scores[name][0] for row in alike if name in row.scores] for name in COLUMNS}
        scores = {name: (fmean(v), stdev(v) if len(v) > 1 else None) for name, v in values.items() if v}
        rows.append(Row(parameter, method, scores, information=alike[0].information))
    return SeedTable(experiment, preset, tuple(runs), rows)


def _cell(row: Row, name: str) -> str:
    if name not in row.scores:
        return format_score(None)
    mean, deviation = row.scores[name]
    return " ± ".join(format_score((value, None)) for value in (mean, deviation) if value is not None)
