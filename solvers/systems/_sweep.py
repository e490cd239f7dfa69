"""The sweep of any law: components reconstructed one by one, slopes shrunk where a state would not be admissible."""

from typing import Any

from solvers._compiled import inner
from solvers.finite_volume._kernels import Array, array_at, call, kernel
from solvers.finite_volume.convection.reconstruction_kernels import largest
from solvers.systems._core import sum_flags
from solvers.systems._tile import CELLS, CHECK, COMPONENTS, FACES, GHOSTS, LINES, SLOPES, SWEEP

_HALVINGS = 8


@inner
def _ends(row: Array, n: int, ghosts: int, slopes: int, states: tuple[Array, Array, Array]) -> None:
    """States at both ends of n + 2 cells, from a row of n + 2 ghosts cells; the last of the states is scratch."""
    low, high, scale = states
    if ghosts == 1:
        for k in range(n + 2):
            low[k] = row[k]
            high[k] = row[k]
    elif ghosts == 2:
        call(slopes, (row, row, high, high, row), (n + 2, 1))
        for k in range(n + 2):
            half = high[k]
            low[k] = row[k + 1] - half
            high[k] = row[k + 1] + half
    else:
        call(slopes, (row, row, low, high, scale), (n + 2, 1))


@inner
def _all_good(check: int, states: Array, good: Array, numbers: Array, count: int) -> bool:
    call(check, (states, states, states, good, numbers), (count, count))
    return sum_flags(good, count) == count


@inner
def _shrink(states: tuple[Array, Array], cells: Array, good: tuple[Array, Array], plan: Any, numbers: Array) -> None:
    """Moves the states at the ends of a cell towards its average until both are admissible (Zhang and Shu 2010).

    Since the average of both ends of a linear reconstruction is that of the cell, HLL keeps the averages admissible in
    steps that no wave takes through more than half a cell, if the admissible states are convex.
    """
    low, high = states
    check, c, lines, n, g = plan
    count = lines * (n + 2)
    for attempt in range(_HALVINGS + 1):
        fine = _all_good(check, low, good[0], numbers, count)
        if _all_good(check, high, good[1], numbers, count) and fine:
            return
        part = 0.5 if attempt < _HALVINGS else 0.0
        for k in range(count):
            if not (good[0][k] == 1.0 and good[1][k] == 1.0):
                line, i = k // (n + 2), k % (n + 2)
                for component in range(c):
                    place, cell = component * count + k, cells[(component * lines + line) * (n + 2 * g) + g - 1 + i]
                    low[place] = cell + part * (low[place] - cell)
                    high[place] = cell + part * (high[place] - cell)


@kernel(SWEEP)
def sweep(cells: Any, _below: Any, change: Any, through: Any, speed: Any, work: Any, numbers: Any, order: Any) -> None:
    """Flux differences of lines by a law's kernels; no source."""
    plan = array_at(order, 8)
    lines, n, c, g = plan[LINES], plan[CELLS], plan[COMPONENTS], plan[GHOSTS]
    each, m = n + 2, n + 2 * g
    count, size = lines * each, c * lines * each
    room, rows, law = array_at(work, 3 * size + 2 * count), array_at(cells, c * lines * m), array_at(numbers, 1)
    low, high, flux = room, room[size:], room[2 * size :]
    fast, good = room[3 * size :], room[3 * size + count :]
    for line in range(c * lines):
        place = line * each
        _ends(rows[line * m :], n, g, plan[SLOPES], (low[place:], high[place:], fast))
    if g > 1:
        _shrink((low, high), rows, (fast, good), (plan[CHECK], c, lines, n, g), law)
    call(plan[FACES], (high, low[1:], flux, fast, law), (count - 1, count))
    per = 1.0 / numbers[1]
    for line in range(lines):
        speed[line] = largest(fast, line * each, n + 1)
        for component in range(c):
            face, out = flux[(component * lines + line) * each :], (component * lines + line) * n
            for i in range(n):
                change[out + i] = (face[i] - face[i + 1]) * per
            through[(3 * line) * c + component] = face[0]
            through[(3 * line + 1) * c + component] = face[n]
            through[(3 * line + 2) * c + component] = 0.0
