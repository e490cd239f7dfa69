"""Compiled explicit steps: SSPRK3 (Shu and Osher 1988), and RKL2 (Runge–Kutta–Legendre), where ``courant`` is 0.

Both have stages Y_j = Y₀ + μ (Y_{j−1} − Y₀) + ν (Y_{j−2} − Y₀) + Δt (c f_{j−1} + γ f₀), and an odd number of them.
Deviations from Y₀ instead of weights of sum 1 keep rounding from moving the total in every stage. Rows go side by side
through the stages, in the layout of ``rates``, each with steps of its own.
"""

from math import inf, isfinite
from typing import Any

import numpy as np

from solvers._compiled import inner_on_views, merged, on_views
from solvers.finite_volume.march import control as c
from solvers.finite_volume.march.arguments import (
    Array,
    ExplicitArrays,
    ExplicitScheme,
    Lanes,
    Outputs,
    StageData,
    TileGrid,
    TileSystem,
)
from solvers.finite_volume.march.kernels import function_at
from solvers.finite_volume.march.rates import Layout, rates
from solvers.finite_volume.sides._side_data import STATE

MOST_STAGES = 401
SAFETY = 1.05

BASE, EVEN, ODD, START, RATE, SOURCE, MIDDLE, ERROR, ARRAYS = range(9)
"""Arrays over the cells: states at the start, the last stages with an even and an odd number, f₀, the last rate and
that of the source, the stage that outputs are interpolated through, and the estimated error. A step ends with an odd
stage."""

FIRST, FLOW, EVEN_BUDGET, ODD_BUDGET, MIDDLE_BUDGET = range(5)
"""Flows that go with f₀ and with the last rate; budgets of the even, the odd and the middle stage."""


@inner_on_views
def stages_for(steps: float) -> float:
    """Fewest stages, odd and at least 3, of a stable step of so many stable Euler steps: s allow (s² + s − 2)/4."""
    stages = np.ceil(0.5 * (np.sqrt(9.0 + 16.0 * steps) - 1.0))
    return max(stages + 1.0 - stages % 2.0, 3.0)


@inner_on_views
def node(courant: float, j: int, stages: float) -> float:
    """Fraction of the step that stage j has reached."""
    if courant > 0.0:
        return 0.0 if j == 0 else 1.0 if j == 1 else 0.5 if j == 2 else 1.0
    if j < 2:
        return j * (4.0 / 3.0) / (stages * stages + stages - 2.0)
    return min((j * j + j - 2.0) / (stages * stages + stages - 2.0), 1.0)


@inner_on_views
def _legendre(k: int) -> float:
    """b of stage k (Meyer, Balsara and Aslam 2014, eqs. 16 and 17)."""
    return 1.0 / 3.0 if k < 2 else (k * k + k - 2.0) / (2.0 * k * (k + 1.0))


@inner_on_views
def weights(courant: float, j: int, stages: float) -> tuple[float, float, float, float]:
    """μ, ν, c and γ of stage j ≥ 1: Shu and Osher (1988), or Meyer, Balsara and Aslam (2014)."""
    if courant > 0.0:
        part = 1.0 if j == 1 else 0.25 if j == 2 else 2.0 / 3.0
        return part, 0.0, part, 0.0
    scale = 4.0 / (stages * stages + stages - 2.0)
    if j == 1:
        return 1.0, 0.0, scale / 3.0, 0.0
    b, before, earlier = _legendre(j), _legendre(j - 1), _legendre(j - 2)
    mu = (2.0 * j - 1.0) / j * b / before
    return mu, (1.0 - j) / j * b / earlier, mu * scale, (before - 1.0) * mu * scale


@inner_on_views
def middle_stage(stages: float) -> int:
    """The stage nearest to half of the step."""
    return int(max(np.rint(stages / 2**0.5), 2.0))


