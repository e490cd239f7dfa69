"""Compiled loops over rows: linear combinations of stages, error ratios, step control and output between steps."""

from typing import Any

import numpy as np

from solvers._compiled import compiled

_Array = np.ndarray
_EPSILON = float(np.finfo(np.float64).eps)
_GROWTH = 2.0
_SMALLEST = 1e-12


@compiled
def combine(base: _Array, step: _Array, weights: tuple[float, ...], rates: Any) -> _Array:
    """base + Δt Σ wₖ fₖ with one Δt per row; ``rates`` is a tuple of arrays of the shape of ``base``."""
    out = base.copy()
    for k in range(len(rates)):
        rate = rates[k]
        for b in range(base.shape[0]):
            factor = step[b] * weights[k]
            for i in range(base.shape[1]):
                out[b, i] += factor * rate[b, i]
    return out


@compiled
def weighted(step: _Array, weights: tuple[float, ...], rates: Any) -> _Array:
    """Δt Σ wₖ fₖ with one Δt per row."""
    out = np.empty_like(rates[0])
    for b in range(out.shape[0]):
        factor = step[b] * weights[0]
        for i in range(out.shape[1]):
            out[b, i] = factor * rates[0][b, i]
    for k in range(1, len(rates)):
        rate = rates[k]
        for b in range(out.shape[0]):
            factor = step[b] * weights[k]
            for i in range(out.shape[1]):
                out[b, i] += factor * rate[b, i]
    return out


@compiled
def range_of_rows(u: _Array) -> _Array:
    """Smallest and largest value of every row ``(2, rows)``; NaN if one is not finite."""
    ends = np.empty((2, u.shape[0]))
    for b in range(u.shape[0]):
        smallest, largest, total = u[b, 0], u[b, 0], 0.0
        for i in range(u.shape[1]):
            smallest, largest = min(smallest, u[b, i]), max(largest, u[b, i])
            total += u[b, i]
        finite = np.isfinite(total)
        ends[0, b], ends[1, b] = (smallest, largest) if finite else (np.nan, np.nan)
    return ends


@compiled
def range_of_data(data: _Array, columns: _Array) -> _Array:
    """Smallest and largest value of some columns of data ``(k, rows, S)``: ``(2, rows)``, infinite without columns."""
    ends = np.empty((2, data.shape[1]))
    for b in range(data.shape[1]):
        low, high = np.inf, -np.inf
        for k in range(data.shape[0]):
            for column in columns:
                low, high = min(low, data[k, b, column]), max(high, data[k, b, column])
        ends[0, b], ends[1, b] = low, high
    return ends


@compiled
def allowed_error(before: _Array, after: _Array, data: _Array, tolerance: float, atol: float) -> _Array:
    """Allowed mean |error| of a step: tolerance · (max − min) + atol, at least 100 ε max |u|.

    Args:
        before: Smallest and largest value of the cells at the start ``(2, rows)``.
        after: At the end.
        data: Smallest and largest Dirichlet value; infinite where there is none.
        tolerance: Relative to the spread.
        atol: Absolute.

    Returns:
        Allowed errors ``(rows,)``.
    """
    result = np.empty(before.shape[1])
    for b in range(result.shape[0]):
        low = min(min(before[0, b], after[0, b]), data[0, b])
        high = max(max(before[1, b], after[1, b]), data[1, b])
        floor = 100.0 * _EPSILON * max(abs(low), abs(high))
        result[b] = max(tolerance * (high - low) + atol, floor)
    return result


@compiled
def error_ratio(error: _Array, allowed: _Array) -> _Array:
    """mean |error| over the allowed one; rows without any error pass also where nothing is allowed."""
    ratio = np.empty(error.shape[0])
    for b in range(error.shape[0]):
        total = 0.0
        for i in range(error.shape[1]):
            total += abs(error[b, i])
        ratio[b] = 0.0 if total == 0.0 else total / error.shape[1] / allowed[b]
    return ratio


