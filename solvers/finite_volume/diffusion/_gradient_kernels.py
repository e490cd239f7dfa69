"""Compiled Newton's method for implicit diffusion in several axes, by conjugate gradients, row by row.

With D = diag k(u) and A the negative second differences between cells, a step solves (B + s A D) δ = r, where B is
1 and what the sides add. The matrix of y = D^½ δ is symmetric: (B + s D^½ A D^½) y = D^½ r. Then
δ = B⁻¹(r − s A D^½ y), so that δ balances with fluxes whatever the residual of the conjugate gradients.
"""

from typing import Any

import numpy as np

from solvers._compiled import compiled
from solvers.finite_volume.diffusion._diffusion_kernels import (
    add_given,
    close_sides,
    divergence,
    fill_ghosts,
    from_padded,
    side_fluxes,
    to_padded,
)
from solvers.finite_volume.diffusion._lanes import WIDTH, broadcast, load, sum_of_lanes
from solvers.finite_volume.diffusion._newton_kernels import NEWTON_ROUND_OFF, has_converged, relaxation, side_slope
from solvers.finite_volume.diffusion._potentials import evaluate_with_slope
from solvers.finite_volume.laws._law_rows import DIFFUSION
from solvers.finite_volume.sides._side_data import PERIODIC, STATE

_Array = np.ndarray

_MOST_ITERATIONS = 5000
_REDUCTION = 1e-3
_ROUND_OFF = 1e-15


@compiled
def dot(a: _Array, b: _Array) -> float:
    """Scalar product, summed in eight lanes."""
    total = broadcast(0.0)
    whole = a.shape[0] - a.shape[0] % WIDTH
    for i in range(0, whole, WIDTH):
        total = total + load(a, i, total) * load(b, i, total)
    result = sum_of_lanes(total)
    for i in range(whole, a.shape[0]):
        result += a[i] * b[i]
    return result


@compiled
def _second_differences(z: _Array, sides: Any, stencil: Any, faces: _Array, out: _Array) -> None:
    """−A z of all cells; nothing flows through the sides unless they are periodic."""
    (offsets, ghost, edge, opposite), modes = sides
    for side in range(modes.shape[0]):
        part = slice(offsets[side], offsets[side + 1])
        outer, source = ghost[part], opposite[part] if modes[side] == PERIODIC else edge[part]
        for e in range(outer.shape[0]):
            z[outer[e]] = z[source[e]]
    divergence(z, stencil, faces, out)


