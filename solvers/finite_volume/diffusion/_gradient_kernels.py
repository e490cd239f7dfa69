"""Compiled Newton's method for implicit diffusion in several axes, by conjugate gradients, row by row.

With D = diag k(u) and A the negative second differences between cells, a step solves (B + s A D) δ = r, where B is
1 and what the sides add. The matrix of y = D^½ δ is symmetric: (B + s D^½ A D^½) y = D^½ r. Then
δ = B⁻¹(r − s A D^½ y), so that δ balances with fluxes whatever the residual of the conjugate gradients. A source brings
−s ∂s/∂u to B.
"""

from typing import Any

import numpy as np

from solvers._compiled import compiled, inner
from solvers.finite_volume._kernels import Array, call
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

_MOST_ITERATIONS = 5000
_REDUCTION = 1e-3
_ROUND_OFF = 1e-15


@inner
def dot(a: Array, b: Array) -> float:
    """Scalar product, summed in eight lanes."""
    total = broadcast(0.0)
    whole = a.shape[0] - a.shape[0] % WIDTH
    for i in range(0, whole, WIDTH):
        total = total + load(a, i, total) * load(b, i, total)
    result = sum_of_lanes(total)
    for i in range(whole, a.shape[0]):
        result += a[i] * b[i]
    return result


@inner
def _second_differences(z: Array, sides: Any, stencil: Any, faces: Array, out: Array) -> None:
    """−A z of all cells; nothing flows through the sides unless they are periodic."""
    (offsets, ghost, edge, opposite), modes = sides
    for side in range(modes.shape[0]):
        source = opposite if modes[side] == PERIODIC else edge
        for e in range(offsets[side], offsets[side + 1]):
            z[ghost[e]] = z[source[e]]
    divergence(z, stencil, faces, out)


