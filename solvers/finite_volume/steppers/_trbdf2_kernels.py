"""Compiled steps of TR-BDF2 for diffusion along one axis: many rows from output to output, each with steps of its own.

Eight rows go side by side through the stages of their steps; a lane whose row has reached the last output takes the
next row. The arithmetic is that of ``TRBDF2.step`` and ``drive``, which take the steps that are not taken here.
"""

from typing import Any, Final, NamedTuple

import numpy as np

from solvers._compiled import compiled
from solvers.finite_volume.diffusion._lanes import WIDTH, broadcast
from solvers.finite_volume.diffusion._stage_kernels import (
    Medium,
    Stages,
    empty_stages,
    enter_medium,
    finish_stage,
    set_factor,
    solve_stage,
)
from solvers.finite_volume.sides._data_kernels import Sampler, value_at
from solvers.finite_volume.steppers import _lane_kernels as lanewise
from solvers.finite_volume.steppers._march_kernels import (
    Limits,
    March,
    Output,
    move_to_end,
    passes_output,
    planned_length,
    settle,
    write_outputs,
)
from solvers.finite_volume.steppers._row_kernels import allowed_error, control, range_of_data

_Array = np.ndarray

GAMMA: Final = 2.0 - 2.0**0.5
D: Final = 0.5 * GAMMA
W: Final = 2.0**0.5 / 4.0
ERROR: Final = (W - (1.0 - W) / 3.0, W - (3.0 * W + 1.0) / 3.0, D - D / 3.0)
ORDER: Final = 3


class NewtonLimits(NamedTuple):
    """Allowed error of Newton's iteration relative to the spread of the solution and to that of a step; its length."""

    spread: float
    tolerance: float
    iterations: int


class _Cells(NamedTuple):
    """States and rates of a step, interleaved ``(n width,)``."""

    now: _Array
    earlier: _Array
    middle: _Array
    end: _Array
    first: _Array
    second: _Array
    third: _Array


class _Lanes(NamedTuple):
    """What every lane knows of its row and its step: ``(width,)``, ``(2, width)`` or ``(3, width)``."""

    row: _Array
    length: _Array
    earlier_length: _Array
    range: _Array
    range_after: _Array
    mean: _Array
    factors: _Array
    data: _Array
    flux: _Array
    accepted: _Array
    stuck: _Array


def march(rows: March, medium: Medium, limits: tuple[Limits, NewtonLimits], sampler: Sampler, output: Output) -> None:
    """Takes steps until every row has reached the last output or must take its next step with more care.

    That is a step that starts or ends where data jump, one beyond the stretches where data are known, and one below the
    smallest length. One or two rows go one after the other, so that a single function compiles half of the code.
    """
    take = _march_lanes if rows.u.shape[0] > 2 else _march_singly
    take(rows, medium, limits, sampler, output)


@compiled
def _march_lanes(
    rows: March, medium: Medium, limits: tuple[Limits, NewtonLimits], sampler: Sampler, output: Output
) -> None:
    _march(rows, medium, limits, sampler, output, broadcast(1.0), WIDTH)


@compiled
def _march_singly(
    rows: March, medium: Medium, limits: tuple[Limits, NewtonLimits], sampler: Sampler, output: Output
) -> None:
    _march(rows, medium, limits, sampler, output, 1.0, 1)


@compiled(inline="always")
def _march(
    rows: March,
    medium: Medium,
    limits: tuple[Limits, NewtonLimits],
    sampler: Sampler,
    output: Output,
    one: Any,
    width: int,
) -> None:
    n, end = rows.u.shape[1], output.times[-1]
    cells, stages, lanes = _empty_cells(n, width), empty_stages(n, width), _empty_lanes(width)
    following = np.int64(0)  # a plain 0 compiles _fill twice, once for the constant
    while True:
        following = _fill(rows, medium, cells, stages, lanes, following, end, width)
        for lane in range(width):
            if lanes.row[lane] >= 0 and not _plan(rows, limits[0], sampler, lanes, end, lane):
                _leave(rows, cells, lanes, lane, width)
        if lanes.row.max() < 0:
            if following == rows.u.shape[0]:
                return
            continue
        ratio = _try_step(medium, limits, sampler, cells, stages, lanes, one, width)
        _judge(rows, output, cells, stages, lanes, ratio, width)
        lanewise.replace(lanes.accepted, cells.earlier, cells.now, one, width)
        lanewise.replace(lanes.accepted, cells.now, cells.end, one, width)
        lanewise.replace(lanes.accepted, cells.first, cells.third, one, width)
        for lane in range(width):
            row = lanes.row[lane]
            if row >= 0 and (lanes.stuck[lane] or not rows.time[row] < end):
                _leave(rows, cells, lanes, lane, width)


