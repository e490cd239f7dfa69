"""What the page and the documents show of an experiment: its results with labels, and the few rows that matter."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
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
Chosen = dict[str, list[str]]
"""Methods by case."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """Results of one experiment, released or of a stored run.

    Args:
        experiment: The experiment.
        cases: Its cases.
        records: Means over seeds, ours and the papers'.
        trainings: Case, method, seed, seconds, steps and processor of every training.
        preset: Size of the run.
        origin: Preset, seed, date, processor and revision, as far as they were stored.
        run: Folder of the stored run; None for the released results.
    """

    experiment: Experiment
    cases: Sequence[Any]
    records: pd.DataFrame
    trainings: pd.DataFrame
    preset: str
    origin: str
    run: Path | None

    @property
    def labels(self) -> Labels:
        """The labels of cases and methods."""
        return labels_of(self.experiment, self.cases, self.records)


class Cell(NamedTuple):
    """One number of a headline.

    Args:
        heading: Heading of its column.
        text: Three digits.
        error: Its standard error; empty if it has none.
        best: Whether none of its column is better.
        mark: ``better`` or ``worse`` than the first method of the case by more than both standard errors, ``paper`` for
            a paper's number, else empty.
    """

    heading: str
    text: str
    error: str = ""
    best: bool = False
    mark: str = ""


class Row(NamedTuple):
    """A row of a headline.

    Args:
        group: Label of the case, or heading of the score if the row is a case.
        name: Label of the method, or of the case.
        cells: Its numbers.
    """

    group: str
    name: str
    cells: list[Cell]


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
    return assemble(experiment, notes, records, stored.trainings)


def of_run(experiment: Experiment, folder: Path) -> Results:
    """The results in the folder of a finished run.

    Raises:
        DataFileError: If they are damaged.
    """
    metrics = read_object(folder / "metrics.json")
    trainings = pd.DataFrame(metrics["trainings"])
    notes = {**metrics["environment"], **metrics}
    return assemble(experiment, notes, read_records(folder / "records.csv"), trainings, folder)


def newest_run(name: str, out: Path) -> Path | None:
    """Folder of the newest finished run of an experiment, reproductions of the release apart; None if there is none.

    Runs of version 0.1, which had no records, are passed over.

    Raises:
        DataFileError: If the file of a run is damaged.
    """
    runs = [path for path in (out / name).glob("*/metrics.json") if (path.parent / "records.csv").is_file()]
    finished = [path for path in runs if not read_object(path).get("verdict")]
    return max((path.parent for path in finished), key=lambda folder: folder.stat().st_mtime, default=None)


def title(name: str) -> str:
    """The name of an experiment as a heading."""
    problem, *study = name.removeprefix("generate_").split("-")
    generated = ", generated" if name.startswith("generate_") else ""
    words = ": ".join((problem + generated, *study)).replace("_", " ")
    words = re.sub("burgers|darcy|dirichlet|neumann", lambda person: person[0].capitalize(), words)
    return words[0].upper() + words[1:]


def headline(experiment: Experiment, cases: Sequence[Any], records: pd.DataFrame, most: int = MANY_ROWS) -> list[Row]:
    """The headline methods and scores of every case; of many cases one row each, with the first score.

    A run of some methods alone may have none of the headline's methods, or scores: then those that it has are shown.

    Args:
        experiment: The experiment.
        cases: Its cases.
        records: Means over seeds.
        most: Rows from which each case is one row.
    """
    labels = labels_of(experiment, cases, records)
    frame = numbers(records, labels)
    chosen: Chosen = {}
    wanted: list[str] = []
    for case in cases:
        methods, scores = experiment.headline(case, records[records["case"] == case.key])
        computed = [method for method in methods if (case.key, method) in frame.index]  # not what papers alone have
        chosen[case.key] = computed or [method for key, method in frame.index if key == case.key]
        wanted += scores
    present = [score for score in SCORES if score in frame]
    shown = [score for score in dict.fromkeys(wanted) if score in present] or present
    if sum(map(len, chosen.values())) > most:
        return _cases_as_rows(frame, labels, chosen, shown[0])
    return _methods_as_rows(frame, labels, chosen, shown)


def _methods_as_rows(frame: pd.DataFrame, labels: Labels, chosen: Chosen, scores: Sequence[str]) -> list[Row]:
    shown = [column for score in scores for column in (score, f"{score}_paper") if column in frame]
    rows = []
    for case, methods in chosen.items():
        columns = [_column(frame.loc[[(case, method) for method in methods]], column) for column in shown]
        cells = zip(*columns, strict=True)
        rows += [Row(labels.cases[case], labels.methods[m], list(row)) for m, row in zip(methods, cells, strict=True)]
    return rows


def _cases_as_rows(frame: pd.DataFrame, labels: Labels, chosen: Chosen, score: str) -> list[Row]:
    used = {method for methods in chosen.values() for method in methods}
    names = {key: label for key, label in labels.methods.items() if key in used}
    rows = []
    for case, methods in chosen.items():
        cells = dict(zip(methods, _column(frame.loc[[(case, method) for method in methods]], score), strict=True))
        shown = [cells.get(key, Cell("", "—"))._replace(heading=name) for key, name in names.items()]
        rows.append(Row(SCORES[score].title, labels.cases[case], shown))
    return rows


def _column(part: pd.DataFrame, column: str) -> list[Cell]:
    """One score of the methods of a case, compared with the first."""
    values = part[column]
    if column not in SCORES:
        return [Cell("paper", format_score(value), mark="paper") for value in values]
    errors = part.get(f"{column}_se", pd.Series(index=part.index, dtype=float))
    slack, compared = errors.fillna(0.0).to_numpy(), values.to_numpy()
    # round-off of one method is not better than that of another
    compared = np.where(np.abs(compared) <= SCORES[column].round_off, 0.0, compared)
    sign = {Better.LOWER: -1.0, Better.HIGHER: 1.0, Better.NEITHER: 0.0}[SCORES[column].better]
    ranks = sign * compared
    gains = ranks - ranks[0]
    marks = np.select([gains > slack + slack[0], -gains > slack + slack[0]], ["better", "worse"], "")
    best = (ranks == np.fmax.reduce(ranks)) & bool(sign)
    spreads = [format_score(error) if error > 0 else "" for error in errors]
    shown = zip(map(format_score, values), spreads, best.tolist(), marks.tolist(), strict=True)
    return [Cell(SCORES[column].title, *entries) for entries in shown]


def assemble(
    experiment: Experiment,
    notes: dict[str, Any],
    records: pd.DataFrame,
    trainings: pd.DataFrame,
    run: Path | None = None,
) -> Results:
    """Results with the papers' numbers beside them.

    Args:
        experiment: The experiment.
        notes: ``preset``, ``seed``, and perhaps ``date``, ``machine`` and ``revision``.
        records: Records per seed, or means.
        trainings: As in ``Results``, here and below.
        run: Folder of the stored run.
    """
    options = RunOptions(preset=notes["preset"], seed=notes["seed"])
    context = RunContext(options=options, released=run is None, training_seed=options.seed)
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
        preset=options.preset,
        origin=", ".join(str(part) for part in origin if part),
        run=run,
    )
