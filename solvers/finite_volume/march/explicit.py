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
from solvers.finite_volume.march import timing
from solvers.finite_volume.march.control import (
    CURSOR,
    EULER,
    FRESH,
    LENGTH,
    LIVE,
    LONGEST,
    PROPOSAL,
    RESIDUAL,
    RUNNING,
    STAGES,
    TIME,
    VERDICT,
    WORST,
)  # fmt: skip
from solvers.finite_volume.march.kernels import Array
from solvers.finite_volume.march.rates import rates
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
def _propose(L: Array, end: float, longest: float) -> int:
    """Proposes lengths and says which rows go on; returns how many do."""
    live = 0
    for b in range(L.shape[1]):
        on = L[TIME, b] < end and L[VERDICT, b] == RUNNING
        L[LIVE, b], live = 1.0 if on else 0.0, live + (1 if on else 0)
        L[LENGTH, b] = c.avoid_tiny_last_step(min(min(L[PROPOSAL, b], L[LONGEST, b]), longest), end - L[TIME, b])
        L[EULER, b] = 0.0
    return live


@on_views
def advance(
    A: Array, F: Array, L: Array, sides: Any, system: Any, scheme: Any, out: Any, info: Array, budget: int
) -> int:
    """Takes steps of the rows of a tile, at most a budget of them; returns how many rows are under way.

    Arrays over the cells A ``(8, rows, size)``, flows F ``(5, rows, 2d + 3)``, numbers L. ``sides`` are data of the
    sides ``(stages, rows, S)``, the last for all later stages, their times ``(stages, rows)`` and time integrals
    ``(rows, S)``; the function that writes data, whether they change with time, and the limits of steps. Where there
    is no room for data of more stages it returns −1 less the number of stages.
    """
    (laws, medium, grid, work, timed), ((courant, _, longest, sources, keeps), (_, end), times, _) = system, scheme
    data, asks, limits = sides[0], sides[4], sides[5]
    rows, final, rate, source, flow, live = L.shape[1], data.shape[0] - 1, A[RATE], A[SOURCE], F[FLOW], L.shape[1]
    while budget > 0:
        budget -= 1
        timing.look_ahead(L, limits)
        live = _propose(L, end, longest)
        if live == 0:
            break
        k, most = 0 * rows, 0  # a bare 0 is a literal, and functions are compiled once more for it
        if asks:
            _begin(A, F, L, sides, system, scheme, info, k)
        while k == 0 or k <= most:
            some = k > 0
            for b in range(rows):
                if k > 0 and k <= L[STAGES, b]:
                    _combine(A, F, L, b, k, courant, times, end)
                fresh = L[LIVE, b] > 0.0 and (L[FRESH, b] > 0.0 or not keeps)
                on = fresh if k == 0 else k < L[STAGES, b] if k < most else keeps and L[LIVE, b] > 0.0
                info[2, b], some = 1.0 if on else 0.0, some or on
            if some and (k < most or k == 0 or keeps):
                _set_times(L, info, medium, timed, A.shape[2], inf if k == most and k > 0 else float(k), courant)
                bounds = courant > 0.0 or k == 0 or k == most
                states, given = A[BASE if k == 0 else 1 + k % 2], data[min(k, final)]
                rates(states, rate, source, flow, given, laws, medium, grid, work, bounds)
            for b in range(rows):
                if k == 0:
                    if info[2, b] > 0.0:
                        _keep_rate(A, F, b)
                    L[FRESH, b] = 0.0
                    _plan_stages(A, F, L, b, courant, sources)
                    most = max(most, int(L[STAGES, b]))
                elif k < most and info[2, b] > 0.0:
                    _note_stage(A, F, L, b, k, courant, sources)
            if k == 0:
                timing.keep_off_end(L, limits)
                count = min(most, 2) if courant > 0.0 else most
                if asks and count > final:
                    return -1 - count
                if asks:
                    _ask(L, sides, info, scheme, k + 1, k + 1 + count)
            k += 1
        for b in range(rows):
            if L[LIVE, b] > 0.0:
                ratio = _ratio(A, L, data, b, scheme, grid)
                _judge(A, F, L, b, ratio, sides, scheme, out, grid[0])
    return live


@inner_on_views
def _ask(L: Array, sides: Any, info: Array, scheme: Any, first: int, after: int) -> None:
    """Has the data of the sides written at some stages; at the start for rows where they are not known."""
    (data, moments, _, write, _, _), (courant, span) = sides, (scheme[0][0], scheme[1])
    some, none = False, data.ctypes
    for b in range(L.shape[1]):
        on = L[LIVE, b] > 0.0 and (first > 0 or L[FRESH, b] > 0.0)
        info[2, b], some, stages = 1.0 if on else 0.0, some or on, max(L[STAGES, b], 3.0)
        for k in range(first, after):
            fraction = node(courant, int(min(float(k), stages)), stages)
            moments[k, b] = min(max(c.moment(L, b, fraction), span[0]), span[1])
    if some:
        write(none, none, none, none, none, none, none, first, after)