@merged
def _propose(lanes: Lanes, end: float, longest: float) -> int:
    """Proposes lengths and says which rows go on; returns how many do."""
    live = 0
    for b in range(lanes.size):
        lane = lanes[b]
        on = lane.time < end and lane.verdict == c.RUNNING
        lane.live, live = 1.0 if on else 0.0, live + (1 if on else 0)
        lane.length = c.avoid_tiny_last_step(min(min(lane.proposal, lane.longest), longest), end - lane.time)
        lane.euler = 0.0
    return live


@on_views
def advance(
    arrays: ExplicitArrays, system: TileSystem, sides: StageData, scheme: ExplicitScheme, out: Outputs, budget: int
) -> int:
    """Takes steps of the rows of a tile, at most a budget of them; returns how many rows are under way.

    Where there is no room for data of more stages it returns −1 less the number of stages.
    """
    cells, flow, lanes, info = arrays.cells, arrays.flow[FLOW], arrays.lanes, arrays.info
    data, courant, keeps, times, control = sides.values, scheme.courant, scheme.keeps, scheme.times, scheme.control
    rows, final, rate, source, live = lanes.size, data.shape[0] - 1, cells[RATE], cells[SOURCE], lanes.size
    while budget > 0:
        budget -= 1
        c.look_ahead(lanes, sides.limits)
        live = _propose(lanes, control.end, control.longest)
        if live == 0:
            break
        k, most = 0 * rows, 0  # a bare 0 is a literal, and functions are compiled once more for it
        if sides.changes:
            _begin(arrays, system, sides, scheme, k)
        while k == 0 or k <= most:
            some = k > 0
            for b in range(rows):
                lane = lanes[b]
                if k > 0 and k <= lane.stages:
                    _combine(arrays, lane, b, k, courant, times, control.end)
                fresh = lane.live > 0.0 and (lane.fresh > 0.0 or not keeps)
                on = fresh if k == 0 else k < lane.stages if k < most else keeps and lane.live > 0.0
                info[2, b], some = 1.0 if on else 0.0, some or on
            if some and (k < most or k == 0 or keeps):
                if system.timed.used:
                    _set_times(arrays, system, inf if k == most and k > 0 else float(k), courant)
                bounds = courant > 0.0 or k == 0 or k == most
                states, given = cells[BASE if k == 0 else 1 + k % 2], data[min(k, final)]
                rates(states, rate, source, flow, given, system, bounds)
            for b in range(rows):
                if k == 0:
                    if info[2, b] > 0.0:
                        _keep_rate(arrays, b)
                    lanes[b].fresh = 0.0
                    _plan_stages(arrays, lanes[b], b, courant, scheme.sources)
                    most = max(most, int(lanes[b].stages))
                elif k < most and info[2, b] > 0.0:
                    _note_stage(arrays, lanes[b], b, k, courant, scheme.sources)
            if k == 0:
                c.keep_off_end(lanes, sides.limits)
                count = min(most, 2) if courant > 0.0 else most
                if sides.changes and count > final:
                    return -1 - count
                if sides.changes:
                    _write_side_data(arrays, sides, scheme, k + 1, k + 1 + count)
            k += 1
        for b in range(rows):
            if lanes[b].live > 0.0:
                ratio = _ratio(arrays, lanes[b], data, b, scheme, system.grid)
                _accept_or_reject(arrays, b, ratio, sides, scheme, out, system.grid.layout)
    return live


@inner_on_views
def _write_side_data(arrays: ExplicitArrays, sides: StageData, scheme: ExplicitScheme, first: int, after: int) -> None:
    """Has the data of the sides written at some stages; at the start for rows where they are not known."""
    some, none, control = False, sides.values.ctypes, scheme.control
    for b in range(arrays.lanes.size):
        lane = arrays.lanes[b]
        on = lane.live > 0.0 and (first > 0 or lane.fresh > 0.0)
        arrays.info[2, b], some, stages = 1.0 if on else 0.0, some or on, max(lane.stages, 3.0)
        for k in range(first, after):
            fraction = node(scheme.courant, int(min(float(k), stages)), stages)
            sides.moments[k, b] = min(max(c.moment(lane, fraction), control.start), control.end)
    if some:
        function_at(sides.write)(none, none, none, none, none, none, none, first, after)


