"""What can be run: every experiment by name, read from ``catalogue.csv``, without the import of any.

A line of the file says under which heading an experiment is listed, its name, what it shows, its times on one core
(measured, or for ``paper`` extrapolated), and its home: a module of ``experiments`` and a dictionary in it.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Durations = dict[Literal["smoke", "laptop", "paper", "reproduce"], str]
STUDIES, CHOICES, REGISTERED = "studies", "choices of the default", "registered"
"""Headings of studies, of choices between corrections, and of what users register."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """An experiment as it is listed.

    Args:
        home: Module of ``experiments``, and the name in it of a dictionary of experiments.
    """

    family: str
    name: str
    summary: str = ""
    durations: Durations
    home: str = ""


def _read(file: Path) -> dict[str, Listed]:
    listed = {}
    with file.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            durations: Durations = {key: row.pop(key) for key in ("smoke", "laptop", "paper", "reproduce")}
            listed[row["name"]] = Listed(**row, durations=durations)
    return listed


CATALOGUE = _read(Path(__file__).with_suffix(".csv"))
"""Everything that ``run`` and ``reproduce`` take, in the order of ``list``; users' experiments come last."""