@compiled
def _side_terms(k: _Array, sides: Any, pull: _Array, weights: Any, iterations: Any, terms: Any) -> None:
    """B on the diagonal, and k_edge − ∂Φ_side/∂u_edge of every face of a side."""
    (offsets, ghost, edge, _), modes = sides
    scale, faces = weights
    diagonal, gap = terms
    diagonal[:] = 1.0
    axes = modes.shape[0] // 2
    for side in range(modes.shape[0]):
        if modes[side] != STATE:
            continue
        for e in range(offsets[side], offsets[side + 1]):
            c = 1.0 if faces.shape[0] == 0 else faces[side // 2, max(ghost[e], edge[e])]
            weight, inner = 2.0 * scale[side // 2] * c, k[edge[e]]
            w = axes * weight
            gap[e] = inner - side_slope(w * k[ghost[e]], w * inner, pull[side], iterations) / w
            diagonal[edge[e]] += weight * gap[e]


@compiled
def _degrees(stencil: Any, faces: _Array, out: _Array) -> None:
    """Σ over the faces of a cell of w c."""
    strides, weights = stencil
    out[:] = 2.0 * np.sum(weights)
    if faces.shape[0] == 0:
        return
    for i in range(strides[0], out.shape[0] - strides[0]):
        total = 0.0
        for axis in range(strides.shape[0]):
            total += weights[axis] * (faces[axis, i] + faces[axis, i + strides[axis]])
        out[i] = total


@compiled
def _conjugate_gradients(system: Any, sides: Any, stencil: Any, faces: _Array, work: Any, bound: float) -> bool:
    """y with ‖D^½ r − (B + s D^½ A D^½) y‖ ≤ bound, from y = 0; whether it was reached."""
    root, diagonal, inverse, s = system
    y, rest, direction, image, z = work
    y[:] = 0.0
    direction[:] = inverse * rest
    product, size = dot(rest, direction), dot(rest, rest)
    lowest = _ROUND_OFF * _ROUND_OFF * size
    for _ in range(_MOST_ITERATIONS):
        if size <= max(bound * bound, lowest) or not np.isfinite(size):
            return np.isfinite(size)
        for i in range(z.shape[0]):
            z[i] = root[i] * direction[i]
        _second_differences(z, sides, stencil, faces, image)
        for i in range(z.shape[0]):
            image[i] = diagonal[i] * direction[i] - s * root[i] * image[i]
        step = product / dot(direction, image)
        for i in range(z.shape[0]):
            y[i] += step * direction[i]
            rest[i] -= step * image[i]
            z[i] = inverse[i] * rest[i]
        following, size = dot(rest, z), dot(rest, rest)
        ratio, product = following / product, following
        for i in range(z.shape[0]):
            direction[i] = z[i] + ratio * direction[i]
    return False


@compiled
def _residual(right: _Array, u: _Array, change: _Array, s: float, k: _Array, lines: _Array, n: int, out: Any) -> float:
    """r = right − u + s·rate and D^½ r on the cells, D^½ there, and the largest k; out is zero elsewhere."""
    residual, root, rest = out
    largest = 0.0
    for line in range(lines.shape[0]):
        for i in range(lines[line], lines[line] + n):
            residual[i] = (right[i] - u[i]) + s * change[i]
            root[i] = np.sqrt(k[i])
            rest[i] = root[i] * residual[i]
            largest = max(largest, k[i])
    return largest


@compiled(inline="always")
def _step(row: Any, problem: Any, sides: Any, grid: Any, arrays: Any, iterations: Any) -> bool:
    """One Newton step from u: leaves Φ, k, D^½ y and δ; whether the conjugate gradients converged."""
    _, _, data, s, allowed = problem
    kind, parameter, pull, stencil, faces = row
    edges, modes = sides
    lines, size, spacing = grid
    u, right, potential, k, root, residual, change, diagonal, degree, moved, y, rest, direction, image, z = arrays[0]
    gap = arrays[1]
    n = problem[0].shape[0] // lines.shape[0]
    fill_ghosts(u, edges, modes, pull, data)
    evaluate_with_slope(kind, parameter, u, potential, k)
    close_sides(potential, edges, modes)
    divergence(potential, stencil, faces, change)
    add_given(change, edges, modes, data, spacing, 1.0)
    steepest = _residual(right, u, change, s, k, lines, n, (residual, root, rest))
    number = -1 if kind == DIFFUSION else iterations
    _side_terms(k, sides, pull, (s * stencil[1], faces), number, (diagonal, gap))
    inverse = 1.0 / (diagonal + (s * k) * degree)
    stiff = s * degree.max() * np.sqrt(steepest)
    scale = max(min(1.0 / np.sqrt(steepest), stiff), 1e-300)
    bound = 0.05 * allowed * np.sqrt(problem[0].shape[0]) / scale
    if kind != DIFFUSION:
        bound = max(bound, _REDUCTION * np.sqrt(dot(rest, rest)))
    work = y, rest, direction, image, z
    solved = _conjugate_gradients((root, diagonal, inverse, s), sides, stencil, faces, work, bound)
    for i in range(size):
        z[i] = root[i] * y[i]
    _second_differences(z, sides, stencil, faces, image)
    for line in range(lines.shape[0]):
        for i in range(lines[line], lines[line] + n):
            moved[i] = (residual[i] + s * image[i]) / diagonal[i]
    return solved


@compiled(inline="always")
def _solve_row(row: Any, problem: Any, limit: int, sides: Any, grid: Any, results: Any) -> Any:
    """Newton's method for one row; returns converged, iterations and the mean |change| of the last one."""
    right, guess, data, s, allowed = problem
    kind, _, _, stencil, faces = row
    edges, modes = sides
    lines, size, _ = grid
    arrays, gap = np.zeros((15, size)), np.zeros(edges[1].shape[0])
    u, potential, degree, moved, z = arrays[0], arrays[2], arrays[8], arrays[9], arrays[14]
    to_padded(guess, lines, u)
    to_padded(right, lines, arrays[1])
    _degrees(stencil, faces, degree)
    iterations = np.int64(0)  # a plain 0 compiles _step twice, once for the constant
    before, part, converged, mean = 0.0, 1.0, False, 0.0
    while not converged and iterations < limit and np.isfinite(mean):
        solved = _step(row, problem, sides, grid, (arrays, gap), iterations)
        iterations += 1
        mean, size_of_u = 0.0, 0.0
        for i in range(size):
            u[i] += part * moved[i]
            mean += abs(moved[i])
            size_of_u += abs(u[i])
        mean, size_of_u = mean / guess.shape[0], size_of_u / guess.shape[0]
        ratio = before if mean >= _REDUCTION * before else mean / _REDUCTION
        least = max(allowed, NEWTON_ROUND_OFF * size_of_u)
        converged = solved and has_converged(mean, ratio, least, iterations == 1, kind == DIFFUSION)
        part = relaxation(part, iterations, mean, before)
        before = mean
    potential += z
    for side in range(modes.shape[0]):
        if modes[side] == STATE:
            for e in range(edges[0][side], edges[0][side + 1]):
                potential[edges[1][e]] -= 2.0 * gap[e] * moved[edges[2][e]]
    _write(potential, right, data, s, sides, stencil, faces, grid, arrays[6], results)
    return converged, iterations, mean


@compiled
def _write(
    potential: _Array, right: _Array, data: _Array, s: float, sides: Any, stencil: Any, faces: _Array, grid: Any,
    change: _Array, results: Any,
) -> None:  # fmt: skip
    """u = r + s·rate, the rate and the fluxes through the sides from the linearised potentials."""
    edges, modes = sides
    lines, _, spacing = grid
    u_out, rate, flux = results
    divergence(potential, stencil, faces, change)
    add_given(change, edges, modes, data, spacing, 1.0)
    side_fluxes(potential, edges, modes, data, (stencil, spacing, np.prod(spacing)), faces, flux)
    from_padded(change, lines, rate)
    for i in range(rate.shape[0]):
        u_out[i] = right[i] + s * rate[i]


@compiled
def solve_rows_by_gradients(problem: Any, limit: int, law: Any, sides: Any, grid: Any) -> tuple[Any, Any]:
    """Solves u = r + s·rate(u) of every row; law, sides and grid as in ``rates``.

    ``problem`` is r and the first iterate ``(rows, cells)``, data of the sides, s and the allowed mean |error|. Returns
    (u, rate, fluxes through the sides) and (converged, iterations, mean |change| of the last iteration).
    """
    right, guess, data, s, allowed = problem
    kind, parameters, coefficient, faces = law
    edges, modes, pull = sides
    lines, size, strides, spacing = grid
    rows = right.shape[0]
    u, rate, flux = np.empty_like(right), np.empty_like(right), np.empty((rows, modes.shape[0]))
    converged, iterations, residual = np.zeros(rows, np.bool_), np.zeros(rows, np.int64), np.zeros(rows)
    for b in range(rows):
        stencil = strides, coefficient[b, 0] / (spacing * spacing)
        row = kind, parameters[b, 0], pull[b], stencil, faces[b]
        each = right[b], guess[b], data[b], s[b], allowed[b]
        converged[b], iterations[b], residual[b] = _solve_row(
            row, each, limit, (edges, modes), (lines, size, spacing), (u[b], rate[b], flux[b])
        )
    return (u, rate, flux), (converged, iterations, residual)
