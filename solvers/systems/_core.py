"""The compiled core of ``solve_system``: SSPRK3 (Shu and Osher 1988) for any law, many entries and any number of axes.

An entry of the batch keeps its own time and step, halved where a step fails. Rates are summed line by line along every
axis: a line of cells with ghost cells beyond its ends goes to the sweep, whose address is in the plan. It releases the
interpreter lock, so that parts of a batch can run on several threads.
"""

from typing import Any, NamedTuple

import numpy as np

from solvers._compiled import compiled, inner
from solvers.finite_volume._kernels import call
from solvers.finite_volume.convection.reconstruction_kernels import largest

_Array = np.ndarray

PERIODIC, REFLECTING, OUTFLOW, GIVEN = 0, 1, 2, 3
"""Conditions of a side."""

RUNNING, DONE, FAILED = 0, 1, 2
"""States of an entry after ``run``."""

LINES, CELLS, AXIS, COMPONENTS, GHOSTS, FACES, CHECK, SLOPES = range(8)
"""Places in the order that a sweep gets: how many lines and cells, the axis, and addresses of kernels."""

_LIMIT = 0.5


class Plan(NamedTuple):
    """What does not change with time.

    Attributes:
        shape: Number of cells of every axis ``(d,)``.
        spacing: Length of a cell along every axis ``(d,)``.
        kinds: Condition of every side, ``PERIODIC`` and so on, ``(d, 2)``.
        components: Number c of components.
        ghosts: Number of ghost cells beyond an end.
        chunk: How many lines a sweep takes at once.
        sweep: Address of the sweep.
        kernels: Addresses of faces and reflect of every axis ``(d, 2)``.
        check: Address of check.
        slopes: Address of slopes, or 0.
        given: Address of given, or 0 if no side changes with time.
        numbers: Room for a scale of the states and the length of a cell, then the law's parameters.
    """

    shape: _Array
    spacing: _Array
    kinds: _Array
    components: int
    ghosts: int
    chunk: int
    sweep: int
    kernels: _Array
    check: int
    slopes: int
    given: int
    numbers: _Array


class Rates(NamedTuple):
    """Rates of change of the entries of a tile.

    Attributes:
        change: ∂u/∂t ``(entries, c·cells)``.
        sides: Flux through every side, integrated over it, positive along +axis ``(entries, 2d, c)``.
        source: Integral of the source over the domain ``(entries, c)``.
        speed: Σ over the axes of the largest speed over the cell length ``(entries,)``.
    """

    change: _Array
    sides: _Array
    source: _Array
    speed: _Array


class Buffers(NamedTuple):
    """Room for a sweep.

    Attributes:
        cells: Lines with ghost cells ``(c, lines, n + 2g)``.
        change: ∂u/∂t along the lines ``(c, lines, n)``.
        through: Fluxes through the first and the last ends, and sources ``(lines, 3, c)``.
        speed: Largest speed ``(lines,)``.
        near: Cells at a wall ``(c, lines, g)``.
        image: As the wall mirrors them.
        work: For the sweep.
        fastest: Largest speed along an axis ``(entries,)``.
        order: What the sweep is to do, see ``LINES``.
    """

    cells: _Array
    change: _Array
    through: _Array
    speed: _Array
    near: _Array
    image: _Array
    work: _Array
    fastest: _Array
    order: _Array


@inner(fastmath={"reassoc"})
def sum_flags(flags: _Array, count: int) -> float:
    """Sum of numbers that are 0 or 1, exact in any order."""
    total = 0.0
    for k in range(count):
        total += flags[k]
    return total


@inner
def _start(line: int, axis: int, shape: _Array) -> tuple[int, int]:
    """Place of the first cell of a line along an axis, and the distance of its cells."""
    apart = 1
    for k in range(axis + 1, shape.size):
        apart *= shape[k]
    return line // apart * shape[axis] * apart + line % apart, apart


