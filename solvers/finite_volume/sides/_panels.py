"""Panels of a scan, and the compiled search for the longest step at a time and for jumps there."""

from typing import Any, NamedTuple

import numpy as np

from solvers.finite_volume.march.kernels import NOTHING, Array, Kernel, call_from_python, carray

_ROUND_OFF = 1e-9


class Panels(NamedTuple):
    """Panels of a scan, sorted by row and then by time.

    Attributes:
        first: Where the panels of every row begin, and their number ``(rows + 1,)``.
        low: Starts of the panels ``(panels,)``.
        high: Their ends ``(panels,)``.
        passing: Longest steps that may pass the end of a panel ``(panels,)``; −∞ where steps must end there.
        jumps_at_ends: Whether the data have other values right after the start or right before the end ``(rows, 2)``.
        margin: Times closer than this are the same.
        has_breaks: Whether there are break points before the end of the span, or jumps at its ends.
        span: Start and end of the span.
    """

    first: Array
    low: Array
    high: Array
    passing: Array
    jumps_at_ends: Array
    margin: float
    has_breaks: bool
    span: tuple[float, float]

    def locate(self, rows: Array, times: Array) -> Array:
        """The panels that contain the times of rows ``(k,)``."""
        if len(self.first) == 2:
            return np.maximum(self.low.searchsorted(times, "right") - 1, 0)
        found = np.empty(len(rows), dtype=np.int64)
        for i, (row, time) in enumerate(zip(rows.tolist(), times.tolist(), strict=True)):
            a, b = self.first[row], self.first[row + 1]
            found[i] = a + max(int(self.low[a:b].searchsorted(time, "right")) - 1, 0)
        return found


class Limits(NamedTuple):
    """What compiled steps take to find how long steps of rows may be, and where something jumps.

    Attributes:
        search: The kernel, or one that does nothing where there is no scan.
        panels: Starts and ends of the panels, and longest steps that may pass the end of one ``(3, panels)``.
        rows: For every row where its panels begin and end, and whether there are jumps at the ends of the span
            ``(4, rows)``.
        numbers: Their number, the part of a panel that steps may have, the margin, start and end.
    """

    search: Any
    panels: Array
    rows: Array
    numbers: Array

    @classmethod
    def of(cls, panels: Panels | None, rows: Array, part: float = 1.0) -> "Limits":
        """Those of rows of a scan, or of none."""
        if panels is None:
            return cls(NOTHING.address, np.zeros((3, 0)), np.zeros((4, 0)), np.zeros(5))
        ends = panels.first[rows], panels.first[rows + 1]
        numbers = np.array([len(rows), part, panels.margin, *panels.span])
        entries = np.array([*ends, *panels.jumps_at_ends[rows].T], dtype=float)
        return cls(_SEARCH.address, np.array([panels.low, panels.high, panels.passing]), entries, numbers)

    def at(self, times: Array, rows: Array) -> tuple[Array, Array]:
        """Longest steps from times of rows ``(k,)``, and by how much times must keep off these, where data jump."""
        times, found = np.array(times, dtype=float), np.zeros((2, len(rows)))
        found[0] = np.inf
        given = times, rows.astype(float), *found, self.panels, self.rows, self.numbers
        call_from_python(self.search, given, len(rows), self.panels.shape[1])
        return found[0], found[1]


def _search(times_, rows_, limits_, margins_, panels_, places_, numbers_, lanes, count):
    """Longest steps of lanes, no longer than a part of a panel that they touch, nor beyond a break point.

    Lanes without a row, −1, are left out.
    """
    times, rows, limits, margins = (
        carray(times_, lanes),
        carray(rows_, lanes),
        carray(limits_, lanes),
        carray(margins_, lanes),
    )
    panels, numbers = carray(panels_, (3, count)), carray(numbers_, 5)
    places, (low, high, passing) = carray(places_, (4, int(numbers[0]))), (panels[0], panels[1], panels[2])
    part, margin = numbers[1], numbers[2]
    for j in range(lanes):
        if rows[j] < 0.0:
            continue
        row, time = int(rows[j]), times[j]
        begin = int(places[0, row])
        panel, after = begin, int(places[1, row])
        while after - panel > 1:
            middle = (panel + after) // 2
            if low[middle] <= time + margin:
                panel = middle
            else:
                after = middle
        left, longest = high[panel] - time, part * (high[panel] - low[panel])
        if passing[panel] > -np.inf:
            limits[j] = part * max(left, passing[panel])
        else:
            limits[j] = left if left <= longest * (1.0 + _ROUND_OFF) else longest
        jumps = panel > begin and passing[panel - 1] == -np.inf and abs(time - low[panel]) <= margin
        for end in range(2):
            jumps = jumps or (places[2 + end, row] > 0.0 and abs(time - numbers[3 + end]) <= margin)
        margins[j] = margin if jumps else 0.0


_SEARCH = Kernel(_search)
