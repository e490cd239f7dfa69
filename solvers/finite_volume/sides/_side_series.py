"""Side data that change with time as Chebyshev series, for compiled steps that cannot call the user's function.

Every panel of the scan becomes a piece with a polynomial through 16 values, which 17 more values of the function must
confirm to 10⁻¹² of its deviation from the middle of its range. A piece that they refute is divided once: towards its
start, by halves, if a function with a root or a jump may begin there, else into equal parts. Where a part is refuted
again the function has no series, and steps ask the function itself.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from solvers.finite_volume.sides._data_kernels import TERMS, Series, fit_series

Array = np.ndarray
Evaluate = Callable[[Array], Array]

_ANGLES = np.pi * (np.arange(TERMS) + 0.5) / TERMS
_POINTS = np.cos(_ANGLES)
_MATRIX = 2.0 / TERMS * np.cos(np.arange(TERMS)[:, None] * _ANGLES)
_MATRIX[0] *= 0.5
_CHECKS = np.concatenate(([-0.999], np.cos(np.pi * np.arange(TERMS - 1, 0, -1) / TERMS), [0.999]))
_HALVINGS, _PARTS = 16, 4


def series_of(evaluate: Evaluate, first: Array, low: Array, high: Array, starts: Array) -> Series:
    """Series of the data on panels, as in ``Panels``, and, where they need it, on parts of them.

    ``evaluate`` gives values ``(k, rows, columns)`` at times ``(k, rows)``; ``starts`` says whether the span or a
    stretch between break points begins with the panel.
    """
    row = np.repeat(np.arange(len(first) - 1), np.diff(first))
    values, checks = _values(evaluate, first, row, low, high)
    scale = _scale(first, values)
    coefficients = fit_series(values, checks, _MATRIX, _CHECKS, scale[row])
    refuted = np.isnan(coefficients.sum(axis=(1, 2)))
    if not refuted.any():
        return Series(first, low, high, coefficients)
    part_row, part_low, part_high = _parts(row, low, high, starts, refuted)
    order = np.lexsort((part_low, part_row))
    part_row, part_low, part_high = part_row[order], part_low[order], part_high[order]
    part_first = np.searchsorted(part_row, np.arange(len(first)))
    finer = _values(evaluate, part_first, part_row, part_low, part_high)
    more = fit_series(*finer, _MATRIX, _CHECKS, scale[part_row])
    kept = ~refuted
    row, low, high = (
        np.concatenate((part[kept], new)) for part, new in ((row, part_row), (low, part_low), (high, part_high))
    )
    order = np.lexsort((low, row))
    coefficients = np.concatenate((coefficients[kept], more))[order]
    return Series(np.searchsorted(row[order], np.arange(len(first))), low[order], high[order], coefficients)


def _values(evaluate: Evaluate, first: Array, row: Array, low: Array, high: Array) -> tuple[Array, Array]:
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
