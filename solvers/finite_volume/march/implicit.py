"""Compiled implicit steps: diagonally implicit Runge–Kutta schemes, whose first stage is the start, the last the end.

Rows go side by side in ``width`` lanes: cell i of lane j is at i·width + j of a flat array. ``advance`` takes steps:
``stages`` solves the stages along one axis, ``plan`` judges the steps and prepares the next ones. Where something
changes with time the driver asks for one step at a time and evaluates it in between.
"""

from math import inf, isfinite
from typing import Any

from solvers._compiled import inner_on_views, merged, on_views
from solvers.finite_volume.march import control as c
from solvers.finite_volume.march import timing
from solvers.finite_volume.march.control import (
    BEFORE,
    CONVERGED,
    ERROR,
    FRESH,
    HIGH,
    LENGTH,
    LOW,
    OPEN,
    RESIDUAL,
    ROW,
    SEEN_HIGH,
    SEEN_LOW,
    SUM,
    TAKEN,
)  # fmt: skip
from solvers.finite_volume.march.kernels import Array
from solvers.finite_volume.march.plan import END, LENGTHS, MIDDLE, NOW, SLOPE, plan
from solvers.finite_volume.march.tridiagonal import solve, spread, sum_lanes, sum_magnitudes
from solvers.finite_volume.sides._side_data import GIVEN_FLUX, PERIODIC, STATE

UNDAMPED = 8
ROUND_OFF = 1e-13

X, FLUX, LEFT, RIGHT, WEIGHT, WORK, WORK2, RHS, DELTA, PIVOT, CORNER, SOURCE, BY_STATE, GOAL, BASE, SCRATCH = range(16)
"""Scratch of stages: states with those beyond the ends; fluxes and derivatives, and weights on faces; the equations of
Newton's method; a source and its derivative; and what they add to the equations."""


@on_views
def advance(
    arrays: Any, medium: Any, rows: Any, scheme: Any, laws: Any, out: Any, part: Any, row: int, steps: int
) -> tuple[int, bool]:
    """Takes steps of all lanes, at most so many; returns the next row to enter, and whether a lane is busy.

    ``arrays`` are those over the cells: S of states, implicit rates R and explicit ones E ``(stages, cells)``, scratch
    T; then the numbers of the lanes L, and flows ``(2, stages, f, width)``. ``medium`` is (parameters of law and
    source, coefficients, pulls, data), ``rows`` what of it belongs to the rows. ``part`` begins with the first stage to
    solve, that after the last, and the times of the stages; then it ends with the function that writes data of the
    sides at these times, and whether they change. Where steps is 0, stages are solved and not judged.
    """
    (first, after, moments, _, write, asks), L, busy, none = part, arrays[4], False, part[2].ctypes
    for j in range(L.shape[1]):
        busy = busy or L[ROW, j] >= 0.0
    while True:
        if busy and after > first and steps > 0:
            timing.set_moments(L, scheme[0][3], scheme[1][3], moments)
            if asks:
                write(none, none, none, none, none, none, none, first, after)
        if busy and after > first:
            _stages(arrays, medium, scheme, laws, part)
        if steps == 0:
            return row, busy
        row, busy = plan(arrays, medium, rows, scheme, out, row)
        steps -= 1
        if steps == 0 or not busy:
            return row, busy