@merged
def _begin(A: Array, F: Array, L: Array, sides: Any, system: Any, scheme: Any, info: Array, start: int) -> None:
    """Data at the start of a step; and how stiff RKL2 is at its end, where its stages must be stable, too."""
    (laws, medium, grid, work, timed), courant, last = system, scheme[0][0], start + 3
    _ask(L, sides, info, scheme, start, start + 1)
    if courant > 0.0:
        return
    timing.keep_off_end(L, sides[5])
    for b in range(L.shape[1]):
        L[STAGES, b] = 3.0
    _ask(L, sides, info, scheme, last, last + 1)
    _set_times(L, info, medium, timed, A.shape[2], float(last), courant)
    given, bounds = sides[0][last], courant == 0.0
    rates(A[BASE], A[RATE], A[SOURCE], F[FLOW], given, laws, medium, grid, work, bounds)
    for b in range(L.shape[1]):
        L[EULER, b] = F[FLOW, b, F.shape[2] - 1]


@inner_on_views
def _set_times(L: Array, info: Array, medium: Any, timed: Any, size: int, stage: float, courant: float) -> None:
    """Times of the rows in a stage, for laws in tensors and among the parameters of compiled ones."""
    p, q, r, _ = medium
    for b in range(L.shape[1]):
        at = min(stage, L[STAGES, b])
        info[1, b] = c.moment(L, b, node(courant, int(at), L[STAGES, b]) if stage > 0.0 else 0.0)
        for axis in range(p.shape[0] if timed[0] >= 0 else 0):
            p[axis, timed[0], b * size : (b + 1) * size] = info[1, b]
        for axis in range(q.shape[0] if timed[1] >= 0 else 0):
            q[axis, timed[1], b * size : (b + 1) * size] = info[1, b]
        if timed[2] >= 0:
            r[timed[2], b * size : (b + 1) * size] = info[1, b]


@inner_on_views
def _keep_rate(A: Array, F: Array, b: int) -> None:
    """Takes the last rate of a row for f₀."""
    start, rate, first, flow = A[START, b], A[RATE, b], F[FIRST, b], F[FLOW, b]
    for i in range(start.size):
        start[i] = rate[i]
    for k in range(first.size):
        first[k] = flow[k]


@merged
def _plan_stages(A: Array, F: Array, L: Array, b: int, courant: float, sources: bool) -> None:
    """Length and stages of the step of a row, by what is known at its start."""
    base, even, error, source, flows = A[BASE, b], A[EVEN, b], A[ERROR, b], A[SOURCE, b], F.shape[2]
    speed, euler = F[FIRST, b, flows - 2], F[FIRST, b, flows - 1]
    stages = 3.0
    if courant > 0.0:
        if speed + euler > 0.0:
            L[LENGTH, b] = min(L[LENGTH, b], courant / (speed + euler))
    else:
        radius = 2.0 * SAFETY * max(euler, L[EULER, b])
        if radius > 0.0 and isfinite(radius):  # a step that is not finite fails by its error
            longest = 0.25 * (MOST_STAGES * MOST_STAGES + MOST_STAGES - 2.0)
            L[LENGTH, b] = min(L[LENGTH, b], 2.0 / radius * longest)
            stages = stages_for(0.5 * radius * L[LENGTH, b])
    L[STAGES, b], L[WORST, b] = stages * L[LIVE, b], 0.0
    for i in range(base.size):
        even[i] = base[i]
    for i in range(base.size if sources else 0):
        error[i] = -1.0 / 3.0 * source[i]
    for k in range(flows):
        F[EVEN_BUDGET, b, k] = F[ODD_BUDGET, b, k] = 0.0


@merged
def _note_stage(A: Array, F: Array, L: Array, b: int, stage: int, courant: float, sources: bool) -> None:
    """Largest speed and estimated error of SSPRK3 by the rates after a stage."""
    if courant == 0.0:
        return
    error, source, flows = A[ERROR, b], A[SOURCE, b], F.shape[2]
    L[WORST, b] = max(L[WORST, b], F[FLOW, b, flows - 2]) + (F[FLOW, b, flows - 1] if stage == 2 else 0.0)
    for i in range(error.size if sources else 0):
        error[i] += (2.0 / 3.0 if stage == 2 else -1.0 / 3.0) * source[i]


