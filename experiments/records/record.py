"""One score of one method as a record, from scores per function or from a paper."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import Enum
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd

from experiments.records.scores import SCORES, Reduction

Arrays = dict[str, np.ndarray]


class Source(Enum):
    """Source of the numbers of a record."""

    COMPUTED = "computed"
    """By the run at hand."""
    RELEASED = "released"
    """Copied from the results that come with the library."""
    PUBLISHED = "published"
    """From a paper."""
    RECOMPUTED = "recomputed"
    """With a paper's released weights."""


PAPER = (Source.PUBLISHED, Source.RECOMPUTED)
"""Sources of a paper's numbers, which stand beside ours."""


class Over(Enum):
    """Units that the means and standard errors of a table are taken over."""

    FUNCTIONS = "test functions"
    SEEDS = "seeds"
    GROUPS = "independent groups of trainings"


@dataclass(frozen=True, kw_only=True)
class Record:
    """Mean and standard error of one score.

    Args:
        seed: Number of the repetition; None for a mean over several.
        score: A key of ``SCORES``.
        standard_error: Its standard error; None if it is unknown.
        note: What else is known of a source, for readers only.
    """

    experiment: str
    case: str
    method: str
    seed: int | None
    score: str
    mean: float
    standard_error: float | None
    source: Source = Source.COMPUTED
    note: str = ""


COLUMNS = tuple(entry.name for entry in fields(Record))
TRUTH = "truth"
"""Key of the method of every case that is the truth, or draws from it."""
KEY = ["experiment", "case", "method", "seed", "score"]
"""Columns that distinguish records of one source."""


def as_frame(records: Iterable[Record]) -> pd.DataFrame:
    """Records as a table with one row each; ``seed`` and ``standard_error`` may be missing."""
    frame = pd.DataFrame([asdict(record) for record in records], columns=list(COLUMNS))
    return frame.astype({"seed": "Int64", "mean": float, "standard_error": float})


def mean_and_error(values: Sequence[float] | np.ndarray) -> tuple[float, float | None]:
    """Mean and standard error of the values that are not NaN: 0 if all are equal, None for one or infinite values."""
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    if not len(values):
        return math.nan, None
    if len(values) == 1 or not np.isfinite(values).all():
        return float(values.mean()), None
    deviation = float(values.std(ddof=1)) if np.ptp(values) else 0.0
    return float(values.mean()), deviation / math.sqrt(len(values))


def records_of(scores: pd.DataFrame, experiment: str, over: Over) -> pd.DataFrame:
    """The records of all methods, cases and seeds from their scores per function.

    Scores that are NaN for all functions have none. Standard errors are those over functions; where tables are over
    seeds or groups a single seed has none.
    """
    rows = list[Record]()
    present = [name for name in SCORES if name in scores]
    for (case, method, seed), block in scores.groupby(["case", "method", "seed"], sort=False):
        for name in present:
            values = block[name].to_numpy(float)
            mean, error = mean_and_error(values)
            if SCORES[name].reduction is Reduction.MAXIMUM and not math.isnan(mean):
                mean, error = float(np.nanmax(values)), None
            if not math.isnan(mean):
                error = error if over is Over.FUNCTIONS else None
                key = {"experiment": experiment, "case": case, "method": method, "seed": seed}
                rows.append(Record(**key, score=name, mean=mean, standard_error=error))
    return as_frame(rows)


def per_function(arrays: Mapping[str, np.ndarray]) -> Arrays:
    """The scores among the arrays, in the order of tables, as vectors ``(functions,)``."""
    return {name: np.atleast_1d(arrays[name]) for name in SCORES if name in arrays}


def over_seeds(records: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard error over seeds of every score; records of one seed keep their standard error.

    Means over seeds that are there replace those of single seeds; a paper's records stay as they are. Records come in
    the order of their first appearance; means have no seed.
    """
    columns = [records[name] for name in ("experiment", "case", "method", "score")]
    groups: dict[tuple[Any, ...], list[int]] = {}
    for row, key in enumerate(zip(*columns, records["source"].isin(PAPER), strict=True)):
        groups.setdefault(key, []).append(row)
    over_all, values = records["seed"].isna().to_numpy(), records["mean"].to_numpy()
    chosen, merged = list[int](), dict[int, tuple[float, float | None]]()
    for rows in groups.values():
        means = [row for row in rows if over_all[row]]
        if not means and len(rows) > 1:
            merged[len(chosen)] = mean_and_error(values[rows])
        chosen += means or rows[:1]
    result = records.iloc[chosen].reset_index(drop=True).astype({"seed": "Int64"})
    if merged:
        result.loc[list(merged), "seed"] = pd.NA
        result.loc[list(merged), ["mean", "standard_error"]] = np.array(list(merged.values()), dtype=float)
    return result


@cache
def published(paper: str) -> dict[str, Any]:
    """The numbers of a paper: ``probconserv``, ``boon`` or ``probharde2e``."""
    return json.loads(resources.files("experiments").joinpath(f"reference/{paper}.json").read_text(encoding="utf-8"))
