"""Compiled implicit steps: diagonally implicit Runge–Kutta schemes, whose first stage is the start, the last the end.

Rows go side by side in ``width`` lanes: cell i of lane j is at i·width + j of a flat array, so that a loop over all
cells is one loop for any width, which vectorises for one row as for eight. Only eliminations run in order. A row has
the same bits alone and in company.

``plan`` judges the last trial step of every lane, writes outputs, gives free lanes the next rows and proposes lengths;
``stages`` solves the stages of the steps along one axis. Between the two the driver evaluates what changes with time.
"""

from math import inf, isfinite
from typing import Any

from solvers._compiled import compiled, inner
from solvers.finite_volume.march import control as c
from solvers.finite_volume.march.control import (
    BEFORE,
    CONVERGED,
    CURSOR,
    ERROR,
    FRESH,
    HIGH,
    LENGTH,
    LOW,
    OPEN,
    PROPOSAL,
    RESIDUAL,
    ROW,
    RUNNING,
    SEEN_HIGH,
    SEEN_LOW,
    SUM,
    TAKEN,
    TIME,
    VERDICT,
)  # fmt: skip
from solvers.finite_volume.march.kernels import Array
from solvers.finite_volume.sides._side_data import GIVEN_FLUX, PERIODIC, STATE
from solvers.finite_volume.steppers.steppers import BY_RATES

UNDAMPED = 8
ROUND_OFF = 1e-13

NOW, SLOPE, MIDDLE, END, LENGTHS, STATES = range(6)
"""Arrays over the cells: states at the start, their rate of change in the step before, at the stage that outputs are
interpolated through, and at the end; and lengths of steps."""

(
    X,
    FLUX,
    LEFT,
    RIGHT,
    COEFFICIENT,
    WEIGHT,
    ROOM,
    ROOM2,
    RHS,
    DELTA,
    PIVOT,
    DIAGONAL,
    CORNER,
    SOURCE,
    BY_STATE,
    SCRATCH,
) = range(16)
"""Scratch of stages: states with those beyond the ends; fluxes and derivatives, coefficients and weights on faces; the
equations of Newton's method; a source and its derivative."""


