"""Compiled implicit steps: many rows from output to output, each with steps of its own.

Eight rows go side by side through the stages of their steps; a lane whose row has reached the last output takes the
next row. Diffusion, and a source where it is stiff, are implicit. All else is explicit and enters by a kernel.

The schemes are diagonally implicit Runge–Kutta methods whose first stage is the start and whose last one is the end.
"""

from typing import Any, NamedTuple

import numpy as np

from solvers._compiled import compiled, inner
from solvers.finite_volume._kernels import Array, call
from solvers.finite_volume.diffusion._lanes import WIDTH, broadcast
from solvers.finite_volume.diffusion._newton_kernels import (
    Medium,
    Tile,
    empty_tile,
    finish_stage,
    linearise,
    solve_stage,
)
from solvers.finite_volume.steppers import _lane_kernels as lanewise
from solvers.finite_volume.steppers import _march_kernels as march
from solvers.finite_volume.steppers._lane_kernels import Cells, Lanes
from solvers.finite_volume.steppers._march_kernels import Limits, March, Output, Sides

BY_RATES = -1
_COURANT = 0.5


class Scheme(NamedTuple):
    """What a stepper says, with s stages.

    Attributes:
        implicit: Weights of the implicit rates in the stages ``(s, s)``; the last row is that of the step.
        explicit: Weights of the explicit rates ``(s, s)``.
        weights: Weights of the explicit rates in the step ``(s,)``.
        nodes: Times of the stages as fractions of the step ``(s,)``.
        error: Weights of the rates in the estimated error ``(s,)``.
        middle: Stage through which outputs are interpolated; 0 for none, ``BY_RATES`` for a cubic by the rates at both
            ends.
        order: Order of the error of a step.
        limits: Tolerances and largest step.
        spread: Tolerance that Newton's iteration goes by.
        newton: Its allowed error as a fraction of the allowed error of the step.
        iterations: Its largest number of iterations.
    """

    implicit: Array
    explicit: Array
    weights: Array
    nodes: Array
    error: Array
    middle: int
    order: int
    limits: Limits
    spread: float
    newton: float
    iterations: int


class Calls(NamedTuple):
    """Addresses of kernels, 0 where there is none.

    Attributes:
        rest: (u, info, rate, flow and speed ``(2d + 2, width)``, side data): all explicit terms.
        stage: (r, report, u, rate, side data): the solution of a stage in more than one axis, or with s = 0 the rate.
    """

    rest: int
    stage: int


def take_steps(
    rows: March, medium: Medium, scheme: Scheme, calls: Calls, sides: Sides, output: Output, budget: int
) -> None:
    """Takes steps until every row has reached the last output or has failed, at most so many in every lane.

    One or two rows go one after the other, so that a single function compiles half of the code.
    """
    take = _take_in_lanes if rows.u.shape[0] > 2 and calls.stage == 0 else _take_singly
    take(rows, medium, (scheme, calls), sides, output, budget)


@compiled
def _take_in_lanes(rows: March, medium: Medium, way: Any, sides: Sides, output: Output, budget: int) -> None:
    _take_steps(rows, medium, way, sides, output, budget, broadcast(1.0), WIDTH)


@compiled
def _take_singly(rows: March, medium: Medium, way: Any, sides: Sides, output: Output, budget: int) -> None:
    _take_steps(rows, medium, way, sides, output, budget, 1.0, 1)


