"""Compiled loops over outputs within steps: they keep to the range of the states of their step."""

from typing import Any

import numpy as np

from solvers._compiled import compiled

_Array = np.ndarray


@compiled
def keep_to_range(out: _Array, ends: _Array, end: _Array, plan: Any) -> None:
    """Moves what a parabola between states puts out of their range into the other cells; the totals stay.

    Near fronts a parabola through three states leaves their range by many times the error of the states.

    Args:
        out: ``(all rows, t, cells)``, changed.
        ends: Smallest and largest value of the states of every step ``(2, rows)``.
        end: End of the step ``(rows,)``.
        plan: As for ``record``.
    """
    target, cursor, accepted, times = plan
    for b in range(cursor.shape[0]):
        k = cursor[b]
        while accepted[b] and k < times.shape[0] and times[k] < end[b]:
            _move_into_range(out[target[b], k], ends[0, b], ends[1, b])
            k += 1


@compiled
def _move_into_range(u: _Array, low: float, high: float) -> None:
    """Clips u and gives the difference to the cells in proportion to their distance from the other bound."""
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
