"""The implicit stage of a step: its equations and its solution."""

from typing import NamedTuple

import numpy as np

Array = np.ndarray


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


class StageSolution(NamedTuple):
    """Solution of a stage, with u = r + s·du whether Newton's iteration has converged or not.

    Attributes:
        u: Cell averages ``(rows, cells)``.
        du: Rate by the linearised fluxes of the last iteration ``(rows, cells)``.
        sides: The same fluxes through the whole sides, along +axis ``(rows, 2d)``.
        converged: Whether the iteration has converged ``(rows,)``.
        iterations: Newton iterations ``(rows,)``.
        residual: Mean |change| of u in the last iteration ``(rows,)``.
    """

    u: Array
    du: Array
    sides: Array
    converged: Array
    iterations: Array
    residual: Array
