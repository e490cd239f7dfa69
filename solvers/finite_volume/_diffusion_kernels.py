"""Compiled diffusion −A Φ(u) in any number of axes: rates, and steps of the Runge–Kutta–Legendre method.

The cells of a row lie in an array padded by one ghost cell at each end of every axis, flattened. Loops run over the flat
array, through ghost cells too, whose values are then overwritten or not used. A ghost value continues Φ linearly
through the state on the side.
"""

from typing import Any

import numpy as np
from numba import njit

from solvers.finite_volume._potentials import DIFFUSION, conductivity, evaluate_row

_Array = np.ndarray

PERIODIC, GIVEN_FLUX, STATE = 0, 1, 2
_BLOCK = 2048


@njit(cache=True, nogil=True, error_model="numpy")
def to_padded(cells: _Array, lines: _Array, padded: _Array) -> None:
    """Copies the cells of a row to their places; ``lines`` holds the first place of every line of the last axis."""
    n = cells.shape[0] // lines.shape[0]
    for line in range(lines.shape[0]):
        padded[lines[line] : lines[line] + n] = cells[line * n : (line + 1) * n]


@njit(cache=True, nogil=True, error_model="numpy")
def from_padded(padded: _Array, lines: _Array, cells: _Array) -> None:
    """Copies the cells of a row back from their places."""
    n = cells.shape[0] // lines.shape[0]
    for line in range(lines.shape[0]):
        cells[line * n : (line + 1) * n] = padded[lines[line] : lines[line] + n]


@njit(cache=True, nogil=True, error_model="numpy")
def _fill_ghosts(u: _Array, edges: Any, modes: _Array, pull: _Array, data: _Array) -> None:
    """States on the sides, in the ghost cells."""
    offsets, ghost, edge, opposite = edges
    for side in range(modes.shape[0]):
        for e in range(offsets[side], offsets[side + 1]):
            if modes[side] == STATE:
                u[ghost[e]] = data[e] + pull[side] * u[edge[e]]
            else:
                u[ghost[e]] = u[opposite[e] if modes[side] == PERIODIC else edge[e]]


@njit(cache=True, nogil=True, error_model="numpy")
def potentials(row: Any, edges: Any, data: _Array, u: _Array, potential: _Array) -> None:
    """Φ of the cells, and in the ghost cells its continuation through the state on the side."""
    kind, parameter, modes, pull = row
    _fill_ghosts(u, edges, modes, pull, data)
    evaluate_row(kind, parameter, u, potential)
    offsets, ghost, edge, _ = edges
    for side in range(modes.shape[0]):
        if modes[side] == STATE:
            for e in range(offsets[side], offsets[side + 1]):
                potential[ghost[e]] = 2.0 * potential[ghost[e]] - potential[edge[e]]


@njit(cache=True, nogil=True, error_model="numpy")
def _difference(potential: _Array, grid: Any, faces: _Array, axis: int, start: int, out: _Array, add: bool) -> None:
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


@njit(cache=True, nogil=True, error_model="numpy")
def divergence(potential: _Array, grid: Any, faces: _Array, start: int, out: _Array) -> None:
    """−∇·F of a block of the flat array, without given fluxes."""
    for axis in range(grid[0].shape[0]):
        _difference(potential, grid, faces, axis, start, out, axis > 0)


@njit(cache=True, nogil=True, error_model="numpy")
def side_fluxes(
    potential: _Array, edges: Any, modes: _Array, data: _Array, geometry: Any, faces: _Array, out: _Array
) -> None:
    """Flux through every whole side along +axis."""
    offsets, ghost, edge, _ = edges
    (strides, weights), spacing, volume = geometry
    for side in range(modes.shape[0]):
        axis, area = side // 2, volume / spacing[side // 2]
        total = 0.0
        if modes[side] == GIVEN_FLUX:
            for e in range(offsets[side], offsets[side + 1]):
                total += data[e]
        else:
            sign = weights[axis] * spacing[axis] * (1.0 if side % 2 == 0 else -1.0)
            for e in range(offsets[side], offsets[side + 1]):
                c = 1.0 if faces.shape[0] == 0 else faces[axis, max(ghost[e], edge[e])]
                total += sign * (c * (potential[ghost[e]] - potential[edge[e]]))
        out[side] = area * total


