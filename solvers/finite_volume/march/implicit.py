"""Compiled implicit steps: diagonally implicit Runge–Kutta schemes, whose first stage is the start, the last the end.

Rows go side by side in ``width`` lanes: cell i of lane j is at i·width + j of a flat array. ``advance`` takes steps:
``_stages`` solves the stages along one axis, ``plan`` judges the steps and prepares the next ones. Where something
changes with time the driver asks for one step at a time and evaluates it in between.
"""

from math import inf, isfinite

from solvers._compiled import inner_on_views, merged, on_views
from solvers.finite_volume.march import control as c
from solvers.finite_volume.march.arguments import (
    Array,
    ImplicitScheme,
    Lanes,
    LineSystem,
    Outputs,
    StageArrays,
    StageRange,
    StepControl,
)
from solvers.finite_volume.march.kernels import function_at
from solvers.finite_volume.march.plan import END, LENGTHS, MIDDLE, NOW, SLOPE, plan
from solvers.finite_volume.march.tridiagonal import solve, spread, sum_lanes, sum_magnitudes
from solvers.finite_volume.sides._side_data import GIVEN_FLUX, PERIODIC, STATE

UNDAMPED = 8
ROUND_OFF = 1e-13

X, FLUX, LEFT, RIGHT, WEIGHT, WORK, WORK2, RHS, DELTA, PIVOT, CORNER, SOURCE, BY_STATE, GOAL, BASE, SCRATCH, ARRAYS = (
    range(17)
)
"""Scratch of stages: states with those beyond the ends; fluxes and derivatives, and weights on faces; the equations of
Newton's method; a source and its derivative; and what they add to the equations."""


@on_views
def advance(
    system: LineSystem, scheme: ImplicitScheme, out: Outputs, part: StageRange, row: int, steps: int
) -> tuple[int, bool]:
    """Takes steps of all lanes, at most so many; returns the next row to enter, and whether a lane is busy.

    Where steps is 0, stages are solved and not judged.
    """
    lanes, busy, none, solves = system.arrays.lanes, False, part.moments.ctypes, part.after > part.first
    for j in range(lanes.size):
        busy = busy or lanes[j].row >= 0.0
    while True:
        if busy and solves and steps > 0:
            c.set_moments(lanes, scheme.tableau.nodes, scheme.control, part.moments)
            if part.changes:
                function_at(part.write_side_data)(none, none, none, none, none, none, none, part.first, part.after)
        if busy and solves:
            _solve_stages(system, scheme, part)
        if steps == 0:
            return row, busy
        row, busy = plan(system, scheme, out, row)
        steps -= 1
        if steps == 0 or not busy:
            return row, busy


@on_views
def judge(system: LineSystem, scheme: ImplicitScheme, out: Outputs, row: int) -> tuple[int, bool]:
    """Judges steps whose stages are solved elsewhere; ``advance`` without the loops of stages along one axis."""
    return plan(system, scheme, out, row)


@merged
def _solve_stages(system: LineSystem, scheme: ImplicitScheme, part: StageRange) -> None:
    """Solves stages of the steps of all lanes along one axis, and estimates their errors.

    Stage 0 gives the rates at the start where they are not known.
    """
    arrays, nodes = system.arrays, scheme.tableau.nodes
    lanes, lengths, coefficient = arrays.lanes, arrays.states[LENGTHS], system.medium.coefficient
    weight, fresh, weighted = arrays.scratch[WEIGHT], False, 0.0
    if part.first == 0:
        spread(lanes.length, lengths[: coefficient.size])
    for j in range(lanes.size):
        fresh = fresh or (lanes[j].fresh > 0.0 and lanes[j].row >= 0.0)
    for stage in range(part.first, part.after):
        if stage > 0 or fresh:
            factor = scheme.tableau.implicit[stage, stage] if stage > 0 else 1.0
            _set_times(system, part, stage)
            if stage == 0:
                _start_from_now(arrays)
            else:
                _set_right_side(arrays, scheme, stage)
                _guess(system, scheme, stage)
            if factor != weighted:
                for i in range(coefficient.size):
                    weight[i] = factor * lengths[i] * coefficient[i]
                weighted = factor
            _iterate(system, scheme, stage, factor)
            _finish_stage(system, scheme, stage, factor)
    if part.after == nodes.size:
        n = coefficient.size // lanes.size - 1
        estimate_error(arrays.rates, lanes, lengths, scheme.tableau.error, n, arrays.scratch[WORK])


