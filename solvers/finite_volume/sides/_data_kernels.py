"""Side data of rows in compiled steps: values at any time by Chebyshev series, largest steps, break points.

Compiled steps cannot call the user's function. Every panel of the scan becomes a piece with a polynomial through 16
values, which 17 more values of the function must confirm to 10⁻¹² of its deviation from the middle of its range. A
piece that they refute is divided once: towards its start, by halves, if a function with a root or a jump may begin
there, else into equal parts. Where a part is refuted again the function has no series, and steps ask the function.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np

from solvers._compiled import compiled, inner
from solvers.finite_volume._kernels import RATES, Array, array_at, call, floats, integers, kernel

TERMS: Final = 16
_AGREEMENT = 1e-12
_ROUND_OFF = 1e-14
Evaluate = Callable[[Array], Array]

_ANGLES = np.pi * (np.arange(TERMS) + 0.5) / TERMS
_POINTS = np.cos(_ANGLES)
_MATRIX = 2.0 / TERMS * np.cos(np.arange(TERMS)[:, None] * _ANGLES)
_MATRIX[0] *= 0.5
_CHECKS = np.concatenate(([-0.999], np.cos(np.pi * np.arange(TERMS - 1, 0, -1) / TERMS), [0.999]))
_HALVINGS, _PARTS = 16, 4


class Panels(NamedTuple):
    """Panels of a scan, sorted by row and then by time.

    Attributes:
        first: Where the panels of every row begin, and their number ``(rows + 1,)``.
        low: Starts of the panels ``(panels,)``.
        high: Their ends ``(panels,)``.
        ends_at_break: Whether steps must end at the end of a panel ``(panels,)``.
        jumps_at_ends: Whether the data have other values right after the start or right before the end ``(rows, 2)``.
        margin: Times closer than this are the same.
        has_breaks: Whether there are break points before the end of the span, or jumps at its ends.
    """

    first: Array
    low: Array
    high: Array
    ends_at_break: Array
    jumps_at_ends: Array
    margin: float
    has_breaks: bool


class Series(NamedTuple):
    """Data on pieces of the span.

    Attributes:
        first: Where the pieces of every row of the scan begin, and their number ``(rows + 1,)``.
        low: Starts of the pieces ``(pieces,)``.
        high: Their ends ``(pieces,)``.
        coefficients: Of Chebyshev's polynomials on them ``(pieces, columns, terms)``; NaN where they do not hold.
    """

    first: Array
    low: Array
    high: Array
    coefficients: Array


@compiled
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


@compiled
def locate(panels: Panels, rows: Array, times: Array) -> Array:
    """The panel that contains the time of every row."""
    found = np.empty(len(rows), dtype=np.int64)
    for i in range(len(rows)):
        found[i] = panel_of(panels.first, panels.low, rows[i], times[i])
    return found


@compiled
def step_limit(panels: Panels, row: Any, time: Any) -> float:
    """Largest step: no longer than a panel that it touches, and not beyond a break point."""
    panel = panel_of(panels.first, panels.low, row, time + panels.margin)
    limit = panels.high[panel] - time
    if not panels.ends_at_break[panel]:
        here, after = panels.high[panel] - panels.low[panel], panels.high[panel + 1] - panels.low[panel + 1]
        limit = max(limit, min(here, after))
    return limit


@compiled
def step_limits(panels: Panels, rows: Array, times: Array) -> Array:
    """``step_limit`` of every row."""
    limits = np.empty(len(rows))
    for i in range(len(rows)):
        limits[i] = step_limit(panels, rows[i], times[i])
    return limits


@compiled
def steer(panels: Panels, rows: Array, times: Array, since: Array, leftwards: bool) -> Array:
    """Times moved by the margin off the break points, backwards where the step started before the break point."""
    moved, margin = times.copy(), panels.margin
    for k in range(times.shape[0]):
        for i in range(len(rows)):
            panel = panel_of(panels.first, panels.low, rows[i], times[k, i] + margin)
            start = panels.low[panel]
            at_break = panel > panels.first[rows[i]] and panels.ends_at_break[panel - 1]
            if at_break and abs(times[k, i] - start) <= margin:
                before = leftwards and since[i] < start - margin
                moved[k, i] = start - margin if before else start + margin
    return moved


@compiled
def _sum_of_series(coefficients: Array, x: float) -> float:
    """Σ cₖ Tₖ(x) by Clenshaw's recursion."""
    after, here = 0.0, 0.0
    for k in range(coefficients.shape[0] - 1, 0, -1):
        after, here = here, coefficients[k] + 2.0 * x * here - after
    return coefficients[0] + x * here - after