@merged
def _stages(arrays: Any, medium: Any, scheme: Any, laws: Any, part: Any) -> None:
    """Solves stages of the steps of all lanes along one axis, and estimates their errors.

    Stage 0 gives the rates at the start where they are not known. ``laws`` are law and source, whether there is a
    source, whether all is linear, and the rows of time among their parameters (−1 for none); ``part`` is the first
    stage, that after the last, the times of the stages ``(stages, width)``, and row, time and whether there is a row,
    of every lane, for laws in tensors.
    """
    (p, q, coefficient, pull, data), (law, source, reacts, linear, timed, timed_source) = medium, laws
    (implicit, explicit, _, nodes, middle_stage, _), (modes, h, newton, limit, estimate) = scheme[0], scheme[3]
    (S, R, E, T, L, flow), (begin, finish, moments, info, _, _) = arrays, part
    width, weighted = L.shape[1], 0.0
    size = S.shape[1] - 2 * width
    n, faces, periodic = size // width, size + width, modes[0] == PERIODIC
    x, flux, left, right, weight, moved, scratch = T[X], T[FLUX], T[LEFT], T[RIGHT], T[WEIGHT], T[DELTA], T[WORK]
    u, delta, flux_after, left_after, right_after, delta_after = (
        x[width:faces],
        moved[width:faces],
        flux[width:],
        left[width:],
        right[width:],
        moved[2 * width :],
    )
    rhs, s, s_slope, lengths, now, after, middle = T[RHS], T[SOURCE], T[BY_STATE], S[LENGTHS], S[NOW], S[END], S[MIDDLE]
    goal, base, fresh = T[GOAL] if reacts else T[RHS], T[BASE], False
    if begin == 0:
        spread(L[LENGTH], lengths[:faces])
    for j in range(width):
        fresh = fresh or (L[FRESH, j] > 0.0 and L[ROW, j] >= 0.0)
    for stage in range(begin, finish):
        if stage == 0 and not fresh:
            continue
        factor, node = implicit[stage, stage] if stage > 0 else 1.0, nodes[stage]
        rate = R[stage] if stage > 0 else T[SCRATCH]
        for j in range(width):
            info[0, j], info[1, j], info[2, j] = L[ROW, j], moments[stage, j], 1.0 if L[ROW, j] >= 0.0 else 0.0
        for k in range(2):
            row = timed if k == 0 else timed_source
            if row >= 0:
                values = p[row] if k == 0 else q[row]
                for i in range(values.size):
                    values[i] = moments[stage, i % width]
        if stage == 0:  # the rate at the start by the same loops, with δ = 0
            for i in range(size):
                u[i], rhs[i] = now[i], 0.0
        else:
            _right_side(S, R, E, rhs, implicit[stage], explicit[stage], stage, size)
            if stage == 1:
                slope = S[SLOPE]
                for i in range(size):
                    u[i] = now[i] + node * lengths[i] * slope[i]
                begin_step(R, L, data, modes, pull, scheme[1][4], newton, n, scratch)
            else:
                ratio = node / nodes[stage - 1] - 1.0
                for i in range(size):
                    u[i] = after[i] + ratio * (after[i] - now[i])
        if factor != weighted:
            for i in range(faces):
                weight[i] = factor * lengths[i] * coefficient[i]
            weighted = factor
        for j in range(width):
            L[OPEN, j], L[BEFORE, j], L[TAKEN, j] = L[CONVERGED, j], inf, 1.0
        iteration, some = 0, True
        while some:
            for j in range(width):  # states beyond the ends
                if periodic:
                    x[j], x[faces + j] = x[size + j], x[width + j]
                else:
                    x[j] = pull[0, j] * x[width + j] + (data[stage, 0, j] if modes[0] == STATE else 0.0)
                    x[faces + j] = pull[1, j] * x[size + j] + (data[stage, 1, j] if modes[1] == STATE else 0.0)
            law(x.ctypes, p.ctypes, weight.ctypes, scratch.ctypes, flux.ctypes, left.ctypes, right.ctypes, faces, width)
            for j in range(0 if periodic else width):
                at, scale = size + j, factor * lengths[j] / h
                if modes[0] == GIVEN_FLUX:
                    flux[j], right[j] = scale * data[stage, 0, j], 0.0
                else:
                    right[j] -= side_slope(pull[0, j] * left[j], right[j], iteration < UNDAMPED, linear)
                if modes[1] == GIVEN_FLUX:
                    flux[at], left[at] = scale * data[stage, 1, j], 0.0
                else:
                    left[at] -= side_slope(pull[1, j] * right[at], left[at], iteration < UNDAMPED, linear)
                left[j] = right[at] = 0.0
            if reacts:
                source(u.ctypes, q.ctypes, x.ctypes, x.ctypes, s.ctypes, s_slope.ctypes, x.ctypes, size, q.shape[1])
            if stage == 0:
                for i in range(size):
                    delta[i] = 0.0
                break
            for i in range(size if reacts else 0):
                goal[i] = rhs[i] + factor * lengths[i] * s[i]
            for i in range(size if reacts else 0):
                base[i] = 1.0 - factor * lengths[i] * s_slope[i]
            solve(goal, base, u, (flux, left, right), (delta, T[PIVOT], T[CORNER]), periodic, size, width)
            sum_magnitudes(delta, n, width, scratch, L[SUM])
            iteration += 1
            some, whole = _assess(L, n, iteration, limit, linear)
            for i in range(size if some and whole else 0):
                u[i] += delta[i]
            for j in range(width if some and not whole else 0):
                for i in range(j, size, width):
                    u[i] += L[TAKEN, j] * delta[i]
        # u = r + s·rate and the flow through the sides, by the linearised fluxes and source
        for j in range(width):
            moved[j], moved[faces + j] = (moved[size + j], moved[width + j]) if periodic else (0.0, 0.0)
        for i in range(size):
            before = flux[i] + (left[i] * moved[i] - right[i] * delta[i])
            behind = flux_after[i] + (left_after[i] * delta[i] - right_after[i] * delta_after[i])
            rate[i] = (before - behind) / (factor * lengths[i])
        if reacts:
            for i in range(size):
                scratch[i] = s[i] + s_slope[i] * delta[i]
            for i in range(size):
                rate[i] += scratch[i]
            sum_lanes(scratch, n, width, L[SUM])
        for j in range(width):
            if stage > 0 or (L[FRESH, j] > 0.0 and L[ROW, j] >= 0.0):
                scale = h / (factor * lengths[j])
                first = flux[j] + (left[j] * moved[j] - right[j] * delta[j])
                final = flux[size + j] + (left[size + j] * moved[size + j] - right[size + j] * moved[faces + j])
                flow[0, stage, 0, j], flow[0, stage, 1, j] = scale * first, scale * final
                flow[0, stage, 2, j] = h * L[SUM, j] if reacts else 0.0
                if stage == 0:
                    L[FRESH, j], first_rate = 0.0, R[0]
                    for i in range(j, size, width):
                        first_rate[i] = rate[i]
        for i in range(size if stage > 0 else 0):
            after[i] = rhs[i] + factor * lengths[i] * rate[i]
        if stage == middle_stage:
            for i in range(size):
                middle[i] = after[i]
    if finish == nodes.size:
        estimate_error(R, L, lengths, estimate, n, width, scratch)