@inner_on_views
def _set_times(system: LineSystem, part: StageRange, stage: int) -> None:
    """Times of a stage, for laws in tensors and among the parameters of compiled ones."""
    lanes, moments, info, laws = system.arrays.lanes, part.moments, part.info, system.laws
    for j in range(lanes.size):
        row = lanes[j].row
        info[0, j], info[1, j], info[2, j] = row, moments[stage, j], 1.0 if row >= 0.0 else 0.0
    for parameters, row in ((system.medium.law, laws.law_time), (system.medium.source, laws.source_time)):
        if row >= 0:
            values = parameters[row]
            for i in range(values.size):
                values[i] = moments[stage, i % lanes.size]


@merged
def _start_from_now(arrays: StageArrays) -> None:
    """The states at the start, whose rate the loops of a stage give with δ = 0."""
    width, now, rhs = arrays.lanes.size, arrays.states[NOW], arrays.scratch[RHS]
    u = arrays.scratch[X, width:]
    for i in range(now.size - 2 * width):
        u[i], rhs[i] = now[i], 0.0


@inner_on_views
def _set_right_side(arrays: StageArrays, scheme: ImplicitScheme, stage: int) -> None:
    """Right side of the equations of a stage, by the rates of those before."""
    rates, extra, rhs = arrays.rates, arrays.explicit_rates, arrays.scratch[RHS]
    implicit, explicit = scheme.tableau.implicit[stage], scheme.tableau.explicit[stage]
    now, lengths, newest, factor = arrays.states[NOW], arrays.states[LENGTHS], rates[stage - 1], implicit[stage - 1]
    size, more = now.size - 2 * arrays.lanes.size, extra.shape[1] > 0
    if stage == 1 and not more:
        for i in range(size):
            rhs[i] = now[i] + lengths[i] * (factor * newest[i])
        return
    for i in range(size):
        rhs[i] = implicit[0] * rates[0, i]
    for k in range(1, stage if more else stage - 1):
        earlier, part = rates[k], implicit[k]
        for i in range(size):
            rhs[i] += part * earlier[i]
    for k in range(stage - 1 if more else 0):
        earlier, part = extra[k], explicit[k]
        for i in range(size):
            rhs[i] += part * earlier[i]
    if more:
        newest, factor = extra[stage - 1], explicit[stage - 1]
    for i in range(size):
        rhs[i] = now[i] + lengths[i] * (rhs[i] + factor * newest[i])