@compiled
def _empty_cells(n: int, width: int) -> _Cells:
    a = np.zeros((7, n * width))
    return _Cells(a[0], a[1], a[2], a[3], a[4], a[5], a[6])


@compiled
def _empty_lanes(width: int) -> _Lanes:
    return _Lanes(
        np.full(width, -1),
        np.zeros(width),
        np.zeros(width),
        np.zeros((2, width)),
        np.zeros((2, width)),
        np.zeros((3, width)),
        np.zeros((3, width)),
        np.zeros((3, width, 2)),
        np.zeros((3, 2, width)),
        np.zeros(width),
        np.zeros(width, np.bool_),
    )


@compiled
def _fill(
    rows: March, medium: Medium, cells: _Cells, stages: Stages, lanes: _Lanes, following: Any, end: float, width: int
) -> int:
    """Gives empty lanes the next rows that are not at the end; returns the row after them."""
    for lane in range(width):
        while lanes.row[lane] < 0 and following < rows.u.shape[0]:
            row = following
            following += 1
            if not rows.time[row] < end:
                continue
            lanes.row[lane], lanes.earlier_length[lane], lanes.stuck[lane] = row, rows.earlier_length[row], False
            enter_medium(stages, medium, row, lane, width)
            lanewise.put_row(rows.u[row], cells.now, lane, width)
            lanewise.put_row(rows.earlier[row], cells.earlier, lane, width)
            lanewise.put_row(rows.rate[row], cells.first, lane, width)
            lanes.flux[0, :, lane] = rows.flow[row]
            lanes.range[0, lane], lanes.range[1, lane] = rows.u[row].min(), rows.u[row].max()
    return following


@compiled
def _leave(rows: March, cells: _Cells, lanes: _Lanes, lane: int, width: int) -> None:
    """Writes the state of a lane back to its row and empties the lane."""
    row = lanes.row[lane]
    lanewise.get_row(cells.now, lane, width, rows.u[row])
    lanewise.get_row(cells.earlier, lane, width, rows.earlier[row])
    lanewise.get_row(cells.first, lane, width, rows.rate[row])
    rows.flow[row] = lanes.flux[0, :, lane]
    rows.earlier_length[row] = lanes.earlier_length[lane]
    lanes.row[lane] = -1


@compiled
def _plan(rows: March, limits: Limits, sampler: Sampler, lanes: _Lanes, end: float, lane: int) -> bool:
    """Chooses the step of a lane and samples the data; False if it must be taken with more care."""
    row = lanes.row[lane]
    time, length = rows.time[row], planned_length(rows, limits, sampler, row, end)
    if np.isnan(length):
        return False
    lanes.length[lane] = length
    for side in range(2):
        lanes.data[0, lane, side] = rows.data[row, side]
        lanes.data[1, lane, side] = value_at(sampler, row, side, time + GAMMA * length)
        lanes.data[2, lane, side] = value_at(sampler, row, side, time + length)
    return not np.isnan(lanes.data[1:, lane].sum())


@compiled(inline="always")
def _try_step(
    medium: Medium,
    limits: tuple[Limits, NewtonLimits],
    sampler: Sampler,
    cells: _Cells,
    stages: Stages,
    lanes: _Lanes,
    one: Any,
    width: int,
) -> _Array:
    """Both stages of a step of every lane; the ratios of estimated and allowed error ``(width,)``."""
    n = cells.now.shape[0] // width
    u, right, factor, ratio = stages.tile[0], stages.tile[1], lanes.mean[0], lanes.mean[1]
    length, inside = lanes.length, u[width : (n + 1) * width]
    dirichlet, iterations = range_of_data(lanes.data, sampler.dirichlet), limits[1].iterations
    _allow(limits, cells, stages, lanes, dirichlet, one, width)
    for lane in range(width):
        stages.s[lane] = D * length[lane]
        stages.iterations[lane], stages.open[lane] = 0, lanes.row[lane] >= 0
        factor[lane] = D * length[lane]
        ratio[lane] = GAMMA * length[lane] / lanes.earlier_length[lane] if lanes.earlier_length[lane] > 0.0 else 0.0
    set_factor(stages, one, width)
    lanewise.combine(right, cells.now, cells.first, factor, one, width)
    lanewise.extrapolate(inside, cells.earlier, cells.now, ratio, one, width)
    solve_stage(stages, medium, lanes.data[1], iterations, one, width)
    finish_stage(stages, medium, lanes.data[1], (cells.middle, cells.second, lanes.flux[1]), one, width)
    for lane in range(width):
        stages.open[lane] = stages.converged[lane]
        factor[lane], ratio[lane] = W * length[lane], 1.0 / GAMMA - 1.0
    lanewise.combine(right, cells.now, cells.first, factor, one, width)
    lanewise.combine(right, right, cells.second, factor, one, width)
    lanewise.extrapolate(inside, cells.now, cells.middle, ratio, one, width)
    solve_stage(stages, medium, lanes.data[2], iterations, one, width)
    finish_stage(stages, medium, lanes.data[2], (cells.end, cells.third, lanes.flux[2]), one, width)
    return _ratios(limits[0], cells, stages, lanes, dirichlet, one, width)


