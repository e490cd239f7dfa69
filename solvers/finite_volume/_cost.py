"""Chooses a stepper for every row by an estimate of its cost.

The estimates count cell updates. They decide how fast a solution is computed, not its accuracy, which every stepper
controls by itself.
"""

import numpy as np

from solvers.finite_volume._operator import Array, Operator
from solvers.finite_volume.laws.laws import Diffusion
from solvers.finite_volume.steppers.explicit import RKL2, SSPRK3
from solvers.finite_volume.steppers.implicit import TRBDF2
from solvers.finite_volume.steppers.stepper import Stepper

_STEPS = 150.0
_NEWTON_ITERATION = 2.5
_LINEAR_ITERATION = 6.0
_TIMES = 9


def candidates(operator: Operator, u: Array) -> dict[Stepper, Array]:
    """Estimated cost in cell updates ``(rows,)`` of every stepper that suits the law.

    Args:
        operator: The operator of all rows.
        u: Initial cell averages ``(rows, cells)``.

    Returns:
        Stepper → cost.
    """
    speed, euler = _rates(operator, u)
    span = operator.sides.end - operator.sides.start
    terms = sum(term is not None for term in (operator.diffusion, operator.convection, operator.source))
    explicit = 3.0 * terms * span * (speed + euler) / SSPRK3.courant
    if operator.diffusion is None:
        return {SSPRK3(): explicit}
    steps = np.maximum(_STEPS, span * speed / SSPRK3.courant)
    stiffness = span / steps * euler
    iterations = 1.0 if isinstance(operator.diffusion.law.law, Diffusion) else 3.0
    solve = _NEWTON_ITERATION
    if operator.grid.dimension > 1:
        solve += _LINEAR_ITERATION * np.sqrt(1.0 + stiffness)
    implicit = steps * (2.0 * iterations * solve + 3.0 * (terms - 1))
    if operator.convection is not None:
        return {TRBDF2(): implicit, SSPRK3(): explicit}
    return {TRBDF2(): implicit, RKL2(): steps * terms * (np.sqrt(9.0 + 16.0 * stiffness) / 2.0 + 2.0)}


def _rates(operator: Operator, u: Array) -> tuple[Array, Array]:
    """Cells crossed per time, and inverse of the stable Euler step, over the range of initial and Dirichlet values."""
    sides = operator.sides
    times = np.broadcast_to(np.linspace(sides.start, sides.end, _TIMES)[:, None], (_TIMES, len(u)))
    low, high = sides.range(times)
    time = np.full(len(u), sides.start)
    data = sides.at(time[None])[0]
    ends = np.minimum(low, u.min(1)), np.maximum(high, u.max(1))
    states = [u, *(np.repeat(end[:, None], u.shape[1], axis=1) for end in ends)]
    euler = np.max([operator.euler_rate(state, data, time) for state in states], axis=0)
    if operator.convection is None:
        return np.zeros(len(u)), euler
    return np.max([operator.convection.rate(state, data, time)[2] for state in states], axis=0), euler