@compiled
def plan(S: Array, R: Array, E: Array, L: Array, flow: Array, medium: Any, rows: Any, scheme: Any, out: Any, row: int):
    """Judges trial steps, writes outputs, refills lanes and proposes lengths.

    Rates are implicit R and explicit E ``(stages, cells)``, ``flow`` those through the sides and of the source
    ``(2, stages, f, width)``. ``medium`` is (parameters of law and source, coefficients, pulls, data), ``rows`` what of
    it belongs to the rows. Returns the next row to enter, and whether a lane is busy.
    """
    (implicit, explicit, weights, nodes, middle_stage, order), (first, longest, cursor, span, options) = scheme[:2]
    _, _, work, total, sampled, _, balance = out
    n, width, last, busy, following, times = rows[0].shape[1], L.shape[1], nodes.size - 1, False, row, scheme[2]
    size, now, after, slope, lengths = n * width, S[NOW], S[END], S[SLOPE], S[LENGTHS]
    (start, end), first_rate, last_rate = span, R[0], R[last]
    for j in range(width):
        lane, row = L[:, j], int(L[ROW, j])
        if row >= 0:
            low, high, length = inf, -inf, lane[LENGTH]
            for i in range(j, size, width):
                low, high = min(low, after[i]), max(high, after[i])
            allowed = c.allowed_error(lane, min(low, lane[LOW]), max(high, lane[HIGH]), options)
            ratio = lane[ERROR] / allowed if lane[ERROR] > 0.0 else 0.0
            if not (isfinite(lane[ERROR]) and isfinite(high - low) and lane[CONVERGED] > 0.0):
                ratio = inf
            if c.judge(lane, ratio, order, end):
                finish = c.end_of_step(lane[TIME], length, end)
                for k in range(flow.shape[2]):
                    balance[0, k], balance[1, k], balance[2, k] = total[row, k], 0.0, 0.0
                    for stage in range(last + 1):
                        slow, fast, m = length * flow[0, stage, k, j], length * flow[1, stage, k, j], middle_stage
                        balance[2, k] += implicit[last, stage] * slow + weights[stage] * fast
                        balance[1, k] += 0.0 if m < 0 else implicit[m, stage] * slow + explicit[m, stage] * fast
                if int(lane[CURSOR]) < times.size and times[int(lane[CURSOR])] <= finish:
                    states = (S, R, E, flow)
                    _write_outputs(lane, states, (nodes, middle_stage), finish, times, out, row, j, width)
                for stage in range(last + 1):
                    for entry in range(medium[4].shape[1]):
                        sampled[row, entry] += length * implicit[last, stage] * medium[4][stage, entry, j]
                for k in range(flow.shape[2]):
                    total[row, k] += balance[2, k]
                    flow[0, 0, k, j] = flow[0, last, k, j]
                for i in range(j, size, width):
                    slope[i], now[i], first_rate[i] = (after[i] - now[i]) / length, after[i], last_rate[i]
                c.move_to_end(lane, finish, end)
            else:
                low, high = inf, -inf
                for i in range(j, size, width):
                    low, high = min(low, now[i]), max(high, now[i])
            lane[LOW], lane[HIGH] = low, high
            if lane[TIME] >= end or lane[VERDICT] != RUNNING:
                for k in range(4):
                    work[row, k] = lane[VERDICT + k]
                work[row, 4], work[row, 5], work[row, 6] = lane[TIME], length, lane[RESIDUAL]
                work[row, 7], work[row, 8] = low, high
                row = -1
        if row < 0 and following < rows[0].shape[0]:
            row, following = following, following + 1
            _enter(S, L, medium, rows, row, j)
            lane[TIME], lane[PROPOSAL], lane[FRESH], lane[CURSOR] = start, first, 1.0, cursor
        lane[ROW], lane[LENGTH] = row, 1.0
        if row >= 0:
            busy = True
            lane[LENGTH] = c.landing(min(lane[PROPOSAL], longest), end - lane[TIME])
        for i in range(j, size + width, width):
            lengths[i] = lane[LENGTH]
    return following, busy


@inner
def _write_outputs(
    lane: Array, states: Any, shape: Any, finish: float, times: Array, out: Any, row: int, j: int, width: int
) -> None:
    """Writes the outputs that the step of a lane passes."""
    (S, R, E, flow), (nodes, middle_stage), (values, account, _, _, _, course, balance) = states, shape, out
    now, middle, after, cursor, length = S[NOW], S[MIDDLE], S[END], int(lane[CURSOR]), lane[LENGTH]
    for i in range(course.shape[1]):
        at = i * width + j
        course[0, i], course[1, i], course[2, i] = now[at], middle[at], after[at]
    while cursor < times.size and times[cursor] <= finish:
        theta, fraction = min(1.0, (times[cursor] - lane[TIME]) / length), nodes[max(middle_stage, 0)]
        if middle_stage == BY_RATES:
            fraction = theta
            _bend(theta, length, course, balance, R, E, flow, j, width)
        c.write_output(theta, fraction, course, balance, values[row, cursor], account[row, cursor], True)
        cursor += 1
    lane[CURSOR] = cursor


@inner
def _bend(theta: float, length: float, course: Any, balance: Any, R: Array, E: Array, flow: Array, j: int, width: int):
    """State and account at a part of a step, by the cubic through both ends with the rates there."""
    start, final, last, more = theta * (1.0 - theta) ** 2, theta * theta * (1.0 - theta), R.shape[0] - 1, E.shape[1] > 0
    for i in range(course.shape[1]):
        at, change = i * width + j, course[2, i] - course[0, i]
        first, after = R[0, at], R[last, at]
        if more:
            first, after = first + E[0, at], after + E[last, at]
        bent = start * (length * first - change) - final * (length * after - change)
        course[1, i] = course[0, i] + theta * change + bent
    for k in range(balance.shape[1]):
        step, first = balance[2, k], flow[0, 0, k, j] + flow[1, 0, k, j]
        after = flow[0, last, k, j] + flow[1, last, k, j]
        balance[1, k] = theta * step + start * (length * first - step) - final * (length * after - step)