@inner
def _may_jump(time: Any, place: int, span: Array, panels: Panels) -> Any:
    """Whether the data of a row may jump at a time."""
    if not panels.has_breaks:
        return False
    for end in range(2):
        if panels.jumps_at_ends[2 * place + end] and abs(time - span[end]) <= panels.margin:
            return True
    panel = panel_of(panels.first, panels.low, place, time + panels.margin)
    if panel == panels.first[place] or not panels.ends_at_break[panel - 1]:
        return False
    return abs(time - panels.low[panel]) <= panels.margin


@inner
def _values(time: float, place: int, row: int, series: Any, fixed: Any, out: Array) -> bool:
    """Data of a row at a time; whether the series hold there."""
    (first, low, high, coefficients), (values, scale, column) = series, fixed
    entries, columns, total = column.shape[0], coefficients.shape[0] // (TERMS * low.shape[0]), 0.0
    piece = panel_of(first, low, place, time)
    x = 2.0 * (time - low[piece]) / (high[piece] - low[piece]) - 1.0
    for entry in range(entries):
        out[entry] = values[row * entries + entry]
        if column[entry] >= 0:
            start = (piece * columns + column[entry]) * TERMS
            out[entry] = scale[row * entries + entry] * _sum_of_series(coefficients[start : start + TERMS], x)
        total += out[entry]
    return not np.isnan(total)


@kernel(RATES)
def sides(times: Any, rows: Any, since: Any, out: Any, _: Any, record: Any, count: Any, entries: Any) -> None:
    """The kernel: data of rows at times ``(count, entries)``, where ``since`` is when their steps began.

    With no entries it gives the largest steps that see the data from those times on and pass neither a break point nor
    the end, and whether data may jump there ``(2, count)``. Its record is (whether there are break points and series,
    address of a kernel for other data), span and margin, and the arrays of ``SideData.kernel``.
    """
    head, numbers, where = integers(record, 0), floats(record, 1), integers(record, 2)
    ends = floats(record, 4), floats(record, 5), integers(record, 6), integers(record, 7)
    panels = Panels(integers(record, 3), ends[0], ends[1], ends[2], ends[3], numbers[2], head[0] > 0)
    series = integers(record, 8), floats(record, 9), floats(record, 10), floats(record, 11)
    fixed = floats(record, 12), floats(record, 13), integers(record, 14)
    moments, numbered, begun = array_at(times, count), array_at(rows, count), array_at(since, count)
    found = array_at(out, max(2, entries) * count)
    if entries > 0 and head[1] == 0:
        call(head[2], (moments, numbered, begun, found, found), (count, entries))
        return
    for k in range(count):
        row, place = int(numbered[k]), where[int(numbered[k])]
        jump, own = _may_jump(moments[k], place, numbers, panels), found[k * entries :]
        if entries == 0:
            found[k], found[count + k] = step_limit(panels, place, moments[k]), 1.0 if jump else 0.0
        elif jump or not _values(moments[k], place, row, series, fixed, own):
            call(head[2], (moments[k:], numbered[k:], begun[k:], own, own), (1, entries))


@compiled
def fit_series(values: Array, checks: Array, matrix: Array, at: Array, scale: Array) -> Array:
    """Coefficients ``(pieces, columns, terms)`` of the polynomials through values; NaN where checks refute them.

    Values ``(pieces, terms, columns)`` are at Chebyshev's points, checks ``(pieces, k, columns)`` at the points ``at``
    ``(k,)`` within [−1, 1]. ``matrix`` takes values to coefficients. The allowed difference is relative to deviation
    and size of the data, ``scale (pieces, 2, columns)``.
    """
    pieces, terms, columns = values.shape
    coefficients = np.zeros((pieces, columns, terms))
    for p in range(pieces):
        for c in range(columns):
            series = coefficients[p, c]
            for j in range(terms):
                for k in range(terms):
                    series[j] += matrix[j, k] * values[p, k, c]
            allowed = _AGREEMENT * scale[p, 0, c] + _ROUND_OFF * scale[p, 1, c]
            for k in range(at.shape[0]):
                if not abs(_sum_of_series(series, at[k]) - checks[p, k, c]) <= allowed:
                    for j in range(terms):
                        series[j] = np.nan
                    break
    return coefficients


