"""Compiled convection of rows in any number of axes: transport and Burgers with Godunov's flux.

A row is cut into blocks: an axis of n cells with ``inner`` cells in the later axes has blocks of ``n·inner`` cells,
with neighbours ``inner`` apart, so that every loop runs along memory. A row never sees the others.
"""

from typing import Any

import numpy as np

from solvers._compiled import compiled, inner
from solvers.finite_volume._kernels import RATES, Array, array_at, call, floats, integers, kernel
from solvers.finite_volume.convection.reconstruction_kernels import largest, parabola
from solvers.finite_volume.laws._law_rows import BURGERS, TRANSPORT
from solvers.finite_volume.sides._side_data import GIVEN_FLUX, PERIODIC, STATE

SEGMENTS = 7
"""Arrays of scratch, each of the size of the largest block with ghost cells."""

HEAD = 6
"""Integers before those of axes and sides: law, ghost cells, slopes, axes, side data and parameters of a row."""


@inner
def _extend(block: Array, apart: int, ghosts: int, end: int, side: Any, room: tuple[Array, Array]) -> None:
    """Ghost cells beyond one end of a block, and the states outside its face."""
    (mode, pull, data), (extended, outer) = side, room
    cells = block.shape[0]
    edge, step = (0, apart) if end == 0 else (cells - apart, -apart)
    beyond = (ghosts - 1) * apart if end == 0 else ghosts * apart + cells
    for j in range(apart):
        if mode == PERIODIC:
            outer[end * apart + j] = block[cells - apart + j if end == 0 else j]
            for i in range(ghosts):
                opposite = cells - (i + 1) * apart if end == 0 else i * apart
                extended[beyond - i * step + j] = block[opposite + j]
            continue
        first = block[edge + j]
        state, slope, curvature = first, 0.0, 0.0
        if mode == STATE:
            state = data[j] + pull * first
            slope = 2.0 * (first - state)
            if ghosts > 2 and cells > apart:
                low, high = state, state
                for i in range(j, cells, apart):
                    low, high = min(low, block[i]), max(high, block[i])
                slope, curvature = parabola(state, first, block[edge + step + j], high - low)
        for i in range(ghosts):
            ghost = state - slope * (i + 0.5) + curvature * (i * (i + 1) + 1.0 / 3.0)
            extended[beyond - i * step + j] = ghost
        outer[end * apart + j] = state


@inner
def _muscl(extended: Array, apart: int, slopes: int, half: Array, states: tuple[Array, Array]) -> None:
    """Limited linear states on both sides of every face."""
    left, right = states
    cell, after, later = extended[apart:], extended[2 * apart :], half[apart:]
    call(slopes, (extended, extended, half, half, extended), (left.shape[0] + apart, apart))
    for k in range(left.shape[0]):
        left[k] = cell[k] + half[k]
        right[k] = after[k] - later[k]


@inner
def _face_fluxes(law: Any, states: Any, neighbours: Any, flux: Array, fast: Array) -> float:
    """Godunov's flux; returns the largest speed of the neighbours and the states of all faces."""
    (kind, values), (left, right), (before, after) = law, states, neighbours
    if kind == BURGERS:
        for k in range(flux.shape[0]):
            from_left, from_right = max(left[k], 0.0), min(right[k], 0.0)
            flux[k] = 0.5 * max(from_left * from_left, from_right * from_right)
            fast[k] = max(max(abs(left[k]), abs(right[k])), max(abs(before[k]), abs(after[k])))
        return largest(fast, 0, flux.shape[0])
    if kind > TRANSPORT:  # the address of a kernel
        call(kind, (left, right, flux, fast, before, values), (flux.shape[0], before.shape[0] - after.shape[0]))
        return largest(fast, 0, flux.shape[0])
    if kind == TRANSPORT:
        for k in range(flux.shape[0]):
            flux[k] = values[k] * (left[k] if values[k] >= 0.0 else right[k])
            fast[k] = abs(values[k])
        return largest(fast, 0, flux.shape[0])
    upwind = left if values[0] >= 0.0 else right
    for k in range(flux.shape[0]):
        flux[k] = values[0] * upwind[k]
    return abs(values[0])


@inner(inline="always")
def _block_states(block: Array, apart: int, scheme: Any, sides: Any, work: Any) -> Any:
    """States left and right of the faces of a block, and the averages or given states before and behind them."""
    (ghosts, slopes), (extended, half, flux, fast, high, low, outer) = scheme, work
    cells, last = block.shape[0], flux.shape[0] - apart
    left, right = high[: flux.shape[0]], low[apart : apart + flux.shape[0]]
    for k in range(cells):
        extended[ghosts * apart + k] = block[k]
    for end in range(2):
        _extend(block, apart, ghosts, end, sides[end], (extended, outer))
    if ghosts == 1:
        for k in range(flux.shape[0]):
            left[k], right[k] = extended[k], extended[k + apart]
    elif ghosts == 2:
        _muscl(extended, apart, slopes, half, (left, right))
    else:
        call(slopes, (extended, extended, low, high, fast), (cells + 2 * apart, apart))
    for j in range(apart):
        extended[(ghosts - 1) * apart + j] = outer[j]
        extended[ghosts * apart + cells + j] = outer[apart + j]
        if sides[0][0] == STATE:
            left[j] = outer[j]
        if sides[1][0] == STATE:
            right[last + j] = outer[apart + j]
    return (left, right), (extended[(ghosts - 1) * apart :], extended[ghosts * apart :])


