"""Compiled diffusion −A Φ(u) in any number of axes.

Φ of a row lies in an array padded by one ghost cell at each end of every axis, flattened; loops over blocks of it may
run through ghost cells too, whose values are not used. A ghost value continues Φ linearly through that on the side.
"""

from typing import Any

import numpy as np

from solvers._compiled import inner
from solvers.finite_volume._kernels import RATES, Array, array_at, floats, integers, kernel
from solvers.finite_volume.diffusion._potentials import conductivity, evaluate_row
from solvers.finite_volume.laws._law_rows import DIFFUSION
from solvers.finite_volume.sides._side_data import GIVEN_FLUX, PERIODIC, STATE

_BLOCK = 2048


@inner
def to_padded(cells: Array, lines: Array, padded: Array) -> None:
    """Copies the cells of a row to their places; ``lines`` holds the first place of every line of the last axis."""
    n = cells.shape[0] // lines.shape[0]
    for line in range(lines.shape[0]):
        for i in range(n):
            padded[lines[line] + i] = cells[line * n + i]


@inner
def from_padded(padded: Array, lines: Array, cells: Array) -> None:
    """Copies the cells of a row back from their places."""
    n = cells.shape[0] // lines.shape[0]
    for line in range(lines.shape[0]):
        for i in range(n):
            cells[line * n + i] = padded[lines[line] + i]


@inner
def fill_ghosts(u: Array, edges: Any, modes: Array, pull: Array, data: Array) -> None:
    """States on the sides, in the ghost cells."""
    offsets, ghost, edge, opposite = edges
    for side in range(modes.shape[0]):
        start, end, factor = offsets[side], offsets[side + 1], pull[side]
        if modes[side] == STATE:
            for e in range(start, end):
                u[ghost[e]] = data[e] + factor * u[edge[e]]
        elif modes[side] == PERIODIC:
            for e in range(start, end):
                u[ghost[e]] = u[opposite[e]]
        else:
            for e in range(start, end):
                u[ghost[e]] = u[edge[e]]


@inner
def close_sides(potential: Array, edges: Any, modes: Array) -> None:
    """Continues Φ to the ghost cells, whose values are those on the sides."""
    offsets, ghost, edge, _ = edges
    for side in range(modes.shape[0]):
        if modes[side] == STATE:
            for e in range(offsets[side], offsets[side + 1]):
                potential[ghost[e]] = 2.0 * potential[ghost[e]] - potential[edge[e]]


@inner
def _difference(potential: Array, grid: Any, faces: Array, axis: int, start: int, out: Array, add: bool) -> None:
    """Σ over the two faces of an axis of w c (Φ beyond − Φ), for a block of the flat array from ``start`` on."""
    strides, weights = grid
    stride, weight, n = strides[axis], weights[axis], out.shape[0]
    here = potential[start : start + n]
    low = potential[start - stride : start - stride + n]
    high = potential[start + stride : start + stride + n]
    if faces.shape[0] == 0:
        if add:
            for i in range(n):
                out[i] += weight * ((low[i] - here[i]) + (high[i] - here[i]))
        else:
            for i in range(n):
                out[i] = weight * ((low[i] - here[i]) + (high[i] - here[i]))
        return
    first = faces[axis, start : start + n]
    second = faces[axis, start + stride : start + stride + n]
    for i in range(n):
        change = weight * (first[i] * (low[i] - here[i]) + second[i] * (high[i] - here[i]))
        out[i] = (out[i] if add else 0.0) + change


@inner(inline="always")
def divergence_of_block(potential: Array, grid: Any, faces: Array, start: int, out: Array) -> None:
    """−∇·F of a block of the flat array from ``start`` on, without given fluxes."""
    for axis in range(grid[0].shape[0]):
        _difference(potential, grid, faces, axis, start, out, axis > 0)


@inner
def divergence(potential: Array, grid: Any, faces: Array, out: Array) -> None:
    """−∇·F of all cells, without given fluxes, block by block."""
    last = out.shape[0] - grid[0][0]
    for start in range(grid[0][0], last, _BLOCK):
        divergence_of_block(potential, grid, faces, start, out[start : min(start + _BLOCK, last)])


@inner(inline="always")
def side_fluxes(
    potential: Array, edges: Any, modes: Array, data: Array, geometry: Any, faces: Array, out: Array
) -> None:
    """Flux through every whole side along +axis."""
    offsets, ghost, edge, _ = edges
    stencil, spacing, volume = geometry
    weights = stencil[1]
    for side in range(modes.shape[0]):
        axis, area = side // 2, volume / spacing[side // 2]
        start, end, total = offsets[side], offsets[side + 1], 0.0
        if modes[side] == GIVEN_FLUX:
            for e in range(start, end):
                total += data[e]
            out[side] = area * total
            continue
        if faces.shape[0] == 0:
            for e in range(start, end):
                total += potential[ghost[e]] - potential[edge[e]]
        else:
            for e in range(start, end):
                total += faces[axis, max(ghost[e], edge[e])] * (potential[ghost[e]] - potential[edge[e]])
        out[side] = area * weights[axis] * spacing[axis] * (total if side % 2 == 0 else -total)


