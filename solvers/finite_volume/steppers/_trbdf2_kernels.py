"""Compiled steps of TR-BDF2 for diffusion along one axis: many rows from output to output, each with steps of its own.

Eight rows go side by side through the stages of their steps; a lane whose row has reached the last output takes the
next row. The arithmetic is that of ``TRBDF2.step`` and ``drive``, which take the steps that are not taken here.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit

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
from solvers.finite_volume.sides._data_kernels import Sampler, largest_step, may_jump, value_at
from solvers.finite_volume.steppers import _lane_kernels as lanewise
from solvers.finite_volume.steppers._output_kernels import keep_to_range
from solvers.finite_volume.steppers._row_kernels import (
    allowed_error,
    control,
    end_of_step,
    landing,
    next_proposal,
    passed,
    range_of_data,
    record,
    smallest_step,
)

_Array = np.ndarray

GAMMA: Final = 2.0 - 2.0**0.5
D: Final = 0.5 * GAMMA
W: Final = 2.0**0.5 / 4.0
ERROR: Final = (W - (1.0 - W) / 3.0, W - (3.0 * W + 1.0) / 3.0, D - D / 3.0)
ORDER: Final = 3


class March(NamedTuple):
    """Rows under way, all changed in place.

    Attributes:
        u: Cell averages ``(rows, n)``.
        earlier: State before the last step ``(rows, n)``.
        earlier_length: Length of that step ``(rows,)``.
        rate: Rates at the present state ``(rows, n)``.
        flow: Fluxes through the sides at the present state ``(rows, 2)``.
        data: Data of the sides at the present time ``(rows, 2)``.
        time: Present times ``(rows,)``.
        proposal: Proposed steps ``(rows,)``.
        failed: Whether the last trial step failed ``(rows,)``.
        cursor: Next output ``(rows,)``.
        account: Time-integrated fluxes through the sides, and of sources ``(rows, 3)``.
        sampled: Time integrals of the data as the steps sampled them ``(rows, 2)``.
        work: Accepted and rejected steps and iterations ``(rows, 3)``.
    """

    u: _Array
    earlier: _Array
    earlier_length: _Array
    rate: _Array
    flow: _Array
    data: _Array
    time: _Array
    proposal: _Array
    failed: _Array
    cursor: _Array
    account: _Array
    sampled: _Array
    work: _Array


class Output(NamedTuple):
    """Output times ``(t,)``, values ``(all rows, t, n)`` and account ``(all rows, t, 3)``, and the rows' places."""

    times: _Array
    values: _Array
    account: _Array
    place: _Array


class Limits(NamedTuple):
    """Tolerances and largest step of the stepper, and of Newton's iteration the tolerance and the most iterations."""

    tolerance: float
    atol: float
    largest_step: float
    newton_spread: float
    newton: float
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


@njit(cache=True, nogil=True, error_model="numpy")
def march(rows: March, medium: Medium, limits: Limits, sampler: Sampler, output: Output) -> None:
    """Takes steps until every row has reached the last output or must take its next step with more care.

    That is a step that starts or ends where data jump, one beyond the stretches where data are known, and one below the
    smallest length.
    """
    if rows.u.shape[0] > 2:
        _march(rows, medium, limits, sampler, output, broadcast(1.0), WIDTH)
    else:
        _march(rows, medium, limits, sampler, output, 1.0, 1)


@njit(cache=True, nogil=True, error_model="numpy")
def _march(rows: March, medium: Medium, limits: Limits, sampler: Sampler, output: Output, one: Any, width: int) -> None:
    n, end = rows.u.shape[1], output.times[-1]
    cells, stages, lanes = _empty_cells(n, width), empty_stages(n, width), _empty_lanes(width)
    following = 0
    while True:
        following = _fill(rows, medium, cells, stages, lanes, following, end, width)
        for lane in range(width):
            if lanes.row[lane] >= 0 and not _plan(rows, limits, sampler, lanes, end, lane):
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


@njit(cache=True, nogil=True, error_model="numpy")
def _empty_cells(n: int, width: int) -> _Cells:
    a = np.zeros((7, n * width))
    return _Cells(a[0], a[1], a[2], a[3], a[4], a[5], a[6])