@compiled
def control(ratio: _Array, order: int, failed_before: _Array) -> tuple[_Array, _Array]:
    """Which steps are accepted, and the factor for the next step; none grows right after a failure."""
    accepted, factor = np.empty(ratio.shape[0], np.bool_), np.empty(ratio.shape[0])
    for b in range(ratio.shape[0]):
        accepted[b] = ratio[b] <= 1.0
        if not np.isfinite(ratio[b]):
            factor[b] = 0.25
        elif ratio[b] == 0.0:
            factor[b] = _GROWTH
        else:
            factor[b] = min(_GROWTH, max(0.2, 0.8 * ratio[b] ** (-1.0 / order)))
        if not accepted[b]:
            factor[b] = min(factor[b], 0.9)
        elif failed_before[b]:
            factor[b] = min(factor[b], 1.0)
    return accepted, factor


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


@compiled
def next_proposal(accepted: Any, factor: Any, length: Any, proposal: Any) -> float:
    """Next step to propose; a step that was shortened does not make it smaller."""
    following = factor * length
    return max(following, proposal) if accepted and length < proposal else following


@compiled
def smallest_step(time: Any, last: Any) -> float:
    """Length below which a step may not fail."""
    return _SMALLEST * max(abs(time), 1e-4 * (last - time))


@compiled
def landings(proposal: _Array, remaining: _Array) -> _Array:
    """``landing`` of every row."""
    result = np.empty_like(proposal)
    for b in range(result.shape[0]):
        result[b] = landing(proposal[b], remaining[b])
    return result


@compiled
def ends_of_steps(time: _Array, length: _Array, last: float) -> _Array:
    """``end_of_step`` of every row."""
    result = np.empty_like(time)
    for b in range(result.shape[0]):
        result[b] = end_of_step(time[b], length[b], last)
    return result


@compiled
def next_proposals(accepted: _Array, factor: _Array, length: _Array, proposal: _Array) -> _Array:
    """``next_proposal`` of every row."""
    result = np.empty_like(proposal)
    for b in range(result.shape[0]):
        result[b] = next_proposal(accepted[b], factor[b], length[b], proposal[b])
    return result


@compiled
def smallest_steps(time: _Array, last: float) -> _Array:
    """``smallest_step`` of every row."""
    result = np.empty_like(time)
    for b in range(result.shape[0]):
        result[b] = smallest_step(time[b], last)
    return result


@compiled
def record(out: _Array, before: _Array, after: _Array, bow: _Array, interval: tuple[_Array, _Array], plan: Any) -> None:
    """Writes the output times that accepted steps have passed: u + θ Δu + θ (1 − θ) bow.

    Args:
        out: ``(all rows, t, n)``, written.
        before: Values at the start of the step ``(rows, n)``.
        after: Values at its end.
        bow: Deviation from the straight line.
        interval: Start and length of the step ``(rows,)``.
        plan: Row of ``out`` of every row, its next output, and whether its step is accepted ``(rows,)``, then the
            output times ``(t,)``.
    """
    start, length = interval
    target, cursor, accepted, times = plan
    for b in range(before.shape[0]):
        if not accepted[b]:
            continue
        k = cursor[b]
        while k < times.shape[0] and times[k] <= start[b] + length[b]:
            theta = min(1.0, (times[k] - start[b]) / length[b])
            for i in range(before.shape[1]):
                line = before[b, i] + theta * (after[b, i] - before[b, i])
                out[target[b], k, i] = after[b, i] if theta == 1.0 else line + theta * (1.0 - theta) * bow[b, i]
            k += 1


@compiled
def passed(times: _Array, cursor: _Array, end: _Array) -> _Array:
    """Number of output times up to ``end`` of every row."""
    result = cursor.copy()
    for b in range(cursor.shape[0]):
        while result[b] < times.shape[0] and times[result[b]] <= end[b]:
            result[b] += 1
    return result