@inner(inline="always")
def add_given(out: Array, edges: Any, modes: Array, data: Array, spacing: Array, scale: float) -> None:
    """Adds scale · F/h to the cells at the sides where the flux is given."""
    offsets, _, edge, _ = edges
    for side in range(modes.shape[0]):
        if modes[side] == GIVEN_FLUX:
            sign = scale / spacing[side // 2] * (1.0 if side % 2 == 0 else -1.0)
            for e in range(offsets[side], offsets[side + 1]):
                out[edge[e]] += sign * data[e]


@inner(inline="always")
def _ghost_potentials(u: Array, data: Array, law: Any, pull: Array, place: Any, room: Any) -> None:
    """Φ in the ghost cells: continued linearly through the states on the sides, whose values stay in the scratch."""
    (kind, parameter), (edges, modes, inside), (potential, states, values) = law, place, room
    offsets, ghost, edge, opposite = edges
    for side in range(modes.shape[0]):
        for e in range(offsets[side], offsets[side + 1]):
            states[e] = u[inside[e]]
            if modes[side] == STATE:
                states[e] = data[e] + pull[side] * u[inside[e]]
    evaluate_row(kind, parameter, states, values)
    for side in range(modes.shape[0]):
        for e in range(offsets[side], offsets[side + 1]):
            potential[ghost[e]] = potential[opposite[e]] if modes[side] == PERIODIC else potential[edge[e]]
            if modes[side] == STATE:
                potential[ghost[e]] = 2.0 * values[e] - potential[edge[e]]


@inner
def _euler_rate(u: Array, states: Array, law: Any, steepest: float, pull: Array, place: Any) -> float:
    """Half a bound of the spectral radius of ∂(du/dt)/∂u, by Gershgorin's circles of its columns."""
    (kind, parameter), (edges, modes, _) = law, place
    largest, stretch = u[0], 1.0
    for i in range(u.shape[0] if kind != DIFFUSION else 0):
        largest = max(largest, u[i])
    on_sides = -np.inf
    for side in range(modes.shape[0]):
        if modes[side] == STATE:
            stretch = max(stretch, abs(pull[side]), 1.0 - pull[side])
            for e in range(edges[0][side], edges[0][side + 1]):
                on_sides = max(on_sides, states[e])
    return conductivity(kind, parameter, max(largest, on_sides)) * steepest * (1.0 + stretch)


@inner(inline="always")
def _rate_of_row(u: Array, data: Array, law: Any, pull: Array, faces: Array, grid: Any, place: Any, out: Any) -> None:
    """du/dt of one row and the fluxes through its sides."""
    (lines, stencil, spacing, volume), (rate, flow), (edges, modes, inside) = grid, out, place[:3]
    potential, n = place[3][0], u.shape[0] // lines.shape[0]
    for line in range(lines.shape[0]):
        evaluate_row(law[0], law[1], u[line * n : (line + 1) * n], potential[lines[line] : lines[line] + n])
    _ghost_potentials(u, data, law, pull, place[:3], place[3])
    for line in range(lines.shape[0]):
        divergence_of_block(potential, stencil, faces, lines[line], rate[line * n : (line + 1) * n])
    add_given(rate, (edges[0], edges[1], inside, edges[3]), modes, data, spacing, 1.0)
    side_fluxes(potential, edges, modes, data, (stencil, spacing, volume), faces, flow)


@kernel(RATES)
def rates(u: Any, info: Any, rate: Any, flow: Any, data: Any, record: Any, cells: Any, rows: Any) -> None:
    """The kernel of rates.

    Its record is (law, axes, padded size, axes of ``faces``), modes, offsets, lines, places of ghost cells, cells at
    the sides and those opposite in the padded array and of the former in a row, strides; spacing, parameters,
    coefficients, bounds of the radius by k, pulls, coefficients on padded faces, and scratch.
    """
    head, modes, offsets, lines = integers(record, 0), integers(record, 1), integers(record, 2), integers(record, 3)
    edges = offsets, integers(record, 4), integers(record, 5), integers(record, 6)
    inside, strides, spacing = integers(record, 7), integers(record, 8), floats(record, 9)
    parameters, coefficient, steepest = floats(record, 10), floats(record, 11), floats(record, 12)
    pulls, every_face, work = floats(record, 13), floats(record, 14), floats(record, 15)
    d, size, entries, flows = head[1], head[2], inside.shape[0], 2 * head[1] + 3
    room = work[:size], work[size : size + entries], work[size + entries : size + 2 * entries]
    weights, volume = work[size + 2 * entries : size + 2 * entries + d], 1.0
    for axis in range(d):
        volume *= spacing[axis]
    marks, states, changes = array_at(info, 3 * rows), array_at(u, rows * cells), array_at(rate, rows * cells)
    given, passed = array_at(data, rows * entries), array_at(flow, rows * flows)
    for b in range(rows):
        if marks[2 * rows + b] == 0.0:
            continue
        row, through, here = np.int64(marks[b]), passed[b * flows :], states[b * cells : (b + 1) * cells]
        for axis in range(d):
            weights[axis] = coefficient[row] / (spacing[axis] * spacing[axis])
        law, pull, each = (head[0], parameters[row]), pulls[2 * d * row :], head[3] * size
        faces = every_face[row * each : (row + 1) * each].reshape((head[3], size))
        grid, out = (lines, (strides, weights), spacing, volume), (changes[b * cells : (b + 1) * cells], through)
        _rate_of_row(here, given[b * entries :], law, pull, faces, grid, (edges, modes, inside, room), out)
        through[2 * d], through[2 * d + 1], through[2 * d + 2] = 0.0, 0.0, 0.0
        if marks[2 * rows + b] > 1.0:
            through[2 * d + 2] = _euler_rate(here, room[1], law, steepest[row], pull, (edges, modes, inside))
