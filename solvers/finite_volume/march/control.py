"""Step control, times of stages, steps that end where something jumps, and dense output: the same for all schemes."""

from math import inf, isfinite
from typing import Any

import numpy as np

from solvers._compiled import inner_on_views, on_views
from solvers.finite_volume.march.arguments import Array, Lanes, StepControl
from solvers.finite_volume.march.kernels import function_at
from solvers.finite_volume.sides._panels import Limits

EPSILON = float(np.finfo(np.float64).eps)
SMALLEST = 1e-12
"""Shortest step that may fail, relative to the time and to 1e-4 of what remains."""

LEAST_SPREAD = 1e-6
"""Least spread that errors are relative to, as a fraction of the range of all states and of the change so far."""

_COURANT = 0.5

RUNNING, STEP_UNDERFLOW, TINY_STEPS = 0.0, 1.0, 2.0
"""Verdicts on rows: fine, failed at the smallest step, or accepted steps below it."""


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
def moment(lane: Any, fraction: float) -> float:
    """Time at a fraction of the step of a lane."""
    time, length = lane.time, lane.length
    return max(time + lane.after_start, min(time + fraction * length, time + length - lane.before_end))


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
def allowed_error(lane: Any, low: float, high: float, limits: StepControl) -> float:
    """Allowed mean |error| of a step, and widens the range of all states so far by ``low`` and ``high``.

    It is tolerance · (high − low) + atol, the spread at least 1e-6 of the range of all states so far, and of the size
    that a source gives the solution over the span, which counts where it sets in while the field is uniform; and at
    least 100 ε max |u|.
    """
    lane.seen_low, lane.seen_high = min(lane.seen_low, low), max(lane.seen_high, high)
    allowed = max(limits.tolerance * (high - low) + limits.atol, 100.0 * EPSILON * max(abs(low), abs(high)))
    return max(allowed, limits.tolerance * LEAST_SPREAD * max(lane.seen_high - lane.seen_low, lane.source_size))


@inner_on_views
def accept_or_reject(lane: Any, ratio: float, order: int, end: float) -> bool:
    """Accepts or rejects a trial step, counts it and proposes the next; a row is stuck below the smallest length."""
    length = lane.length
    accepted, factor = control(ratio, order, lane.failed > 0.0)
    kept = lane.proposal if accepted and length < lane.proposal else 0.0
    lane.proposal, lane.failed = max(factor * length, kept), 0.0 if accepted else 1.0
    if accepted:
        lane.steps += 1.0
    else:
        lane.rejected += 1.0
    if not accepted and factor * length < smallest_step(lane.time, end):
        lane.verdict = STEP_UNDERFLOW
    return accepted


@inner_on_views
def move_to_end(lane: Any, finish: float, end: float) -> None:
    """Moves a row to the end of an accepted step; it must not shrink its steps to nothing."""
    lane.time = finish
    if finish < end and lane.proposal < min(lane.length, smallest_step(finish, end)):
        lane.verdict = TINY_STEPS


@on_views
def look_ahead(lanes: Lanes, limits: Limits) -> None:
    """Longest steps of the lanes by events; where something jumps at their start, rates are evaluated anew."""
    given = limits.panels.ctypes, limits.rows.ctypes, limits.numbers.ctypes, 1, limits.panels.shape[1]
    search = function_at(limits.search)
    for j in range(lanes.size):
        lane, here = lanes[j], lanes[j:]
        search(here.time.ctypes, here.row.ctypes, here.longest.ctypes, here.after_start.ctypes, *given)
        lane.fresh = 1.0 if lane.after_start > 0.0 else lane.fresh


@on_views
def keep_off_end(lanes: Lanes, limits: Limits) -> None:
    """Keeps times off the ends of the steps where something jumps there."""
    given = limits.panels.ctypes, limits.rows.ctypes, limits.numbers.ctypes, 1, limits.panels.shape[1]
    search = function_at(limits.search)
    for j in range(lanes.size):
        lane, here = lanes[j], lanes[j:]
        end = here.before_end.ctypes
        lane.before_end = lane.time + lane.length if limits.panels.shape[1] > 0 and lane.row >= 0.0 else 0.0
        search(end, here.row.ctypes, here.change.ctypes, end, *given)


@on_views
def set_moments(lanes: Lanes, nodes: Array, control: StepControl, out: Array) -> None:
    """Times of stages ``(stages, lanes)``; they keep off the ends of the step where something jumps there."""
    for k in range(nodes.size):
        for j in range(lanes.size):
            out[k, j] = min(max(moment(lanes[j], nodes[k]), control.start), control.end)


def shorten(sides: Any, lanes: Lanes, speed: Array, busy: Array) -> None:
    """Steps in which a signal crosses at most half a cell."""
    fast = busy & (speed > 0.0)
    lanes["length"][fast] = np.minimum(lanes["length"][fast], sides.part * _COURANT / speed[fast])
    keep_off_end(lanes, sides.limits)


@inner_on_views
def write_output(theta: float, fraction: float, course: Any, balance: Any, value: Array, budget: Array) -> None:
    """State and budget at a part θ of a step, by the parabola through its start, a fraction of it and its end.

    ``course`` are the states there ``(3, n)``; ``balance (3, f)`` is the budget before the step, and what the step
    adds until the fraction and until its end.
    """
    bend, start, middle, end = 1.0, course[0], course[1], course[2]
    if theta != fraction:
        bend = theta * (1.0 - theta) / (fraction * (1.0 - fraction))
    for k in range(budget.size):
        until, whole = balance[1, k], balance[2, k]
        between = theta * whole + bend * (until - fraction * whole)
        budget[k] = balance[0, k] + (between if theta < 1.0 else whole)
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
