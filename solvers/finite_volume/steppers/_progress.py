"""What ``drive`` keeps of a group of rows: the results, and the rows that are still under way."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from solvers.finite_volume._operator import Array, Operator
from solvers.finite_volume.steppers.stepper import Rows


@dataclass(frozen=True, kw_only=True)
class Course:
    """What the integration of a group of rows results in.

    Attributes:
        values: Cell averages at the output times ``(rows, t, cells)``.
        account: Time-integrated flow since the start ``(rows, t, 2d + 1)``.
        steps: Accepted steps ``(rows,)``.
        rejected: Rejected steps ``(rows,)``.
        evaluations: Evaluations of the rates, Newton iterations included ``(rows,)``.
    """

    values: Array
    account: Array
    steps: Array
    rejected: Array
    evaluations: Array

    @classmethod
    def joined(cls, parts: Sequence["Course"], rows: Array) -> "Course":
        """One course from those of groups; ``rows`` are the rows of the groups, one after the other."""
        order = np.argsort(rows)
        names = [field.name for field in fields(cls)]
        if len(parts) == 1 and (np.diff(rows) > 0).all():
            return parts[0]
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts])[order] for name in names})


@dataclass
class Progress:
    """Rows still being integrated, with the quantities that ``drive`` keeps for each.

    Attributes:
        rows: Their states.
        operator: Law, grid and boundary conditions.
        index: Their places in the course ``(rows,)``.
        account: Time-integrated flow since the start ``(rows, 2d + 1)``.
        proposal: Next steps to try ``(rows,)``.
        failed: Whether the last trial step failed ``(rows,)``.
        cursor: Next outputs ``(rows,)``.
        sampled: Time integrals of the side data as the steps sampled them ``(rows, S)``.
    """

    rows: Rows
    operator: Operator
    index: Array
    account: Array
    proposal: Array
    failed: Array
    cursor: Array
    sampled: Array

    def take(self, rows: Array) -> "Progress":
        state = self.rows
        rate = None if state.rate is None else state.rate.take(rows)
        return Progress(
            Rows(state.u[rows], state.time[rows], rate),
            self.operator.take(rows),
            *(part[rows] for part in (self.index, self.account, self.proposal, self.failed, self.cursor, self.sampled)),
        )