@njit(cache=True, nogil=True, error_model="numpy")
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


@njit(cache=True, nogil=True, error_model="numpy")
def _fill(
    rows: March, medium: Medium, cells: _Cells, stages: Stages, lanes: _Lanes, following: int, end: float, width: int
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


@njit(cache=True, nogil=True, error_model="numpy")
def _leave(rows: March, cells: _Cells, lanes: _Lanes, lane: int, width: int) -> None:
    """Writes the state of a lane back to its row and empties the lane."""
    row = lanes.row[lane]
    lanewise.get_row(cells.now, lane, width, rows.u[row])
    lanewise.get_row(cells.earlier, lane, width, rows.earlier[row])
    lanewise.get_row(cells.first, lane, width, rows.rate[row])
    rows.flow[row] = lanes.flux[0, :, lane]
    rows.earlier_length[row] = lanes.earlier_length[lane]
    lanes.row[lane] = -1


@njit(cache=True, nogil=True, error_model="numpy")
def _plan(rows: March, limits: Limits, sampler: Sampler, lanes: _Lanes, end: float, lane: int) -> bool:
    """Chooses the step of a lane and samples the data; False if it must be taken with more care."""
    row = lanes.row[lane]
    time = rows.time[row]
    proposal = min(min(rows.proposal[row], limits.largest_step), largest_step(sampler, row, time))
    length = landing(proposal, end - time)
    if may_jump(sampler, row, time) or may_jump(sampler, row, time + length):
        return False
    lanes.length[lane] = length
    for side in range(2):
        lanes.data[0, lane, side] = rows.data[row, side]
        lanes.data[1, lane, side] = value_at(sampler, row, side, time + GAMMA * length)
        lanes.data[2, lane, side] = value_at(sampler, row, side, time + length)
    return not np.isnan(lanes.data[1:, lane].sum())


@njit(cache=True, nogil=True, error_model="numpy")
def _try_step(
    medium: Medium, limits: Limits, sampler: Sampler, cells: _Cells, stages: Stages, lanes: _Lanes, one: Any, width: int
) -> _Array:
    """Both stages of a step of every lane; the ratios of estimated and allowed error ``(width,)``."""
    n = cells.now.shape[0] // width
    u, right, factor, ratio = stages.tile[0], stages.tile[1], lanes.mean[0], lanes.mean[1]
    length, inside = lanes.length, u[width : (n + 1) * width]
    dirichlet = range_of_data(lanes.data, sampler.dirichlet)
    _allow(limits, cells, stages, lanes, dirichlet, one, width)
    for lane in range(width):
        stages.s[lane] = D * length[lane]
        stages.iterations[lane], stages.open[lane] = 0, lanes.row[lane] >= 0
        factor[lane] = D * length[lane]
        ratio[lane] = GAMMA * length[lane] / lanes.earlier_length[lane] if lanes.earlier_length[lane] > 0.0 else 0.0
    set_factor(stages, one, width)
    lanewise.combine(right, cells.now, cells.first, factor, one, width)
    lanewise.extrapolate(inside, cells.earlier, cells.now, ratio, one, width)
    solve_stage(stages, medium, lanes.data[1], limits.iterations, one, width)
    finish_stage(stages, medium, lanes.data[1], (cells.middle, cells.second, lanes.flux[1]), one, width)
    for lane in range(width):
        stages.open[lane] = stages.converged[lane]
        factor[lane], ratio[lane] = W * length[lane], 1.0 / GAMMA - 1.0
    lanewise.combine(right, cells.now, cells.first, factor, one, width)
    lanewise.combine(right, right, cells.second, factor, one, width)
    lanewise.extrapolate(inside, cells.now, cells.middle, ratio, one, width)
    solve_stage(stages, medium, lanes.data[2], limits.iterations, one, width)
    finish_stage(stages, medium, lanes.data[2], (cells.end, cells.third, lanes.flux[2]), one, width)
    return _ratios(limits, cells, stages, lanes, dirichlet, one, width)


@njit(cache=True, nogil=True, error_model="numpy")
def _allow(
    limits: Limits, cells: _Cells, stages: Stages, lanes: _Lanes, dirichlet: _Array, one: Any, width: int
) -> None:
    """Sets the allowed error of Newton's iteration."""
    for lane in range(width):
        lanes.factors[0, lane], lanes.factors[1, lane], lanes.factors[2, lane] = lanes.length[lane], 0.0, 0.0
    mean = lanes.mean[2]
    lanewise.mean_magnitude((cells.first, cells.first, cells.first), lanes.factors, mean, one, width)
    allowed = allowed_error(lanes.range, lanes.range, dirichlet, limits.newton_spread, limits.atol)
    for lane in range(width):
        stages.allowed[lane] = limits.newton * max(allowed[lane], limits.newton_spread * mean[lane])


@njit(cache=True, nogil=True, error_model="numpy")
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


@njit(cache=True, nogil=True, error_model="numpy")
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
        rows.work[row, 0 if accepted[lane] else 1] += 1
        rows.work[row, 2] += stages.iterations[lane]
        rows.proposal[row] = next_proposal(accepted[lane], factor[lane], length, rows.proposal[row])
        rows.failed[row] = not accepted[lane]
        lanes.stuck[lane] = not accepted[lane] and factor[lane] * length < smallest_step(
            rows.time[row], output.times[-1]
        )
        if accepted[lane]:
            _accept(rows, output, cells, lanes, lane, width)


@njit(cache=True, nogil=True, error_model="numpy")
def _accept(rows: March, output: Output, cells: _Cells, lanes: _Lanes, lane: int, width: int) -> None:
    """Moves the row of a lane to the end of its step, but for its cells."""
    row, length = lanes.row[lane], lanes.length[lane]
    start = rows.time[row]
    finish = end_of_step(start, length, output.times[-1])
    step, middle = np.zeros(3), np.zeros(3)
    for side in range(2):
        first, second, third = lanes.flux[0, side, lane], lanes.flux[1, side, lane], lanes.flux[2, side, lane]
        step[side] = length * ((W * first + W * second) + D * third)
        middle[side] = length * (D * first + D * second)
        data = lanes.data[:, lane, side]
        rows.sampled[row, side] += length * (W * (data[0] + data[1]) + D * data[2])
        rows.data[row, side] = data[2]
    if passed(output.times, rows.cursor[row : row + 1], np.full(1, finish))[0] > rows.cursor[row]:
        _write(rows, output, cells, (start, finish), (step, middle), row, lane, width)
    rows.account[row] += step
    rows.time[row], lanes.earlier_length[lane] = finish, length
    lanes.flux[0, :, lane] = lanes.flux[2, :, lane]
    lanes.range[:, lane] = lanes.range_after[:, lane]


@njit(cache=True, nogil=True, error_model="numpy")
def _write(
    rows: March,
    output: Output,
    cells: _Cells,
    interval: tuple[Any, float],
    account: tuple[_Array, _Array],
    row: int,
    lane: int,
    width: int,
) -> None:
    """Writes the outputs that a step passes, along a parabola through its three states."""
    start, finish = interval
    states = np.empty((3, rows.u.shape[1]))
    for k in range(3):
        lanewise.get_row((cells.now, cells.middle, cells.end)[k], lane, width, states[k])
    curve = GAMMA * (1.0 - GAMMA)
    bow = ((states[1] - states[0]) - GAMMA * (states[2] - states[0])) / curve
    span = np.full(1, start), np.full(1, finish - start)
    plan = output.place[row : row + 1], rows.cursor[row : row + 1].copy(), np.ones(1, np.bool_), output.times
    record(output.values, states[:1], states[2:], bow.reshape(1, -1), span, plan)
    before = rows.account[row : row + 1]
    curved = ((account[1] - GAMMA * account[0]) / curve).reshape(1, -1)
    record(output.account, before, before + account[0], curved, span, plan)
    ends = np.array([[states.min()], [states.max()]])
    keep_to_range(output.values, ends, np.full(1, finish), plan)
    rows.cursor[row] = passed(output.times, plan[1], np.full(1, finish))[0]