@njit(cache=True, nogil=True, error_model="numpy")
def add_given(out: _Array, edges: Any, modes: _Array, data: _Array, spacing: _Array, scale: float) -> None:
    """Adds scale · F/h to the cells at the sides where the flux is given."""
    offsets, _, edge, _ = edges
    for side in range(modes.shape[0]):
        if modes[side] == GIVEN_FLUX:
            sign = scale / spacing[side // 2] * (1.0 if side % 2 == 0 else -1.0)
            for e in range(offsets[side], offsets[side + 1]):
                out[edge[e]] += sign * data[e]


@njit(cache=True, nogil=True, error_model="numpy")
def rates(u: _Array, data: _Array, law: Any, sides: Any, grid: Any) -> tuple[_Array, _Array]:
    """du/dt ``(rows, cells)`` and the fluxes through the sides ``(rows, 2d)``.

    Args:
        u: Cell averages ``(rows, cells)``.
        data: Data of the sides ``(rows, S)``.
        law: Kind, parameters ``(rows, p)``, coefficients ``(rows, 1)``, and coefficients on padded faces
            ``(rows, d, padded)`` or ``(rows, 0, 0)``.
        sides: (offsets, ghost, edge, opposite), modes ``(2d,)`` and pull ``(rows, 2d)``.
        grid: Lines, size of the padded array, strides ``(d,)``, spacing ``(d,)``.
    """
    kind, parameters, coefficient, all_faces = law
    edges, modes, pull = sides
    lines, size, strides, spacing = grid
    rate, flux = np.empty_like(u), np.empty((u.shape[0], modes.shape[0]))
    state, potential, out = np.zeros(size), np.zeros(size), np.zeros(size)
    first, last = strides[0], size - strides[0]
    for b in range(u.shape[0]):
        weights = coefficient[b, 0] / (spacing * spacing)
        to_padded(u[b], lines, state)
        potentials((kind, parameters[b, 0], modes, pull[b]), edges, data[b], state, potential)
        stencil = strides, weights
        for start in range(first, last, _BLOCK):
            divergence(potential, stencil, all_faces[b], start, out[start : min(start + _BLOCK, last)])
        add_given(out, edges, modes, data[b], spacing, 1.0)
        side_fluxes(potential, edges, modes, data[b], (stencil, spacing, np.prod(spacing)), all_faces[b], flux[b])
        from_padded(out, lines, rate[b])
    return rate, flux


@njit(cache=True, nogil=True, error_model="numpy")
def radii(u: _Array, data: _Array, law: Any, sides: Any, grid: Any) -> _Array:
    """Bound ``(rows,)`` of the spectral radius of ∂(du/dt)/∂u, by Gershgorin's circles of its columns."""
    kind, parameters, coefficient, faces = law
    (offsets, _, edge, _), modes, pull = sides
    lines, size, _, spacing = grid
    result = np.empty(u.shape[0])
    padded = np.zeros(size)
    for b in range(u.shape[0]):
        largest, sides_largest = u[b, 0], -np.inf
        for i in range(u.shape[1]):
            largest = max(largest, u[b, i])
        to_padded(u[b], lines, padded)
        stretch = 1.0
        for side in range(modes.shape[0]):
            if modes[side] == STATE:
                stretch = max(stretch, abs(pull[b, side]), 1.0 - pull[b, side])
                for e in range(offsets[side], offsets[side + 1]):
                    sides_largest = max(sides_largest, data[b, e] + pull[b, side] * padded[edge[e]])
        k = conductivity(kind, parameters[b, 0], max(largest, sides_largest))
        c = coefficient[b, 0] if faces.shape[1] == 0 else coefficient[b, 0] * np.max(faces[b])
        result[b] = k * c * 2.0 * (1.0 + stretch) * np.sum(1.0 / (spacing * spacing))
    return result
