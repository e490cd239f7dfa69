"""Whether released weights still give the released scores: to the digits shown, within the error, or not."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import pandas as pd

from experiments.records.record import KEY
from experiments.records.scores import SCORES, Reduction
from experiments.records.store import SCORE_KEY

RELATIVE = 1e-3
"""Scores that differ by less are equal to the digits shown, which are three."""
PART = 0.1
"""Scores that differ by less than this part of their standard error are equal within the error.

Another processor rounds otherwise: such differences were 0.005 standard errors over functions at most, and 0.05 over
draws of a trained flow. Of the scores of two trainings of the release one in ten is as close.
"""
REDRAWN = 2.0
"""The same for draws without a training: their eigenvectors, and so they, may have other signs on another processor."""
MAGNITUDE = 10.0
"""Scores of round-off are of the same order of magnitude up to this factor."""
TINY = 1e-12
"""Scores below are the same round-off: exactly zero on one processor, 1e-16 on another."""
ROUNDING = "by their order of magnitude, since they are round-off"
WITHIN = "within a tenth of the standard error"
DRAWN = "within two standard errors, since their draws are others"
_LEVELS = {"calibration_error": "coverage90", "front_calibration_error": "front_coverage90"}
"""Scores that all functions have one of, and those whose standard errors they have: they are made of coverages."""
_ROW = ["case", "method", "seed"]


class Agreement(Enum):
    """How a score agrees with the released one."""

    DIGITS = "equal to the digits shown"
    ERROR = "equal within the error"
    DIFFERENT = "different"


@dataclass(frozen=True)
class Verdict:
    """Result of a comparison with the release.

    Args:
        compared: Records that both have, with columns ``mean``, ``released``, ``error`` (standard error of the released
            score), ``agreement``, and ``reason``: how equal within the error.
    """

    compared: pd.DataFrame

    @property
    def reproduced(self) -> bool:
        """Whether no score is different."""
        return len(self.compared) > 0 and self.different.empty

    @property
    def different(self) -> pd.DataFrame:
        """The records that are different."""
        return self.compared[self.compared["agreement"] == Agreement.DIFFERENT]

    def __str__(self) -> str:
        scores, rows = len(self.compared), len(self.compared[_ROW].drop_duplicates())
        if not scores:
            return "Nothing to compare: no released weights belong to these rows."
        different, close = self.different, self.compared[self.compared["agreement"] == Agreement.ERROR]
        if len(different):
            more = f"; {len(different) - 3} more in verdict.csv" if len(different) > 3 else ""
            return f"NOT reproduced: {len(different)} of {scores} scores are different ({_shown(different, 3)}{more})."
        if close.empty:
            equal = "the row equals the released one" if rows == 1 else f"all {rows} rows equal the released ones"
            return f"Reproduced: {equal} to the digits shown."
        said = [f"{len(part)} {why} ({_shown(part, 1)})" for why, part in close.groupby("reason", sort=False)]
        equal = f"of {scores} scores {scores - len(close)} are equal to the digits shown"
        return f"Reproduced within the error: {', '.join([equal, *said])}."


def compare(
    computed: pd.DataFrame,
    released: pd.DataFrame,
    functions: pd.DataFrame | None = None,
    trained: Collection[str] | None = None,
) -> Verdict:
    """Compares records of the same case, method, seed and score, times apart.

    Scores are equal to the digits shown (``RELATIVE``); or within the error, which is a part of their standard error
    over functions or draws; or, if both are round-off, of the same order of magnitude; or different. Standard errors
    that the records lack come from the scores per function. ``trained`` methods have files that fix what draws follow;
    all by default.
    """
    computed = computed[~computed["score"].isin([name for name, score in SCORES.items() if score.timing])]
    columns = {"mean": "released", "standard_error": "error"}
    both = computed.drop(columns="standard_error").merge(released[[*KEY, *columns]].rename(columns=columns), on=KEY)
    functions = pd.DataFrame(columns=SCORE_KEY) if functions is None else functions
    over_functions = both["error"].astype(float).fillna(_over_functions(both, functions))
    errors = over_functions.fillna(_over_draws(both, functions))
    size, before = both["mean"].abs(), both["released"].abs()
    difference, largest = (both["mean"] - both["released"]).abs(), np.maximum(size, before)
    digits = (difference <= RELATIVE * largest) | (both["mean"] == both["released"])

    limits = np.array([SCORES[name].round_off for name in both["score"]], dtype=float)
    floors = np.minimum(limits, np.maximum(TINY, errors.fillna(0.0)))  # a mean of both signs may cancel
    alike = np.maximum(largest, floors) <= MAGNITUDE * np.maximum(np.minimum(size, before), floors)
    redrawn = over_functions.isna() & ~both["method"].isin(both["method"] if trained is None else trained)
    reasons = {
        ROUNDING: (largest <= limits) & alike,
        WITHIN: difference <= PART * errors,
        DRAWN: redrawn & (difference <= REDRAWN * errors),
    }
    reason = np.select(list(reasons.values()), list(reasons), "")
    agreement = [
        Agreement.DIGITS if same else Agreement.ERROR if why else Agreement.DIFFERENT
        for same, why in zip(digits, reason, strict=True)
    ]
    return Verdict(both.assign(error=errors, agreement=pd.Series(agreement, both.index, dtype=object), reason=reason))


def _over_functions(both: pd.DataFrame, functions: pd.DataFrame) -> pd.Series:
    """Standard errors over functions of the released scores; NaN for maxima, and for one number of all functions."""
    present = [name for name, score in SCORES.items() if name in functions and score.reduction is Reduction.MEAN]
    errors = functions.groupby(_ROW)[present].sem().stack()
    keys = both.assign(score=both["score"].replace(_LEVELS))[[*_ROW, "score"]]
    return pd.Series(errors.reindex(pd.MultiIndex.from_frame(keys)).to_numpy(float), both.index)


def _over_draws(both: pd.DataFrame, functions: pd.DataFrame) -> pd.Series:
    """Standard errors over S draws of squared distances: 2 d/√S.

    The noise n of the draws moves d = |b + n|² by about 2 |b| |n|; of draws as wide as they are wrong, |n|² is d/S.
    """
    draws = functions.groupby(_ROW).size().reindex(pd.MultiIndex.from_frame(both[_ROW])).to_numpy(float)
    squared = np.array([SCORES[name].squared for name in both["score"]], dtype=bool)
    return (2 * both["released"] / draws**0.5).where(squared & (draws > 1))


def _shown(records: pd.DataFrame, most: int) -> str:
    rows: Iterable[Any] = records.head(most).itertuples()
    return "; ".join(
        f"{row.method} at {row.case}: {row.score} {row.mean:.4g}, released {row.released:.4g}" for row in rows
    )
