"""The part of implicit steps that is the same for all schemes and any number of axes: judging and planning steps."""

from math import inf, isfinite
from typing import Any

from solvers._compiled import inner_on_views, merged
from solvers.finite_volume.march import control as c
from solvers.finite_volume.march import timing
from solvers.finite_volume.march.control import (
    ACCEPTED,
    CONVERGED,
    CURSOR,
    END_HIGH,
    END_LOW,
    ERROR,
    FRESH,
    HIGH,
    LENGTH,
    LONGEST,
    LOW,
    PROPOSAL,
    RESIDUAL,
    ROW,
    RUNNING,
    SEEN_HIGH,
    SEEN_LOW,
    TIME,
    VERDICT,
)  # fmt: skip
from solvers.finite_volume.march.kernels import Array
from solvers.finite_volume.march.tridiagonal import extremes, spread
from solvers.finite_volume.steppers.steppers import BY_RATES

NOW, SLOPE, MIDDLE, END, LENGTHS, SCRATCH, STATES = range(7)
"""Arrays over the cells: states at the start, their rate of change in the step before, at the stage that outputs are
interpolated through, and at the end; lengths of steps; and scratch."""


@merged
def plan(arrays: Any, medium: Any, rows: Any, scheme: Any, out: Any, row: int) -> tuple[int, bool]:
    """Judges trial steps, writes outputs, refills lanes and proposes lengths.

    ``arrays`` are those of ``advance``, ``rows`` what belongs to the rows. Returns the next row to enter, and whether a
    lane is busy.
    """
    S, R, E, _, L, flow = arrays
    first, longest, cursor, (start, end), _ = scheme[1]
    n, width, busy, accepted = rows[0].shape[1], L.shape[1], False, False
    extremes(S[END], n, width, S[SCRATCH], L[END_LOW], L[END_HIGH])
    for j in range(width):
        L[ACCEPTED, j] = 1.0 if L[ROW, j] >= 0.0 and _accepts(S, L[:, j], scheme, n, j, width) else 0.0
        if L[ACCEPTED, j] > 0.0:
            accepted = True
            _record(S, R, E, L[:, j], flow, medium[4], scheme, out, j, width)
    if accepted:
        _move(S, R[0], R[scheme[0][3].size - 1], L[ACCEPTED], n * width)
    for j in range(width):
        lane, current = L[:, j], int(L[ROW, j])
        if current >= 0:
            if L[ACCEPTED, j] > 0.0:
                c.move_to_end(lane, c.end_of_step(lane[TIME], lane[LENGTH], end), end)
            if lane[TIME] >= end or lane[VERDICT] != RUNNING:
                _leave(lane, out[2][current])
                current = -1
        if current < 0 and row < rows[0].shape[0]:
            current, row = row, row + 1
            _enter(S, L, medium, rows, current, j)
            lane[TIME], lane[PROPOSAL], lane[FRESH], lane[CURSOR] = start, first, 1.0, cursor
        lane[ROW], busy = current, busy or current >= 0
    timing.look_ahead(L, scheme[4])
    for j in range(width):
        bound, left = min(min(L[PROPOSAL, j], L[LONGEST, j]), longest), end - L[TIME, j]
        L[LENGTH, j] = c.avoid_tiny_last_step(bound, left) if L[ROW, j] >= 0.0 else 1.0
    timing.keep_off_end(L, scheme[4])
    return row, busy


@inner_on_views
def _accepts(S: Array, lane: Array, scheme: Any, n: int, j: int, width: int) -> bool:
    """Accepts or rejects the step of a lane; sets the range of the states that the next one begins with."""
    low, high, now = lane[END_LOW], lane[END_HIGH], S[NOW]
    allowed = c.allowed_error(lane, min(lane[LOW], low), max(lane[HIGH], high), scheme[1][4])
    ratio = lane[ERROR] / allowed if lane[ERROR] > 0.0 else 0.0
    if not (isfinite(lane[ERROR]) and isfinite(high - low) and lane[CONVERGED] > 0.0):
        ratio = inf
    accepted = c.judge(lane, ratio, scheme[0][5], scheme[1][3][1])
    if not accepted:
        low, high = inf, -inf
        for i in range(j, n * width, width):
            low, high = min(low, now[i]), max(high, now[i])
    lane[LOW], lane[HIGH] = low, high
    return accepted


