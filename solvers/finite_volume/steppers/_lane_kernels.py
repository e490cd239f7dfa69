"""Compiled loops over rows side by side, interleaved as ``(cells, width)``: combinations, ranges and means.

Each does in every lane what its namesake in ``_row_kernels`` does in every row. ``one`` is 1.0, or eight of them, as in
``_lanes``; factors and results hold one number per lane.
"""

from typing import Any

import numpy as np

from solvers._compiled import inner
from solvers.finite_volume.diffusion._lanes import larger, load, magnitude, pick, smaller, store

_Array = np.ndarray


@inner
def combine(out: _Array, base: _Array, rates: _Array, factors: _Array, count: int, one: Any, width: int) -> None:
    """base + Σ cₖ fₖ of the first rates, over ``out``; rates and factors stand one after the other."""
    size = base.shape[0]
    for at in range(0, size, width):
        total = load(base, at, one)
        for k in range(count):
            total = total + load(factors, k * width, one) * load(rates, k * size + at, one)
        store(out, at, total)


@inner
def extrapolate(out: _Array, before: _Array, now: _Array, ratio: _Array, one: Any, width: int) -> None:
    """now + ratio · (now − before), over ``out``."""
    c = load(ratio, 0, one)
    for at in range(0, now.shape[0], width):
        here = load(now, at, one)
        store(out, at, here + c * (here - load(before, at, one)))


@inner
def range_of_lanes(u: _Array, ends: _Array, one: Any, width: int) -> None:
    """Smallest and largest value of every lane ``(2, width)``; NaN if one is not finite."""
    low, high, total = load(u, 0, one), load(u, 0, one), one - one
    for at in range(0, u.shape[0], width):
        here = load(u, at, one)
        low, high, total = smaller(low, here), larger(high, here), total + here
    store(ends[0], 0, low)
    store(ends[1], 0, high)
    totals = np.empty(width)
    store(totals, 0, total)
    for lane in range(width):
        if not np.isfinite(totals[lane]):
            ends[0, lane], ends[1, lane] = np.nan, np.nan


@inner
def mean_magnitude(rate: _Array, factor: _Array, mean: _Array, one: Any, width: int) -> None:
    """Mean |c f| over the cells."""
    c, total = load(factor, 0, one), one - one
    for at in range(0, rate.shape[0], width):
        total = total + magnitude(c * load(rate, at, one))
    store(mean, 0, total)
    for lane in range(width):
        mean[lane] /= rate.shape[0] // width


@inner
def replace(mark: _Array, now: _Array, after: _Array, one: Any, width: int) -> None:
    """Overwrites the lanes whose mark is positive."""
    chosen = load(mark, 0, one)
    for at in range(0, now.shape[0], width):
        store(now, at, pick(chosen, load(after, at, one), load(now, at, one)))


@inner
def put_row(row: _Array, lanes: _Array, lane: int, width: int) -> None:
    """Writes a row to a lane."""
    for i in range(row.shape[0]):
        lanes[i * width + lane] = row[i]


@inner
def get_row(lanes: _Array, lane: int, width: int, row: _Array) -> None:
    """Copies a lane to a row."""
    for i in range(row.shape[0]):
        row[i] = lanes[i * width + lane]