@merged
def _begin(arrays: ExplicitArrays, system: TileSystem, sides: StageData, scheme: ExplicitScheme, start: int) -> None:
    """Data at the start of a step; and how stiff RKL2 is at its end, where its stages must be stable, too."""
    cells, flow, lanes, courant, last = arrays.cells, arrays.flow[FLOW], arrays.lanes, scheme.courant, start + 3
    _write_side_data(arrays, sides, scheme, start, start + 1)
    if courant > 0.0:
        return
    c.keep_off_end(lanes, sides.limits)
    for b in range(lanes.size):
        lanes[b].stages = 3.0
    _write_side_data(arrays, sides, scheme, last, last + 1)
    _set_times(arrays, system, float(last), courant)
    given, bounds = sides.values[last], courant == 0.0
    rates(cells[BASE], cells[RATE], cells[SOURCE], flow, given, system, bounds)
    for b in range(lanes.size):
        lanes[b].euler = flow[b, flow.shape[1] - 1]


@inner_on_views
def _set_times(arrays: ExplicitArrays, system: TileSystem, stage: float, courant: float) -> None:
    """Times of the rows in a stage, for laws in tensors and among the parameters of compiled ones."""
    medium, timed, info, size = system.medium, system.timed, arrays.info, arrays.cells.shape[2]
    p, q, r = medium.diffusion, medium.convection, medium.source
    for b in range(arrays.lanes.size):
        lane = arrays.lanes[b]
        at = min(stage, lane.stages)
        info[1, b] = c.moment(lane, node(courant, int(at), lane.stages) if stage > 0.0 else 0.0)
        for axis in range(p.shape[0] if timed.diffusion >= 0 else 0):
            p[axis, timed.diffusion, b * size : (b + 1) * size] = info[1, b]
        for axis in range(q.shape[0] if timed.convection >= 0 else 0):
            q[axis, timed.convection, b * size : (b + 1) * size] = info[1, b]
        if timed.source >= 0:
            r[timed.source, b * size : (b + 1) * size] = info[1, b]


@inner_on_views
def _keep_rate(arrays: ExplicitArrays, b: int) -> None:
    """Takes the last rate of a row for f₀."""
    start, rate = arrays.cells[START, b], arrays.cells[RATE, b]
    first, flow = arrays.flow[FIRST, b], arrays.flow[FLOW, b]
    for i in range(start.size):
        start[i] = rate[i]
    for k in range(first.size):
        first[k] = flow[k]


@merged
def _plan_stages(arrays: ExplicitArrays, lane: Any, b: int, courant: float, sources: bool) -> None:
    """Length and stages of the step of a row, by what is known at its start."""
    cells, flow, flows = arrays.cells, arrays.flow, arrays.flow.shape[2]
    base, even, error, source = cells[BASE, b], cells[EVEN, b], cells[ERROR, b], cells[SOURCE, b]
    speed, euler = flow[FIRST, b, flows - 2], flow[FIRST, b, flows - 1]
    stages = 3.0
    if courant > 0.0:
        if speed + euler > 0.0:
            lane.length = min(lane.length, courant / (speed + euler))
    else:
        radius = 2.0 * SAFETY * max(euler, lane.euler)
        if radius > 0.0 and isfinite(radius):  # a step that is not finite fails by its error
            longest = 0.25 * (MOST_STAGES * MOST_STAGES + MOST_STAGES - 2.0)
            lane.length = min(lane.length, 2.0 / radius * longest)
            stages = stages_for(0.5 * radius * lane.length)
    lane.stages, lane.worst = stages * lane.live, 0.0
    for i in range(base.size):
        even[i] = base[i]
    for i in range(base.size if sources else 0):
        error[i] = -1.0 / 3.0 * source[i]
    for k in range(flows):
        flow[EVEN_BUDGET, b, k] = flow[ODD_BUDGET, b, k] = 0.0