@inner_on_views
def _right_side(
    S: Array, R: Array, E: Array, rhs: Array, implicit: Array, explicit: Array, stage: int, size: int
) -> None:
    """Right side of the equations of a stage, by the rates of those before."""
    now, lengths, newest, share, more = S[NOW], S[LENGTHS], R[stage - 1], implicit[stage - 1], E.shape[1] > 0
    if stage == 1 and not more:
        for i in range(size):
            rhs[i] = now[i] + lengths[i] * (share * newest[i])
        return
    for i in range(size):
        rhs[i] = implicit[0] * R[0, i]
    for k in range(1, stage if more else stage - 1):
        earlier, part = R[k], implicit[k]
        for i in range(size):
            rhs[i] += part * earlier[i]
    for k in range(stage - 1 if more else 0):
        earlier, part = E[k], explicit[k]
        for i in range(size):
            rhs[i] += part * earlier[i]
    if more:
        newest, share = E[stage - 1], explicit[stage - 1]
    for i in range(size):
        rhs[i] = now[i] + lengths[i] * (rhs[i] + share * newest[i])


@on_views
def begin_step(
    R: Array, L: Array, data: Array, modes: Array, pull: Array, options: Any, newton: float, n: int, scratch: Array
) -> None:
    """The allowed error of Newton's iteration in a step; widens the range of the states by the Dirichlet values."""
    rate, width = R[0], L.shape[1]
    sum_magnitudes(rate, n, width, scratch, L[SUM])
    for j in range(width):
        low, high = L[LOW, j], L[HIGH, j]
        for side in range(modes.size):
            for k in range(data.shape[0] if modes[side] == STATE and pull[side, j] == 0.0 else 0):
                low, high = min(low, data[k, side, j]), max(high, data[k, side, j])
        change, spread = L[LENGTH, j] * L[SUM, j] / n, min(options[0], 1e-4)
        least = max(change, c.LEAST_SPREAD * (L[SEEN_HIGH, j] - L[SEEN_LOW, j]))
        magnitude = max(abs(low), abs(high))
        allowed = max(max(spread * (high - low) + options[1], 100.0 * c.EPSILON * magnitude), spread * least)
        L[c.ALLOWED, j], L[LOW, j], L[HIGH, j] = max(newton * allowed, ROUND_OFF * magnitude), low, high
        L[OPEN, j] = L[CONVERGED, j] = 1.0 if L[ROW, j] >= 0.0 else 0.0


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
def _assess(L: Array, n: int, iteration: int, limit: int, linear: bool) -> tuple[bool, bool]:
    """Closes the lanes whose iteration ends here; whether one is left open, and whether all take the whole change."""
    some, whole = False, True
    for j in range(L.shape[1]):
        change, before = L[SUM, j] / n, L[BEFORE, j]
        L[TAKEN, j] *= L[OPEN, j]
        if L[OPEN, j] > 0.0:
            done = has_converged(change, before, L[c.ALLOWED, j], iteration == 1, linear)
            L[c.EVALUATIONS, j] += 1.0
            L[CONVERGED, j], L[BEFORE, j], L[RESIDUAL, j] = 1.0 if done else 0.0, change, change
            if done or iteration == limit or not isfinite(change):
                L[OPEN, j] = L[TAKEN, j] = 0.0
            else:
                L[TAKEN, j] = relaxation(L[TAKEN, j], iteration, change, before)
        some, whole = some or L[OPEN, j] > 0.0, whole and L[TAKEN, j] == 1.0
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
def estimate_error(R: Array, L: Array, lengths: Array, estimate: Array, n: int, width: int, scratch: Array) -> None:
    """Mean estimated error of the step of every lane."""
    newest, share = R[R.shape[0] - 1], estimate[R.shape[0] - 1]
    for i in range(n * width):
        scratch[i] = estimate[0] * R[0, i]
    for k in range(1, R.shape[0] - 1):
        rate, part = R[k], estimate[k]
        for i in range(n * width):
            scratch[i] += part * rate[i]
    for i in range(n * width):
        scratch[i] = lengths[i] * abs(scratch[i] + share * newest[i])
    sum_lanes(scratch, n, width, L[ERROR])
    for j in range(width):
        L[ERROR, j] /= n
