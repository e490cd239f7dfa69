"""Compiled outputs within steps, along a parabola; they may keep to the range of the states of their step."""

from typing import Any, NamedTuple

import numpy as np

from solvers._compiled import inner
from solvers.finite_volume._kernels import Block, Line

_Array = np.ndarray


class Output(NamedTuple):
    """Output times ``(t,)``, values ``(rows, t, n)`` and account ``(rows, t, 2d + 1)``."""

    times: Line
    values: Block
    account: Block


@inner
def passes_output(output: Output, cursor: int, finish: float) -> bool:
    """Whether a step that ends at a time passes the next output."""
    return cursor < output.times.shape[0] and output.times[cursor] <= finish


@inner(inline="always")
def write_outputs(
    output: Output, row: int, cursor: int, interval: tuple[float, float], cells: Any, account: Any, bounded: bool
) -> int:
    """Writes the outputs that a step passes; returns the next one.

    Args:
        output: Where to write.
        row: The row.
        cursor: The next output.
        interval: Start and end of the step.
        cells: At the start, at a fraction of the step, at its end ``(n,)``, and that fraction.
        account: Before the step ``(f,)``, and what the step adds until that fraction and until the end.
        bounded: Whether the outputs keep to the range of the three states.
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
def _move_into_range(u: _Array, low: float, high: float) -> None:
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
