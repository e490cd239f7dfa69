"""Chooses a stepper by the law, or for every row by an estimate of its cost; runs groups of rows on several threads.

The estimates are nanoseconds per cell for the whole span. They decide how fast a solution is computed, not its
accuracy, which every stepper controls by itself.

Measured on one core with rows of 256 and 1024 cells and planes of 32² to 128² cells, batches of 16 000 cells, the
tolerance 1e-4 and smooth data, in nanoseconds per cell:

* a step of SSPRK3 with two terms: 31 to 48 with one axis, 65 to 105 with two;
* a step of RKL2 with s stages: 30 + 1.0 s to 30 + 1.9 s;
* a step of TRBDF2 with one axis: 50 to 58 for linear diffusion, 67 for porous media, 66 to 84 for viscous Burgers;
* with two axes: 92 to 250 for linear diffusion, which takes more conjugate gradients the more stable Euler steps q fit
  in the step (66 + 25 √(1 + q) within 25 %, up to q = n²), 230 to 345 for porous media, 130 to 200 for transport with
  diffusion.

Diffusion alone took 14 to 63 steps of TRBDF2 and 1.1 to 1.5 times as many of RKL2; with a stiff source, explicit with
RKL2, a fifth of the span times |∂s/∂u|.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from solvers._arguments import reporter
from solvers.finite_volume._operator import Operator
from solvers.finite_volume.laws.laws import Diffusion
from solvers.finite_volume.march.drive import Trajectory, drive
from solvers.finite_volume.march.kernels import Array
from solvers.finite_volume.steppers.steppers import ESDIRK4, RKL2, SSPRK3, TRBDF2, LeastCost, Stepper

_CELLS_PER_GROUP = 16_000
_TRBDF2, _RKL2, _SSPRK3 = TRBDF2(1e-4), RKL2(1e-4), SSPRK3(courant=0.5, tolerance=1e-4)
_STEPS, _STEPS_OF_RKL2, _STEPS_PER_RATE = 50.0, 70.0, 0.2
_EVALUATION = 6.0
_EVALUATION_IN_SPACE = 12.0
_RKL2_STEP, _RKL2_STAGE = 30.0, 1.3
_TRBDF2_STEP, _NEWTON_ITERATION = 40.0, 13.0
_TRBDF2_STEP_IN_SPACE, _CONJUGATE_GRADIENTS = 66.0, 25.0
_TIMES = 9


@dataclass(frozen=True)
class Plan:
    """The stepper of every row: as in ``Work``, and stepper and rows of every group."""

    steppers: tuple[Stepper, ...]
    choice: Array
    estimates: Mapping[Stepper, Array]
    groups: tuple[tuple[Stepper, Array], ...]


def default_stepper(operator: Operator) -> Stepper | LeastCost:
    """On a line, diffusion without convection takes one stepper in all rows; else the estimates decide.

    On the cells of a line an implicit step is so cheap that explicit stages never save much. Fourth order pays where
    the equation is linear: 0.01 of the error of TRBDF2 in 1.1 times its time. At degenerate fronts states fall below
    zero; with a source, which every stage evaluates, it takes 1.3 times the time, with convection 1.6 times.
    """
    if operator.diffusion is None or operator.convection is not None or operator.grid.dimension > 1:
        return LeastCost()
    linear = isinstance(operator.diffusion.law.law, Diffusion) and operator.source is None
    return ESDIRK4(1e-5) if linear else TRBDF2(1e-4)


def plan_groups(operator: Operator, u: Array, stepper: Stepper | LeastCost) -> Plan:
    """The given stepper for all rows ``(rows, cells)``, or the one with the lowest estimated cost for each."""
    chosen = isinstance(stepper, LeastCost)
    estimates = candidates(operator, u) if chosen else {stepper: np.zeros(len(u))}
    best = np.argmin(np.stack(list(estimates.values())), 0)
    used = np.unique(best)
    steppers = tuple(list(estimates)[k] for k in used)
    groups = [
        (each, rows[part])
        for each, rows in ((each, np.flatnonzero(best == k)) for each, k in zip(steppers, used, strict=True))
        for part in make_groups(len(rows), u.shape[1], operator.divisible)
    ]
    return Plan(steppers, np.searchsorted(used, best), estimates if chosen else {}, tuple(groups))


def make_groups(rows: int, cells: int, divisible: bool) -> list[Array]:
    """The rows of every group, which fits the processor's cache; one group if law and source cannot be cut."""
    step = max(1, _CELLS_PER_GROUP // cells) if divisible else rows
    return [np.arange(first, min(first + step, rows)) for first in range(0, rows, step)]


def integrate(operator: Operator, plan: Plan, u: Array, times: tuple[float, ...], progress: bool) -> Trajectory:
    """The course of all rows in their order, from the first of the times to the last.

    Groups run on as many threads as torch may use.
    """
    output = np.array(times[1:])
    with reporter(progress, (times[-1] - times[0]) * len(u)) as report:

        def work(group: tuple[Stepper, Array]) -> Trajectory:
            stepper, rows = group
            part = operator if len(rows) == len(u) else operator.take(rows)
            return drive(part, stepper, u[rows], output, times[0], report)

        workers = min(len(plan.groups), torch.get_num_threads())
        if workers == 1:
            courses = [work(group) for group in plan.groups]
        else:
            with ThreadPoolExecutor(workers) as pool:
                courses = list(pool.map(work, plan.groups))
    return Trajectory.joined(courses, np.concatenate([rows for _, rows in plan.groups]))


def candidates(operator: Operator, u: Array) -> dict[Stepper, Array]:
    """Estimated nanoseconds per cell ``(rows,)`` of every stepper that suits the law, from rows ``(rows, cells)``."""
    speed, euler = _rates(operator, u)
    span = operator.sides.end - operator.sides.start
    terms = sum(term is not None for term in (operator.diffusion, operator.convection, operator.source))
    evaluation = _EVALUATION if operator.grid.dimension == 1 else _EVALUATION_IN_SPACE
    explicit = 3.0 * terms * evaluation * span * (speed + euler) / _SSPRK3.courant
    if operator.diffusion is None:
        return {_SSPRK3: explicit}
    steps = np.maximum(_STEPS, span * speed / _SSPRK3.courant)
    if operator.grid.dimension == 1:
        linear = isinstance(operator.diffusion.law.law, Diffusion)
        solves = _TRBDF2_STEP + _NEWTON_ITERATION * (1.0 if linear else 2.0)
    else:
        stable = np.minimum(span / steps * euler, max(operator.grid.shape) ** 2)
        solves = _TRBDF2_STEP_IN_SPACE + _CONJUGATE_GRADIENTS * np.sqrt(1.0 + stable)
    implicit = steps * (solves + 3.0 * (terms - 1) * evaluation)
    if operator.convection is not None:
        return {_TRBDF2: implicit, _SSPRK3: explicit}
    steps, start = np.full(len(u), _STEPS_OF_RKL2), np.full(len(u), operator.sides.start)
    stiff = np.zeros(len(u), dtype=bool)
    if operator.source is not None:
        stiff = operator.source.is_stiff(u, operator.sides.start, span)
    if stiff.any() and operator.grid.dimension > 1:
        slope = np.abs(operator.source.slope(u, start)).max(1)  # type: ignore[union-attr]
        steps[stiff] = np.maximum(_STEPS_OF_RKL2, _STEPS_PER_RATE * span * slope)[stiff]
    stages = 0.5 * np.sqrt(9.0 + 16.0 * span / steps * euler)
    stabilised = steps * (_RKL2_STEP + stages * (_RKL2_STAGE + (terms - 1) * evaluation))
    always = stiff & (operator.grid.dimension == 1)
    return {_TRBDF2: implicit, _RKL2: np.where(always, np.inf, stabilised)}


def _rates(operator: Operator, u: Array) -> tuple[Array, Array]:
    """Cells crossed per time, and inverse of the stable Euler step, over the range of initial and Dirichlet values."""
    sides = operator.sides
    times = np.broadcast_to(np.linspace(sides.start, sides.end, _TIMES)[:, None], (_TIMES, len(u)))
    low, high = sides.range(times)
    time = np.full(len(u), sides.start)
    data = sides.at(time[None])[0]
    ends = np.minimum(low, u.min(1)), np.maximum(high, u.max(1))
    states = [u, *(np.repeat(end[:, None], u.shape[1], axis=1) for end in ends)]
    euler = np.zeros(len(u))
    if operator.diffusion is not None:
        euler = operator.euler_rate(states, data, time)
    if operator.convection is None:
        return np.zeros(len(u)), euler
    return operator.speed(states, data, time), euler
