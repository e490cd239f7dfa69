"""The part of implicit steps that is the same for all schemes and any number of axes: judging and planning steps."""

from math import inf, isfinite
from typing import Any

from solvers._compiled import inner_on_views, merged
from solvers.finite_volume.march import control as c
from solvers.finite_volume.march.arguments import Array, ImplicitScheme, LineSystem, Outputs, StageArrays
from solvers.finite_volume.march.tridiagonal import extremes, spread
from solvers.finite_volume.steppers.steppers import BY_RATES

NOW, SLOPE, MIDDLE, END, LENGTHS, SCRATCH, STATES = range(7)
"""Arrays over the cells: states at the start, their rate of change in the step before, at the stage that outputs are
interpolated through, and at the end; lengths of steps; and scratch."""


@merged
def plan(system: LineSystem, scheme: ImplicitScheme, out: Outputs, row: int) -> tuple[int, bool]:
    """Judges trial steps, writes outputs, refills lanes and proposes lengths.

    Returns the next row to enter, and whether a lane is busy.
    """
    arrays, rows, control, last = system.arrays, system.rows, scheme.control, scheme.tableau.nodes.size - 1
    states, rates, lanes = arrays.states, arrays.rates, arrays.lanes
    n, width, busy, accepted = rows.initial.shape[1], lanes.size, False, False
    extremes(states[END], n, width, states[SCRATCH], lanes.end_low, lanes.end_high)
    for j in range(width):
        good = lanes[j].row >= 0.0 and _accepts(states, lanes[j], scheme, n, j, width)
        lanes[j].accepted = 1.0 if good else 0.0
        if good:
            accepted = True
            _record(arrays, lanes[j], system.medium.side_data, scheme, out, j)
    if accepted:
        _move(states, rates[0], rates[last], lanes.accepted, n * width)
    for j in range(width):
        lane, current = lanes[j], int(lanes[j].row)
        if current >= 0:
            if lane.accepted > 0.0:
                c.move_to_end(lane, c.end_of_step(lane.time, lane.length, control.end), control.end)
            if lane.time >= control.end or lane.verdict != c.RUNNING:
                out.finished[current] = lane
                current = -1
        if current < 0 and row < rows.initial.shape[0]:
            current, row = row, row + 1
            lanes[j] = rows.start[0]
            _enter(system, current, j)
        lane.row, busy = current, busy or current >= 0
    c.look_ahead(lanes, scheme.limits)
    for j in range(width):
        lane, left = lanes[j], control.end - lanes[j].time
        bound = min(min(lane.proposal, lane.longest), control.longest)
        lane.length = c.avoid_tiny_last_step(bound, left) if lane.row >= 0.0 else 1.0
    c.keep_off_end(lanes, scheme.limits)
    return row, busy


@inner_on_views
def _accepts(states: Array, lane: Any, scheme: ImplicitScheme, n: int, j: int, width: int) -> bool:
    """Accepts or rejects the step of a lane; sets the range of the states that the next one begins with."""
    low, high, now = lane.end_low, lane.end_high, states[NOW]
    allowed = c.allowed_error(lane, min(lane.low, low), max(lane.high, high), scheme.control)
    ratio = lane.error / allowed if lane.error > 0.0 else 0.0
    if not (isfinite(lane.error) and isfinite(high - low) and lane.converged > 0.0):
        ratio = inf
    accepted = c.accept_or_reject(lane, ratio, scheme.order, scheme.control.end)
    if not accepted:
        low, high = inf, -inf
        for i in range(j, n * width, width):
            low, high = min(low, now[i]), max(high, now[i])
    lane.low, lane.high = low, high
    return accepted


@inner_on_views
def _record(arrays: StageArrays, lane: Any, side_data: Array, scheme: ImplicitScheme, out: Outputs, j: int) -> None:
    """Adds the step of a lane to the budget and writes the outputs that it passes."""
    tableau, times, flow, balance, total = scheme.tableau, scheme.times, arrays.flow, out.balance, out.total
    implicit, explicit, middle = tableau.implicit, tableau.explicit, tableau.middle
    row, length, last = int(lane.row), lane.length, tableau.nodes.size - 1
    finish = c.end_of_step(lane.time, length, scheme.control.end)
    for k in range(flow.shape[2]):
        balance[0, k], balance[1, k], balance[2, k] = total[row, k], 0.0, 0.0
        for stage in range(last + 1):
            slow, fast = length * flow[0, stage, k, j], length * flow[1, stage, k, j]
            balance[2, k] += implicit[last, stage] * slow + tableau.weights[stage] * fast
            balance[1, k] += 0.0 if middle < 0 else implicit[middle, stage] * slow + explicit[middle, stage] * fast
    if int(lane.cursor) < times.size and times[int(lane.cursor)] <= finish:
        _write_outputs(arrays, lane, scheme, finish, out, j)
    for stage in range(last + 1):
        for entry in range(side_data.shape[1]):
            out.sampled[row, entry] += length * implicit[last, stage] * side_data[stage, entry, j]
    for k in range(flow.shape[2]):
        total[row, k] += balance[2, k]
        flow[0, 0, k, j] = flow[0, last, k, j]