@compiled(inline="always")
def _take_steps(
    rows: March, medium: Medium, way: Any, sides: Sides, output: Output, budget: int, one: Any, width: int
) -> None:
    scheme, calls = way
    n, end, stages = rows.u.shape[1], output.times[-1], scheme.nodes.shape[0]
    size = n * width
    cells, tile = lanewise.empty_cells(n, width, stages, calls.rest != 0), empty_tile(n, width)
    lanes = lanewise.empty_lanes(width, stages, rows.data.shape[1], rows.account.shape[1])
    following = np.int64(0)  # a plain 0 compiles _fill twice, once for the constant
    while budget > 0:
        following = lanewise.fill(rows, medium, cells, tile, lanes, following, end, width)
        if not _begin(rows, scheme, calls, sides, tile, lanes, end, width):
            return
        if calls.rest != 0:
            states = cells.now, tile.info, cells.rest, lanes.rest[0], lanes.data[0]
            call(calls.rest, states, (n, width))
            _limit_by_speed(lanes, width)
        _rates_at_start(medium, calls, cells, tile, lanes, one, width)
        dirichlet = _sample(rows, scheme, sides, tile, lanes, width)
        _allow(scheme, cells, tile, lanes, dirichlet, one, width)
        for stage in range(1, stages):
            _prepare(rows, way, stage, cells, tile, lanes, one, width)
            results = cells.end, cells.rates[stage * size : (stage + 1) * size], lanes.flow[stage]
            if calls.stage == 0:
                solve_stage(tile, medium, lanes.data[stage], scheme.iterations, one, width)
                finish_stage(tile, medium, results, one, width)
            else:
                _stage_by_kernel(calls, results, lanes.data[stage], tile, lanes)
            if calls.rest != 0 and (stage + 1 < stages or scheme.weights[stage] != 0.0):
                states = cells.end, tile.info, cells.rest[stage * size :], lanes.rest[stage], lanes.data[stage]
                call(calls.rest, states, (n, width))
            if stage == scheme.middle:
                for i in range(size):
                    cells.middle[i] = cells.end[i]
        _ratios(scheme, calls, cells, tile, lanes, dirichlet, one, width)
        _judge(rows, output, scheme, cells, tile, lanes, width)
        lanewise.replace(lanes.mark, cells.earlier, cells.now, one, width)
        lanewise.replace(lanes.mark, cells.now, cells.end, one, width)
        lanewise.replace(lanes.mark, cells.rates[:size], cells.rates[(stages - 1) * size :], one, width)
        budget -= 1
        for lane in range(width):
            row = lanes.row[lane]
            state = rows.state[max(row, 0)]
            stays = budget > 0 and state[march.VERDICT] == march.RUNNING and state[march.TIME] < end
            if row >= 0 and not stays:
                lanewise.leave(rows, cells, tile, lanes, lane, width)


@inner
def _begin(
    rows: March, scheme: Scheme, calls: Calls, sides: Sides, tile: Tile, lanes: Lanes, end: float, width: int
) -> bool:
    """Proposes lengths, finds the data at the start and marks lanes without rates; whether there are rows at all."""
    some, jumps = False, False
    if sides.kernel != 0:
        _look(rows, 0.0, sides, lanes, lanes.most, 0, width)
    for lane in range(width):
        row = lanes.row[lane]
        lanes.fresh[lane] = False
        if row < 0:
            continue
        some, jump = True, lanes.most[width + lane] > 0.0
        jumps = jumps or jump
        lanes.fresh[lane] = jump or rows.state[row, march.FRESH] > 0.0 or calls.rest != 0
        rows.state[row, march.FRESH] = 0.0
        longest = min(lanes.most[lane], scheme.limits.largest_step)
        lanes.length[lane] = march.proposed_length(rows.state[row], longest, end)
        tile.info[width + lane] = rows.state[row, march.TIME]
        for entry in range(lanes.data.shape[2]):
            lanes.data[0, lane, entry] = rows.data[row, entry]
    if jumps:
        _look(rows, 0.0, sides, lanes, lanes.found, lanes.data.shape[2], width)
        for lane in range(width):
            if lanes.most[width + lane] > 0.0:
                for entry in range(lanes.data.shape[2]):
                    lanes.data[0, lane, entry] = lanes.found[lane * lanes.data.shape[2] + entry]
    return some


@inner
def _look(rows: March, part: float, sides: Sides, lanes: Lanes, out: Array, entries: int, width: int) -> None:
    """Data at a part of the steps ``(width, entries)``; with no entries largest steps and jumps at their start."""
    for lane in range(width):
        row = max(lanes.row[lane], 0)
        lanes.moments[lane], lanes.moments[width + lane] = rows.state[row, march.TIME] + part * lanes.length[lane], row
        lanes.moments[2 * width + lane] = rows.state[row, march.TIME]
    moments = lanes.moments
    march.look(sides, moments, moments[width:], moments[2 * width :], out, width, entries)


@inner
def _limit_by_speed(lanes: Lanes, width: int) -> None:
    """Steps in which a signal crosses at most half a cell."""
    for lane in range(width):
        speed = lanes.rest[0, lanes.rest.shape[1] - 1, lane]
        if lanes.row[lane] >= 0 and speed > 0.0:
            lanes.length[lane] = min(lanes.length[lane], _COURANT / speed)


