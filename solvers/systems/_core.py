"""The compiled core of ``solve_system``: SSPRK3 for any law, many entries and any number of axes.

An entry of the batch keeps its own time and step, halved where a step fails. Rates are summed line by line along every
axis: a line of cells with ghost cells beyond its ends goes to the sweep, whose address is in the plan. The parts of a
step share a ``Tile``, see ``Shared``.
"""

from typing import Any

from solvers._compiled import inner
from solvers.finite_volume._kernels import PART, Array, call, kernel
from solvers.finite_volume.convection.reconstruction_kernels import largest
from solvers.finite_volume.steppers.coefficients import ssp_node, ssp_parts, ssp_weight
from solvers.systems import _tile
from solvers.systems._tile import Attempt, Buffers, Parts, Plan, Rates, Tile, tile_at

_LIMIT = 0.5


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
def _gather(u: Array, live: Array, plan: Plan, axis: int, lines: Any, room: Buffers) -> None:
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


@kernel(PART)
def _fill_ghosts(record: Any, side_of: Any, start: Any, count: Any) -> None:
    """Writes the ghost cells beyond the ends of lines at a side."""
    tile = tile_at(record)
    given, live, plan, room = tile.given, tile.live, tile.plan, tile.sweep
    axis, end = side_of // 2, side_of % 2
    n, g, kind = plan.shape[axis], plan.ghosts, plan.kinds[axis, end]
    each = tile.u.shape[1] // (plan.components * n)
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
                if kind == _tile.PERIODIC:
                    cells[ghost] = cells[ghost + inward * n]
                elif kind == _tile.OUTFLOW:
                    cells[ghost] = cells[row + inside]
                elif kind == _tile.GIVEN:
                    cells[ghost] = given[live[(start + line) // each], place]
                else:
                    near[side + q] = cells[row + inside + inward * q]
    if kind != _tile.REFLECTING:
        return
    call(plan.kernels[axis, 1], (near, near, image, image, plan.numbers), (count * g, count * g))
    for line in range(plan.components * count):
        for q in range(g):
            cells[line * m + outside - inward * q] = image[line * g + q]


@inner
def _scatter(out: Rates, live: Array, plan: Plan, axis: int, lines: Any, room: Buffers) -> None:
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
def _add_ends(out: Rates, live: Array, plan: Plan, axis: int, lines: Any, room: Buffers) -> None:
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


@kernel(PART)
def _rates(record: Any, entries: Any, stage: Any, _third: Any) -> None:
    """Rates of change of the live entries at a stage."""
    tile = tile_at(record)
    live, plan, out, room, bottom = tile.live[:entries], tile.plan, tile.rates, tile.sweep, tile.bottom
    u = _states(tile, stage)
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
                call(tile.parts.fill_ghosts, (record,), (2 * axis + end, start, count))
            order = room.order
            order[_tile.LINES], order[_tile.CELLS], order[_tile.AXIS], order[_tile.FACES] = (
                count,
                n,
                axis,
                plan.kernels[axis, 0],
            )
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
def _states(tile: Tile, stage: int) -> Array:
    """The states that a stage starts from."""
    return tile.u if stage == 0 else tile.room.one if stage == 1 else tile.room.two


@inner
def _stage(before: Array, now: Array, change: Array, weight: float, step: float, out: Array) -> None:
    """Writes weight·before + (1 − weight)·(now + step·change)."""
    for k in range(out.size):
        out[k] = weight * before[k] + (1.0 - weight) * (now[k] + step * change[k])


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
def _check_together(new: Array, live: Array, check: Any, good: Array, cells: int) -> None:
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


@kernel(PART)
def _look(record: Any, count: Any, stage: Any, _third: Any) -> None:
    """States at the sides at the time of a stage; keeps their sum with the weights of the scheme."""
    tile = tile_at(record)
    live, step, sampled, given = tile.live[:count], tile.room.step, tile.room.sampled, tile.given
    times, entries = tile.sweep.work[:count], tile.sweep.work[count:]
    for k in range(count):
        times[k], entries[k] = tile.clocks[live[k], 0], tile.first + live[k]
        if stage > 0:
            times[k] += ssp_node(stage) * step[live[k]]
    call(tile.plan.given, (times, entries, times, times, times), (count, count))
    weight = 6.0 * ssp_weight(stage)
    for entry in live:
        for k in range(given.shape[1]):
            sampled[entry, k] = weight * given[entry, k] + (sampled[entry, k] if stage > 0 else 0.0)


@inner
def _plan_step(tile: Tile, live: Array) -> None:
    """Steps of the live entries by their speeds."""
    clocks, bounds, room = tile.clocks, tile.bounds, tile.room
    for entry in live:
        room.worst[entry] = tile.rates.speed[entry]
        most = min(clocks[entry, 1], bounds[2])
        room.step[entry] = _choose(bounds[0] - clocks[entry, 0], room.worst[entry], most, bounds[1])


@inner
def _sum_stage(stage: int, live: Array, rates: Rates, room: Attempt) -> None:
    """Adds what a stage contributes to the account of a step, with six times its weight."""
    sides, source, weight = room.sides, room.source, 6.0 * ssp_weight(stage)
    for entry in live:
        room.worst[entry] = max(room.worst[entry], rates.speed[entry])
        for k in range(source.shape[1]):
            source[entry, k] = (source[entry, k] if stage > 0 else 0.0) + weight * rates.source[entry, k]
            for side in range(sides.shape[1]):
                before = sides[entry, side, k] if stage > 0 else 0.0
                sides[entry, side, k] = before + weight * rates.sides[entry, side, k]


@kernel(PART)
def _finish_stage(record: Any, count: Any, stage: Any, _third: Any) -> None:
    """States after a stage; moves the entries that are admissible to the front of the live ones and counts them."""
    tile = tile_at(record)
    plan, room, live = tile.plan, tile.room, tile.live[:count]
    kept, cells = 0, room.good.size // tile.u.shape[0]
    if stage == 0:
        _plan_step(tile, live)
    _sum_stage(stage, live, tile.rates, room)
    u, now, new, weight = tile.u, _states(tile, stage), room.two if stage == 1 else room.one, ssp_parts(stage + 1)[0]
    for entry in live:
        _stage(u[entry], now[entry], tile.rates.change[entry], weight, room.step[entry], new[entry])
    if plan.chunk > 1:
        _check_together(new, live, (plan.check, plan.numbers, tile.sweep.cells), room.good, cells)
    for k in range(count):
        entry = live[k]
        if plan.chunk == 1:
            call(plan.check, (new[entry], u[entry], new[entry], room.good, plan.numbers), (cells, cells))
        room.bad[entry] = _first_bad(room.good, k * cells if plan.chunk > 1 else 0, cells)
        if room.bad[entry] < 0:
            live[kept] = entry
            kept += 1
    tile.live[tile.u.shape[0]] = kept


@kernel(PART)
def _end_step(record: Any, _first: Any, _second: Any, _third: Any) -> None:
    """Moves entries to the end of their steps, or halves the steps that failed."""
    tile = tile_at(record)
    u, clocks, status, room, target = tile.u, tile.clocks, tile.status, tile.room, tile.bounds[0]
    for entry in range(u.shape[0]):
        if status[entry] != _tile.RUNNING:
            continue
        step, bad = room.step[entry], room.bad[entry]
        if not (bad < 0 and step * room.worst[entry] <= _LIMIT):
            clocks[entry, 1] = 0.5 * step
            if not step > tile.bounds[3]:
                clocks[entry, 1], status[entry], tile.places[entry] = step, _tile.FAILED, bad
            continue
        for k in range(u.shape[1]):
            u[entry, k] = room.one[entry, k]
        for k in range(room.source.shape[1]):
            tile.source[entry, k] += step / 6.0 * room.source[entry, k]
            for side in range(room.sides.shape[1]):
                tile.flux[entry, side, k] += step / 6.0 * room.sides[entry, side, k]
        for k in range(tile.sampled.shape[1]):
            tile.sampled[entry, k] += step / 6.0 * room.sampled[entry, k]
        clocks[entry, 0] = target if step == target - clocks[entry, 0] else clocks[entry, 0] + step
        clocks[entry, 1] *= 2.0
        clocks[entry, 2] += 1.0
        if clocks[entry, 0] >= target:
            status[entry] = _tile.DONE


@kernel(PART)
def run(record: Any, budget: Any, _second: Any, _third: Any) -> None:
    """Integrates the entries of a tile to the target time, or as many steps as the budget allows."""
    tile = tile_at(record)
    live, parts = tile.live, tile.parts
    for _ in range(budget):
        count = 0
        for entry in range(tile.u.shape[0]):
            if tile.status[entry] == _tile.RUNNING:
                live[count] = entry
                count += 1
        if count == 0:
            return
        for stage in range(3):
            if parts.look != 0:
                call(parts.look, (record,), (count, stage, 0))
            call(parts.rates, (record,), (count, stage, 0))
            call(parts.finish_stage, (record,), (count, stage, 0))
            count = live[tile.u.shape[0]]
        call(parts.end_step, (record,), (0, 0, 0))


def parts(looks: bool) -> Parts:
    """The parts of a step; looking up states is compiled only where they change with time."""
    rest = _rates, _fill_ghosts, _finish_stage, _end_step
    return Parts(_look.address if looks else 0, *(part.address for part in rest))
