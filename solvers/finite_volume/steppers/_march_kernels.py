"""What the compiled loops over steps have in common: rows under way, lengths of steps and their ends."""

from typing import Any, NamedTuple

import numpy as np

from solvers._compiled import inner
from solvers.finite_volume._kernels import Places, Table, call
from solvers.finite_volume.steppers._row_kernels import control, end_of_step, landing, next_proposal, smallest_step

_Array = np.ndarray

LEAST_SPREAD = 1e-6
"""Least spread that errors are relative to, as a fraction of the range of all states so far."""

RUNNING, STUCK, ENDLESS = 0.0, 1.0, 2.0
"""Verdicts on rows: fine, failed at the smallest step, or accepted steps below it."""

(
    TIME,
    PROPOSAL,
    FAILED,
    CURSOR,
    FRESH,
    VERDICT,
    LENGTH,
    RESIDUAL,
    STEPS,
    REJECTED,
    EVALUATIONS,
    EARLIER,
    LOWEST,
    HIGHEST,
) = range(14)
"""Numbers of a row: time, next step to try, whether the last one failed, next output, whether rates at the present
state are still to be computed, verdict, length and residual of the last trial step, accepted and rejected steps,
evaluations, length of the last accepted step, and the range of all states so far.
"""


class March(NamedTuple):
    """Rows under way, all changed in place; few arrays, since each costs time in every function that is compiled.

    Attributes:
        u: Cell averages ``(rows, n)``.
        earlier: State before the last step ``(rows, n)``.
        rate: Rates at the present state ``(rows, n)``.
        flow: Fluxes through the sides and integral of the source at the present state ``(rows, 2d + 1)``.
        data: Data of the sides at the present time ``(rows, S)``.
        account: Time-integrated fluxes through the sides, and of sources ``(rows, 2d + 1)``.
        sampled: Time integrals of the data as the steps sampled them ``(rows, S)``.
        state: See ``TIME`` ``(rows, 14)``.
    """

    u: Table
    earlier: Table
    rate: Table
    flow: Table
    data: Table
    account: Table
    sampled: Table
    state: Table


class Sides(NamedTuple):
    """The data of sides for compiled steps.

    Attributes:
        kernel: Address of the kernel of data and largest steps, or 0 where no datum changes and no step must end.
        record: For that kernel.
        dirichlet: Places of Dirichlet values among the data.
    """

    kernel: int
    record: Places
    dirichlet: Places


class Limits(NamedTuple):
    """Tolerances and largest step of a stepper."""

    tolerance: float
    atol: float
    largest_step: float


@inner
def look(sides: Sides, times: _Array, rows: _Array, since: _Array, data: _Array, count: int, entries: int) -> None:
    """Data of rows at times ``(count, entries)``; with no entries largest steps and jumps ``(2, count)``."""
    call(sides.kernel, (times, rows, since, data, data, sides.record), (count, entries))


@inner
def settle(state: _Array, ratio: float, order: int, step: tuple[Any, Any], evaluations: Any, end: float) -> bool:
    """Accepts or rejects a trial step, counts it and proposes the next one; a row is stuck below the smallest length.

    Args:
        state: Numbers of the row.
        ratio: Estimated over allowed error.
        order: Order of the error of a step.
        step: Its length, and a residual for messages.
        evaluations: Evaluations of the rates.
        end: Last output time.
    """
    length, residual = step
    accepted, factor = control(ratio, order, state[FAILED] > 0.0)
    state[LENGTH], state[RESIDUAL] = length, residual
    state[STEPS if accepted else REJECTED] += 1.0
    state[EVALUATIONS] += evaluations
    state[PROPOSAL] = next_proposal(accepted, factor, length, state[PROPOSAL])
    state[FAILED] = 0.0 if accepted else 1.0
    if not accepted and factor * length < smallest_step(state[TIME], end):
        state[VERDICT] = STUCK
    return accepted


@inner
def move_to_end(state: _Array, length: float, end: float) -> None:
    """Moves a row to the end of an accepted step; it must not shrink its steps to nothing."""
    state[TIME] = end_of_step(state[TIME], length, end)
    if state[TIME] < end and state[PROPOSAL] < min(length, smallest_step(state[TIME], end)):
        state[VERDICT] = ENDLESS


@inner
def proposed_length(state: _Array, longest: float, end: float) -> float:
    """Length of the next step of a row."""
    return landing(min(state[PROPOSAL], longest), end - state[TIME])
