"""Rows side by side in compiled implicit steps, interleaved as ``(cells, width)``: what lanes hold, and loops over all.

``one`` is 1.0, or eight of them, as in ``_lanes``; factors and results hold one number per lane.
"""

from typing import Any, NamedTuple

import numpy as np

from solvers._compiled import inner
from solvers.finite_volume._kernels import Array
from solvers.finite_volume.diffusion._lanes import larger, load, magnitude, pick, smaller, store
from solvers.finite_volume.diffusion._newton_kernels import Medium, Tile, enter_medium
from solvers.finite_volume.steppers import _march_kernels as march
from solvers.finite_volume.steppers._march_kernels import March


class Cells(NamedTuple):
    """States of a step, interleaved ``(n width,)``, and implicit rates and the ``rest`` of all stages, one by one."""

    now: Array
    earlier: Array
    middle: Array
    end: Array
    rates: Array
    rest: Array


class Lanes(NamedTuple):
    """What every lane knows of its row and its step: ``(width,)``, or with that as the last axis but for ``data``.

    ``flow`` holds fluxes through the sides and the integral of the source at the stages ``(s, 2d + 1, width)``, and
    ``rest`` those of the explicit terms, and their speed; ``seen`` is the range of all states so far. For the kernel of
    stages, ``report`` has row, time, whether there is a row, s, allowed error, convergence, iterations, residual, flow.
    """

    row: Array
    length: Array
    earlier_length: Array
    range: Array
    range_after: Array
    seen: Array
    mean: Array
    factors: Array
    weights: Array
    ratio: Array
    data: Array
    flow: Array
    rest: Array
    report: Array
    mark: Array
    most: Array
    moments: Array
    found: Array
    fresh: Array
    converged: Array


@inner
def empty_cells(n: int, width: int, stages: int, more: bool) -> Cells:
    size, a = n * width, np.zeros((4, n * width))
    return Cells(a[0], a[1], a[2], a[3], np.zeros(stages * size), np.zeros(stages * size if more else 0))


@inner
def empty_lanes(width: int, stages: int, data: int, flows: int) -> Lanes:
    a, factors = np.zeros((4, width)), np.zeros(stages * width)
    ranges, marks, weights = np.zeros((3, 2, width)), np.zeros((2, width), np.bool_), np.zeros(stages)
    lanes = np.full(width, -1), np.ones(width), a[0], ranges[0], ranges[1], ranges[2], a[1], factors, weights, a[2]
    flow, rest = np.zeros((stages, flows, width)), np.zeros((stages, flows + 1, width))
    report = np.zeros((8 + flows, width))
    most = np.zeros(2 * width)
    for lane in range(width):
        most[lane] = np.inf
    others = a[3], most, np.zeros(3 * width), np.zeros(width * data), marks[0], marks[1]
    return Lanes(*lanes, np.zeros((stages, width, data)), flow, rest, report, *others)


@inner
def fill(
    rows: March, medium: Medium, cells: Cells, tile: Tile, lanes: Lanes, following: Any, end: float, width: int
) -> int:
    """Gives empty lanes the next rows that are not at the end; returns the row after them."""
    flows = rows.flow.shape[1]
    for lane in range(width):
        while lanes.row[lane] < 0 and following < rows.u.shape[0]:
            row = following
            following += 1
            if not rows.state[row, march.TIME] < end or rows.state[row, march.VERDICT] != march.RUNNING:
                continue
            lanes.row[lane], lanes.earlier_length[lane] = row, rows.state[row, march.EARLIER]
            tile.info[lane], tile.info[2 * width + lane] = row, 1.0
            if flows == 3:
                enter_medium(tile, medium, row, lane, width)
            put_row(rows.u[row], cells.now, lane, width)
            put_row(rows.earlier[row], cells.earlier, lane, width)
            put_row(rows.rate[row], cells.rates, lane, width)
            for k in range(flows):
                lanes.flow[0, k, lane] = rows.flow[row, k]
            low, high = rows.u[row, 0], rows.u[row, 0]
            for i in range(rows.u.shape[1]):
                low, high = min(low, rows.u[row, i]), max(high, rows.u[row, i])
            lanes.range[0, lane], lanes.range[1, lane] = low, high
            lanes.seen[0, lane], lanes.seen[1, lane] = (
                min(rows.state[row, march.LOWEST], low),
                max(rows.state[row, march.HIGHEST], high),
            )
    return following


@inner
def leave(rows: March, cells: Cells, tile: Tile, lanes: Lanes, lane: int, width: int) -> None:
    """Writes the state of a lane back to its row and empties the lane."""
    row = lanes.row[lane]
    get_row(cells.now, lane, width, rows.u[row])
    get_row(cells.earlier, lane, width, rows.earlier[row])
    get_row(cells.rates, lane, width, rows.rate[row])
    for k in range(rows.flow.shape[1]):
        rows.flow[row, k] = lanes.flow[0, k, lane]
    rows.state[row, march.LOWEST], rows.state[row, march.HIGHEST] = lanes.seen[0, lane], lanes.seen[1, lane]
    rows.state[row, march.EARLIER] = lanes.earlier_length[lane]
    lanes.row[lane], tile.info[2 * width + lane] = -1, 0.0


@inner
def combine(out: Array, base: Array, rates: Array, factors: Array, count: int, one: Any, width: int) -> None:
    """base + Σ cₖ fₖ of the first rates, over ``out``; rates and factors stand one after the other."""
    size = base.shape[0]
    for at in range(0, size, width):
        total = load(base, at, one)
        for k in range(count):
            total = total + load(factors, k * width, one) * load(rates, k * size + at, one)
        store(out, at, total)


@inner
def extrapolate(out: Array, before: Array, now: Array, ratio: Array, one: Any, width: int) -> None:
    """now + ratio · (now − before), over ``out``."""
    c = load(ratio, 0, one)
    for at in range(0, now.shape[0], width):
        here = load(now, at, one)
        store(out, at, here + c * (here - load(before, at, one)))


@inner
def range_of_lanes(u: Array, ends: Array, one: Any, width: int) -> None:
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
def mean_magnitude(rate: Array, factor: Array, mean: Array, one: Any, width: int) -> None:
    """Mean |c f| over the cells."""
    c, total = load(factor, 0, one), one - one
    for at in range(0, rate.shape[0], width):
        total = total + magnitude(c * load(rate, at, one))
    store(mean, 0, total)
    for lane in range(width):
        mean[lane] /= rate.shape[0] // width


@inner
def replace(mark: Array, now: Array, after: Array, one: Any, width: int) -> None:
    """Overwrites the lanes whose mark is positive."""
    chosen = load(mark, 0, one)
    for at in range(0, now.shape[0], width):
        store(now, at, pick(chosen, load(after, at, one), load(now, at, one)))


@inner
def put_row(row: Array, lanes: Array, lane: int, width: int) -> None:
    """Writes a row to a lane."""
    for i in range(row.shape[0]):
        lanes[i * width + lane] = row[i]


@inner
def get_row(lanes: Array, lane: int, width: int, row: Array) -> None:
    """Copies a lane to a row."""
    for i in range(row.shape[0]):
        row[i] = lanes[i * width + lane]
