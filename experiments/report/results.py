"""An experiment on the page and in documents: its results, and the few rows that matter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from experiments.errors import NotReleasedError
from experiments.records.description import Description
from experiments.records.paired import LOSES, WINS, against
from experiments.records.record import TRUTH, Over, over_seeds
from experiments.records.release import released_results
from experiments.records.run import FILE, Run, is_finished, read_run
from experiments.records.scores import SCORES, Better
from experiments.records.table import format_score, numbers

MANY_ROWS = 20
"""Rows of a headline from which each case is one row, with one score."""
BEFORE = "metrics.json"
"""File of a finished run up to release 0.4."""
_MARKS = {WINS: "better", LOSES: "worse"}


@dataclass(frozen=True, kw_only=True)
class Results:
    """Results of one experiment, released or of a stored run.

    Args:
        scores: Scores per function of the seeds that the means are over.
        origin: Preset, seed, date, processor and revision, as far as they were stored.
        verdict: What a reproduction of the release found; empty for others.
    """

    description: Description
    records: pd.DataFrame
    scores: pd.DataFrame
    trainings: pd.DataFrame
    preset: str
    origin: str
    run: Path | None
    verdict: str = ""

    @property
    def name(self) -> str:
        """Name of the experiment."""
        return self.description.experiment

    @cached_property
    def numbers(self) -> pd.DataFrame:
        """Scores as columns, cases and methods as rows."""
        return numbers(self.records, self.description)


class Cell(NamedTuple):
    """One number of a headline.

    Args:
        error: Its standard error; empty if it has none.
        best: Whether no method of the case is better.
        mark: ``better`` or ``worse`` than the reference by a paired difference, ``paper`` for a paper's number, else
            empty: without scores per function, and for what methods impose.
    """

    heading: str
    text: str
    error: str = ""
    best: bool = False
    mark: str = ""


class Row(NamedTuple):
    """A row of a headline: the case and the method, or the heading of the score and the case; and its numbers."""

    group: str
    name: str
    cells: list[Cell]


def released(name: str) -> Results | None:
    """The released results of an experiment; None if there are none."""
    try:
        stored = released_results(name)
    except NotReleasedError:
        return None
    records, scores = stored.records, stored.scores
    if stored.description.over is Over.FUNCTIONS:  # other seeds have tables of their own
        records = records[records["seed"].isna() | (records["seed"] == stored.seed)]
        scores = scores[scores["seed"] == stored.seed]
    return assemble(replace(stored, scores=scores), records)


def of_run(folder: Path) -> Results:
    """The results in the folder of a finished run."""
    run = read_run(folder)
    return assemble(run, run.records, folder)


def newest_runs(out: Path) -> tuple[list[Path], list[Path]]:
    """The newest finished run or reproduction of every experiment; and those of a version with other files."""
    newest: dict[Path, Path] = {}
    for file in sorted(out.glob("*/*/*.json"), key=lambda file: file.parent.stat().st_mtime):
        if file.name == BEFORE or (file.name == FILE and is_finished(file.parent)):
            newest[file.parents[1]] = file.parent
    runs = [newest[folder] for folder in sorted(newest)]
    return [run for run in runs if is_finished(run)], [run for run in runs if not is_finished(run)]


def headline(
    described: Description,
    records: pd.DataFrame,
    most: int = MANY_ROWS,
    scores: pd.DataFrame | None = None,
) -> list[Row]:
    """The methods and scores that matter in every case; from ``most`` rows on one row a case, with one score.

    A run of some methods alone may have none of these methods, or scores: then those that it has are shown. Numbers are
    marked by the paired differences of ``scores`` per function, corrected for the methods that are shown.
    """
    frame, labels = numbers(records, described), described.methods
    chosen: dict[str, list[str]] = {}
    for case in frame.index.unique("case"):
        computed = list(frame.loc[case].index)
        chosen[case] = [key for key in described.headline.get(case, ()) if key in computed] or computed
    present = [score for score in SCORES if score in frame]
    wanted = [score for score in described.scores if score in present] or present
    as_rows = sum(map(len, chosen.values())) > most
    telling = [score for score in wanted if not SCORES[score].imposed] or wanted
    shown = (
        telling[:1] if as_rows else [name for score in wanted for name in (score, f"{score}_paper") if name in frame]
    )
    used, rows = {key for methods in chosen.values() for key in methods}, list[Row]()
    for case, methods in chosen.items():
        columns, reference = [], described.references.get(case)
        for name in shown:
            said = {}
            if scores is not None and name in SCORES:
                said = against(reference, scores[scores["method"].isin([*methods, reference])], case, name)
            columns.append(_column(pd.DataFrame(frame.loc[case]), methods, name, said))
        if as_rows:
            cells = [columns[0].get(key, Cell("", "—"))._replace(heading=labels[key]) for key in labels if key in used]
            rows.append(Row(SCORES[shown[0]].title, described.cases[case], cells))
        else:
            rows += [Row(described.cases[case], labels[key], [column[key] for column in columns]) for key in methods]
    return rows


def _column(frame: pd.DataFrame, methods: Sequence[str], column: str, said: Mapping[str, str]) -> dict[str, Cell]:
    """One score of some methods of a case, and what was ``said`` of them; without the truth."""
    values = frame[column]
    if column not in SCORES:
        return {key: Cell("paper", format_score(values[key]), mark="paper") for key in methods}
    score = SCORES[column]
    sign = {Better.LOWER: -1.0, Better.HIGHER: 1.0, Better.NEITHER: 0.0}[score.better]
    ranks = sign * values.mask(values.abs() <= score.round_off, 0.0)
    errors = frame.get(f"{column}_se", pd.Series(index=frame.index, dtype=float)).fillna(0.0)
    best = ranks.reindex([key for key in methods if key != TRUTH]).max()
    cells = {}
    for key in methods:
        spread = format_score(errors[key]) if errors[key] > 0 else ""
        is_best = key != TRUTH and bool(sign and ranks[key] == best)
        cells[key] = Cell(score.title, format_score(values[key]), spread, is_best, _MARKS.get(said.get(key, ""), ""))
    return cells


def assemble(run: Run, records: pd.DataFrame, folder: Path | None = None) -> Results:
    """Results with the papers' numbers beside them."""
    both = pd.concat([part for part in (records, run.description.published) if len(part)], ignore_index=True)
    made = run.environment
    origin = (f"preset {run.preset}", made.get("date", "")[:10], made.get("machine", {}).get("processor"))
    return Results(
        description=run.description,
        records=over_seeds(both),
        scores=run.scores,
        trainings=run.trainings,
        preset=run.preset,
        origin=", ".join(str(part) for part in (*origin, made.get("revision")) if part),
        run=folder,
        verdict=run.verdict,
    )