@inner_on_views
def _record(
    S: Array, R: Array, E: Array, lane: Array, flow: Array, data: Array, scheme: Any, out: Any, j: int, width: int
) -> None:
    """Adds the step of a lane to the budget and writes the outputs that it passes.

    ``flow`` are the flows through the sides and of the source ``(2, stages, f, width)``.
    """
    (implicit, explicit, weights, nodes, middle, _), times = scheme[0], scheme[2]
    (_, _, _, total, sampled, _, balance), row, length, last = out, int(lane[ROW]), lane[LENGTH], nodes.size - 1
    finish = c.end_of_step(lane[TIME], length, scheme[1][3][1])
    for k in range(flow.shape[2]):
        balance[0, k], balance[1, k], balance[2, k] = total[row, k], 0.0, 0.0
        for stage in range(last + 1):
            slow, fast = length * flow[0, stage, k, j], length * flow[1, stage, k, j]
            balance[2, k] += implicit[last, stage] * slow + weights[stage] * fast
            balance[1, k] += 0.0 if middle < 0 else implicit[middle, stage] * slow + explicit[middle, stage] * fast
    if int(lane[CURSOR]) < times.size and times[int(lane[CURSOR])] <= finish:
        _write_outputs(lane, (S, R, E, flow), (nodes, middle), finish, times, out, row, j, width)
    for stage in range(last + 1):
        for entry in range(data.shape[1]):
            sampled[row, entry] += length * implicit[last, stage] * data[stage, entry, j]
    for k in range(flow.shape[2]):
        total[row, k] += balance[2, k]
        flow[0, 0, k, j] = flow[0, last, k, j]


@inner_on_views
def _move(S: Array, first: Array, last: Array, accepted: Array, size: int) -> None:
    """Moves the lanes whose steps are accepted to the end of these."""
    now, after, slope, lengths, moves = S[NOW], S[END], S[SLOPE], S[LENGTHS], S[SCRATCH]
    spread(accepted, moves[:size])
    for i in range(size):
        slope[i] = (after[i] - now[i]) / lengths[i] if moves[i] > 0.0 else slope[i]
    for i in range(size):
        now[i] = after[i] if moves[i] > 0.0 else now[i]
    for i in range(size):
        first[i] = last[i] if moves[i] > 0.0 else first[i]


@merged
def _leave(lane: Array, work: Array) -> None:
    """Notes the counts of a row that is at the end or cannot go on, and where it was."""
    for k in range(4):
        work[k] = lane[VERDICT + k]
    work[4], work[5], work[6], work[7], work[8] = lane[TIME], lane[LENGTH], lane[RESIDUAL], lane[LOW], lane[HIGH]


@inner_on_views
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
        c.write_output(theta, fraction, course, balance, values[row, cursor], account[row, cursor])
        if theta < 1.0:
            c.keep_to_range(course, values[row, cursor])
        cursor += 1
    lane[CURSOR] = cursor


@inner_on_views
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


@inner_on_views
def _enter(S: Array, L: Array, medium: Any, rows: Any, row: int, j: int) -> None:
    """Puts a row at its start, with what belongs to it, into a lane."""
    (p, q, coefficient, pull, data), (initial, parameters, source, coefficients, pulls, fixed, sizes) = medium, rows
    n, width, low, high = initial.shape[1], L.shape[1], inf, -inf
    now, slope = S[NOW], S[SLOPE]
    for i in range(n):
        now[i * width + j], slope[i * width + j] = initial[row, i], 0.0
        low, high = min(low, initial[row, i]), max(high, initial[row, i])
    for values, lanes in ((parameters, p), (source, q)):
        along = 1 if values.shape[2] > 1 else 0
        for k in range(lanes.shape[0]):
            for i in range(lanes.shape[1] // width):
                lanes[k, i * width + j] = values[row, k, i * along]
    along = 1 if coefficients.shape[1] > 1 else 0
    for i in range(coefficient.size // width):
        coefficient[i * width + j] = coefficients[row, i * along]
    for side in range(pull.shape[0]):
        pull[side, j] = pulls[row, side]
    for entry in range(data.shape[1]):
        for stage in range(data.shape[0]):
            data[stage, entry, j] = fixed[row, entry]
    for k in range(c.NUMBERS):
        L[k, j] = 0.0
    L[LONGEST, j] = inf
    L[LOW, j], L[HIGH, j], L[SEEN_LOW, j], L[SEEN_HIGH, j], L[c.SIZE, j] = low, high, low, high, sizes[row]
