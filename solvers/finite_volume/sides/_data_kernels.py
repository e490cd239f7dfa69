"""Compiled side data of rows: values at any time by Chebyshev series, largest steps, break points."""

from typing import Any, Final, NamedTuple

import numpy as np

from solvers._compiled import compiled

_Array = np.ndarray

TERMS: Final = 16
_AGREEMENT = 1e-12
_ROUND_OFF = 1e-14


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

    first: _Array
    low: _Array
    high: _Array
    ends_at_break: _Array
    jumps_at_ends: _Array
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

    first: _Array
    low: _Array
    high: _Array
    coefficients: _Array


class Sampler(NamedTuple):
    """The data of all sides of rows, S entries each.

    Attributes:
        span: Start and end.
        largest: Largest step that sees what changes with time by itself.
        fixed: Data that do not change with time ``(rows, S)``.
        column: Which of the series belongs to an entry ``(S,)``; −1 for fixed data.
        scale: Factors from stated values to data ``(rows, S)``.
        dirichlet: Entries with Dirichlet values.
        row: Places of the rows among those of the scan ``(rows,)``.
        panels: The scan of the data; one panel without.
        series: Their values.
        changes: Whether any of them change with time.
    """

    span: tuple[float, float]
    largest: float
    fixed: _Array
    column: _Array
    scale: _Array
    dirichlet: _Array
    row: _Array
    panels: Panels
    series: Series
    changes: bool


@compiled
def panel_of(first: _Array, low: _Array, row: Any, time: Any) -> int:
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
def locate(panels: Panels, rows: _Array, times: _Array) -> _Array:
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
def step_limits(panels: Panels, rows: _Array, times: _Array) -> _Array:
    """``step_limit`` of every row."""
    limits = np.empty(len(rows))
    for i in range(len(rows)):
        limits[i] = step_limit(panels, rows[i], times[i])
    return limits


@compiled
def steer(panels: Panels, rows: _Array, times: _Array, since: _Array, leftwards: bool) -> _Array:
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
def value_at(sampler: Sampler, row: Any, entry: int, time: Any) -> float:
    """Datum of a face of a side; NaN where the series does not hold."""
    column = sampler.column[entry]
    if column < 0:
        return sampler.fixed[row, entry]
    series = sampler.series
    piece = panel_of(series.first, series.low, sampler.row[row], time)
    low, high = series.low[piece], series.high[piece]
    x = 2.0 * (time - low) / (high - low) - 1.0
    return sampler.scale[row, entry] * _sum_of_series(series.coefficients[piece, column], x)


@compiled
def _sum_of_series(coefficients: _Array, x: float) -> float:
    """Σ cₖ Tₖ(x) by Clenshaw's recursion."""
    after, here = 0.0, 0.0
    for k in range(coefficients.shape[0] - 1, 0, -1):
        after, here = here, coefficients[k] + 2.0 * x * here - after
    return coefficients[0] + x * here - after


@compiled
def largest_step(sampler: Sampler, row: Any, time: Any) -> float:
    """Largest step that sees the data and does not pass a break point or the end."""
    return min(step_limit(sampler.panels, sampler.row[row], time), sampler.largest)


@compiled
def may_jump(sampler: Sampler, row: Any, time: Any) -> bool:
    """Whether the data may jump at a time."""
    panels = sampler.panels
    if not panels.has_breaks:
        return False
    place = sampler.row[row]
    for end in range(2):
        if panels.jumps_at_ends[place, end] and abs(time - sampler.span[end]) <= panels.margin:
            return True
    panel = panel_of(panels.first, panels.low, place, time + panels.margin)
    if panel == panels.first[place] or not panels.ends_at_break[panel - 1]:
        return False
    return abs(time - panels.low[panel]) <= panels.margin


@compiled
def fit_series(values: _Array, checks: _Array, matrix: _Array, at: _Array, scale: _Array) -> _Array:
    """Coefficients ``(pieces, columns, terms)`` of the polynomials through values; NaN where checks refute them.

    Args:
        values: Values at Chebyshev's points ``(pieces, terms, columns)``.
        checks: Values at other points ``(pieces, k, columns)``.
        matrix: From values to coefficients ``(terms, terms)``.
        at: The other points ``(k,)``, within [−1, 1].
        scale: Deviation and size of the data ``(pieces, 2, columns)``, which the allowed difference is relative to.
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
                    series[:] = np.nan
                    break
    return coefficients
