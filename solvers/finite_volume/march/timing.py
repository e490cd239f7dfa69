"""Times of stages, and lengths of steps that end where something jumps."""

from typing import Any

import numpy as np

from solvers._compiled import on_views
from solvers.finite_volume.march import control as c
from solvers.finite_volume.march.control import AFTER_START, BEFORE, BEFORE_END, FRESH, LENGTH, LONGEST, ROW, TIME
from solvers.finite_volume.march.kernels import Array

_COURANT = 0.5


@on_views
def look_ahead(L: Array, limits: Any) -> None:
    """Longest steps of the lanes by events; where something jumps at their start, rates are evaluated anew."""
    search, panels, rows, numbers = limits
    given = panels.ctypes, rows.ctypes, numbers.ctypes, L.shape[1], panels.shape[1]
    search(L[TIME].ctypes, L[ROW].ctypes, L[LONGEST].ctypes, L[AFTER_START].ctypes, *given)
    for j in range(L.shape[1]):
        L[FRESH, j] = 1.0 if L[AFTER_START, j] > 0.0 else L[FRESH, j]


@on_views
def keep_off_end(L: Array, limits: Any) -> None:
    """Keeps times off the ends of the steps where something jumps there."""
    search, panels, rows, numbers = limits
    ends = L[BEFORE_END]
    for j in range(L.shape[1]):
        ends[j] = L[TIME, j] + L[LENGTH, j] if panels.shape[1] > 0 and L[ROW, j] >= 0.0 else 0.0
    given = panels.ctypes, rows.ctypes, numbers.ctypes, L.shape[1], panels.shape[1]
    search(ends.ctypes, L[ROW].ctypes, L[BEFORE].ctypes, ends.ctypes, *given)


@on_views
def set_moments(L: Array, nodes: Array, span: Any, out: Array) -> None:
    """Times of stages ``(stages, lanes)``; they keep off the ends of the step where something jumps there."""
    for k in range(nodes.size):
        for j in range(L.shape[1]):
            out[k, j] = min(max(c.moment(L, j, nodes[k]), span[0]), span[1])


def shorten(sides: Any, L: Array, speed: Array, busy: Array) -> None:
    """Steps in which a signal crosses at most half a cell."""
    fast = busy & (speed > 0.0)
    L[LENGTH][fast] = np.minimum(L[LENGTH][fast], sides.part * _COURANT / speed[fast])
    keep_off_end(L, sides.limits)
