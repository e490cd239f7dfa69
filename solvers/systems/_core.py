"""The compiled rates of systems of any law with any number of axes, for the explicit steps of ``solve_system``.

Rates are summed line by line along every axis: a line of cells with ghost cells beyond its ends goes to the sweep,
whose address is in the plan. Those of a state that is not admissible are NaN, so that its step fails.
"""

from typing import Any

import numpy as np

from solvers._compiled import inner
from solvers.finite_volume._kernels import RATES, Array, array_at, call, kernel
from solvers.finite_volume.convection.reconstruction_kernels import largest
from solvers.systems import _plan
from solvers.systems._plan import Plan, Room, System, system_at


@inner(fastmath={"reassoc"})
def sum_flags(flags: Array, count: int) -> float:
    """Sum of numbers that are 0 or 1, exact in any order."""
    total = 0.0
    for k in range(count):
        total += flags[k]
    return total


@inner
def _start(line: int, axis: int, shape: Array) -> tuple[int, int]:
    """Place of the first cell of a line along an axis, and the distance of its cells."""
    apart = 1
    for k in range(axis + 1, shape.size):
        apart *= shape[k]
    return line // apart * shape[axis] * apart + line % apart, apart


@inner
def _gather(u: Array, live: Array, plan: Plan, axis: int, lines: Any, cells: Array) -> None:
    """Copies lines, without the ghost cells."""
    start, count, each = lines
    n, g, size = plan.shape[axis], plan.ghosts, u.shape[1] // plan.components
    for line in range(count):
        state = u[live[(start + line) // each]]
        place, apart = _start((start + line) % each, axis, plan.shape)
        for k in range(plan.components):
            row, values = cells[(k * count + line) * (n + 2 * g) + g :], state[k * size + place :]
            if apart == 1:
                for i in range(n):
                    row[i] = values[i]
            else:
                for i in range(n):
                    row[i] = values[i * apart]


@inner
def _fill_ghosts(given: Array, live: Array, plan: Plan, side_of: Any, lines: Any, room: Room) -> None:
    """Writes the ghost cells beyond the ends of lines at a side."""
    (axis, end), (start, count, each) = side_of, lines
    n, g, kind = plan.shape[axis], plan.ghosts, plan.kinds[axis, end]
    m, sides, offset = n + 2 * g, given.shape[1] // plan.components, end * each
    for k in range(axis):
        offset += 2 * (each * n // plan.shape[k])
    cells, near, image = room.cells, room.near, room.image
    outside, inside, inward = (g - 1, g, 1) if end == 0 else (g + n, g + n - 1, -1)
    for k in range(plan.components):
        for line in range(count):
            row, side = (k * count + line) * m, (k * count + line) * g
            place = k * sides + offset + (start + line) % each
            for q in range(g):
                ghost = row + outside - inward * q
                if kind == _plan.PERIODIC:
                    cells[ghost] = cells[ghost + inward * n]
                elif kind == _plan.OUTFLOW:
                    cells[ghost] = cells[row + inside]
                elif kind == _plan.GIVEN:
                    cells[ghost] = given[live[(start + line) // each], place]
                else:
                    near[side + q] = cells[row + inside + inward * q]
    if kind != _plan.REFLECTING:
        return
    call(plan.kernels[axis, 1], (near, near, image, image, plan.numbers), (count * g, count * g))
    for line in range(plan.components * count):
        for q in range(g):
            cells[line * m + outside - inward * q] = image[line * g + q]


@inner
def _scatter(change: Array, live: Array, plan: Plan, axis: int, lines: Any, along: Array) -> None:
    """Adds the changes that a sweep gives for lines."""
    start, count, each = lines
    n, c = plan.shape[axis], plan.components
    cells = change.shape[1] // c
    for line in range(count):
        entry = live[(start + line) // each]
        place, apart = _start((start + line) % each, axis, plan.shape)
        for k in range(c):
            row, out = along[(k * count + line) * n :], change[entry, k * cells + place :]
            if axis == 0:
                for i in range(n):
                    out[i * apart] = row[i]
            else:
                for i in range(n):
                    out[i * apart] += row[i]


@inner
def _add_ends(flow: Array, live: Array, plan: Plan, axis: int, lines: Any, room: Room) -> None:
    """Adds fluxes through ends of lines, sources and speeds that a sweep gives."""
    start, count, each = lines
    c, area, sides = plan.components, 1.0, 2 * plan.shape.size
    for k in range(plan.shape.size):
        area *= plan.spacing[k]
    area /= plan.spacing[axis]
    for line in range(count):
        entry = live[(start + line) // each]
        for k in range(c):
            flow[entry, 2 * axis * c + k] += area * room.through[(3 * line) * c + k]
            flow[entry, (2 * axis + 1) * c + k] += area * room.through[(3 * line + 1) * c + k]
            flow[entry, sides * c + k] += area * room.through[(3 * line + 2) * c + k]
        room.fastest[entry] = max(room.fastest[entry], room.speed[line])


@inner
def _first_bad(good: Array, start: int, cells: int) -> int:
    """The first cell of an entry that is not admissible, or −1, by the flags of ``cells`` cells from a place on."""
    if sum_flags(good[start:], cells) == cells:
        return -1
    for k in range(cells):
        if good[start + k] != 1.0:
            return k
    return -1


@inner
def _check_states(u: Array, marks: Array, system: System) -> int:
    """Writes which of the marked entries are admissible to ``live``, and returns how many."""
    plan, room, bad = system.plan, system.room, system.bad
    rows, cells, wanted, kept = u.shape[0], u.shape[1] // plan.components, 0, 0
    for b in range(rows):
        if marks[2 * rows + b] > 0.0:
            room.live[wanted] = b
            wanted += 1
    together = plan.chunk > 1
    if together:
        count = wanted * cells
        for k in range(wanted):
            for component in range(plan.components):
                for i in range(cells):
                    room.cells[component * count + k * cells + i] = u[room.live[k], component * cells + i]
        call(plan.check, (room.cells, room.cells, room.cells, room.good, plan.numbers), (count, count))
    for k in range(wanted):
        b = room.live[k]
        if not together:
            call(plan.check, (u[b], u[b], u[b], room.good, plan.numbers), (cells, cells))
        cell, entry = _first_bad(room.good, k * cells if together else 0, cells), np.int64(marks[b])
        bad[entry] = cell if cell < 0 or bad[entry] < 0 else bad[entry]
        if cell < 0:
            room.live[kept] = b
            kept += 1
    return kept


@kernel(RATES)
def rates(u: Any, info: Any, rate: Any, flow: Any, data: Any, record: Any, width: Any, rows: Any) -> None:
    """The kernel of rates; flow is, component by component, that through the sides, and the source."""
    system = system_at(record)
    plan, room = system.plan, system.room
    c, d, g, level, sides = plan.components, plan.shape.size, plan.ghosts, 0, 0
    cells, flows, marks = width // c, (2 * d + 1) * c + 2, array_at(info, 3 * rows)
    for n in plan.shape:
        sides += 2 * c * (cells // n)
    states, change = array_at(u, rows * width).reshape((rows, width)), array_at(rate, rows * width)
    change, through = change.reshape((rows, width)), array_at(flow, rows * flows).reshape((rows, flows))
    given = array_at(data, rows * sides).reshape((rows, sides))
    for b in range(rows):
        if marks[2 * rows + b] > 0.0:
            change[b, :], through[b, :] = np.nan, 0.0
    live = room.live[: _check_states(states, marks, system)]
    for axis in range(d):
        n = plan.shape[axis]
        each, plan.numbers[1] = cells // n, plan.spacing[axis]
        for b in live:
            room.fastest[b] = 0.0
        for start in range(0, live.size * each, plan.chunk):
            count = min(plan.chunk, live.size * each - start)
            lines, b = (start, count, each), live[start // each]
            if start % each == 0 and plan.bottom.shape[1] > 0:
                plan.numbers[0] = largest(states[b], 0, cells)
            _gather(states, live, plan, axis, lines, room.cells)
            for end in range(2):
                _fill_ghosts(given, live, plan, (axis, end), lines, room)
            order = room.order
            order[_plan.LINES], order[_plan.CELLS], order[_plan.AXIS] = count, n, axis
            order[_plan.FACES] = plan.kernels[axis, 0]
            below = plan.bottom[np.int64(marks[b]), level + start % each * (n + 2 * g) :]
            straight = each == 1 and count == 1  # one axis: the sweep writes where the changes belong
            along = change[b] if straight else room.change
            arrays = room.cells, below, along, room.through, room.speed, room.work, plan.numbers, order
            call(plan.sweep, arrays, ())
            if not straight:
                _scatter(change, live, plan, axis, lines, along)
            _add_ends(through, live, plan, axis, lines, room)
        for b in live:
            through[b, flows - 2] += room.fastest[b] / plan.spacing[axis]
        level += each * (n + 2 * g) if plan.bottom.shape[1] > 0 else 0
