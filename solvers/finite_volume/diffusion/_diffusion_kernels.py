"""Compiled diffusion −A Φ(u) in any number of axes: rates, and steps of the Runge–Kutta–Legendre method.

The cells of a row lie in an array padded by one ghost cell at each end of every axis, flattened. Loops run over the
flat array, through ghost cells too, whose values are then overwritten or not used. A ghost value continues Φ linearly
through the state on the side.
"""

from typing import Any

import numpy as np

from solvers._compiled import compiled
from solvers.finite_volume.diffusion._potentials import conductivity, evaluate_row
from solvers.finite_volume.sides._side_data import GIVEN_FLUX, PERIODIC, STATE

_Array = np.ndarray

_BLOCK = 2048


@compiled
def to_padded(cells: _Array, lines: _Array, padded: _Array) -> None:
    """Copies the cells of a row to their places; ``lines`` holds the first place of every line of the last axis."""
    n = cells.shape[0] // lines.shape[0]
    for line in range(lines.shape[0]):
        padded[lines[line] : lines[line] + n] = cells[line * n : (line + 1) * n]


@compiled
def from_padded(padded: _Array, lines: _Array, cells: _Array) -> None:
    """Copies the cells of a row back from their places."""
    n = cells.shape[0] // lines.shape[0]
    for line in range(lines.shape[0]):
        cells[line * n : (line + 1) * n] = padded[lines[line] : lines[line] + n]


@compiled
def fill_ghosts(u: _Array, edges: Any, modes: _Array, pull: _Array, data: _Array) -> None:
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


@compiled
def potentials(row: Any, edges: Any, data: _Array, u: _Array, potential: _Array) -> None:
    """Φ of the cells, and in the ghost cells its continuation through the state on the side."""
    kind, parameter, modes, pull = row
    fill_ghosts(u, edges, modes, pull, data)
    evaluate_row(kind, parameter, u, potential)
    close_sides(potential, edges, modes)


@compiled
def close_sides(potential: _Array, edges: Any, modes: _Array) -> None:
    """Continues Φ to the ghost cells, whose values are those on the sides."""
    offsets, ghost, edge, _ = edges
    for side in range(modes.shape[0]):
        if modes[side] == STATE:
            for e in range(offsets[side], offsets[side + 1]):
                potential[ghost[e]] = 2.0 * potential[ghost[e]] - potential[edge[e]]


@compiled
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


@compiled
def divergence(potential: _Array, grid: Any, faces: _Array, out: _Array) -> None:
    """−∇·F of all cells, without given fluxes, block by block."""
    first, last = grid[0][0], out.shape[0] - grid[0][0]
    for start in range(first, last, _BLOCK):
        for axis in range(grid[0].shape[0]):
            _difference(potential, grid, faces, axis, start, out[start : min(start + _BLOCK, last)], axis > 0)


