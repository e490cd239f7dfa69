"""Compiled explicit steps of rows from output to output: SSPRK3, and the Runge–Kutta–Legendre method.

Both have stages Y_j = Y₀ + μ (Y_{j−1} − Y₀) + ν (Y_{j−2} − Y₀) + Δt (c f_{j−1} + γ f₀), and an odd number of them.
Deviations from Y₀ instead of weights of sum 1 keep rounding from moving the total in every stage. Rates enter by a
kernel; see ``RATES``. Each row has steps of its own; those of a tile go side by side through their stages.
"""

from math import isfinite
from typing import Any, Final, NamedTuple

import numpy as np

from solvers._compiled import inner
from solvers.finite_volume._kernels import PART, Array, Places, Table, call, kernel, reader
from solvers.finite_volume.steppers import _march_kernels as march
from solvers.finite_volume.steppers._march_kernels import Limits, March, Output, Sides
from solvers.finite_volume.steppers.coefficients import middle_stage, node, quadrature, stages_for, weights

MOST_STAGES: Final = 401
SAFETY: Final = 1.05


class Scheme(NamedTuple):
    """What a stepper says.

    Attributes:
        courant: Fraction of a cell that a signal may cross in a step of SSPRK3; 0 for the Runge–Kutta–Legendre method.
        order: Order of the error of a step.
        limits: Tolerances and largest step.
        rates: Address of the kernel of rates.
        record: For that kernel.
        sources: Whether the rates include sources.
        keeps: Whether the rates at the end of a step are those at the start of the next one.
    """

    courant: float
    order: int
    limits: Limits
    rates: int
    record: Places
    sources: int
    keeps: int


class Room(NamedTuple):
    """What belongs to the rows of a tile, one row after the other; see ``EVEN``, ``FIRST``, ``DATA`` and ``ROW``.

    Attributes:
        cells: ``(7, rows·n)``.
        flows: ``(5, rows·f)``.
        sides: ``(3, rows·S)``.
        lanes: ``(12, rows)``.
    """

    cells: Table
    flows: Table
    sides: Table
    lanes: Table


class Parts(NamedTuple):
    """Addresses of the parts of a step."""

    propose: int
    look_ahead: int
    start: int
    plan: int
    evaluate: int
    combine: int
    judge: int


class Steps(NamedTuple):
    """What the parts share."""

    rows: March
    scheme: Scheme
    sides: Sides
    output: Output
    room: Room
    parts: Parts


_steps_at = reader(Steps)


def empty_room(rows: March, width: int) -> Room:
    """Room for a tile of so many rows."""
    n, flows, entries = rows.u.shape[1], rows.account.shape[1] + 2, rows.data.shape[1]
    sizes = ((7, n), (5, flows), (3, entries), (12, 1))
    return Room(*(np.zeros((arrays, size * width)) for arrays, size in sizes))


EVEN, ODD, START, RATE, SOURCE, MIDDLE, ERROR = range(7)
"""The last stage with an even and with an odd number, f₀, the last rate and that of sources, the stage that outputs are
interpolated through, and the estimated error. A step ends with an odd stage.
"""

FIRST, FLOW, ACCOUNT = range(3)
"""What comes with f₀ and with the last rate; then the account of the even, the odd and the middle stage."""

DATA, LAST, SAMPLED = range(3)
"""Side data of the present stage and at the end of the step, and their time integral over its length."""

ROW, NOW, MARK, SINCE, SPAN, STAGES, WORST, LOW, HIGH, LIVE, MOST, JUMP = range(12)
"""Row, time and mark for kernels; start, length and number of stages of the step; largest speed or Euler's rate in it;
range of the Dirichlet values; whether the row goes on; longest step by the data, and whether they jump at its start.
"""