@inner
def _sample(rows: March, scheme: Scheme, sides: Sides, tile: Tile, lanes: Lanes, width: int) -> Array:
    """Data at the stages after the start; their range over Dirichlet sides ``(2, width)``."""
    for lane in range(width):
        tile.iterations[lane], lanes.converged[lane] = 0, lanes.row[lane] >= 0
    for k in range(1, scheme.nodes.shape[0]):
        if sides.kernel != 0:
            _look(rows, scheme.nodes[k], sides, lanes, lanes.found, lanes.data.shape[2], width)
        for lane in range(width):
            for entry in range(lanes.data.shape[2]):
                kept = lanes.data[0, lane, entry]
                lanes.data[k, lane, entry] = lanes.found[lane * lanes.data.shape[2] + entry] if sides.kernel else kept
    ends = np.empty((2, width))
    for lane in range(width):
        low, high = np.inf, -np.inf
        for k in range(lanes.data.shape[0]):
            for entry in sides.dirichlet:
                low, high = min(low, lanes.data[k, lane, entry]), max(high, lanes.data[k, lane, entry])
        ends[0, lane], ends[1, lane] = low, high
    return ends


@inner
def _rates_at_start(medium: Medium, calls: Calls, cells: Cells, tile: Tile, lanes: Lanes, one: Any, width: int) -> None:
    """Rates at the present states of the lanes that have none."""
    some = False
    for lane in range(width):
        some = some or lanes.fresh[lane]
        tile.s[lane], lanes.mark[lane] = 1.0 if calls.stage == 0 else 0.0, 1.0 if lanes.fresh[lane] else 0.0
    if not some:
        return
    for i in range(cells.now.shape[0]):
        tile.u[width + i], tile.delta[i], tile.right[i] = cells.now[i], 0.0, 0.0
    size = cells.now.shape[0]
    results = cells.end, cells.rates[size : 2 * size], lanes.flow[1]
    if calls.stage != 0:
        _stage_by_kernel(calls, results, lanes.data[0], tile, lanes)
    else:
        linearise(tile, medium, lanes.data[0], one, width)
        finish_stage(tile, medium, results, one, width)
    lanewise.replace(lanes.mark, cells.rates[:size], cells.rates[size:], one, width)
    for lane in range(width):
        if lanes.fresh[lane]:
            for k in range(lanes.flow.shape[1]):
                lanes.flow[0, k, lane] = lanes.flow[1, k, lane]