@inner_on_views
def _move(states: Array, first: Array, last: Array, accepted: Array, size: int) -> None:
    """Moves the lanes whose steps are accepted to the end of these."""
    now, after, slope, lengths, moves = states[NOW], states[END], states[SLOPE], states[LENGTHS], states[SCRATCH]
    spread(accepted, moves[:size])
    for i in range(size):
        slope[i] = (after[i] - now[i]) / lengths[i] if moves[i] > 0.0 else slope[i]
    for i in range(size):
        now[i] = after[i] if moves[i] > 0.0 else now[i]
    for i in range(size):
        first[i] = last[i] if moves[i] > 0.0 else first[i]


@inner_on_views
def _write_outputs(arrays: StageArrays, lane: Any, scheme: ImplicitScheme, finish: float, out: Outputs, j: int) -> None:
    """Writes the outputs that the step of a lane passes."""
    now, middle, after = arrays.states[NOW], arrays.states[MIDDLE], arrays.states[END]
    course, times, nodes, stage = out.course, scheme.times, scheme.tableau.nodes, scheme.tableau.middle
    row, width, cursor, length = int(lane.row), arrays.lanes.size, int(lane.cursor), lane.length
    for i in range(course.shape[1]):
        at = i * width + j
        course[0, i], course[1, i], course[2, i] = now[at], middle[at], after[at]
    while cursor < times.size and times[cursor] <= finish:
        theta, fraction = min(1.0, (times[cursor] - lane.time) / length), nodes[max(stage, 0)]
        if stage == BY_RATES:
            fraction = theta
            _bend(theta, length, arrays, out, j)
        c.write_output(theta, fraction, course, out.balance, out.values[row, cursor], out.budget[row, cursor])
        if theta < 1.0:
            c.keep_to_range(course, out.values[row, cursor])
        cursor += 1
    lane.cursor = cursor


@inner_on_views
def _bend(theta: float, length: float, arrays: StageArrays, out: Outputs, j: int) -> None:
    """State and budget at a part of a step, by the cubic through both ends with the rates there."""
    rates, explicit, flow, course, balance = arrays.rates, arrays.explicit_rates, arrays.flow, out.course, out.balance
    start, final = theta * (1.0 - theta) ** 2, theta * theta * (1.0 - theta)
    last, more = rates.shape[0] - 1, explicit.shape[1] > 0
    for i in range(course.shape[1]):
        at, change = i * arrays.lanes.size + j, course[2, i] - course[0, i]
        first, after = rates[0, at], rates[last, at]
        if more:
            first, after = first + explicit[0, at], after + explicit[last, at]
        bent = start * (length * first - change) - final * (length * after - change)
        course[1, i] = course[0, i] + theta * change + bent
    for k in range(balance.shape[1]):
        step, first = balance[2, k], flow[0, 0, k, j] + flow[1, 0, k, j]
        after = flow[0, last, k, j] + flow[1, last, k, j]
        balance[1, k] = theta * step + start * (length * first - step) - final * (length * after - step)


@inner_on_views
def _enter(system: LineSystem, row: int, j: int) -> None:
    """Puts a row at its start, with what belongs to it, into a lane."""
    medium, rows, lane, width = system.medium, system.rows, system.arrays.lanes[j], system.arrays.lanes.size
    initial, coefficient, side_data = rows.initial, medium.coefficient, medium.side_data
    now, slope, low, high = system.arrays.states[NOW], system.arrays.states[SLOPE], inf, -inf
    for i in range(initial.shape[1]):
        now[i * width + j], slope[i * width + j] = initial[row, i], 0.0
        low, high = min(low, initial[row, i]), max(high, initial[row, i])
    for values, into in ((rows.law, medium.law), (rows.source, medium.source)):
        along = 1 if values.shape[2] > 1 else 0
        for k in range(into.shape[0]):
            for i in range(into.shape[1] // width):
                into[k, i * width + j] = values[row, k, i * along]
    along = 1 if rows.coefficient.shape[1] > 1 else 0
    for i in range(coefficient.size // width):
        coefficient[i * width + j] = rows.coefficient[row, i * along]
    for side in range(medium.pull.shape[0]):
        medium.pull[side, j] = rows.pull[row, side]
    for entry in range(side_data.shape[1]):
        for stage in range(side_data.shape[0]):
            side_data[stage, entry, j] = rows.side_data[row, entry]
    lane.source_size = rows.source_sizes[row]
    lane.low, lane.high, lane.seen_low, lane.seen_high = low, high, low, high