@kernel(PART)
def take_steps(record: Any, begin: Any, budget: Any, _third: Any) -> None:
    """Takes steps of the rows of a tile, from a first one on, until all have reached the last output or have failed.

    The budget is the largest number of trial steps of a row.
    """
    steps = _steps_at(record)
    lanes, parts, stabilised = steps.room.lanes, steps.parts, steps.scheme.courant == 0.0
    for _ in range(budget):
        call(parts.propose, (record,), (begin, 0, 0))
        if _largest_of(lanes[LIVE]) == 0:
            return
        if stabilised and steps.sides.kernel != 0:
            call(parts.look_ahead, (record,), (begin, 0, 0))
        call(parts.start, (record,), (begin, 0, 0))
        call(parts.plan, (record,), (begin, 0, 0))
        most = _largest_of(lanes[STAGES])
        for stage in range(1, most + 1):
            if stage > 1:
                call(parts.evaluate, (record,), (begin, stage - 1, most))
            call(parts.combine, (record,), (begin, stage, most))
        if steps.scheme.keeps:
            call(parts.evaluate, (record,), (begin, most, most))
        for b in range(lanes.shape[1]):
            if lanes[LIVE, b] > 0.0:
                call(parts.judge, (record,), (begin, b, most))


@inner
def _largest_of(numbers: Array) -> int:
    """The largest of the whole numbers of the rows."""
    largest = 0.0
    for b in range(numbers.shape[0]):
        largest = max(largest, numbers[b])
    return int(largest)


@kernel(PART)
def _propose(record: Any, begin: Any, _second: Any, _third: Any) -> None:
    """Proposes lengths of steps, and says which rows go on."""
    steps = _steps_at(record)
    rows, sides, room, lanes, some = steps.rows, steps.sides, steps.room, steps.room.lanes, False
    end, largest_step = steps.output.times[-1], steps.scheme.limits.largest_step
    for b in range(lanes.shape[1]):
        state = rows.state[begin + b]
        lanes[ROW, b], lanes[NOW, b], lanes[SINCE, b] = begin + b, state[march.TIME], state[march.TIME]
        lanes[LIVE, b] = 1.0 if state[march.TIME] < end and state[march.VERDICT] == march.RUNNING else 0.0
        lanes[MOST, b], lanes[JUMP, b], lanes[WORST, b] = np.inf, 0.0, 0.0
        some = some or lanes[LIVE, b] > 0.0
    if some and sides.kernel != 0:
        march.look(sides, lanes[NOW], lanes[ROW], lanes[SINCE], room.lanes[MOST], lanes.shape[1], 0)
    for b in range(lanes.shape[1]):
        longest = min(lanes[MOST, b], largest_step)
        lanes[SPAN, b] = march.proposed_length(rows.state[begin + b], longest, end)
        for i in range(rows.u.shape[1]):
            room.cells[EVEN, b * rows.u.shape[1] + i] = rows.u[begin + b, i]


@kernel(PART)
def _look_ahead(record: Any, _first: Any, _second: Any, _third: Any) -> None:
    """Euler's rates of the present states by the data at the end of the proposed steps."""
    steps = _steps_at(record)
    room, lanes = steps.room, steps.room.lanes
    flows = room.flows.shape[1] // lanes.shape[1]
    for b in range(lanes.shape[1]):
        lanes[NOW, b], lanes[MARK, b] = lanes[SINCE, b] + lanes[SPAN, b], 2.0 * lanes[LIVE, b]
    _sample(steps.sides, room)
    _call_rates(steps.scheme, room, np.int64(EVEN))
    for b in range(lanes.shape[1]):
        lanes[WORST, b] = room.flows[FLOW, (b + 1) * flows - 1]


@kernel(PART)
def _rates_at_start(record: Any, begin: Any, _second: Any, _third: Any) -> None:
    """Data and rates at the start of steps, where the step before has not left them."""
    steps = _steps_at(record)
    rows, room, lanes, keeps, jumps = steps.rows, steps.room, steps.room.lanes, steps.scheme.keeps != 0, False
    n, entries = rows.u.shape[1], rows.data.shape[1]
    for b in range(lanes.shape[1]):
        lanes[NOW, b], jump = lanes[SINCE, b], lanes[LIVE, b] * lanes[JUMP, b] > 0.0
        fresh = lanes[LIVE, b] > 0.0 and (jump or rows.state[begin + b, march.FRESH] > 0.0 or not keeps)
        lanes[MARK, b], rows.state[begin + b, march.FRESH], jumps = 2.0 if fresh else 0.0, 0.0, jumps or jump
        for entry in range(entries):
            room.sides[DATA, b * entries + entry] = rows.data[begin + b, entry]
    if jumps:
        _sample(steps.sides, room)
    _call_rates(steps.scheme, room, np.int64(EVEN))
    for b in range(lanes.shape[1]):
        if lanes[MARK, b] > 0.0:
            _keep_rate(room, b, n)