@merged
def _note_stage(arrays: ExplicitArrays, lane: Any, b: int, stage: int, courant: float, sources: bool) -> None:
    """Largest speed and estimated error of SSPRK3 by the rates after a stage."""
    if courant == 0.0:
        return
    error, source, flow = arrays.cells[ERROR, b], arrays.cells[SOURCE, b], arrays.flow[FLOW, b]
    lane.worst = max(lane.worst, flow[flow.size - 2]) + (flow[flow.size - 1] if stage == 2 else 0.0)
    for i in range(error.size if sources else 0):
        error[i] += (2.0 / 3.0 if stage == 2 else -1.0 / 3.0) * source[i]


@merged
def _combine(arrays: ExplicitArrays, lane: Any, b: int, stage: int, courant: float, times: Array, end: float) -> None:
    """A stage of a row, over the one before the last."""
    cells, flow = arrays.cells, arrays.flow
    odd, base, slope, middle = stage % 2, cells[BASE, b], cells[START, b], cells[MIDDLE, b]
    change, through = (cells[START, b], flow[FIRST, b]) if stage == 1 else (cells[RATE, b], flow[FLOW, b])
    before, now = (cells[ODD, b], cells[EVEN, b]) if odd == 1 else (cells[EVEN, b], cells[ODD, b])
    mu, nu, own, other = weights(courant, stage, lane.stages)
    own, other = lane.length * own, lane.length * other
    if stage == 1:
        for i in range(base.size):
            before[i] = base[i] + own * change[i]
    else:
        for i in range(base.size):
            moved = mu * (now[i] - base[i]) + nu * (before[i] - base[i])
            before[i] = base[i] + (moved + (other * slope[i] + own * change[i]))
    half = False
    if courant == 0.0 and stage == middle_stage(lane.stages) and int(lane.cursor) < times.size:
        half = times[int(lane.cursor)] <= c.end_of_step(lane.time, lane.length, end)
    for k in range(through.size):
        kept = mu * flow[ODD_BUDGET - odd, b, k] + nu * flow[EVEN_BUDGET + odd, b, k]
        flow[EVEN_BUDGET + odd, b, k] = kept + (other * flow[FIRST, b, k] + own * through[k])
        if half:
            flow[MIDDLE_BUDGET, b, k] = flow[EVEN_BUDGET + odd, b, k]
    for i in range(base.size if half else 0):
        middle[i] = before[i]


@merged
def _ratio(arrays: ExplicitArrays, lane: Any, data: Array, b: int, scheme: ExplicitScheme, grid: TileGrid) -> float:
    """Estimated over allowed error of the step of a row; not finite where it fails."""
    cells, courant, layout, modes = arrays.cells, scheme.courant, grid.layout, grid.modes
    base, after, first, rate, error = cells[BASE, b], cells[ODD, b], cells[START, b], cells[RATE, b], cells[ERROR, b]
    length, lines, line = lane.length, layout.lines, layout.shape[layout.shape.size - 1]
    low, high, total, known = inf, -inf, 0.0, min(data.shape[0], int(lane.stages) + 1)
    estimated = scheme.control.tolerance < inf and (courant == 0.0 or scheme.sources)
    lane.residual = length * lane.worst
    if courant > 0.0 and not length * lane.worst <= 1.0:
        return inf
    for k in range(lines.size):
        for i in range(lines[k], lines[k] + line if not estimated else 0):
            total += abs(after[i])
        for i in range(lines[k], lines[k] + line if estimated else 0):
            wrong = length * error[i]
            if courant == 0.0:
                wrong = 0.8 * (base[i] - after[i]) + (0.4 * length) * (first[i] + rate[i])
            low, high = min(low, min(base[i], after[i])), max(high, max(base[i], after[i]))
            total += abs(wrong)
    if not isfinite(total):
        return np.nan
    if not estimated:
        return 0.0
    if total == 0.0:
        return 0.0
    for side in range(modes.size):
        for k in range(known if modes[side] == STATE and grid.pull[b, side] == 0.0 else 0):
            for e in range(layout.offsets[side], layout.offsets[side + 1]):
                low, high = min(low, data[k, b, e]), max(high, data[k, b, e])
    return total / (lines.size * line) / c.allowed_error(lane, low, high, scheme.control)