@merged
def _combine(A: Array, F: Array, L: Array, b: int, stage: int, courant: float, times: Array, end: float) -> None:
    """A stage of a row, over the one before the last."""
    odd, base, slope, middle = stage % 2, A[BASE, b], A[START, b], A[MIDDLE, b]
    change, flow = (A[START, b], F[FIRST, b]) if stage == 1 else (A[RATE, b], F[FLOW, b])
    before, now = (A[ODD, b], A[EVEN, b]) if odd == 1 else (A[EVEN, b], A[ODD, b])
    mu, nu, own, other = weights(courant, stage, L[STAGES, b])
    own, other = L[LENGTH, b] * own, L[LENGTH, b] * other
    if stage == 1:
        for i in range(base.size):
            before[i] = base[i] + own * change[i]
    else:
        for i in range(base.size):
            moved = mu * (now[i] - base[i]) + nu * (before[i] - base[i])
            before[i] = base[i] + (moved + (other * slope[i] + own * change[i]))
    half = False
    if courant == 0.0 and stage == middle_stage(L[STAGES, b]) and int(L[CURSOR, b]) < times.size:
        half = times[int(L[CURSOR, b])] <= c.end_of_step(L[TIME, b], L[LENGTH, b], end)
    for k in range(flow.size):
        kept = mu * F[ODD_BUDGET - odd, b, k] + nu * F[EVEN_BUDGET + odd, b, k]
        F[EVEN_BUDGET + odd, b, k] = kept + (other * F[FIRST, b, k] + own * flow[k])
        if half:
            F[MIDDLE_BUDGET, b, k] = F[EVEN_BUDGET + odd, b, k]
    for i in range(base.size if half else 0):
        middle[i] = before[i]


@merged
def _ratio(A: Array, L: Array, data: Array, b: int, scheme: Any, grid: Any) -> float:
    """Estimated over allowed error of the step of a row; not finite where it fails."""
    ((courant, _, _, sources, _), _, _, options), (layout, (modes, pull), _) = scheme, grid
    base, after, first, rate, error = A[BASE, b], A[ODD, b], A[START, b], A[RATE, b], A[ERROR, b]
    length, lines, line = L[LENGTH, b], layout.lines, layout.shape[layout.shape.size - 1]
    low, high, total, known = inf, -inf, 0.0, min(data.shape[0], int(L[STAGES, b]) + 1)
    estimated = options[0] < inf and (courant == 0.0 or sources)
    L[RESIDUAL, b] = length * L[WORST, b]
    if courant > 0.0 and not length * L[WORST, b] <= 1.0:
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
        for k in range(known if modes[side] == STATE and pull[b, side] == 0.0 else 0):
            for e in range(layout.offsets[side], layout.offsets[side + 1]):
                low, high = min(low, data[k, b, e]), max(high, data[k, b, e])
    return total / (lines.size * line) / c.allowed_error(L[:, b], low, high, options)


@merged
def _judge(A: Array, F: Array, L: Array, b: int, ratio: float, sides: Any, scheme: Any, out: Any, layout: Any) -> None:
    """Accepts or rejects the step of a row, writes outputs and moves the row to its end."""
    ((courant, order, _, _, keeps), (_, end), times, _), (values, account, total, course, balance) = scheme, out
    lane, length = L[:, b], L[LENGTH, b]
    lane[c.EVALUATIONS] += lane[STAGES] + (1.0 if keeps else 0.0)
    if not c.judge(lane, ratio, order, end):
        return
    base, after, middle, first, flows = A[BASE, b], A[ODD, b], A[MIDDLE, b], A[START, b], total.shape[1]
    finish, lines, line = c.end_of_step(lane[TIME], length, end), layout.lines, layout.shape[layout.shape.size - 1]
    for k in range(flows):
        balance[0, k], balance[1, k], balance[2, k] = total[b, k], F[MIDDLE_BUDGET, b, k], F[ODD_BUDGET, b, k]
        if courant > 0.0:
            balance[1, k] = 0.5 * balance[2, k] + 0.25 * (length * F[FIRST, b, k] - balance[2, k])
    cursor, place, fraction = int(lane[CURSOR]), 0, 0.5
    if cursor < times.size and times[cursor] <= finish:
        if courant == 0.0:
            fraction = node(courant, middle_stage(lane[STAGES]), lane[STAGES])
        for k in range(lines.size):
            for i in range(lines[k], lines[k] + line):
                course[0, place], course[1, place], course[2, place] = base[i], middle[i], after[i]
                if courant > 0.0:
                    straight = 0.5 * (base[i] + after[i])
                    course[1, place] = straight + 0.25 * ((base[i] - after[i]) + length * first[i])
                place += 1
        while cursor < times.size and times[cursor] <= finish:
            theta = min(1.0, (times[cursor] - lane[TIME]) / length)
            c.write_output(theta, fraction, course, balance, values[b, cursor], account[b, cursor])
            if courant == 0.0 and theta < 1.0:
                c.keep_to_range(course, values[b, cursor])
            cursor += 1
        lane[CURSOR] = cursor
    if sides[4]:
        _add_data(sides[0], sides[2], b, courant, lane[STAGES], length)
    c.move_to_end(lane, finish, end)
    for i in range(base.size):
        base[i] = after[i]
    for k in range(flows):
        total[b, k] += balance[2, k]
    if keeps:
        _keep_rate(A, F, b)


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