@inner
def _keep_rate(room: Room, b: int, n: int) -> None:
    """Takes the last rate of a row for f₀."""
    flows = room.flows.shape[1] // room.lanes.shape[1]
    for i in range(b * n, (b + 1) * n):
        room.cells[START, i] = room.cells[RATE, i]
    for k in range(b * flows, (b + 1) * flows):
        room.flows[FIRST, k] = room.flows[FLOW, k]


@inner(inline="always")
def _call_rates(scheme: Scheme, room: Room, states: int) -> None:
    """Rates of the marked rows."""
    lanes, some, cells = room.lanes, False, room.cells
    for b in range(lanes.shape[1]):
        some = some or lanes[MARK, b] > 0.0
    if some:
        arrays = cells[states], lanes[ROW], cells[RATE], room.flows[FLOW], room.sides[DATA], scheme.record
        call(scheme.rates, arrays, (cells.shape[1] // lanes.shape[1], lanes.shape[1]))


@inner
def _sample(sides: Sides, room: Room) -> None:
    """Data of the rows at their present times."""
    lanes, width = room.lanes, room.lanes.shape[1]
    march.look(sides, lanes[NOW], lanes[ROW], lanes[SINCE], room.sides[DATA], width, room.sides.shape[1] // width)


@kernel(PART)
def _plan(record: Any, _first: Any, _second: Any, _third: Any) -> None:
    """Lengths and stages of the steps, by what is known at their start."""
    steps = _steps_at(record)
    rows, scheme, room, lanes = steps.rows, steps.scheme, steps.room, steps.room.lanes
    n, entries = rows.u.shape[1], rows.data.shape[1]
    flows = room.flows.shape[1] // lanes.shape[1]
    for b in range(lanes.shape[1]):
        speed, euler = room.flows[FIRST, (b + 1) * flows - 2], room.flows[FIRST, (b + 1) * flows - 1]
        lanes[STAGES, b] = 3.0
        if scheme.courant > 0.0:
            if speed + euler > 0.0:
                lanes[SPAN, b] = min(lanes[SPAN, b], scheme.courant / (speed + euler))
        else:
            radius = 2.0 * SAFETY * max(euler, lanes[WORST, b])
            if radius > 0.0 and isfinite(radius):  # a step that is not finite fails by its error
                longest = 0.25 * (MOST_STAGES * MOST_STAGES + MOST_STAGES - 2.0)
                lanes[SPAN, b] = min(lanes[SPAN, b], 2.0 / radius * longest)
                lanes[STAGES, b] = stages_for(0.5 * radius * lanes[SPAN, b])
        lanes[STAGES, b] *= lanes[LIVE, b]
        lanes[WORST, b], lanes[LOW, b], lanes[HIGH, b] = 0.0, np.inf, -np.inf
        for entry in range(b * entries, (b + 1) * entries):
            room.sides[SAMPLED, entry] = 0.0
        for k in range(b * flows, (b + 1) * flows):
            room.flows[ACCOUNT, k] = room.flows[ACCOUNT + 1, k] = 0.0
        for i in range(b * n, (b + 1) * n if scheme.sources else 0):
            room.cells[ERROR, i] = -1.0 / 3.0 * room.cells[SOURCE, i]
        _note_data(scheme.courant, steps.sides.dirichlet, room, b, np.int64(0))


@inner
def _note_data(courant: float, dirichlet: Array, room: Room, b: int, stage: int) -> None:
    """Adds the data of a stage to their range and time integral, and keeps those at the end."""
    lanes, data, stages = room.lanes, room.sides, room.lanes[STAGES, b]
    entries = data.shape[1] // lanes.shape[1]
    weight, ends = quadrature(courant, stage, stages), node(courant, stage, stages) == 1.0
    for entry in dirichlet:
        value = data[DATA, b * entries + entry]
        lanes[LOW, b], lanes[HIGH, b] = min(lanes[LOW, b], value), max(lanes[HIGH, b], value)
    for entry in range(b * entries, (b + 1) * entries):
        data[SAMPLED, entry] += weight * data[DATA, entry]
        if ends or stage == 0:
            data[LAST, entry] = data[DATA, entry]


@kernel(PART)
def _evaluate(record: Any, _first: Any, stage: Any, most: Any) -> None:
    """Rates after a stage of all rows that have a further one; of RKL2 after the last one of all rows."""
    steps = _steps_at(record)
    scheme, sides, room = steps.scheme, steps.sides, steps.room
    lanes, n = room.lanes, room.cells.shape[1] // room.lanes.shape[1]
    flows, stabilised, final = room.flows.shape[1] // lanes.shape[1], scheme.courant == 0.0, stage == most
    mark = 2.0 if final or (stage == 2 and not stabilised) else 1.0
    for b in range(lanes.shape[1]):
        here = int(lanes[STAGES, b]) if final else stage
        lanes[MARK, b] = mark if lanes[LIVE, b] > 0.0 and (final or stage < lanes[STAGES, b]) else 0.0
        lanes[NOW, b] = lanes[SINCE, b] + node(scheme.courant, here, lanes[STAGES, b]) * lanes[SPAN, b]
    if sides.kernel != 0:
        _sample(sides, room)
    for b in range(lanes.shape[1]):
        if lanes[MARK, b] > 0.0:
            _note_data(scheme.courant, sides.dirichlet, room, b, int(lanes[STAGES, b]) if final else stage)
    _call_rates(scheme, room, stage % 2)
    for b in range(lanes.shape[1]):
        if stabilised or lanes[MARK, b] == 0.0:
            continue
        speed, euler = room.flows[FLOW, (b + 1) * flows - 2], room.flows[FLOW, (b + 1) * flows - 1]
        lanes[WORST, b] = max(lanes[WORST, b], speed) + (euler if stage == 2 else 0.0)
        if scheme.sources:
            for i in range(b * n, (b + 1) * n):
                room.cells[ERROR, i] += (2.0 / 3.0 if stage == 2 else -1.0 / 3.0) * room.cells[SOURCE, i]


@kernel(PART)
def _combine(record: Any, begin: Any, stage: Any, _third: Any) -> None:
    """A stage of all rows that have it, over the one before the last."""
    steps = _steps_at(record)
    u, courant, room, output = steps.rows.u, steps.scheme.courant, steps.room, steps.output
    lanes, n, odd = room.lanes, u.shape[1], stage % 2
    flows, cells = room.flows.shape[1] // lanes.shape[1], room.cells
    rate, flow = START if stage == 1 else RATE, FIRST if stage == 1 else FLOW
    for b in range(lanes.shape[1]):
        if stage > lanes[STAGES, b]:
            continue
        mu, nu, own, other = weights(courant, stage, lanes[STAGES, b])
        own, other = lanes[SPAN, b] * own, lanes[SPAN, b] * other
        base, slope, change = u[begin + b], cells[START, b * n :], cells[rate, b * n :]
        before, now = cells[odd, b * n :], cells[1 - odd, b * n :]
        for i in range(n if stage == 1 else 0):
            before[i] = base[i] + own * change[i]
        for i in range(n if stage > 1 else 0):
            moved = mu * (now[i] - base[i]) + nu * (before[i] - base[i])
            before[i] = base[i] + (moved + (other * slope[i] + own * change[i]))
        state = steps.rows.state[begin + b]
        finish = march.end_of_step(state[march.TIME], lanes[SPAN, b], output.times[-1])
        half = courant == 0.0 and stage == middle_stage(lanes[STAGES, b])
        half = half and march.passes_output(output, int(state[march.CURSOR]), finish)
        account = room.flows[ACCOUNT:]
        for k in range(b * flows, (b + 1) * flows):
            kept = mu * account[1 - odd, k] + nu * account[odd, k]
            account[odd, k] = kept + (other * room.flows[FIRST, k] + own * room.flows[flow, k])
            if half:
                account[2, k] = account[odd, k]
        if half:
            for i in range(n):
                cells[MIDDLE, b * n + i] = before[i]


@kernel(PART)
def _judge(record: Any, begin: Any, b: Any, _third: Any) -> None:
    """Accepts or rejects the step of a row, writes outputs and moves the row to its end."""
    steps, row = _steps_at(record), begin + b
    rows, scheme, output, room, keeps = steps.rows, steps.scheme, steps.output, steps.room, steps.scheme.keeps != 0
    lanes, state, n, entries = room.lanes, rows.state[row], rows.u.shape[1], rows.data.shape[1]
    length, stages, stabilised, last = lanes[SPAN, b], lanes[STAGES, b], scheme.courant == 0.0, output.times[-1]
    step = length, length * lanes[WORST, b]
    ratio = _ratio(rows.u[row], b, scheme, room, state)
    if not march.settle(state, ratio, scheme.order, step, stages + 1.0 if keeps else stages, last):
        return
    flows = rows.account.shape[1]
    first, end, middle = rows.u[row], room.cells[ODD, b * n :], room.cells[MIDDLE, b * n :]
    account = room.flows[:, b * (flows + 2) : b * (flows + 2) + flows]
    whole, until = account[ACCOUNT + 1], account[ACCOUNT + 2]
    finish = march.end_of_step(state[march.TIME], length, last)
    if march.passes_output(output, int(state[march.CURSOR]), finish):
        fraction = node(scheme.courant, middle_stage(stages), stages)
        if not stabilised:
            for i in range(n):
                straight = 0.5 * (first[i] + end[i])
                middle[i] = straight + 0.25 * ((first[i] - end[i]) + length * room.cells[START, b * n + i])
            for k in range(flows):
                until[k] = 0.5 * whole[k] + 0.25 * (length * account[FIRST, k] - whole[k])
        course, balance = (first, middle, end, fraction), (rows.account[row], until, whole)
        interval, cursor = (state[march.TIME], finish), int(state[march.CURSOR])
        state[march.CURSOR] = march.write_outputs(output, row, cursor, interval, course, balance, stabilised)
    march.move_to_end(state, length, last)
    for i in range(n):
        first[i] = end[i]
    for k in range(flows):
        rows.account[row, k] += whole[k]
    for entry in range(entries):
        rows.data[row, entry] = room.sides[LAST, b * entries + entry]
        rows.sampled[row, entry] += length * room.sides[SAMPLED, b * entries + entry]
    if keeps:
        _keep_rate(room, b, n)


@inner(fastmath={"reassoc"})
def _sum(u: Array) -> float:
    """Sum in any order, finite where all are."""
    total = 0.0
    for i in range(u.shape[0]):
        total += u[i]
    return total


@inner(inline="always")
def _ratio(before: Array, b: int, scheme: Scheme, room: Room, state: Array) -> float:
    """Estimated over allowed error of the step of a row; not finite where it fails. Widens the range seen so far."""
    lanes, cells, n, limits = room.lanes, room.cells, before.shape[0], scheme.limits
    if limits.tolerance == np.inf and scheme.courant == 0.0:
        return 0.0 if isfinite(_sum(cells[ODD, b * n : (b + 1) * n])) else np.nan
    low, high, total, all_, length = lanes[LOW, b], lanes[HIGH, b], 0.0, 0.0, lanes[SPAN, b]
    stabilised = scheme.courant == 0.0
    for i in range(n):
        at = b * n + i
        after, error = cells[ODD, at], length * cells[ERROR, at]
        if stabilised:
            error = 0.8 * (before[i] - after) + (0.4 * length) * (cells[START, at] + cells[RATE, at])
        low, high = min(low, min(before[i], after)), max(high, max(before[i], after))
        total, all_ = total + abs(error), all_ + after
    if not isfinite(all_):
        return np.nan
    if not stabilised and not length * lanes[WORST, b] <= 1.0:
        return np.inf
    if not (limits.tolerance < np.inf and (stabilised or scheme.sources)) or total == 0.0:
        return 0.0
    state[march.LOWEST], state[march.HIGHEST] = min(state[march.LOWEST], low), max(state[march.HIGHEST], high)
    least = limits.tolerance * march.LEAST_SPREAD * (state[march.HIGHEST] - state[march.LOWEST])
    return total / n / max(march.allowed_error(low, high, limits.tolerance, limits.atol), least)


def parts(looks_ahead: bool) -> Parts:
    """The parts of a step; looking ahead is compiled only where data change with time."""
    ahead = _look_ahead.address if looks_ahead else 0
    rest = _rates_at_start, _plan, _evaluate, _combine, _judge
    return Parts(_propose.address, ahead, *(part.address for part in rest))