@inner
def _side_terms(k: Array, sides: Any, pull: Array, weights: Any, iterations: Any, terms: Any) -> None:
    """B on the diagonal, and k_edge − ∂Φ_side/∂u_edge of every face of a side."""
    (offsets, ghost, edge, _), modes = sides
    s, scale, faces = weights
    diagonal, gap = terms
    for i in range(diagonal.shape[0]):
        diagonal[i] = 1.0
    axes = modes.shape[0] // 2
    for side in range(modes.shape[0]):
        if modes[side] != STATE:
            continue
        for e in range(offsets[side], offsets[side + 1]):
            c = 1.0 if faces.shape[0] == 0 else faces[side // 2, max(ghost[e], edge[e])]
            weight, inner = 2.0 * (s * scale[side // 2]) * c, k[edge[e]]
            w = axes * weight
            gap[e] = inner - side_slope(w * k[ghost[e]], w * inner, pull[side], iterations) / w
            diagonal[edge[e]] += weight * gap[e]


@inner
def _add_source(u: Array, reaction: Any, lines: Array, s: float, cells: Array, out: Any) -> None:
    """Adds a source to the rate and to the diagonal, and keeps it, with its derivative, in ``cells``.

    The derivative is at most 1/(2 s), so that the matrix stays positive; where it is more the iteration takes longer,
    or the step fails.
    """
    (source, info, record), (change, diagonal), n = reaction, out, cells.shape[1] // lines.shape[0]
    from_padded(u, lines, cells[0])
    call(source, (cells[0], info, cells[1], cells[2], info, record), (cells.shape[1], 1))
    for line in range(lines.shape[0]):
        for i in range(n):
            at = line * n + i
            cells[2, at] = min(cells[2, at], 0.5 / s)
            change[lines[line] + i] += cells[1, at]
            diagonal[lines[line] + i] -= s * cells[2, at]


@inner
def _degrees(stencil: Any, faces: Array, out: Array) -> None:
    """Σ over the faces of a cell of w c."""
    strides, weights = stencil
    for i in range(out.shape[0]):
        inside, total = strides[0] <= i < out.shape[0] - strides[0], 0.0
        for axis in range(strides.shape[0]):
            several = faces.shape[0] > 0 and inside
            total += weights[axis] * (faces[axis, i] + faces[axis, i + strides[axis]] if several else 2.0)
        out[i] = total


@inner
def _conjugate_gradients(system: Any, sides: Any, stencil: Any, faces: Array, work: Any, bound: float) -> bool:
    """y with ‖D^½ r − (B + s D^½ A D^½) y‖ ≤ bound, from y = 0; whether it was reached."""
    root, diagonal, inverse, s = system
    y, rest, direction, image, z = work
    for i in range(y.shape[0]):
        y[i], direction[i] = 0.0, inverse[i] * rest[i]
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


@inner
def _residual(right: Array, u: Array, change: Array, s: float, k: Array, lines: Array, n: int, out: Any) -> float:
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


@inner(inline="always")
def _step(row: Any, problem: Any, sides: Any, grid: Any, arrays: Any, iterations: Any) -> bool:
    """One Newton step from u: leaves Φ, k, D^½ y and δ; whether the conjugate gradients converged."""
    _, _, data, s, allowed, reaction = problem
    kind, parameter, pull, stencil, faces = row
    linear = kind == DIFFUSION and reaction[0] == 0
    edges, modes = sides
    lines, size, spacing = grid
    u, right, potential, k, root, residual, change, diagonal, degree, moved, y, rest, direction, image, z, _ = arrays[0]
    gap, cells, inverse = arrays[1:]
    n = problem[0].shape[0] // lines.shape[0]
    fill_ghosts(u, edges, modes, pull, data)
    evaluate_with_slope(kind, parameter, u, potential, k)
    close_sides(potential, edges, modes)
    divergence(potential, stencil, faces, change)
    add_given(change, edges, modes, data, spacing, 1.0)
    number = -1 if kind == DIFFUSION else iterations
    _side_terms(k, sides, pull, (s, stencil[1], faces), number, (diagonal, gap))
    if reaction[0] != 0:
        _add_source(u, reaction, lines, s, cells, (change, diagonal))
    steepest = _residual(right, u, change, s, k, lines, n, (residual, root, rest))
    most = 0.0
    for i in range(size):
        inverse[i], most = 1.0 / (diagonal[i] + (s * k[i]) * degree[i]), max(most, degree[i])
    stiff = s * most * np.sqrt(steepest)
    scale = max(min(1.0 / np.sqrt(steepest), stiff), 1e-300)
    bound = 0.05 * allowed * np.sqrt(problem[0].shape[0]) / scale
    if not linear:
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


@inner(inline="always")
def _solve_row(row: Any, problem: Any, limit: int, sides: Any, grid: Any, results: Any) -> Any:
    """Newton's method for one row; returns converged, iterations and the mean |change| of the last one."""
    right, guess, data, s, allowed, reaction = problem
    kind, _, _, stencil, faces = row
    edges, modes = sides
    lines, size, _ = grid
    linear = kind == DIFFUSION and reaction[0] == 0
    arrays, gap, cells = np.zeros((16, size)), np.zeros(edges[1].shape[0]), np.zeros((3, guess.shape[0]))
    u, potential, degree, moved, z = arrays[0], arrays[2], arrays[8], arrays[9], arrays[14]
    to_padded(guess, lines, u)
    to_padded(right, lines, arrays[1])
    _degrees(stencil, faces, degree)
    iterations = np.int64(0)  # a plain 0 compiles _step twice, once for the constant
    before, part, converged, mean = 0.0, 1.0, False, 0.0
    while not converged and iterations < limit and np.isfinite(mean):
        solved = _step(row, problem, sides, grid, (arrays, gap, cells, arrays[15]), iterations)
        iterations += 1
        mean, size_of_u = 0.0, 0.0
        for i in range(size):
            u[i] += part * moved[i]
            mean += abs(moved[i])
            size_of_u += abs(u[i])
        mean, size_of_u = mean / guess.shape[0], size_of_u / guess.shape[0]
        ratio = before if mean >= _REDUCTION * before else mean / _REDUCTION
        least = max(allowed, NEWTON_ROUND_OFF * size_of_u)
        converged = solved and has_converged(mean, ratio, least, iterations == 1, linear)
        part = relaxation(part, iterations, mean, before)
        before = mean
    for i in range(size):
        potential[i] += z[i]
    for side in range(modes.shape[0]):
        if modes[side] == STATE:
            for e in range(edges[0][side], edges[0][side + 1]):
                potential[edges[1][e]] -= 2.0 * gap[e] * moved[edges[2][e]]
    from_padded(moved, lines, cells[0])
    for i in range(guess.shape[0]):
        cells[1, i] += cells[2, i] * cells[0, i]
    _write(potential, right, data, s, sides, stencil, faces, grid, arrays[6], cells[1], results)
    return converged, iterations, mean


@inner
def _write(
    potential: Array, right: Array, data: Array, s: float, sides: Any, stencil: Any, faces: Array, grid: Any,
    change: Array, produced: Array, results: Any,
) -> None:  # fmt: skip
    """u = r + s·rate, the rate, the fluxes through the sides and the integral of the source, all linearised."""
    edges, modes = sides
    lines, _, spacing = grid
    (u_out, rate, flow), total, volume = results, 0.0, 1.0
    for axis in range(spacing.shape[0]):
        volume *= spacing[axis]
    divergence(potential, stencil, faces, change)
    add_given(change, edges, modes, data, spacing, 1.0)
    side_fluxes(potential, edges, modes, data, (stencil, spacing, volume), faces, flow)
    from_padded(change, lines, rate)
    for i in range(rate.shape[0]):
        rate[i] += produced[i]
        total += produced[i]
        u_out[i] = right[i] + s * rate[i]
    flow[modes.shape[0]] = volume * total


@compiled
def solve_rows_by_gradients(problem: Any, limit: int, law: Any, sides: Any, grid: Any, sources: Any) -> tuple[Any, Any]:
    """Solves u = r + s·rate(u) of every row; law, sides and grid as in ``rates``.

    ``problem`` is r and the first iterate ``(rows, cells)``, data of the sides, s and the allowed mean |error|;
    ``sources`` the address of a kernel of sources or 0, its ``info`` ``(rows, 3)`` and record. Returns (u, rate, fluxes
    through the sides and integral of the source) and (converged, iterations, mean |change| of the last iteration).
    """
    right, guess, data, s, allowed = problem
    kind, parameters, coefficient, faces = law
    edges, modes, pull = sides
    lines, size, strides, spacing = grid
    rows = right.shape[0]
    u, rate, flow = np.empty_like(right), np.empty_like(right), np.empty((rows, modes.shape[0] + 1))
    converged, iterations, residual = np.zeros(rows, np.bool_), np.zeros(rows, np.int64), np.zeros(rows)
    for b in range(rows):
        stencil = strides, np.empty(spacing.shape[0])
        for axis in range(spacing.shape[0]):
            stencil[1][axis] = coefficient[b, 0] / (spacing[axis] * spacing[axis])
        row = kind, parameters[b, 0], pull[b], stencil, faces[b]
        each = right[b], guess[b], data[b], s[b], allowed[b], (sources[0], sources[1][b], sources[2])
        converged[b], iterations[b], residual[b] = _solve_row(
            row, each, limit, (edges, modes), (lines, size, spacing), (u[b], rate[b], flow[b])
        )
    return (u, rate, flow), (converged, iterations, residual)
