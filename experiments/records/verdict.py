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
PART = 0.05
"""Scores that differ by less than this part of their standard error are equal within the error.

Another processor rounds otherwise: the same functions and draws then differ by 0.02 standard errors at most, where a
value lies at the end of an interval. Of the scores of two trainings of the release one in twenty is as close.
"""
REDRAWN = 4.0
"""The same where rounding decides what is drawn: draws are others, and their scores independent.

Differences of independent scores have √2 of their standard error. This is 2.8 of those, which one in 200 exceeds.
"""
PAIRED = 4.0
"""Standard errors of paired differences on the same functions that their mean may have; one in 16,000 exceeds it.
"""
MAGNITUDE = 10.0
"""Scores of round-off are of the same order of magnitude up to this factor."""
TINY = 1e-12
"""Scores below are the same round-off: exactly zero on one processor, 1e-16 on another."""
ROUNDING = "by their order of magnitude, since they are round-off"
WITHIN = "within a twentieth of the standard error"
DRAWN = "within the error of draws, which are others on another processor"
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
    redrawn: Collection[str] = (),
    recomputed: pd.DataFrame | None = None,
) -> Verdict:
    """Compares records of the same case, method, seed and score, times apart.

    Scores are equal to the digits shown (``RELATIVE``); or within the error, which is a part of their standard error
    over functions or draws; or, if both are round-off, of the same order of magnitude; or different. Standard errors
    that the records lack come from the scores per function.

    Args:
        computed: Records of this machine.
        released: Records of the release.
        functions: Released scores per function or draw.
        redrawn: Methods of which rounding decides what is drawn: their scores are compared as those of other draws.
        recomputed: Scores per function or draw of this machine, for paired differences of these.
    """
    computed = computed[~computed["score"].isin([name for name, score in SCORES.items() if score.timing])]
    columns = {"mean": "released", "standard_error": "error"}
    both = computed.drop(columns="standard_error").merge(released[[*KEY, *columns]].rename(columns=columns), on=KEY)
    functions = pd.DataFrame(columns=SCORE_KEY) if functions is None else functions
    recomputed = pd.DataFrame(columns=SCORE_KEY) if recomputed is None else recomputed
    errors = both["error"].astype(float).fillna(_over_functions(both, functions)).fillna(_over_draws(both, functions))
    size, before = both["mean"].abs(), both["released"].abs()
    difference, largest = (both["mean"] - both["released"]).abs(), np.maximum(size, before)
    digits = (difference <= RELATIVE * largest) | (both["mean"] == both["released"])

    limits = np.array([SCORES[name].round_off for name in both["score"]], dtype=float)
    floors = np.minimum(limits, np.maximum(TINY, errors.fillna(0.0)))  # a mean of both signs may cancel
    alike = np.maximum(largest, floors) <= MAGNITUDE * np.maximum(np.minimum(size, before), floors)
    paired = PAIRED * _of_differences(both, functions, recomputed)
    reasons = {
        ROUNDING: (largest <= limits) & alike,
        WITHIN: difference <= PART * errors,
        DRAWN: both["method"].isin(redrawn) & (difference <= np.fmin(REDRAWN * errors, paired)),
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


def _of_differences(both: pd.DataFrame, functions: pd.DataFrame, recomputed: pd.DataFrame) -> pd.Series:
    """Standard errors of the mean difference on the same functions; NaN for one number of all functions."""
    present = functions.columns.intersection(recomputed.columns).difference(SCORE_KEY)
    before, after = (frame.set_index(SCORE_KEY)[present].astype(float) for frame in (functions, recomputed))
    errors = (after - before).groupby(level=_ROW).sem().stack()
    return pd.Series(errors.reindex(pd.MultiIndex.from_frame(both[[*_ROW, "score"]])).to_numpy(float), both.index)


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