@inner
def _enter(S: Array, L: Array, medium: Any, rows: Any, row: int, j: int) -> None:
    """Puts a row at its start, with what belongs to it, into a lane."""
    (p, q, coefficient, pull, data), (initial, parameters, source, coefficients, pulls, fixed, sizes) = medium, rows
    n, width, low, high = initial.shape[1], L.shape[1], inf, -inf
    now, slope = S[NOW], S[SLOPE]
    for i in range(n):
        now[i * width + j], slope[i * width + j] = initial[row, i], 0.0
        low, high = min(low, initial[row, i]), max(high, initial[row, i])
    for values, spread in ((parameters, p), (source, q)):
        for k in range(spread.shape[0]):
            for i in range(spread.shape[1] // width):
                spread[k, i * width + j] = values[row, k, i % values.shape[2]]
    for i in range(coefficient.size // width):
        coefficient[i * width + j] = coefficients[row, i % coefficients.shape[1]]
    for side in range(pull.shape[0]):
        pull[side, j] = pulls[row, side]
    for entry in range(data.shape[1]):
        for stage in range(data.shape[0]):
            data[stage, entry, j] = fixed[row, entry]
    for k in range(c.NUMBERS):
        L[k, j] = 0.0
    L[LOW, j], L[HIGH, j], L[SEEN_LOW, j], L[SEEN_HIGH, j], L[c.SIZE, j] = low, high, low, high, sizes[row]


@inner
def sum_lanes(v: Array, n: int, width: int, out: Array) -> None:
    """Sums over the cells of every lane, by halves, so that the loops vectorise; overwrites v."""
    while n > 1:
        half = (n + 1) // 2
        after = v[half * width :]
        for i in range((n - half) * width):
            v[i] += after[i]
        n = half
    for j in range(width):
        out[j] = v[j]


@inner
def eliminate(v: Array, pivot: Array, diagonal: Array, left: Array, right: Array, last: int, size: int, width: int):
    """Eliminates what is below the diagonals; one row keeps its last numbers in registers."""
    for j in range(width):
        pivot[j] = 1.0 / diagonal[j]
    if width == 1:
        change, inverse = v[0], pivot[0]
        for i in range(1, size):
            below = left[i] * inverse
            change = v[i] + below * change
            inverse = 1.0 / (diagonal[i] - below * right[i])
            v[i], pivot[i] = change, inverse
        return
    low, high, after, pivot_after, diagonal_after = (
        left[width:],
        right[width:],
        v[width:],
        pivot[width:],
        diagonal[width:],
    )
    for i in range(last):
        below = low[i] * pivot[i]
        after[i] += below * v[i]
        pivot_after[i] = 1.0 / (diagonal_after[i] - below * high[i])


@inner
def substitute_back(v: Array, pivot: Array, right: Array, last: int, size: int, width: int) -> None:
    """Overwrites v, after elimination, by the solution."""
    upper, after = right[width:], v[width:]
    for i in range(last, size):
        v[i] *= pivot[i]
    if width == 1:
        x = v[last]
        for i in range(last - 1, -1, -1):
            x = pivot[i] * v[i] + (upper[i] * pivot[i]) * x
            v[i] = x
    else:
        for i in range(last - 1, -1, -1):
            v[i] = pivot[i] * v[i] + (upper[i] * pivot[i]) * after[i]


@compiled
def stages(
    S: Array, R: Array, E: Array, T: Array, L: Array, flow: Array, medium: Any, scheme: Any, laws: Any, part: Any
):
    """Solves stages of the steps of all lanes along one axis, and estimates their errors.

    Stage 0 gives the rates at the start where they are not known. ``laws`` are law and source, whether there is a
    source, whether all is linear, and the rows of time among their parameters (−1 for none); ``part`` is the first
    stage, that after the last, the times of the stages ``(stages, width)``, and row, time and whether there is a row,
    of every lane, for laws in tensors.
    """
    (p, q, coefficient, pull, data), (law, source, reacts, linear, timed, timed_source) = medium, laws
    (implicit, explicit, _, nodes, middle_stage, _), (modes, h, newton, limit, estimate) = scheme[0], scheme[3]
    (begin, finish, moments, info), width, more = part, L.shape[1], E.shape[1] > 0
    size = S.shape[1] - 2 * width
    n, faces, last, periodic = size // width, size + width, size - width, modes[0] == PERIODIC
    x, flux, left, right, weight, delta, scratch = T[X], T[FLUX], T[LEFT], T[RIGHT], T[WEIGHT], T[DELTA], T[ROOM]
    u, flux_after, left_after, right_after, delta_after = (
        x[width:faces],
        flux[width:],
        left[width:],
        right[width:],
        delta[width:],
    )
    rhs, s, s_slope, lengths, now, after, middle = T[RHS], T[SOURCE], T[BY_STATE], S[LENGTHS], S[NOW], S[END], S[MIDDLE]
    fresh = False
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
            for i in range(size):
                rhs[i] = implicit[stage, 0] * R[0, i]
            for k in range(1, stage):
                earlier, share = R[k], implicit[stage, k]
                for i in range(size):
                    rhs[i] += share * earlier[i]
            for k in range(stage if more else 0):
                earlier, share = E[k], explicit[stage, k]
                for i in range(size):
                    rhs[i] += share * earlier[i]
            for i in range(size):
                rhs[i] = now[i] + lengths[i] * rhs[i]
            if stage == 1:
                slope = S[SLOPE]
                for i in range(size):
                    u[i] = now[i] + node * lengths[i] * slope[i]
                begin_step(R, L, data, modes, pull, scheme[1][4], newton, n, scratch)
            else:
                ratio = node / nodes[stage - 1] - 1.0
                for i in range(size):
                    u[i] = after[i] + ratio * (after[i] - now[i])
        for i in range(faces):
            weight[i] = factor * lengths[i] * coefficient[i]
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
                    right[j] -= side_slope(pull[0, j] * left[j], right[j], iteration, linear)
                if modes[1] == GIVEN_FLUX:
                    flux[at], left[at] = scale * data[stage, 1, j], 0.0
                else:
                    left[at] -= side_slope(pull[1, j] * right[at], left[at], iteration, linear)
                left[j] = right[at] = 0.0
            if reacts:
                source(u.ctypes, q.ctypes, x.ctypes, x.ctypes, s.ctypes, s_slope.ctypes, x.ctypes, size, q.shape[1])
            if stage == 0:
                for i in range(size):
                    delta[i] = 0.0
                break
            _solve(T, lengths, factor, reacts, periodic, size, width)
            for i in range(size):
                scratch[i] = abs(delta[i])
            sum_lanes(scratch, n, width, L[SUM])
            iteration += 1
            some, whole = _assess(L, n, iteration, limit, linear)
            for i in range(size if some and whole else 0):
                u[i] += delta[i]
            for j in range(width if some and not whole else 0):
                for i in range(j, size, width):
                    u[i] += L[TAKEN, j] * delta[i]
        # u = r + s·rate and the flow through the sides, by the linearised fluxes and source
        for i in range(last):
            flux_after[i] += left_after[i] * delta[i] - right_after[i] * delta_after[i]
        for j in range(width):
            first, final = delta[j], delta[last + j]
            flux[j] += (left[j] * final if periodic else 0.0) - right[j] * first
            flux[size + j] += left[size + j] * final - (right[size + j] * first if periodic else 0.0)
        for i in range(size):
            rate[i] = (flux[i] - flux_after[i]) / (factor * lengths[i])
        if reacts:
            for i in range(size):
                scratch[i] = s[i] + s_slope[i] * delta[i]
            for i in range(size):
                rate[i] += scratch[i]
            sum_lanes(scratch, n, width, L[SUM])
        for j in range(width):
            if stage > 0 or (L[FRESH, j] > 0.0 and L[ROW, j] >= 0.0):
                scale = h / (factor * lengths[j])
                flow[0, stage, 0, j], flow[0, stage, 1, j] = scale * flux[j], scale * flux[size + j]
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


@compiled
def begin_step(
    R: Array, L: Array, data: Array, modes: Array, pull: Array, options: Any, newton: float, n: int, scratch: Array
) -> None:
    """The allowed error of Newton's iteration in a step; widens the range of the states by the Dirichlet values."""
    rate, width = R[0], L.shape[1]
    for i in range(n * width):
        scratch[i] = abs(rate[i])
    sum_lanes(scratch, n, width, L[SUM])
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


@inner
def side_slope(slope: float, inside: float, iteration: int, linear: bool) -> float:
    """Derivative of the flux through a side by the edge cell through the state on the side, where it is limited.

    It is limited by that of the edge cell alone, so that the matrix stays diagonally dominant by columns. After many
    iterations it is dropped, since a kink of Φ on the side may keep them from converging.
    """
    if linear:
        return slope
    return min(slope, inside + 0.5) if iteration < UNDAMPED else min(slope, 0.0)


@inner
def _solve(T: Array, lengths: Array, factor: float, reacts: bool, periodic: bool, size: int, width: int) -> None:
    """The change δ by Newton's method: residual and matrix, elimination, on a circle Sherman and Morrison's formula."""
    flux, left, right, rhs, delta, diagonal, pivot, corner = (
        T[FLUX], T[LEFT], T[RIGHT], T[RHS], T[DELTA], T[DIAGONAL], T[PIVOT], T[CORNER],
    )  # fmt: skip
    s, s_slope, u, last = T[SOURCE], T[BY_STATE], T[X, width:], size - width
    flux_after, left_after, corner_after = flux[width:], left[width:], corner[width:]
    for i in range(size):
        delta[i] = rhs[i] - u[i] + (flux[i] - flux_after[i])
    for i in range(size):
        diagonal[i] = 1.0 + (right[i] + left_after[i])
    for i in range(size if reacts else 0):
        delta[i] += factor * lengths[i] * s[i]
        diagonal[i] -= factor * lengths[i] * s_slope[i]
    for j in range(width if periodic else 0):
        corner[j] = -diagonal[j]
        diagonal[last + j] += right[size + j] * left[j] / diagonal[j]
        diagonal[j] *= 2.0
    eliminate(delta, pivot, diagonal, left, right, last, size, width)
    for i in range(last if periodic else 0):
        corner_after[i] = left_after[i] * pivot[i] * corner[i]
        if i >= last - width:
            corner_after[i] -= right[size + i - last + width]
    substitute_back(delta, pivot, right, last, size, width)
    if periodic:
        substitute_back(corner, pivot, right, last, size, width)
    for j in range(width if periodic else 0):
        ratio = 2.0 * left[j] * pivot[j]
        moved = (delta[j] + ratio * delta[last + j]) / (1.0 + corner[j] + ratio * corner[last + j])
        for i in range(j, size, width):
            delta[i] -= moved * corner[i]


@inner
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


@inner
def relaxation(last: float, iterations: int, change: float, before: float) -> float:
    """Part of the next change to take: less if many iterations go to and fro between the branches of a kinked Φ."""
    if iterations < UNDAMPED:
        return 1.0
    return 0.5 * last if change > 0.9 * before else min(1.0, 1.25 * last)


@inner
def has_converged(change: float, before: float, allowed: float, first: bool, linear: bool) -> bool:
    """Whether what is left after the last change is allowed, if the changes go on shrinking by the last ratio."""
    if linear or change <= 0.0:
        return isfinite(change)
    if first or change <= 0.01 * allowed:
        return change <= allowed
    ratio = change / before
    return ratio < 1.0 and change * ratio <= allowed * (1.0 - ratio)


@compiled
def estimate_error(R: Array, L: Array, lengths: Array, estimate: Array, n: int, width: int, scratch: Array) -> None:
    """Mean estimated error of the step of every lane."""
    for i in range(n * width):
        scratch[i] = estimate[0] * R[0, i]
    for k in range(1, R.shape[0]):
        rate, share = R[k], estimate[k]
        for i in range(n * width):
            scratch[i] += share * rate[i]
    for i in range(n * width):
        scratch[i] = lengths[i] * abs(scratch[i])
    sum_lanes(scratch, n, width, L[ERROR])
    for j in range(width):
        L[ERROR, j] /= n