@inner(inline="always")
def _block(block: Array, apart: int, law: tuple[int, Array], scheme: Any, sides: Any, work: Any) -> float:
    """Writes the fluxes through the faces of a block into ``work[2]``; returns the largest speed."""
    flux, last = work[2], work[2].shape[0] - apart
    states, neighbours = _block_states(block, apart, scheme, sides, work)
    speed = _face_fluxes(law, states, neighbours, flux, work[3])
    for j in range(apart):
        if sides[0][0] == GIVEN_FLUX:
            flux[j] = sides[0][2][j]
        if sides[1][0] == GIVEN_FLUX:
            flux[last + j] = sides[1][2][j]
        if sides[0][0] == PERIODIC:
            flux[last + j] = flux[j]
    return speed


@inner(inline="always")
def _axis_room(plan: Array, axis: int, work: Array) -> Any:
    """Blocks along an axis, how many cells they have and how far apart neighbours are; scratch for one of them."""
    count, n, apart = plan[HEAD + 3 * axis], plan[HEAD + 3 * axis + 1], plan[HEAD + 3 * axis + 2]
    most, last = work.shape[0] // SEGMENTS, n * apart + 2 * plan[1] * apart
    first = work[:last], work[most:], work[2 * most : 2 * most + (n + 1) * apart]
    return (count, n, apart), (*first, work[3 * most :], work[4 * most :], work[5 * most :], work[6 * most :])


@inner(inline="always")
def _block_sides(plan: Array, axis: int, start: int, pull: Array, data: Array) -> Any:
    """Modes, pulls and data of both sides of a block, whose faces begin at ``start`` among those of a side."""
    d, first = plan[3], 2 * axis
    modes, offsets = plan[HEAD + 3 * d :], plan[HEAD + 5 * d :]
    low, high = data[offsets[first] + start :], data[offsets[first + 1] + start :]
    return (modes[first], pull[first], low), (modes[first + 1], pull[first + 1], high)


@inner(inline="always")
def _rate_of_row(u: Array, data: Array, law: Any, plan: Array, numbers: Any, work: Array, out: Any) -> float:
    """Writes du/dt and the side fluxes of one row; returns the speed."""
    (spacing, area, pull), (change, flow), total, passed = numbers, out, 0.0, 0
    for k in range(u.shape[0]):
        change[k] = 0.0
    for axis in range(plan[3]):
        (count, n, apart), room = _axis_room(plan, axis, work)
        size, faces, first, last = n * apart, (n + 1) * apart, 2 * axis, 2 * axis + 1
        flux, after = room[2], room[2][apart:]
        speed, inverse, through = 0.0, 1.0 / spacing[axis], area[axis]
        flow[first], flow[last] = 0.0, 0.0
        for o in range(count):
            sides = _block_sides(plan, axis, o * apart, pull, data)
            here = law[0], law[1][passed:]
            speed = max(speed, _block(u[o * size : (o + 1) * size], apart, here, (plan[1], plan[2]), sides, room))
            passed += faces if law[0] == TRANSPORT else 0
            out = change[o * size :]
            for k in range(size):
                out[k] -= (after[k] - flux[k]) * inverse
            for j in range(apart):
                flow[first] += flux[j] * through
                flow[last] += flux[faces - apart + j] * through
        total += speed / spacing[axis]
    return total


@compiled
def face_states(u: Array, data: Array, axis: int, plan: Array, pulls: Array, work: Array) -> Array:
    """States left and right of the faces across an axis, and the averages or given states before and behind them.

    From cell averages ``(rows, cells)`` and side data ``(rows, S)``: ``(4, rows, faces)``.
    """
    (count, n, apart), room = _axis_room(plan, axis, work)
    size, faces = n * apart, (n + 1) * apart
    found = np.empty((4, u.shape[0], count * faces))
    for b in range(u.shape[0]):
        for o in range(count):
            sides = _block_sides(plan, axis, o * apart, pulls[b], data[b])
            block = u[b, o * size : (o + 1) * size]
            states, neighbours = _block_states(block, apart, (plan[1], plan[2]), sides, room)
            for k in range(faces):
                at = o * faces + k
                found[0, b, at], found[1, b, at] = states[0][k], states[1][k]
                found[2, b, at], found[3, b, at] = neighbours[0][k], neighbours[1][k]
    return found


@kernel(RATES)
def rates(u: Any, info: Any, rate: Any, flow: Any, data: Any, record: Any, cells: Any, rows: Any) -> None:
    """The kernel of rates; its record is plan, spacings and areas of a face, pulls, parameters and scratch."""
    plan, work = integers(record, 0), floats(record, 5)
    spacing, area, pulls, values = floats(record, 1), floats(record, 2), floats(record, 3), floats(record, 4)
    d, entries, parameters = plan[3], plan[4], plan[5]
    marks, flows = array_at(info, 3 * rows), 2 * d + 3
    states, changes, out = array_at(u, rows * cells), array_at(rate, rows * cells), array_at(flow, rows * flows)
    given = array_at(data, rows * entries)
    for b in range(rows):
        if marks[2 * rows + b] == 0.0:
            continue
        row, here = np.int64(marks[b]), out[b * flows :]
        law, numbers = (plan[0], values[row * parameters :]), (spacing, area, pulls[2 * d * row :])
        cells_of_row, change = states[b * cells : (b + 1) * cells], changes[b * cells :]
        here[2 * d], here[2 * d + 2] = 0.0, 0.0
        here[2 * d + 1] = _rate_of_row(cells_of_row, given[b * entries :], law, plan, numbers, work, (change, here))
