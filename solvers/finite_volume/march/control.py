"""Step control, dense output and sums, the same for all schemes."""

from math import inf, isfinite
from typing import Any

import numpy as np

from solvers._compiled import inner_on_views
from solvers.finite_volume.march.kernels import Array

EPSILON = float(np.finfo(np.float64).eps)
SMALLEST = 1e-12
"""Shortest step that may fail, relative to the time and to 1e-4 of what remains."""

LEAST_SPREAD = 1e-6
"""Least spread that errors are relative to, as a fraction of the range of all states and of the change so far."""

RUNNING, STEP_UNDERFLOW, TINY_STEPS = 0.0, 1.0, 2.0
"""Verdicts on rows: fine, failed at the smallest step, or accepted steps below it."""

ROW, TIME, LENGTH, PROPOSAL, LONGEST, FAILED, FRESH, CURSOR, VERDICT, STEPS, REJECTED, EVALUATIONS = range(12)
LOW, HIGH, SEEN_LOW, SEEN_HIGH, ERROR, RESIDUAL, SUM, BEFORE, TAKEN, OPEN, CONVERGED, ALLOWED = range(12, 24)
STAGES, WORST, EULER, LIVE, AFTER_START, BEFORE_END, SIZE, END_LOW, END_HIGH, ACCEPTED, NUMBERS = range(24, 35)
"""Numbers of a lane: which row is in it (−1 for none), time, length of the step, proposed and longest length, whether
the last step failed, whether rates at the start are still to be computed, next output, verdict, and counts; range of
the states at the start with Dirichlet values, and of all states so far; mean estimated error and residual for messages;
then those of Newton's iteration and of explicit steps; by how much times keep away from the ends of a step where
something jumps there; the size that a source gives the solution; and of implicit steps the range of the states at the
end, and whether the last one was accepted."""


@inner_on_views
def control(ratio: float, order: int, failed_before: Any) -> tuple[bool, float]:
    """Whether a step is accepted, and the factor for the next one; it does not grow right after a failure."""
    factor = 0.25
    if isfinite(ratio):
        factor = 2.0 if ratio == 0.0 else min(2.0, max(0.2, 0.8 * ratio ** (-1.0 / order)))
    if ratio <= 1.0:
        return True, min(factor, 1.0) if failed_before else factor
    return False, min(factor, 0.9)


@inner_on_views
def moment(L: Array, j: int, fraction: float) -> float:
    """Time at a fraction of the step of a lane."""
    time, length = L[TIME, j], L[LENGTH, j]
    return max(time + L[AFTER_START, j], min(time + fraction * length, time + length - L[BEFORE_END, j]))


@inner_on_views
def avoid_tiny_last_step(proposal: float, remaining: float) -> float:
    """A step without a tiny one before the end."""
    if proposal >= remaining * (1.0 - 1e-9):
        return remaining
    return 0.5 * remaining if proposal > 0.5 * remaining else proposal


@inner_on_views
def smallest_step(time: float, end: float) -> float:
    """Length below which a step may not fail."""
    return SMALLEST * max(abs(time), 1e-4 * (end - time))


@inner_on_views
def end_of_step(time: float, length: float, end: float) -> float:
    """The end of a step: at the last output if it goes there but for rounding."""
    return end if length >= (end - time) * (1.0 - 1e-12) else time + length


@inner_on_views
def allowed_error(lane: Array, low: float, high: float, options: Any) -> float:
    """Allowed mean |error| of a step, and widens the range of all states so far by ``low`` and ``high``.

    It is tolerance · (high − low) + atol, the spread at least 1e-6 of the range of all states so far, and of the size
    that a source gives the solution over the span, which counts where it sets in while the field is uniform; and at
    least 100 ε max |u|. ``options`` are tolerance and atol.
    """
    tolerance, atol = options
    lane[SEEN_LOW], lane[SEEN_HIGH] = min(lane[SEEN_LOW], low), max(lane[SEEN_HIGH], high)
    allowed = max(tolerance * (high - low) + atol, 100.0 * EPSILON * max(abs(low), abs(high)))
    return max(allowed, tolerance * LEAST_SPREAD * max(lane[SEEN_HIGH] - lane[SEEN_LOW], lane[SIZE]))


@inner_on_views
def judge(lane: Array, ratio: float, order: int, end: float) -> bool:
    """Accepts or rejects a trial step, counts it and proposes the next; a row is stuck below the smallest length."""
    length = lane[LENGTH]
    accepted, factor = control(ratio, order, lane[FAILED] > 0.0)
    kept = lane[PROPOSAL] if accepted and length < lane[PROPOSAL] else 0.0
    lane[PROPOSAL], lane[FAILED] = max(factor * length, kept), 0.0 if accepted else 1.0
    lane[STEPS if accepted else REJECTED] += 1.0
    if not accepted and factor * length < smallest_step(lane[TIME], end):
        lane[VERDICT] = STEP_UNDERFLOW
    return accepted


@inner_on_views
def move_to_end(lane: Array, finish: float, end: float) -> None:
    """Moves a row to the end of an accepted step; it must not shrink its steps to nothing."""
    lane[TIME] = finish
    if finish < end and lane[PROPOSAL] < min(lane[LENGTH], smallest_step(finish, end)):
        lane[VERDICT] = TINY_STEPS


@inner_on_views
def write_output(theta: float, fraction: float, course: Any, balance: Any, value: Array, account: Array) -> None:
    """State and account at a part θ of a step, by the parabola through its start, a fraction of it and its end.

    ``course`` are the states there ``(3, n)``; ``balance (3, f)`` is the account before the step, and what the step
    adds until the fraction and until its end.
    """
    bend, start, middle, end = 1.0, course[0], course[1], course[2]
    if theta != fraction:
        bend = theta * (1.0 - theta) / (fraction * (1.0 - fraction))
    for k in range(account.size):
        until, whole = balance[1, k], balance[2, k]
        between = theta * whole + bend * (until - fraction * whole)
        account[k] = balance[0, k] + (between if theta < 1.0 else whole)
    for i in range(value.size):
        change = end[i] - start[i]
        between = (start[i] + theta * change) + bend * ((middle[i] - start[i]) - fraction * change)
        value[i] = between if theta < 1.0 else end[i]


@inner_on_views
def keep_to_range(course: Any, value: Array) -> None:
    """Keeps an output within a step to the range of the three states of its course, and to its sum.

    Near fronts a parabola leaves the range by many times the error.
    """
    start, middle, end = course[0], course[1], course[2]
    low, high, surplus, below, above = inf, -inf, 0.0, 0.0, 0.0
    for i in range(value.size):
        low, high = min(low, min(start[i], min(middle[i], end[i]))), max(high, max(start[i], max(middle[i], end[i])))
    for i in range(value.size):
        kept = min(max(value[i], low), high)
        surplus, below, above = surplus + (value[i] - kept), below + (kept - low), above + (high - kept)
    slack = above if surplus > 0.0 else below
    if surplus == 0.0 or slack <= abs(surplus):
        return
    for i in range(value.size):
        kept = min(max(value[i], low), high)
        value[i] = kept + surplus / slack * (high - kept if surplus > 0.0 else kept - low)
