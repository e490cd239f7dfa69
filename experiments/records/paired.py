"""Paired differences between methods: the same functions, the same seeds, one verdict.

A difference d of seed s and function f has the mean d̄ over all, and the variance

    var_f(mean over seeds)/F + var_s(mean over functions)/S,

each term where it has two entries; its degrees of freedom are those of Welch and Satterthwaite. Cases that are
correlated in time are scored as means over blocks, which are functions here. Verdicts of a table are corrected for its
rows (Holm 1979, Scand. J. Statist. 6, 65).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import t as student

from experiments.records.record import TRUTH
from experiments.records.scores import SCORES, Better

LEVEL = 0.05
"""Probability that any of the rows without a difference gets another verdict."""
WINS, LOSES, EQUAL, UNKNOWN = "wins", "loses", "no difference", "not paired"


@dataclass(frozen=True)
class Difference:
    """A score of one method less that of another, of which less is better.

    Args:
        error: Standard error of the mean; NaN where it has none.
        freedom: Degrees of freedom of the error.
        seeds: Seeds that both have.
        functions: Number of functions that both have.
    """

    mean: float
    error: float
    freedom: float
    seeds: tuple[int, ...]
    functions: int

    @property
    def probability(self) -> float:
        """Two-sided probability of a difference as large if there is none; 1 without an error."""
        if math.isnan(self.error):
            return 1.0
        if self.error == 0:
            return 1.0 if self.mean == 0 else 0.0
        return float(2 * student.sf(abs(self.mean) / self.error, self.freedom))

    def smallest_seen(self, level: float = LEVEL) -> float:
        """The least difference that would be significant at a level; NaN without an error."""
        return self.error * float(student.isf(level / 2, self.freedom)) if self.error > 0 else self.error


def paired_difference(first: pd.Series, second: pd.Series) -> Difference:
    """The difference of two scores, each indexed by seed and function, over the pairs that both have."""
    apart = (first - second).dropna().unstack("seed")  # functions × seeds
    if apart.empty:
        return Difference(math.nan, math.nan, math.nan, (), 0)
    seeds, mean = tuple(int(seed) for seed in apart.columns), float(np.nanmean(apart.to_numpy()))
    if not math.isfinite(mean):  # a logarithm of zero, which has no spread
        return Difference(mean, math.nan, math.nan, seeds, len(apart))
    parts = []
    for means in (apart.mean(axis=1), apart.mean(axis=0)):
        if len(means) > 1:
            parts.append((float(means.var(ddof=1)) / len(means), len(means) - 1))
    variance = sum(part for part, _ in parts) if parts else math.nan
    spread = sum(part**2 / freedom for part, freedom in parts)
    freedom = variance**2 / spread if spread > 0 else math.nan
    return Difference(mean, math.sqrt(variance), freedom, seeds, len(apart))


def verdicts(differences: Sequence[Difference], level: float = LEVEL) -> list[str]:
    """Verdict on each difference, ours less another's: ours wins, loses, or there is no difference."""
    found = [UNKNOWN if math.isnan(each.error) else EQUAL for each in differences]
    paired = [index for index, text in enumerate(found) if text == EQUAL]
    for rank, index in enumerate(sorted(paired, key=lambda index: differences[index].probability)):
        if differences[index].probability > level / (len(paired) - rank):
            break
        found[index] = WINS if differences[index].mean < 0 else LOSES
    return found


def against(reference: str | None, scores: pd.DataFrame, case: str, score: str) -> dict[str, str]:
    """Whether every other method of a case wins or loses against the reference, or there is no difference; by its key.

    Arguments are those of ``differences``.
    """
    apart = differences(reference, scores, case, score)
    return dict(zip(apart, verdicts([*apart.values()]), strict=True))


def differences(reference: str | None, scores: pd.DataFrame, case: str, score: str) -> dict[str, Difference]:
    """The difference of every other method of a case from the reference, by its key; negative ones are better.

    Empty where the reference has no scores per function, and for scores that methods impose or that have no better way.

    Args:
        reference: Key of the method that others are compared with.
        scores: Scores per function, as runs store them.
        case: Key of the case.
        score: Key of the score.
    """
    kind = SCORES[score]
    if score not in scores or kind.imposed or kind.better is Better.NEITHER:
        return {}
    of_case = scores[scores["case"] == case].set_index(["seed", "function", "method"])[score]
    errors = (of_case if kind.better is Better.LOWER else -of_case).unstack("method").dropna(axis=1, how="all")
    if reference not in errors:
        return {}
    others = [str(key) for key in errors if key not in (reference, TRUTH)]
    return {key: paired_difference(errors[key], errors[reference]) for key in others}