@inner
def _stage_by_kernel(calls: Calls, results: Any, data: Array, tile: Tile, lanes: Lanes) -> None:
    """A stage by the kernel, from the guess in the tile."""
    report, width, (u, rate, flow) = lanes.report, tile.s.shape[0], results
    for lane in range(width):
        for k in range(3):
            report[k, lane] = tile.info[k * width + lane]
        report[2, lane] = 1.0 if tile.open[lane] or tile.s[lane] == 0.0 else 0.0
        report[3, lane], report[4, lane] = tile.s[lane], tile.allowed[lane]
    call(calls.stage, (tile.right, report, tile.u[width:], rate, data), (rate.shape[0] // width, width))
    for i in range(u.shape[0]):
        u[i] = tile.u[width + i]
    for lane in range(width):
        tile.converged[lane] = report[5, lane] > 0.0
        tile.iterations[lane] += int(report[6, lane])
        tile.before[lane] = report[7, lane]
        for k in range(flow.shape[0]):
            flow[k, lane] = report[8 + k, lane]


@inner
def _prepare(rows: March, way: Any, stage: int, cells: Cells, tile: Tile, lanes: Lanes, one: Any, width: int) -> None:
    """Right-hand side and guess of a stage; lanes whose stage before has failed are closed."""
    scheme, calls = way
    node, before = scheme.nodes[stage], scheme.nodes[stage - 1]
    for lane in range(width):
        lanes.converged[lane] = lanes.converged[lane] and (stage == 1 or tile.converged[lane])
        tile.open[lane], length, earlier = lanes.converged[lane], lanes.length[lane], lanes.earlier_length[lane]
        tile.s[lane] = scheme.implicit[stage, stage] * length
        if stage > 1:
            lanes.ratio[lane] = node / before - 1.0
        else:
            lanes.ratio[lane] = node * length / earlier if earlier > 0.0 else 0.0
        if lanes.row[lane] >= 0:
            tile.info[width + lane] = rows.state[lanes.row[lane], march.TIME] + node * length
    _combine(tile.right, cells.now, (scheme.implicit[stage], cells.rates), lanes, stage, one, width)
    if calls.rest != 0:
        _combine(tile.right, tile.right, (scheme.explicit[stage], cells.rest), lanes, stage, one, width)
    inside = tile.u[width : width + cells.now.shape[0]]
    if stage > 1:
        lanewise.extrapolate(inside, cells.now, cells.end, lanes.ratio, one, width)
    else:
        lanewise.extrapolate(inside, cells.earlier, cells.now, lanes.ratio, one, width)


@inner
def _combine(out: Array, base: Array, sum_: Any, lanes: Lanes, count: int, one: Any, width: int) -> None:
    """base + Δt Σ wₖ fₖ."""
    weights, rates = sum_
    for k in range(count):
        for lane in range(width):
            lanes.factors[k * width + lane] = weights[k] * lanes.length[lane]
    lanewise.combine(out, base, rates, lanes.factors, count, one, width)


@inner
def _allow(scheme: Scheme, cells: Cells, tile: Tile, lanes: Lanes, dirichlet: Array, one: Any, width: int) -> None:
    """Sets the allowed error of Newton's iteration."""
    lanewise.mean_magnitude(cells.rates[: cells.now.shape[0]], lanes.length, lanes.mean, one, width)
    for lane in range(width):
        low, high = min(lanes.range[0, lane], dirichlet[0, lane]), max(lanes.range[1, lane], dirichlet[1, lane])
        allowed = march.allowed_error(low, high, scheme.spread, scheme.limits.atol)
        least = scheme.spread * max(lanes.mean[lane], march.LEAST_SPREAD * (lanes.seen[1, lane] - lanes.seen[0, lane]))
        tile.allowed[lane] = scheme.newton * max(allowed, least)


@inner
def _ratios(
    scheme: Scheme, calls: Calls, cells: Cells, tile: Tile, lanes: Lanes, dirichlet: Array, one: Any, width: int
) -> None:
    """Completes the step by the explicit rates, and writes the ratios of estimated and allowed error."""
    stages, error = scheme.nodes.shape[0], tile.delta
    for i in range(error.shape[0]):
        error[i] = 0.0
    _combine(error, error, (scheme.error, cells.rates), lanes, stages, one, width)
    if calls.rest != 0:
        for k in range(stages):
            lanes.weights[k] = scheme.weights[k] - scheme.explicit[stages - 1, k]
        _combine(cells.end, cells.end, (lanes.weights, cells.rest), lanes, stages, one, width)
        if scheme.weights[stages - 1] != 0.0:
            _combine(error, error, (scheme.error, cells.rest), lanes, stages, one, width)
    for lane in range(width):
        lanes.factors[lane] = 1.0
    lanewise.mean_magnitude(error, lanes.factors, lanes.mean, one, width)
    lanewise.range_of_lanes(cells.end, lanes.range_after, one, width)
    for lane in range(width):
        low = min(min(lanes.range[0, lane], lanes.range_after[0, lane]), dirichlet[0, lane])
        high = max(max(lanes.range[1, lane], lanes.range_after[1, lane]), dirichlet[1, lane])
        allowed = march.allowed_error(low, high, scheme.limits.tolerance, scheme.limits.atol)
        spread = lanes.seen[1, lane] - lanes.seen[0, lane]
        least = scheme.limits.tolerance * march.LEAST_SPREAD * spread if spread > 0.0 else 0.0
        lanes.ratio[lane] = 0.0 if lanes.mean[lane] == 0.0 else lanes.mean[lane] / max(allowed, least)
        if not (lanes.converged[lane] and tile.converged[lane]):
            lanes.ratio[lane] = np.inf


@inner
def _judge(rows: March, output: Output, scheme: Scheme, cells: Cells, tile: Tile, lanes: Lanes, width: int) -> None:
    """Accepts or rejects the step of every lane, writes outputs and proposes the next steps."""
    for lane in range(width):
        row, step = lanes.row[lane], (lanes.length[lane], tile.before[lane])
        lanes.mark[lane] = 0.0
        if row >= 0 and march.settle(
            rows.state[row], lanes.ratio[lane], scheme.order, step, tile.iterations[lane], output.times[-1]
        ):
            lanes.mark[lane] = 1.0
            _accept(rows, output, scheme, cells, lanes, lane, width)


@inner
def _accept(rows: March, output: Output, scheme: Scheme, cells: Cells, lanes: Lanes, lane: int, width: int) -> None:
    """Moves the row of a lane to the end of its step, but for its cells."""
    row, length, flow, last = lanes.row[lane], lanes.length[lane], lanes.flow, scheme.nodes.shape[0] - 1
    step, middle = np.zeros(flow.shape[1]), np.zeros(flow.shape[1])
    for k in range(last + 1):
        for side in range(step.size):
            slow, fast = flow[k, side, lane], lanes.rest[k, side, lane]
            step[side] += length * (scheme.implicit[last, k] * slow + scheme.weights[k] * fast)
            between = scheme.implicit[scheme.middle, k] * slow + scheme.explicit[scheme.middle, k] * fast
            middle[side] += length * between
        for entry in range(rows.data.shape[1]):
            rows.data[row, entry] = lanes.data[k, lane, entry]
            rows.sampled[row, entry] += length * (scheme.implicit[last, k] * lanes.data[k, lane, entry])
    state = rows.state[row]
    finish = march.end_of_step(state[march.TIME], length, output.times[-1])
    if march.passes_output(output, int(state[march.CURSOR]), finish):
        states, fraction = np.empty((3, rows.u.shape[1])), scheme.nodes[scheme.middle]
        lanewise.get_row(cells.now, lane, width, states[0])
        lanewise.get_row(cells.middle, lane, width, states[1])
        lanewise.get_row(cells.end, lane, width, states[2])
        if scheme.middle == 0:
            fraction = 0.5
            for i in range(states.shape[1]):
                states[1, i] = 0.5 * (states[0, i] + states[2, i])
            for side in range(step.size):
                middle[side] = 0.5 * step[side]
        interval, cursor = (state[march.TIME], finish), int(state[march.CURSOR])
        while march.passes_output(output, cursor, finish):
            part = output
            if scheme.middle == BY_RATES:
                part = Output(output.times[: cursor + 1], output.values, output.account)
                fraction = min(1.0, (output.times[cursor] - state[march.TIME]) / (finish - state[march.TIME]))
                _bend(scheme, cells, lanes, lane, fraction, states, middle, step)
            course, account = (states[0], states[1], states[2], fraction), (rows.account[row], middle, step)
            cursor = march.write_outputs(part, row, cursor, interval, course, account, True)
        state[march.CURSOR] = cursor
    march.move_to_end(state, length, output.times[-1])
    for k in range(flow.shape[1]):
        rows.account[row, k] += step[k]
    lanes.earlier_length[lane] = length
    for k in range(flow.shape[1]):
        flow[0, k, lane] = flow[last, k, lane]
    for k in range(2):
        lanes.range[k, lane] = lanes.range_after[k, lane]
    lanes.seen[0, lane] = min(lanes.seen[0, lane], lanes.range[0, lane])
    lanes.seen[1, lane] = max(lanes.seen[1, lane], lanes.range[1, lane])


@inner
def _bend(
    scheme: Scheme, cells: Cells, lanes: Lanes, lane: int, part: float, states: Array, middle: Array, step: Array
) -> None:
    """States and account at a part of a step, by the cubic through both ends with the rates there."""
    last, width, length = scheme.nodes.shape[0] - 1, lanes.row.shape[0], lanes.length[lane]
    size, rest = cells.now.shape[0], cells.rest.shape[0] > 0
    first_weight, last_weight = part * (1.0 - part) ** 2, part * part * (1.0 - part)
    for i in range(states.shape[1]):
        at, change = i * width + lane, states[2, i] - states[0, i]
        first, after = cells.rates[at], cells.rates[last * size + at]
        if rest:
            first, after = first + cells.rest[at], after + cells.rest[last * size + at]
        bent = first_weight * (length * first - change) - last_weight * (length * after - change)
        states[1, i] = states[0, i] + part * change + bent
    for k in range(step.shape[0]):
        first = lanes.flow[0, k, lane] + lanes.rest[0, k, lane]
        after = lanes.flow[last, k, lane] + lanes.rest[last, k, lane]
        bent = first_weight * (length * first - step[k]) - last_weight * (length * after - step[k])
        middle[k] = part * step[k] + bent
