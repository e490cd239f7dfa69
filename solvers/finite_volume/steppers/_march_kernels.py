"""What the compiled loops over steps have in common: rows under way, control and ends of steps, and outputs."""

from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from solvers._compiled import compiled, inner
from solvers.finite_volume._kernels import Array, Block, Line, Places, Table, call

_EPSILON = float(np.finfo(np.float64).eps)
_GROWTH = 2.0
_SMALLEST = 1e-12

LEAST_SPREAD = 1e-6
"""Least spread that errors are relative to, as a fraction of the range of all states so far."""

RUNNING, STUCK, ENDLESS = 0.0, 1.0, 2.0
"""Verdicts on rows: fine, failed at the smallest step, or accepted steps below it."""

TIME, PROPOSAL, FAILED, CURSOR, FRESH, VERDICT, LENGTH = range(7)
RESIDUAL, STEPS, REJECTED, EVALUATIONS, EARLIER, LOWEST, HIGHEST = range(7, 14)
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


class Output(NamedTuple):
    """Output times ``(t,)``, values ``(rows, t, n)`` and account ``(rows, t, 2d + 1)``."""

    times: Line
    values: Block
    account: Block


@inner
def look(sides: Sides, times: Array, rows: Array, since: Array, data: Array, count: int, entries: int) -> None:
    """Data of rows at times ``(count, entries)``; with no entries largest steps and jumps ``(2, count)``."""
    call(sides.kernel, (times, rows, since, data, data, sides.record), (count, entries))


@inner
def settle(state: Array, ratio: float, order: int, step: tuple[Any, Any], evaluations: Any, end: float) -> bool:
    """Accepts or rejects a trial step, counts it and proposes the next one; a row is stuck below the smallest length.

    ``ratio`` is the estimated over the allowed error, ``order`` that of the error of a step, ``step`` its length and a
    residual for messages, and ``end`` the last output time.
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
def move_to_end(state: Array, length: float, end: float) -> None:
    """Moves a row to the end of an accepted step; it must not shrink its steps to nothing."""
    state[TIME] = end_of_step(state[TIME], length, end)
    if state[TIME] < end and state[PROPOSAL] < min(length, smallest_step(state[TIME], end)):
        state[VERDICT] = ENDLESS


@inner
def proposed_length(state: Array, longest: float, end: float) -> float:
    """Length of the next step of a row."""
    return landing(min(state[PROPOSAL], longest), end - state[TIME])


@inner
def allowed_error(low: float, high: float, tolerance: float, atol: float) -> float:
    """Allowed mean |error| of a step: tolerance · (max − min) + atol, at least 100 ε max |u|.

    ``low`` and ``high`` are the ends of the range of the cells at start and end and of Dirichlet values.
    """
    return max(tolerance * (high - low) + atol, 100.0 * _EPSILON * max(abs(low), abs(high)))


@inner
def control(ratio: float, order: int, failed_before: Any) -> tuple[bool, float]:
    """Whether a step is accepted, and the factor for the next one; it does not grow right after a failure."""
    accepted = ratio <= 1.0
    if not isfinite(ratio):
        factor = 0.25
    elif ratio == 0.0:
        factor = _GROWTH
    else:
        factor = min(_GROWTH, max(0.2, 0.8 * ratio ** (-1.0 / order)))
    if not accepted:
        return False, min(factor, 0.9)
    return True, min(factor, 1.0) if failed_before else factor


@compiled
def landing(proposal: Any, remaining: Any) -> float:
    """A step without a tiny one before the end."""
    if proposal >= remaining * (1.0 - 1e-9):
        return remaining
    return 0.5 * remaining if proposal > 0.5 * remaining else proposal


@compiled
def end_of_step(time: Any, length: Any, last: Any) -> float:
    """Where a step ends: at the last output if it goes there but for rounding."""
    return last if length >= (last - time) * (1.0 - 1e-12) else time + length


@inner
def next_proposal(accepted: Any, factor: Any, length: Any, proposal: Any) -> float:
    """Next step to propose; a step that was shortened does not make it smaller."""
    following = factor * length
    return max(following, proposal) if accepted and length < proposal else following


@compiled
def smallest_step(time: Any, last: Any) -> float:
    """Length below which a step may not fail."""
    return _SMALLEST * max(abs(time), 1e-4 * (last - time))


@inner
def passes_output(output: Output, cursor: int, finish: float) -> bool:
    """Whether a step that ends at a time passes the next output."""
    return cursor < output.times.shape[0] and output.times[cursor] <= finish


@inner(inline="always")
def write_outputs(
    output: Output, row: int, cursor: int, interval: tuple[float, float], cells: Any, account: Any, bounded: bool
) -> int:
    """Writes the outputs that a step passes, from number ``cursor`` on; returns the next one.

    ``interval`` is its start and end; ``cells`` are those at its start, at a fraction of it and at its end ``(n,)``,
    and that fraction; ``account`` is that before the step ``(f,)``, and what the step adds until the fraction and until
    its end. Outputs that are ``bounded`` keep to the range of the three states.
    """
    (start, finish), (first, middle, last, fraction), (before, until, step) = interval, cells, account
    curve, low, high = fraction * (1.0 - fraction), first[0], first[0]
    for i in range(first.shape[0]):
        low, high = min(low, first[i], middle[i], last[i]), max(high, first[i], middle[i], last[i])
    while passes_output(output, cursor, finish):
        theta = min(1.0, (output.times[cursor] - start) / (finish - start))
        bend, out = theta * (1.0 - theta) / curve, output.values[row, cursor]
        for i in range(first.shape[0]):
            change = last[i] - first[i]
            out[i] = (first[i] + theta * change) + bend * ((middle[i] - first[i]) - fraction * change)
            if theta == 1.0:
                out[i] = last[i]
        for k in range(step.shape[0]):
            between = theta * step[k] + bend * (until[k] - fraction * step[k])
            output.account[row, cursor, k] = before[k] + (step[k] if theta == 1.0 else between)
        if bounded and output.times[cursor] < finish:
            _move_into_range(out, low, high)
        cursor += 1
    return cursor


@inner(inline="always")
def _move_into_range(u: Array, low: float, high: float) -> None:
    """Clips u and gives the difference to the cells in proportion to their distance from the other bound.

    Near fronts a parabola through three states leaves their range by many times the error of the states.
    """
    surplus, below, above = 0.0, 0.0, 0.0
    for i in range(u.shape[0]):
        kept = min(max(u[i], low), high)
        surplus += u[i] - kept
        below += kept - low
        above += high - kept
    room = above if surplus > 0.0 else below
    if surplus == 0.0 or room <= abs(surplus):
        return
    for i in range(u.shape[0]):
        kept = min(max(u[i], low), high)
        u[i] = kept + surplus / room * (high - kept if surplus > 0.0 else kept - low)