@merged
def _guess(system: LineSystem, scheme: ImplicitScheme, stage: int) -> None:
    """First states of a stage, by the slope of the last step or the stage before."""
    arrays, medium, nodes = system.arrays, system.medium, scheme.tableau.nodes
    states, scratch, lanes = arrays.states, arrays.scratch, arrays.lanes
    now, after, lengths, slope = states[NOW], states[END], states[LENGTHS], states[SLOPE]
    u, node, size = scratch[X, lanes.size :], nodes[stage], states.shape[1] - 2 * lanes.size
    if stage == 1:
        for i in range(size):
            u[i] = now[i] + node * lengths[i] * slope[i]
        given = medium.side_data, scheme.modes, medium.pull, scheme.control, scheme.newton
        begin_step(arrays.rates, lanes, *given, size // lanes.size, scratch[WORK])
    else:
        ratio = node / nodes[stage - 1] - 1.0
        for i in range(size):
            u[i] = after[i] + ratio * (after[i] - now[i])


@merged
def _iterate(system: LineSystem, scheme: ImplicitScheme, stage: int, factor: float) -> None:
    """Newton's method; leaves the linearised fluxes and source and the last change δ, zero in stage 0."""
    lanes, scratch, lengths = system.arrays.lanes, system.arrays.scratch, system.arrays.states[LENGTHS]
    width, reacts, linear, iteration, some = lanes.size, system.laws.reacts, system.laws.linear, 0, True
    size, rhs, s, slope = lengths.size - 2 * width, scratch[RHS], scratch[SOURCE], scratch[BY_STATE]
    u, delta = scratch[X, width : size + width], scratch[DELTA, width : size + width]
    goal, base = scratch[GOAL] if reacts else scratch[RHS], scratch[BASE]
    faces, out = (scratch[FLUX], scratch[LEFT], scratch[RIGHT]), (delta, scratch[PIVOT], scratch[CORNER])
    for j in range(width):
        lanes[j].is_open, lanes[j].change, lanes[j].taken = lanes[j].converged, inf, 1.0
    while some:
        _linearise(system, scheme, stage, factor, iteration)
        if stage == 0:
            for i in range(size):
                delta[i] = 0.0
            break
        for i in range(size if reacts else 0):
            goal[i] = rhs[i] + factor * lengths[i] * s[i]
        for i in range(size if reacts else 0):
            base[i] = 1.0 - factor * lengths[i] * slope[i]
        solve(goal, base, u, faces, out, scheme.modes[0] == PERIODIC, size, width)
        sum_magnitudes(delta, size // width, width, scratch[WORK], lanes.cell_sum)
        iteration += 1
        some, whole = _assess(lanes, size // width, iteration, scheme.iterations, linear)
        for i in range(size if some and whole else 0):
            u[i] += delta[i]
        for j in range(width if some and not whole else 0):
            for i in range(j, size, width):
                u[i] += lanes[j].taken * delta[i]


@merged
def _linearise(system: LineSystem, scheme: ImplicitScheme, stage: int, factor: float, iteration: int) -> None:
    """Weighted fluxes on all faces with their derivatives, closed at the sides, and the source with its derivative."""
    lanes, scratch, laws, medium = system.arrays.lanes, system.arrays.scratch, system.laws, system.medium
    pull, data, modes, p, q = medium.pull, medium.side_data[stage], scheme.modes, medium.law, medium.source
    x, flux, left, right, work = scratch[X], scratch[FLUX], scratch[LEFT], scratch[RIGHT], scratch[WORK]
    width, early, periodic = lanes.size, iteration < UNDAMPED, modes[0] == PERIODIC
    size, faces = x.size - 2 * width, x.size - width
    for j in range(width):  # states beyond the ends
        if periodic:
            x[j], x[faces + j] = x[size + j], x[width + j]
        else:
            x[j] = pull[0, j] * x[width + j] + (data[0, j] if modes[0] == STATE else 0.0)
            x[faces + j] = pull[1, j] * x[size + j] + (data[1, j] if modes[1] == STATE else 0.0)
    weight = scratch[WEIGHT].ctypes
    function_at(laws.law)(x.ctypes, p.ctypes, weight, work.ctypes, flux.ctypes, left.ctypes, right.ctypes, faces, width)
    for j in range(0 if periodic else width):
        at, scale = size + j, factor * lanes[j].length / scheme.spacing
        if modes[0] == GIVEN_FLUX:
            flux[j], right[j] = scale * data[0, j], 0.0
        else:
            right[j] -= side_slope(pull[0, j] * left[j], right[j], early, laws.linear)
        if modes[1] == GIVEN_FLUX:
            flux[at], left[at] = scale * data[1, j], 0.0
        else:
            left[at] -= side_slope(pull[1, j] * right[at], left[at], early, laws.linear)
        left[j] = right[at] = 0.0
    if laws.reacts:
        u, s, slope, none = x[width:].ctypes, scratch[SOURCE].ctypes, scratch[BY_STATE].ctypes, x.ctypes
        function_at(laws.source)(u, q.ctypes, none, none, s, slope, none, size, q.shape[1])


@merged
def _finish_stage(system: LineSystem, scheme: ImplicitScheme, stage: int, factor: float) -> None:
    """The rate with u = r + s·rate and the flow through the sides, by the linearised fluxes and source; then u."""
    arrays, reacts, h = system.arrays, system.laws.reacts, scheme.spacing
    states, scratch, lanes, flow = arrays.states, arrays.scratch, arrays.lanes, arrays.flow
    flux, left, right, moved, produced = scratch[FLUX], scratch[LEFT], scratch[RIGHT], scratch[DELTA], scratch[WORK]
    s, slope, rhs, lengths, after = scratch[SOURCE], scratch[BY_STATE], scratch[RHS], states[LENGTHS], states[END]
    width, periodic, rate = lanes.size, scheme.modes[0] == PERIODIC, arrays.rates[stage]
    size = lengths.size - 2 * width
    if stage == 0:
        rate = scratch[SCRATCH]
    faces, delta, delta_after = size + width, moved[width:], moved[2 * width :]
    flux_after, left_after, right_after = flux[width:], left[width:], right[width:]
    for j in range(width):
        moved[j], moved[faces + j] = (moved[size + j], moved[width + j]) if periodic else (0.0, 0.0)
    for i in range(size):
        before = flux[i] + (left[i] * moved[i] - right[i] * delta[i])
        behind = flux_after[i] + (left_after[i] * delta[i] - right_after[i] * delta_after[i])
        rate[i] = (before - behind) / (factor * lengths[i])
    if reacts:
        for i in range(size):
            produced[i] = s[i] + slope[i] * delta[i]
        for i in range(size):
            rate[i] += produced[i]
        sum_lanes(produced, size // width, width, lanes.cell_sum)
    for j in range(width):
        lane = lanes[j]
        if stage > 0 or (lane.fresh > 0.0 and lane.row >= 0.0):
            scale = h / (factor * lengths[j])
            first = flux[j] + (left[j] * moved[j] - right[j] * delta[j])
            final = flux[size + j] + (left[size + j] * moved[size + j] - right[size + j] * moved[faces + j])
            flow[0, stage, 0, j], flow[0, stage, 1, j] = scale * first, scale * final
            flow[0, stage, 2, j] = h * lane.cell_sum if reacts else 0.0
            if stage == 0:
                lane.fresh, first_rate = 0.0, arrays.rates[0]
                for i in range(j, size, width):
                    first_rate[i] = rate[i]
    for i in range(size if stage > 0 else 0):
        after[i] = rhs[i] + factor * lengths[i] * rate[i]
    if stage == scheme.tableau.middle:
        middle = states[MIDDLE]
        for i in range(size):
            middle[i] = after[i]


@on_views
def begin_step(
    rates: Array,
    lanes: Lanes,
    side_data: Array,
    modes: Array,
    pull: Array,
    control: StepControl,
    newton: float,
    n: int,
    scratch: Array,
) -> None:
    """The allowed error of Newton's iteration in a step; widens the range of the states by the Dirichlet values."""
    sum_magnitudes(rates[0], n, lanes.size, scratch, lanes.cell_sum)
    for j in range(lanes.size):
        lane, low, high = lanes[j], lanes[j].low, lanes[j].high
        for side in range(modes.size):
            for k in range(side_data.shape[0] if modes[side] == STATE and pull[side, j] == 0.0 else 0):
                low, high = min(low, side_data[k, side, j]), max(high, side_data[k, side, j])
        change, tolerance = lane.length * lane.cell_sum / n, min(control.tolerance, 1e-4)
        least = max(change, c.LEAST_SPREAD * (lane.seen_high - lane.seen_low))
        magnitude = max(abs(low), abs(high))
        allowed = max(tolerance * (high - low) + control.atol, 100.0 * c.EPSILON * magnitude)
        lane.allowed = max(newton * max(allowed, tolerance * least), ROUND_OFF * magnitude)
        lane.low, lane.high = low, high
        lane.is_open = lane.converged = 1.0 if lane.row >= 0.0 else 0.0


@inner_on_views
def side_slope(slope: float, inside: float, early: bool, linear: bool) -> float:
    """Derivative of the flux through a side by the edge cell through the state on the side, where it is limited.

    It is limited by that of the edge cell alone, so that the matrix stays diagonally dominant by columns. After the
    early iterations it is dropped, since a kink of Φ on the side may keep them from converging.
    """
    if linear:
        return slope
    return min(slope, inside + 0.5) if early else min(slope, 0.0)


@inner_on_views
def _assess(lanes: Lanes, n: int, iteration: int, limit: int, linear: bool) -> tuple[bool, bool]:
    """Closes the lanes whose iteration ends here; whether one is left open, and whether all take the whole change."""
    some, whole = False, True
    for j in range(lanes.size):
        lane, change, before = lanes[j], lanes[j].cell_sum / n, lanes[j].change
        lane.taken *= lane.is_open
        if lane.is_open > 0.0:
            done = has_converged(change, before, lane.allowed, iteration == 1, linear)
            lane.evaluations += 1.0
            lane.converged, lane.change, lane.residual = 1.0 if done else 0.0, change, change
            if done or iteration == limit or not isfinite(change):
                lane.is_open = lane.taken = 0.0
            else:
                lane.taken = relaxation(lane.taken, iteration, change, before)
        some, whole = some or lane.is_open > 0.0, whole and lane.taken == 1.0
    return some, whole


@inner_on_views
def relaxation(last: float, iterations: int, change: float, before: float) -> float:
    """Part of the next change to take: less if many iterations go to and fro between the branches of a kinked Φ."""
    if iterations < UNDAMPED:
        return 1.0
    return 0.5 * last if change > 0.9 * before else min(1.0, 1.25 * last)


@inner_on_views
def has_converged(change: float, before: float, allowed: float, first: bool, linear: bool) -> bool:
    """Whether what is left after the last change is allowed, if the changes go on shrinking by the last ratio."""
    if linear or change <= 0.0:
        return isfinite(change)
    if first or change <= 0.01 * allowed:
        return change <= allowed
    ratio = change / before
    return ratio < 1.0 and change * ratio <= allowed * (1.0 - ratio)


@on_views
def estimate_error(rates: Array, lanes: Lanes, lengths: Array, estimate: Array, n: int, scratch: Array) -> None:
    """Mean estimated error of the step of every lane."""
    last, size = rates.shape[0] - 1, n * lanes.size
    newest, factor = rates[last], estimate[last]
    for i in range(size):
        scratch[i] = estimate[0] * rates[0, i]
    for k in range(1, last):
        rate, part = rates[k], estimate[k]
        for i in range(size):
            scratch[i] += part * rate[i]
    for i in range(size):
        scratch[i] = lengths[i] * abs(scratch[i] + factor * newest[i])
    sum_lanes(scratch, n, lanes.size, lanes.error)
    for j in range(lanes.size):
        lanes[j].error /= n
