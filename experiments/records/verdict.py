"""Whether released weights still give the released scores."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.records.record import KEY
from experiments.records.scores import SCORES

RELATIVE, ROUND_OFF = 1e-3, 1e-6
"""Three digits count as equal; so does what scores of exactness miss by round-off."""
FLOOR = float(np.finfo(np.float32).eps)
"""Relative errors up to 1.2e-7, the eps of single precision, count as equal: the processor's rounding decides them."""


@dataclass(frozen=True)
class Verdict:
    """What a comparison with the release found.

    Args:
        compared: Records that both have, with columns ``mean``, ``released``, ``equal`` and ``rounding``, which says
            whether three digits differ and both numbers are relative errors of at most ``FLOOR``.
    """

    compared: pd.DataFrame

    @property
    def reproduced(self) -> bool:
        """Whether all scores are equal."""
        return bool(self.compared["equal"].all()) and len(self.compared) > 0

    @property
    def different(self) -> pd.DataFrame:
        """The records that are not equal."""
        return self.compared[~self.compared["equal"]]

    def __str__(self) -> str:
        rows = self.compared[["case", "method", "seed"]].drop_duplicates()
        if not len(rows):
            return "Nothing to compare: no released weights belong to these rows."
        if self.reproduced:
            count = "the row equals" if len(rows) == 1 else f"all {len(rows)} rows equal"
            return f"Reproduced: {count} the released ones to three digits{self._rounding}."
        shown = [
            f"{row.method} at {row.case}: {row.score} {row.mean:.4g}, released {row.released:.4g}"
            for row in self.different.head(3).itertuples()
        ]
        more = f"; {len(self.different) - 3} more in verdict.csv" if len(self.different) > 3 else ""
        scores = f"{len(self.different)} of {len(self.compared)} scores"
        return f"NOT reproduced: {scores} differ ({'; '.join(shown)}{more}){self._rounding}."

    @property
    def _rounding(self) -> str:
        """What the text says of scores that are equal only since both are round-off."""
        count = int(self.compared["rounding"].sum())
        scores = "1 score is" if count == 1 else f"{count} scores are"
        return f"; {scores} at most {FLOOR:.1e}, the round-off of single precision, both times" if count else ""


def compare(computed: pd.DataFrame, released: pd.DataFrame) -> Verdict:
    """Compares records of the same case, method, seed and score, times apart.

    Numbers are equal to three digits (``RELATIVE``); scores of exactness also if they differ by at most ``ROUND_OFF``,
    relative errors also if both are at most ``FLOOR``.

    Args:
        computed: Records per seed that were computed now.
        released: Released records.
    """
    computed = computed[~computed["score"].isin([name for name, score in SCORES.items() if score.timing])]
    both = computed.merge(released[[*KEY, "mean"]].rename(columns={"mean": "released"}), on=KEY)
    size = both[["mean", "released"]].abs().max(axis=1)
    slack = np.array([ROUND_OFF if SCORES[name].exact else 0.0 for name in both["score"]])
    equal = (both["mean"] - both["released"]).abs() <= RELATIVE * size + slack
    rounding = ~equal & (size <= FLOOR) & np.array([SCORES[name].relative for name in both["score"]], dtype=bool)
    return Verdict(both.assign(equal=equal | rounding, rounding=rounding))
