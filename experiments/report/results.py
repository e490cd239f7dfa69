"""What the page and the documents show of an experiment: its results with labels, and the few rows that matter."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.errors import NotReleasedError
from experiments.experiment import Experiment, RunContext, RunOptions
from experiments.records.record import Over, as_frame, over_seeds
from experiments.records.release import released_results
from experiments.records.scores import SCORES, Better
from experiments.records.store import read_records
from experiments.records.table import Labels, format_score, labels_of, numbers
from experiments.storage import read_object

MANY_ROWS = 20
"""Rows of a headline from which each case is one row, with one score."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """Results of one experiment, released or of a stored run.

    Args:
        experiment: The experiment.
        cases: Its cases.
        records: Means over seeds, ours and the papers'.
        trainings: Case, method, seed, seconds, steps and processor of every training.
        origin: Preset, seed, date, processor and revision, as far as they were stored.
        released: Whether these are the released results.
    """

    experiment: Experiment
    cases: Sequence[Any]
    records: pd.DataFrame
    trainings: pd.DataFrame
    origin: str
    released: bool

    @property
    def labels(self) -> Labels:
        """The labels of cases and methods."""
        return labels_of(self.experiment, self.cases)

    def of_case(self, case: str) -> pd.DataFrame:
        """The records of a case."""
        return self.records[self.records["case"] == case]


@dataclass(frozen=True)
class Cell:
    """One number of a headline.

    Args:
        text: Three digits, with the standard error in brackets.
        best: Whether none of its column is better.
        mark: ``better`` or ``worse`` than the first method of the case by more than both standard errors, ``paper`` for
            a paper's number, else empty.
    """

    text: str
    best: bool = False
    mark: str = ""


@dataclass(frozen=True)
class Headline:
    """The few rows that answer an experiment's question.

    Args:
        columns: Headings, the first that of the rows' names.
        groups: Label of the case, or an empty text, and its rows: name and cells.
    """

    columns: list[str]
    groups: list[tuple[str, list[tuple[str, list[Cell]]]]] = field(default_factory=list)


def released(experiment: Experiment) -> Results | None:
    """The released results of an experiment; None if there are none.

    Raises:
        DataFileError: If they are damaged.
    """
    try:
        stored = released_results(experiment.name)
    except NotReleasedError:
        return None
    records = stored.records
    if experiment.over is Over.FUNCTIONS:  # other seeds have tables of their own
        records = records[records["seed"].isna() | (records["seed"] == stored.seed)]
    notes = {"preset": stored.preset, "seed": stored.seed, **stored.environment}
    return assemble(experiment, notes, records, stored.trainings, True)


def of_run(experiment: Experiment, folder: Path) -> Results:
    """The results in the folder of a finished run.

    Raises:
        DataFileError: If they are damaged.
    """
    metrics = read_object(folder / "metrics.json")
    trainings = pd.DataFrame(metrics["trainings"])
    notes = {**metrics["environment"], **metrics}
    return assemble(experiment, notes, read_records(folder / "records.csv"), trainings, False)


def newest_run(name: str, out: Path) -> Path | None:
    """Folder of the newest finished run of an experiment; None if there is none."""
    finished = (out / name).glob("*/metrics.json")
    return max((path.parent for path in finished), key=lambda folder: folder.stat().st_mtime, default=None)


def title(experiment: Experiment) -> str:
    """The name of an experiment as a heading."""
    words = re.sub("neumann|dirichlet", lambda name: name[0].capitalize(), experiment.name)
    return words[0].upper() + words[1:].replace("_", " ").replace("-", ": ")


def headline(results: Results) -> Headline:
    """The headline methods and scores of every case; of many cases one row each, with the first score."""
    chosen = {}
    for case in results.cases:
        part = results.of_case(case.key)
        if len(part):
            methods, scores = results.experiment.headline(case, part)
            chosen[case.key] = ([method for method in methods if method in set(part["method"])], list(scores))
    frame = numbers(results.records, results.labels)
    many = sum(len(methods) for methods, _ in chosen.values()) > MANY_ROWS
    return (_cases_as_rows if many else _methods_as_rows)(frame, results.labels, chosen)


def _methods_as_rows(frame: pd.DataFrame, labels: Labels, chosen: dict[str, tuple[list[str], list[str]]]) -> Headline:
    scores = [score for score in dict.fromkeys(s for _, names in chosen.values() for s in names) if score in frame]
    columns = [column for score in scores for column in (score, f"{score}_paper") if column in frame]
    headings = [SCORES[column].title if column in SCORES else "paper" for column in columns]
    table = Headline(["method", *headings])
    for case, (methods, _) in chosen.items():
        part = frame.loc[[(case, method) for method in methods]]
        cells = {column: _column(part, column) for column in columns}
        rows = [(labels.methods[method], [cells[column][i] for column in columns]) for i, method in enumerate(methods)]
        table.groups.append((labels.cases[case], rows))
    return table


def _cases_as_rows(frame: pd.DataFrame, labels: Labels, chosen: dict[str, tuple[list[str], list[str]]]) -> Headline:
    score = next(iter(chosen.values()))[1][0]
    names = list(dict.fromkeys(method for methods, _ in chosen.values() for method in methods))
    table = Headline([SCORES[score].title, *(labels.methods[name] for name in names)])
    rows = []
    for case, (methods, _) in chosen.items():
        cells = dict(zip(methods, _column(frame.loc[[(case, method) for method in methods]], score), strict=True))
        rows.append((labels.cases[case], [cells.get(name, Cell("—")) for name in names]))
    table.groups.append(("", rows))
    return table


def _column(part: pd.DataFrame, column: str) -> list[Cell]:
    """One score of the methods of a case, compared with the first."""
    values = part[column]
    if column not in SCORES:
        return [Cell(format_score(value), mark="paper") for value in values]
    errors = part.get(f"{column}_se", pd.Series(index=part.index, dtype=float)).fillna(0.0)
    sign = {Better.LOWER: -1.0, Better.HIGHER: 1.0, Better.NEITHER: 0.0}[SCORES[column].better]
    best = (sign * values).max() if sign else None
    gains, slack = sign * (values - values.iloc[0]), errors + errors.iloc[0]
    marks = [
        "better" if gain > error else "worse" if -gain > error else "" for gain, error in zip(gains, slack, strict=True)
    ]
    shown = [error or None for error in errors]
    return [
        Cell(format_score(value, error), bool(best is not None and sign * value == best), mark)
        for value, error, mark in zip(values, shown, marks, strict=True)
    ]


def assemble(
    experiment: Experiment, notes: dict[str, Any], records: pd.DataFrame, trainings: pd.DataFrame, released: bool
) -> Results:
    """Results with the papers' numbers beside them.

    Args:
        experiment: The experiment.
        notes: ``preset``, ``seed``, and perhaps ``date``, ``machine`` and ``revision``.
        records: Records per seed, or means.
        trainings: As in ``Results``.
        released: Whether these are the released results.
    """
    options = RunOptions(preset=notes["preset"], seed=notes["seed"])
    context = RunContext(options=options, released=released, training_seed=options.seed)
    cases = [case for case in experiment.cases(context) if case.key in set(records["case"])]
    papers = as_frame(record for case in cases for record in experiment.published(case))
    both = pd.concat([part for part in (records, papers) if len(part)], ignore_index=True)
    machine = notes.get("machine", {}).get("processor")
    origin = (f"preset {options.preset}", notes.get("date", "")[:10], machine, notes.get("revision"))
    return Results(
        experiment=experiment,
        cases=cases,
        records=over_seeds(both),
        trainings=trainings,
        origin=", ".join(str(part) for part in origin if part),
        released=released,
    )
