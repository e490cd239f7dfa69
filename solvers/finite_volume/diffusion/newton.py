"""Newton's method for implicit stages: their equations, their solution, and when it stops."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from solvers.errors import InvalidArgumentError
from solvers.finite_volume._kernels import NO_RECORD, Array, call_rates


@dataclass(frozen=True)
class Newton:
    """Stopping criterion of Newton's iteration.

    Args:
        tolerance: Allowed mean |error| of a stage, as a fraction of the allowed error of the step. The error is
            estimated from the last two changes; a linear law needs one iteration.
        iterations: Largest number of iterations; then the step is rejected and repeated with a shorter one.

    Raises:
        InvalidArgumentError: If one of them is not positive.
    """

    tolerance: float = 1e-2
    iterations: int = 20

    def __post_init__(self) -> None:
        if not (self.tolerance > 0 and self.iterations > 0):
            raise InvalidArgumentError(
                f"Newton needs tolerance > 0 and iterations > 0, got {self.tolerance} and {self.iterations}."
            )


class Stage(NamedTuple):
    """The implicit equations u = r + s·rate(u, data, t), one per row.

    Attributes:
        right: r ``(rows, cells)``.
        s: s ≥ 0, in units of time ``(rows,)``.
        data: Data of the sides at t ``(rows, S)``.
        t: Times ``(rows,)``.
        guess: First iterate ``(rows, cells)``.
        allowed: Allowed mean |error| of u over the cells ``(rows,)``.
    """

    right: Array
    s: Array
    data: Array
    t: Array
    guess: Array
    allowed: Array


class Reaction(NamedTuple):
    """The implicit source of a stage in several axes.

    Attributes:
        source: Address of a kernel of s and ∂s/∂u, see ``Medium.source``; 0 for none.
        rows: Numbers of the rows for the kernel ``(rows,)``.
    """

    source: int
    rows: Array

    def rates(self, u: Array, index: Array, stage: Stage) -> tuple[Array, Array]:
        """s and ∂s/∂u of some rows ``(rows, cells)``; the derivative at most 1/(2 s), see ``add_source``."""
        info, states = np.stack((self.rows[index].astype(float), stage.t, np.ones(len(u)))), np.ascontiguousarray(u.T)
        value, slope = np.zeros_like(states), np.zeros_like(states)
        if self.source:
            call_rates(self.source, (states, info, value, slope, info, NO_RECORD), *states.shape)
        return value.T, np.minimum(slope.T, 0.5 / stage.s[:, None])


class StageSolution(NamedTuple):
    """Solution of a stage, with u = r + s·du whether Newton's iteration has converged or not.

    Attributes:
        u: Cell averages ``(rows, cells)``.
        du: Rate by the linearised fluxes and source of the last iteration ``(rows, cells)``.
        flow: The same fluxes through the whole sides, along +axis, and the integral of the source ``(rows, 2d + 1)``.
        converged: Whether the iteration has converged ``(rows,)``.
        iterations: Newton iterations ``(rows,)``.
        residual: Mean |change| of u in the last iteration ``(rows,)``.
    """

    u: Array
    du: Array
    flow: Array
    converged: Array
    iterations: Array
    residual: Array