@compiled
def side_fluxes(
    potential: _Array, edges: Any, modes: _Array, data: _Array, geometry: Any, faces: _Array, out: _Array
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


@compiled
def add_given(out: _Array, edges: Any, modes: _Array, data: _Array, spacing: _Array, scale: float) -> None:
    """Adds scale · F/h to the cells at the sides where the flux is given."""
    offsets, _, edge, _ = edges
    for side in range(modes.shape[0]):
        if modes[side] == GIVEN_FLUX:
            sign = scale / spacing[side // 2] * (1.0 if side % 2 == 0 else -1.0)
            for e in range(offsets[side], offsets[side + 1]):
                out[edge[e]] += sign * data[e]


@compiled
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
    for b in range(u.shape[0]):
        weights = coefficient[b, 0] / (spacing * spacing)
        to_padded(u[b], lines, state)
        potentials((kind, parameters[b, 0], modes, pull[b]), edges, data[b], state, potential)
        stencil = strides, weights
        divergence(potential, stencil, all_faces[b], out)
        add_given(out, edges, modes, data[b], spacing, 1.0)
        side_fluxes(potential, edges, modes, data[b], (stencil, spacing, np.prod(spacing)), all_faces[b], flux[b])
        from_padded(out, lines, rate[b])
    return rate, flux


@compiled
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


@compiled
def _weight(k: int) -> float:
    """b of stage k of the Runge–Kutta–Legendre method of second order."""
    return 1.0 / 3.0 if k < 2 else (k * k + k - 2.0) / (2.0 * k * (k + 1.0))


@compiled
def legendre(j: int) -> tuple[float, float, float]:
    """μ, ν of stage j ≥ 2, and the weight of the first rate (Meyer, Balsara and Aslam 2014, eqs. 16 and 17)."""
    b, before, earlier = _weight(j), _weight(j - 1), _weight(j - 2)
    mu = (2.0 * j - 1.0) / j * b / before
    return mu, (1.0 - j) / j * b / earlier, (before - 1.0) * mu


@compiled
def _stage(states: Any, potential: _Array, stencil: Any, faces: _Array, weights: Any, change: _Array) -> None:
    """The next stage from the last one, over the one before it, in blocks of the flat array."""
    before, last, base, slope = states
    step = weights[3]
    strides, scales = stencil
    d = strides.shape[0]
    fused = min(d, 2) if faces.shape[0] == 0 else 0
    across, outer = (strides[d - 2], step * scales[d - 2]) if fused == 2 else (0, 0.0)
    inner = step * scales[d - 1] if fused else 0.0
    for start in range(strides[0], before.shape[0] - strides[0], _BLOCK):
        end = min(start + _BLOCK, before.shape[0] - strides[0])
        for axis in range(d - fused):
            _difference(potential, stencil, faces, axis, start, change[: end - start], axis > 0)
        out = before[start:end]
        arrays = last[start:end], base[start:end], slope[start:end]
        neighbours = (
            potential[start:end],
            potential[start - across : end - across],
            potential[start + across : end + across],
            potential[start - 1 : end - 1],
            potential[start + 1 : end + 1],
        )
        _combine(out, arrays, neighbours, weights, (outer, inner))
        if d > fused:
            for i in range(end - start):
                out[i] += step * change[i]


@compiled
def _combine(out: _Array, arrays: Any, neighbours: Any, weights: Any, scales: tuple[float, float]) -> None:
    """Y₀ + μ (Y_{j−1} − Y₀) + ν (Y_{j−2} − Y₀) + γ h f₀, over Y_{j−2}, and the differences along two axes.

    Weights of sum 1 instead of these deviations would let rounding move the total by ε |u| in every stage.
    """
    now, base, slope = arrays
    here, before, behind, low, high = neighbours
    mu, nu, gamma, _ = weights
    outer, inner = scales
    for i in range(out.shape[0]):
        kept = base[i] + ((mu * (now[i] - base[i]) + nu * (out[i] - base[i])) + gamma * slope[i])
        across = outer * ((before[i] - here[i]) + (behind[i] - here[i]))
        out[i] = kept + (across + inner * ((low[i] - here[i]) + (high[i] - here[i])))


@compiled(inline="always")
def _all_stages(row: Any, plan: Any, place: Any, data: _Array, work: Any, fluxes: Any, early: Any) -> _Array:
    """Stages of one row from Y₀ and h f₀; returns the last one, and leaves its fluxes in the second of ``fluxes``."""
    base, slope, potential, change = work
    flux_before, flux_last, flux_first, flux = fluxes
    edges, stencil, geometry, faces, lines = place
    modes, (step, stages, middle) = row[2], plan
    before, last = base.copy(), base + slope / 3.0
    for j in range(2, stages + 1):
        mu, nu, gamma = legendre(j)
        now = data[min(j - 1, data.shape[0] - 1)]
        potentials(row, edges, now, last, potential)
        side_fluxes(potential, edges, modes, now, geometry, faces, flux)
        _stage((before, last, base, slope), potential, stencil, faces, (mu, nu, gamma, mu * step), change)
        add_given(before, edges, modes, now, geometry[1], mu * step)
        for side in range(flux.shape[0]):
            kept = mu * flux_last[side] + nu * flux_before[side] + gamma * flux_first[side]
            flux_before[side] = flux_last[side]
            flux_last[side] = kept + (mu * step) * flux[side]
        before, last = last, before
        if j == middle:
            from_padded(last, lines, early[0])
            early[1][:] = flux_last
    return last


@compiled
def supersteps(u: _Array, first: Any, plan: Any, data: _Array, law: Any, sides: Any, grid: Any) -> Any:
    """A step of the Runge–Kutta–Legendre method of second order for every row.

    Arguments and results are those of ``DiffusionTerm.superstep``; law, sides and grid those of ``rates``.
    """
    kind, parameters, coefficient, all_faces = law
    edges, modes, pull = sides
    lines, size, strides, spacing = grid
    end, account, between, early = np.empty_like(u), np.empty_like(first[1]), u.copy(), np.zeros_like(first[1])
    base, slope, potential, change = np.zeros(size), np.zeros(size), np.zeros(size), np.empty(_BLOCK)
    for b in range(u.shape[0]):
        row, stencil = (kind, parameters[b, 0], modes, pull[b]), (strides, coefficient[b, 0] / (spacing * spacing))
        place = edges, stencil, (stencil, spacing, np.prod(spacing)), all_faces[b], lines
        step = plan[0][b] * 4.0 / (plan[1][b] * plan[1][b] + plan[1][b] - 2.0)
        to_padded(u[b], lines, base)
        to_padded(first[0][b], lines, slope)
        slope *= step
        flux = step * first[1][b]
        fluxes = np.zeros_like(flux), flux / 3.0, flux, np.empty_like(flux)
        numbers, work = (step, plan[1][b], plan[2][b]), (base, slope, potential, change)
        last = _all_stages(row, numbers, place, data[:, b], work, fluxes, (between[b], early[b]))
        from_padded(last, lines, end[b])
        account[b] = fluxes[1]
    return end, account, between, early
