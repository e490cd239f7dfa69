"""Whether released weights still give the released scores."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.records.record import KEY
from experiments.records.scores import SCORES

RELATIVE, ROUND_OFF = 1e-3, 1e-6
"""Three digits count as equal; so does what scores of exactness miss by round-off."""


@dataclass(frozen=True)
class Verdict:
    """What a comparison with the release found.

    Args:
        compared: Records that both have, with columns ``mean``, ``released`` and ``equal``.
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
            return f"Reproduced: {count} the released ones to three digits."
        shown = [
            f"{row.method} at {row.case}: {row.score} {row.mean:.4g}, released {row.released:.4g}"
            for row in self.different.head(3).itertuples()
        ]
        more = f"; {len(self.different) - 3} more in verdict.csv" if len(self.different) > 3 else ""
        return (
            f"NOT reproduced: {len(self.different)} of {len(self.compared)} scores differ ({'; '.join(shown)}{more})."
        )


def compare(computed: pd.DataFrame, released: pd.DataFrame) -> Verdict:
    """Compares records of the same case, method, seed and score, times apart.

    Args:
        computed: Records per seed that were computed now.
        released: Released records.
    """
    computed = computed[~computed["score"].isin([name for name, score in SCORES.items() if score.timing])]
    both = computed.merge(released[[*KEY, "mean"]].rename(columns={"mean": "released"}), on=KEY)
    size = both[["mean", "released"]].abs().max(axis=1)
    slack = np.array([ROUND_OFF if SCORES[name].exact else 0.0 for name in both["score"]])
    return Verdict(both.assign(equal=(both["mean"] - both["released"]).abs() <= RELATIVE * size + slack))
