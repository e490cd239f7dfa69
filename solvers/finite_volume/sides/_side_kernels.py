"""Compiled searches among the panels of a scan, which are sorted by row and then by time."""

from typing import Any

import numpy as np

from solvers._compiled import compiled

Array = np.ndarray


@compiled(error_model="python")
def panel_of(first: Array, low: Array, row: Any, time: Any) -> int:
    """The panel of a row that contains a time."""
    a, b = int(first[row]), int(first[row + 1])
    while b - a > 1:
        middle = (a + b) // 2
        if low[middle] <= time:
            a = middle
        else:
            b = middle
    return a


@compiled(error_model="python")
def locate(first: Array, low: Array, rows: Array, times: Array) -> Array:
    """The panel that contains the time of every row."""
    panels = np.empty(len(rows), dtype=np.int64)
    for i in range(len(rows)):
        panels[i] = panel_of(first, low, rows[i], times[i])
    return panels


@compiled(error_model="python")
def step_limit(
    first: Array, low: Array, high: Array, ends_at_break: Array, row: Any, time: Any, margin: float
) -> float:
    """Largest step: no longer than a panel that it touches, and not beyond a break point."""
    panel = panel_of(first, low, row, time + margin)
    limit = high[panel] - time
    if not ends_at_break[panel]:
        limit = max(limit, min(high[panel] - low[panel], high[panel + 1] - low[panel + 1]))
    return limit


@compiled(error_model="python")
def step_limits(
    first: Array, low: Array, high: Array, ends_at_break: Array, rows: Array, times: Array, margin: float
) -> Array:
    """``step_limit`` of every row."""
    limits = np.empty(len(rows))
    for i in range(len(rows)):
        limits[i] = step_limit(first, low, high, ends_at_break, rows[i], times[i], margin)
    return limits


@compiled(error_model="python")
def steer(
    first: Array, low: Array, ends_at_break: Array, rows: Array, times: Array, since: Array, leftwards: bool,
    margin: float,
) -> Array:  # fmt: skip
    """Times moved by the margin off the break points, backwards where the step started before the break point."""
    moved = times.copy()
    for k in range(times.shape[0]):
        for i in range(len(rows)):
            panel = panel_of(first, low, rows[i], times[k, i] + margin)
            start = low[panel]
            if panel > first[rows[i]] and ends_at_break[panel - 1] and abs(times[k, i] - start) <= margin:
                before = leftwards and since[i] < start - margin
                moved[k, i] = start - margin if before else start + margin
    return moved