def series_of(evaluate: Evaluate, first: Array, low: Array, high: Array, starts: Array) -> Series:
    """Series of the data on panels, as in ``Panels``, and, where they need it, on parts of them.

    ``evaluate`` gives values ``(k, rows, columns)`` at times ``(k, rows)``; ``starts`` says whether the span or a
    stretch between break points begins with the panel.
    """
    row = np.repeat(np.arange(len(first) - 1), np.diff(first))
    values, checks = _sampled(evaluate, first, row, low, high)
    scale = _scale(first, values)
    coefficients = fit_series(values, checks, _MATRIX, _CHECKS, scale[row])
    refuted = np.isnan(coefficients.sum(axis=(1, 2)))
    if not refuted.any():
        return Series(first, low, high, coefficients)
    part_row, part_low, part_high = _parts(row, low, high, starts, refuted)
    order = np.lexsort((part_low, part_row))
    part_row, part_low, part_high = part_row[order], part_low[order], part_high[order]
    part_first = np.searchsorted(part_row, np.arange(len(first)))
    finer = _sampled(evaluate, part_first, part_row, part_low, part_high)
    more = fit_series(*finer, _MATRIX, _CHECKS, scale[part_row])
    kept = ~refuted
    row, low, high = (
        np.concatenate((part[kept], new)) for part, new in ((row, part_row), (low, part_low), (high, part_high))
    )
    order = np.lexsort((low, row))
    coefficients = np.concatenate((coefficients[kept], more))[order]
    return Series(np.searchsorted(row[order], np.arange(len(first))), low[order], high[order], coefficients)


def _sampled(evaluate: Evaluate, first: Array, row: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """Values on pieces, sorted by row, at Chebyshev's points and at those of the checks ``(pieces, k, columns)``."""
    rows, place = len(first) - 1, np.arange(len(row)) - first[row]
    points = 0.5 + 0.5 * np.concatenate((_POINTS, _CHECKS))
    times = np.empty((place.max() + 1, len(points), rows))
    filling = np.minimum(first[:-1], len(row) - 1)
    times[:] = low[filling] + points[:, None] * (high - low)[filling]
    times[place, :, row] = low[:, None] + points * (high - low)[:, None]
    values = evaluate(times.reshape(-1, rows)).reshape(*times.shape, -1)[place, :, row]
    return values[:, :TERMS], values[:, TERMS:]


def _scale(first: Array, values: Array) -> Array:
    """Half the range of the data of every row, and their largest size ``(rows, 2, columns)``."""
    low, high = (
        np.stack([reduce(values[a:b], axis=(0, 1)) for a, b in pairwise(first.tolist())]) for reduce in (np.min, np.max)
    )
    return np.stack((0.5 * (high - low), np.maximum(np.abs(low), np.abs(high))), axis=1)


def _parts(row: Array, low: Array, high: Array, starts: Array, refuted: Array) -> tuple[Array, Array, Array]:
    """Rows and ends of the parts of the refuted pieces."""
    halves = np.concatenate(([0.0], 0.5 ** np.arange(_HALVINGS, -1, -1.0)))
    parts = []
    for chosen, edges in ((refuted & starts, halves), (refuted & ~starts, np.linspace(0.0, 1.0, _PARTS + 1))):
        ends = low[chosen, None] + edges * (high - low)[chosen, None]
        ends[:, -1] = high[chosen]
        parts.append((np.repeat(row[chosen], len(edges) - 1), ends[:, :-1].reshape(-1), ends[:, 1:].reshape(-1)))
    rows, lows, highs = (np.concatenate(each) for each in zip(*parts, strict=True))
    return rows, lows, highs