@merged
def _accept_or_reject(
    arrays: ExplicitArrays, b: int, ratio: float, sides: StageData, scheme: ExplicitScheme, out: Outputs, layout: Layout
) -> None:
    """Accepts or rejects the step of a row, writes outputs and moves the row to its end."""
    cells, flow, lane, courant, end = arrays.cells, arrays.flow, arrays.lanes[b], scheme.courant, scheme.control.end
    total, balance, length = out.total, out.balance, lane.length
    lane.evaluations += lane.stages + (1.0 if scheme.keeps else 0.0)
    if not c.accept_or_reject(lane, ratio, scheme.order, end):
        return
    base, after, flows, finish = cells[BASE, b], cells[ODD, b], total.shape[1], c.end_of_step(lane.time, length, end)
    for k in range(flows):
        balance[0, k], balance[1, k], balance[2, k] = total[b, k], flow[MIDDLE_BUDGET, b, k], flow[ODD_BUDGET, b, k]
        if courant > 0.0:
            balance[1, k] = 0.5 * balance[2, k] + 0.25 * (length * flow[FIRST, b, k] - balance[2, k])
    _write_outputs(arrays, b, finish, scheme, out, layout)
    if sides.changes:
        _add_data(sides.values, out.sampled, b, courant, lane.stages, length)
    c.move_to_end(lane, finish, end)
    for i in range(base.size):
        base[i] = after[i]
    for k in range(flows):
        total[b, k] += balance[2, k]
    if scheme.keeps:
        _keep_rate(arrays, b)


@merged
def _write_outputs(
    arrays: ExplicitArrays, b: int, finish: float, scheme: ExplicitScheme, out: Outputs, layout: Layout
) -> None:
    """Writes the outputs that the step of a row passes."""
    cells, lane, courant, times, course = arrays.cells, arrays.lanes[b], scheme.courant, scheme.times, out.course
    base, after, middle, first = cells[BASE, b], cells[ODD, b], cells[MIDDLE, b], cells[START, b]
    lines, line, length = layout.lines, layout.shape[layout.shape.size - 1], lane.length
    cursor, place, fraction = int(lane.cursor), 0, 0.5
    if cursor < times.size and times[cursor] <= finish:
        if courant == 0.0:
            fraction = node(courant, middle_stage(lane.stages), lane.stages)
        for k in range(lines.size):
            for i in range(lines[k], lines[k] + line):
                course[0, place], course[1, place], course[2, place] = base[i], middle[i], after[i]
                if courant > 0.0:
                    straight = 0.5 * (base[i] + after[i])
                    course[1, place] = straight + 0.25 * ((base[i] - after[i]) + length * first[i])
                place += 1
        while cursor < times.size and times[cursor] <= finish:
            theta = min(1.0, (times[cursor] - lane.time) / length)
            c.write_output(theta, fraction, course, out.balance, out.values[b, cursor], out.budget[b, cursor])
            if courant == 0.0 and theta < 1.0:
                c.keep_to_range(course, out.values[b, cursor])
            cursor += 1
        lane.cursor = cursor


@inner_on_views
def _add_data(data: Array, sampled: Array, b: int, courant: float, stages: float, length: float) -> None:
    """Adds the time integral of the data over a step, by SSPRK3 or the trapezoidal rule; those at its end are next."""
    last = 1 if courant > 0.0 else int(stages)
    for k in range(3 if courant > 0.0 else last + 1):
        part = 2.0 / 3.0 if k == 2 else 1.0 / 6.0
        if courant == 0.0:
            before, behind = node(courant, max(k - 1, 0), stages), node(courant, min(k + 1, last), stages)
            part = 0.5 * (behind - before)
        for e in range(sampled.shape[1]):
            sampled[b, e] += length * part * data[k, b, e]
    for e in range(sampled.shape[1]):
        data[0, b, e] = data[last, b, e]