@compiled
def _allow(
    limits: tuple[Limits, NewtonLimits],
    cells: _Cells,
    stages: Stages,
    lanes: _Lanes,
    dirichlet: _Array,
    one: Any,
    width: int,
) -> None:
    """Sets the allowed error of Newton's iteration."""
    tolerances, newton = limits
    for lane in range(width):
        lanes.factors[0, lane], lanes.factors[1, lane], lanes.factors[2, lane] = lanes.length[lane], 0.0, 0.0
    mean = lanes.mean[2]
    lanewise.mean_magnitude((cells.first, cells.first, cells.first), lanes.factors, mean, one, width)
    allowed = allowed_error(lanes.range, lanes.range, dirichlet, newton.spread, tolerances.atol)
    for lane in range(width):
        stages.allowed[lane] = newton.tolerance * max(allowed[lane], newton.spread * mean[lane])


@compiled
def _ratios(
    limits: Limits, cells: _Cells, stages: Stages, lanes: _Lanes, dirichlet: _Array, one: Any, width: int
) -> _Array:
    """Estimated over allowed errors ``(width,)``."""
    for lane in range(width):
        for k in range(3):
            lanes.factors[k, lane] = ERROR[k] * lanes.length[lane]
    mean = lanes.mean[2]
    lanewise.mean_magnitude((cells.first, cells.second, cells.third), lanes.factors, mean, one, width)
    lanewise.range_of_lanes(cells.end, lanes.range_after, one, width)
    allowed = allowed_error(lanes.range, lanes.range_after, dirichlet, limits.tolerance, limits.atol)
    ratio = np.empty(width)
    for lane in range(width):
        ratio[lane] = 0.0 if mean[lane] == 0.0 else mean[lane] / allowed[lane]
        if not stages.converged[lane]:
            ratio[lane] = np.inf
    return ratio


@compiled(inline="always")
def _judge(
    rows: March, output: Output, cells: _Cells, stages: Stages, lanes: _Lanes, ratio: _Array, width: int
) -> None:
    """Accepts or rejects the step of every lane, writes outputs and proposes the next steps."""
    failed = np.zeros(width, np.bool_)
    for lane in range(width):
        failed[lane] = lanes.row[lane] >= 0 and rows.failed[lanes.row[lane]]
    accepted, factor = control(ratio, ORDER, failed)
    for lane in range(width):
        row, length = lanes.row[lane], lanes.length[lane]
        lanes.accepted[lane] = 1.0 if row >= 0 and accepted[lane] else 0.0
        if row < 0:
            continue
        verdict = accepted[lane], factor[lane]
        lanes.stuck[lane] = settle(rows, row, verdict, length, stages.iterations[lane], output.times[-1])
        if accepted[lane]:
            _accept(rows, output, cells, lanes, lane, width)


@compiled(inline="always")
def _accept(rows: March, output: Output, cells: _Cells, lanes: _Lanes, lane: int, width: int) -> None:
    """Moves the row of a lane to the end of its step, but for its cells."""
    row, length = lanes.row[lane], lanes.length[lane]
    step, middle = np.zeros(3), np.zeros(3)
    for side in range(2):
        first, second, third = lanes.flux[0, side, lane], lanes.flux[1, side, lane], lanes.flux[2, side, lane]
        step[side] = length * ((W * first + W * second) + D * third)
        middle[side] = length * (D * first + D * second)
        data = lanes.data[:, lane, side]
        rows.sampled[row, side] += length * (W * (data[0] + data[1]) + D * data[2])
        rows.data[row, side] = data[2]
    if passes_output(rows, output, row, length):
        states = np.empty((3, rows.u.shape[1]))
        lanewise.get_row(cells.now, lane, width, states[0])
        lanewise.get_row(cells.middle, lane, width, states[1])
        lanewise.get_row(cells.end, lane, width, states[2])
        write_outputs(rows, output, states, (middle, step), (length, GAMMA), row)
    move_to_end(rows, step, length, row, output.times[-1])
    lanes.earlier_length[lane] = length
    lanes.flux[0, :, lane] = lanes.flux[2, :, lane]
    lanes.range[:, lane] = lanes.range_after[:, lane]