@inner
def _gather(u: _Array, live: _Array, plan: Plan, axis: int, lines: Any, room: Buffers) -> None:
    """Copies lines, without the ghost cells."""
    start, count, each = lines
    n, g, cells = plan.shape[axis], plan.ghosts, u.shape[1] // plan.components
    for line in range(count):
        state = u[live[(start + line) // each]]
        place, apart = _start((start + line) % each, axis, plan.shape)
        for k in range(plan.components):
            row, values = room.cells[(k * count + line) * (n + 2 * g) + g :], state[k * cells + place :]
            if apart == 1:
                for i in range(n):
                    row[i] = values[i]
            else:
                for i in range(n):
                    row[i] = values[i * apart]


@inner
def _fill_ghosts(given: _Array, live: _Array, plan: Plan, axis: int, end: int, lines: Any, room: Buffers) -> None:
    """Writes the ghost cells beyond the first or the last ends of lines."""
    start, count, each = lines
    n, g, kind = plan.shape[axis], plan.ghosts, plan.kinds[axis, end]
    m, offset = n + 2 * g, 0
    for k in range(axis):
        offset += 2 * plan.components * (each * n // plan.shape[k])
    cells, near, image = room.cells, room.near, room.image
    outside, inside, inward = (g - 1, g, 1) if end == 0 else (g + n, g + n - 1, -1)
    for k in range(plan.components):
        for line in range(count):
            row, side = (k * count + line) * m, (k * count + line) * g
            place = offset + (end * plan.components + k) * each + (start + line) % each
            for q in range(g):
                ghost = row + outside - inward * q
                if kind == PERIODIC:
                    cells[ghost] = cells[ghost + inward * n]
                elif kind == OUTFLOW:
                    cells[ghost] = cells[row + inside]
                elif kind == GIVEN:
                    cells[ghost] = given[live[(start + line) // each], place]
                else:
                    near[side + q] = cells[row + inside + inward * q]
    if kind != REFLECTING:
        return
    call(plan.kernels[axis, 1], (near, near, image, image, plan.numbers), (count * g, count * g))
    for line in range(plan.components * count):
        for q in range(g):
            cells[line * m + outside - inward * q] = image[line * g + q]


@inner
def _scatter(out: Rates, live: _Array, plan: Plan, axis: int, lines: Any, room: Buffers) -> None:
    """Adds the changes that a sweep gives for lines."""
    start, count, each = lines
    n, c = plan.shape[axis], plan.components
    cells = out.change.shape[1] // c
    for line in range(count):
        entry = live[(start + line) // each]
        place, apart = _start((start + line) % each, axis, plan.shape)
        for k in range(c):
            row, change = room.change[(k * count + line) * n :], out.change[entry, k * cells + place :]
            if axis == 0:
                for i in range(n):
                    change[i * apart] = row[i]
            else:
                for i in range(n):
                    change[i * apart] += row[i]


@inner
def _add_ends(out: Rates, live: _Array, plan: Plan, axis: int, lines: Any, room: Buffers) -> None:
    """Adds fluxes through ends of lines, sources and speeds that a sweep gives."""
    start, count, each = lines
    c, area = plan.components, 1.0
    for k in range(plan.shape.size):
        area *= plan.spacing[k]
    area /= plan.spacing[axis]
    for line in range(count):
        entry = live[(start + line) // each]
        for k in range(c):
            out.sides[entry, 2 * axis, k] += area * room.through[(3 * line) * c + k]
            out.sides[entry, 2 * axis + 1, k] += area * room.through[(3 * line + 1) * c + k]
            out.source[entry, k] += area * room.through[(3 * line + 2) * c + k]
        room.fastest[entry] = max(room.fastest[entry], room.speed[line])


@inner
def _rates(u: _Array, live: _Array, plan: Plan, data: Any, out: Rates, room: Buffers) -> None:
    """Rates of change of the live entries of a tile.

    Args:
        u: States ``(entries, c·cells)``.
        live: Entries to evaluate.
        plan: What does not change with time.
        data: States at the sides ``(entries, Σ over axes of 2·c·lines)`` and the bottom with ghost cells
            ``(entries, Σ over axes of lines·(n + 2g))``.
        out: Receives the rates.
        room: Room for a sweep.
    """
    given, bottom = data
    c, g, level = plan.components, plan.ghosts, 0
    cells = u.shape[1] // c
    for entry in live:
        out.speed[entry] = 0.0
        for k in range(c):
            out.source[entry, k] = 0.0
            for side in range(out.sides.shape[1]):
                out.sides[entry, side, k] = 0.0
    for axis in range(plan.shape.size):
        n = plan.shape[axis]
        each, plan.numbers[1] = cells // n, plan.spacing[axis]
        for entry in live:
            room.fastest[entry] = 0.0
        for start in range(0, live.size * each, plan.chunk):
            count = min(plan.chunk, live.size * each - start)
            lines = (start, count, each)
            entry = live[start // each]
            if start % each == 0 and bottom.shape[1] > 0:
                plan.numbers[0] = largest(u[entry], 0, cells)
            _gather(u, live, plan, axis, lines, room)
            for end in range(2):
                _fill_ghosts(given, live, plan, axis, end, lines, room)
            order = room.order
            order[LINES], order[CELLS], order[AXIS], order[FACES] = count, n, axis, plan.kernels[axis, 0]
            below = bottom[entry, level + start % each * (n + 2 * g) :]
            straight = each == 1 and count == 1  # one axis: the sweep writes where the changes belong
            change = out.change[entry] if straight else room.change
            call(
                plan.sweep,
                (room.cells, below, change, room.through, room.speed, room.work, plan.numbers, order),
                (),
            )
            if not straight:
                _scatter(out, live, plan, axis, lines, room)
            _add_ends(out, live, plan, axis, lines, room)
        for entry in live:
            out.speed[entry] += room.fastest[entry] / plan.spacing[axis]
        if bottom.shape[1] > 0:
            level += each * (n + 2 * g)


@inner
def _stage(before: _Array, now: _Array, change: _Array, weight: float, step: float, out: _Array) -> None:
    """Writes weight·before + (1 − weight)·(now + step·change)."""
    for k in range(out.size):
        out[k] = weight * before[k] + (1.0 - weight) * (now[k] + step * change[k])


@inner
def _first_bad(good: _Array, start: int, cells: int) -> int:
    """The first cell of an entry that is not admissible, or −1, by the flags of ``cells`` cells from a place on."""
    if sum_flags(good[start:], cells) == cells:
        return -1
    for k in range(cells):
        if good[start + k] != 1.0:
            return k
    return -1


@inner
def _check_together(new: _Array, live: _Array, check: Any, good: _Array, cells: int) -> None:
    """Checks the states of several entries by one call."""
    address, numbers, room = check
    count = live.size * cells
    for k in range(live.size):
        for component in range(new.shape[1] // cells):
            for i in range(cells):
                room[component * count + k * cells + i] = new[live[k], component * cells + i]
    call(address, (room, room, room, good, numbers), (count, count))


@inner
def _choose(remaining: float, speed: float, most: float, courant: float) -> float:
    """The step: the rest of the interval, or at most half of it."""
    bound = min(courant / speed, most) if speed > 0.0 else most
    return remaining if bound >= remaining * (1.0 - 1e-9) else min(bound, 0.5 * remaining)


class Attempt(NamedTuple):
    """Room for a step of the entries of a tile.

    Attributes:
        one: States of the first and the last stage ``(entries, c·cells)``.
        two: Of the second.
        sides: Sums over the stages of the fluxes through the sides ``(entries, 2d, c)``.
        source: Of the sources ``(entries, c)``.
        sampled: Of the states at sides that change with time.
        step: Lengths ``(entries,)``.
        worst: Largest speed of the stages ``(entries,)``.
        bad: First cell that is not admissible, or −1 ``(entries,)``.
        good: Room for checks ``(entries·cells,)``.
    """

    one: _Array
    two: _Array
    sides: _Array
    source: _Array
    sampled: _Array
    step: _Array
    worst: _Array
    bad: _Array
    good: _Array


@inner
def _look(plan: Plan, clocks: _Array, live: _Array, stage: int, tile: Any, steps: tuple[_Array, _Array]) -> None:
    """States at the sides at the time of a stage; keeps their sum with the weights of SSPRK3."""
    (start, given), (step, sampled) = tile, steps
    times, entries = np.empty(live.size), np.empty(live.size)
    part = 0.0 if stage == 0 else 1.0 if stage == 1 else 0.5
    for k in range(live.size):
        times[k], entries[k] = clocks[live[k], 0] + (part * step[live[k]] if stage > 0 else 0.0), start + live[k]
    call(plan.given, (times, entries, times, times, times), (live.size, live.size))
    weight = 4.0 if stage == 2 else 1.0
    for entry in live:
        for k in range(given.shape[1]):
            sampled[entry, k] = weight * given[entry, k] + (sampled[entry, k] if stage > 0 else 0.0)


@inner
def _plan_step(clocks: _Array, live: _Array, rates: Rates, bounds: Any, room: tuple[_Array, _Array]) -> None:
    """Steps of the live entries by their speeds."""
    target, courant, largest_step = bounds
    step, worst = room
    for entry in live:
        worst[entry] = rates.speed[entry]
        most = min(clocks[entry, 1], largest_step)
        step[entry] = _choose(target - clocks[entry, 0], worst[entry], most, courant)


@inner
def _sum_stage(stage: int, live: _Array, rates: Rates, sums: tuple[_Array, _Array, _Array]) -> None:
    """Adds what a stage contributes to the account of a step: weights 1, 1 and 4 of 6."""
    sides, source, worst = sums
    weight = 4.0 if stage == 2 else 1.0
    for entry in live:
        worst[entry] = max(worst[entry], rates.speed[entry])
        for k in range(source.shape[1]):
            source[entry, k] = (source[entry, k] if stage > 0 else 0.0) + weight * rates.source[entry, k]
            for side in range(sides.shape[1]):
                before = sides[entry, side, k] if stage > 0 else 0.0
                sides[entry, side, k] = before + weight * rates.sides[entry, side, k]


@inner
def _finish_stage(
    states: tuple[_Array, _Array, _Array, _Array], weight: float, check: Any, live: _Array, out: Any
) -> int:
    """Writes states after a stage; moves the entries that are admissible to the front of ``live`` and counts them."""
    u, now, change, new = states
    step, bad, good = out
    address, numbers, room = check
    kept, together, cells = 0, room.size > 0, good.size // u.shape[0]
    for entry in live:
        _stage(u[entry], now[entry], change[entry], weight, step[entry], new[entry])
    if together:
        _check_together(new, live, check, good, cells)
    for k in range(live.size):
        entry = live[k]
        if not together:
            call(address, (new[entry], u[entry], new[entry], good, numbers), (cells, cells))
        bad[entry] = _first_bad(good, k * cells if together else 0, cells)
        if bad[entry] < 0:
            live[kept] = entry
            kept += 1
    return kept


@inner
def _end_step(u: _Array, clocks: _Array, account: Any, bounds: Any, verdict: Any, room: Attempt) -> None:
    """Moves entries to the end of their steps, or halves the steps that failed."""
    target, smallest = bounds
    status, places = verdict
    for entry in range(u.shape[0]):
        if status[entry] != RUNNING:
            continue
        step, bad = room.step[entry], room.bad[entry]
        if not (bad < 0 and step * room.worst[entry] <= _LIMIT):
            clocks[entry, 1] = 0.5 * step
            if not step > smallest:
                clocks[entry, 1], status[entry], places[entry] = step, FAILED, bad
            continue
        for k in range(u.shape[1]):
            u[entry, k] = room.one[entry, k]
        for k in range(room.source.shape[1]):
            account[1][entry, k] += step / 6.0 * room.source[entry, k]
            for side in range(room.sides.shape[1]):
                account[0][entry, side, k] += step / 6.0 * room.sides[entry, side, k]
        for k in range(account[2].shape[1]):
            account[2][entry, k] += step / 6.0 * room.sampled[entry, k]
        clocks[entry, 0] = target if step == target - clocks[entry, 0] else clocks[entry, 0] + step
        clocks[entry, 1] *= 2.0
        clocks[entry, 2] += 1.0
        if clocks[entry, 0] >= target:
            status[entry] = DONE


@compiled
def run(u: _Array, clocks: _Array, account: Any, plan: Plan, data: Any, control: Any, rooms: Any, verdict: Any) -> None:
    """Integrates the entries of a tile to a target time, or as many steps as the budget allows.

    Args:
        u: States ``(entries, c·cells)``, overwritten.
        clocks: Time, largest step to try and number of accepted steps ``(entries, 3)``, overwritten.
        account: Time integrals of the fluxes through the sides ``(entries, 2d, c)``, of the sources ``(entries, c)``
            and of the states at sides that change with time, added to.
        plan: What does not change with time.
        data: See ``_rates``, and the number of the first entry.
        control: Target time, Courant number, largest and smallest step, most steps to try for an entry.
        rooms: Room for a step, for rates and for a sweep.
        verdict: ``RUNNING``, ``DONE`` or ``FAILED``, and the cell that failed or −1, ``(entries,)`` each, overwritten.
    """
    target, courant, largest_step, smallest, budget = control
    given, bottom, start = data
    room, rates, sweep = rooms
    live = np.empty(u.shape[0], np.int64)
    check = (plan.check, plan.numbers, sweep.cells if plan.chunk > 1 else sweep.cells[:0])
    for _ in range(budget):
        count = 0
        for entry in range(u.shape[0]):
            if verdict[0][entry] == RUNNING:
                live[count] = entry
                count += 1
        if count == 0:
            return
        for stage in range(3):
            now = u if stage == 0 else room.one if stage == 1 else room.two
            new, rows = room.two if stage == 1 else room.one, live[:count]
            if plan.given != 0:
                _look(plan, clocks, rows, stage, (start, given), (room.step, room.sampled))
            _rates(now, rows, plan, (given, bottom), rates, sweep)
            if stage == 0:
                _plan_step(clocks, rows, rates, (target, courant, largest_step), (room.step, room.worst))
            _sum_stage(stage, rows, rates, (room.sides, room.source, room.worst))
            weight = 0.0 if stage == 0 else 0.75 if stage == 1 else 1.0 / 3.0
            marks = (room.step, room.bad, room.good)
            count = _finish_stage((u, now, rates.change, new), weight, check, rows, marks)
        _end_step(u, clocks, account, (target, smallest), verdict, room)
