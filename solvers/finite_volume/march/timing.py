"""Times of stages, and lengths of steps that end where something jumps."""

from typing import Any

import numpy as np

from solvers.finite_volume.march import control as c
from solvers.finite_volume.march.kernels import Array

_COURANT = 0.5


def moments(sides: Any, L: Array, nodes: Array) -> Array:
    """Times of stages ``(stages, lanes)`` from their places in the step ``(stages,)`` or ``(stages, lanes)``.

    They keep off the ends of the step where something jumps there.
    """
    times = L[c.TIME] + (nodes if nodes.ndim > 1 else nodes[:, None]) * L[c.LENGTH]
    if sides.has_breaks:
        start, end = L[c.TIME] + L[c.AFTER_START], L[c.TIME] + L[c.LENGTH] - L[c.BEFORE_END]
        times = np.maximum(start, np.minimum(times, end))
    return np.minimum(np.maximum(times, sides.start), sides.end)


def limit(sides: Any, L: Array, rows: Array) -> None:
    """Longest steps of the lanes by events; where something jumps at their start, rates are evaluated anew."""
    if sides.scan is None:
        return
    L[c.LONGEST] = sides.step_limits(L[c.TIME], rows)
    if not sides.has_breaks:
        return
    L[c.AFTER_START] = sides.margins(L[c.TIME], rows)
    L[c.FRESH][L[c.AFTER_START] > 0.0] = 1.0


def land(sides: Any, L: Array, rows: Array, longest: float) -> None:
    """Lengths of the steps within the longest ones."""
    if sides.scan is None:
        return
    bound = np.minimum(np.minimum(L[c.PROPOSAL], longest), L[c.LONGEST])
    left = sides.end - L[c.TIME]
    lengths = np.where(bound >= left * (1.0 - 1e-9), left, np.minimum(bound, 0.5 * left))
    L[c.LENGTH] = np.where(L[c.ROW] >= 0.0, lengths, 1.0)
    keep_off_end(sides, L, rows)


def keep_off_end(sides: Any, L: Array, rows: Array) -> None:
    """Keeps times off the ends of the steps where something jumps there."""
    if sides.has_breaks:
        L[c.BEFORE_END] = sides.margins(L[c.TIME] + L[c.LENGTH], rows)


def shorten(sides: Any, L: Array, rows: Array, speed: Array, busy: Array) -> None:
    """Steps in which a signal crosses at most half a cell."""
    fast = busy & (speed > 0.0)
    L[c.LENGTH][fast] = np.minimum(L[c.LENGTH][fast], sides.part * _COURANT / speed[fast])
    keep_off_end(sides, L, rows)
