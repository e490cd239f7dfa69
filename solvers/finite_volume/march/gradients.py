"""Compiled Newton's method for an implicit stage of a row along several axes, by conjugate gradients, for shipped laws.

With D = diag k(u) and A the negative second differences between cells, a step solves (B + s A D) δ = r, where B is 1
and what sides and source add. The matrix of y = D^½ δ is symmetric: (B + s D^½ A D^½) y = D^½ r. Then
δ = B⁻¹(r − s A D^½ y), so that δ balances with fluxes whatever the residual of the conjugate gradients.
"""

import numpy as np

from solvers._compiled import inner_on_views, merged, on_views
from solvers.finite_volume.march.arguments import Array, Equation, TileSystem
from solvers.finite_volume.march.implicit import ROUND_OFF, UNDAMPED, has_converged, relaxation, side_slope
from solvers.finite_volume.march.kernels import function_at
from solvers.finite_volume.march.rates import ISOTROPIC, Layout, add_side_flows, fill_ghosts, sum_cells
from solvers.finite_volume.sides._side_data import PERIODIC, STATE

_MOST_ITERATIONS, _REDUCTION, _SMALLEST = 5000, 1e-3, 1e-15
RIGHT, STATES, RATE, K, ROOT, RESIDUAL, DIAGONAL, INVERSE, MOVED, Y, REST, DIRECTION, IMAGE, Z, SOURCE, BY_STATE = (
    range(16)
)
WORKSPACE, ONES, GAP, FLUXES = 16, 18, 19, 20
"""Arrays of the row: those of the stage, of Newton's step and of the conjugate gradients; two of scratch for the law,
ones, k_edge − ∂Φ_side/∂u_edge at the faces of the sides; and the fluxes across every axis."""


@inner_on_views(fastmath={"reassoc"})
def dot(a: Array, b: Array) -> float:
    """Scalar product, in the order that vectorises."""
    total = 0.0
    for i in range(a.shape[0]):
        total += a[i] * b[i]
    return total


@inner_on_views
def _second_differences(z: Array, layout: Layout, modes: Array, weights: Array, out: Array) -> None:
    """−A z of all cells; nothing flows through the sides unless they are periodic."""
    ghost, edge, opposite, offsets = layout.ghost, layout.edge, layout.opposite, layout.offsets
    for side in range(modes.size):
        source = opposite if modes[side] == PERIODIC else edge
        for e in range(offsets[side], offsets[side + 1]):
            z[ghost[e]] = z[source[e]]
    for axis in range(weights.shape[0]):
        apart, w = layout.strides[axis], weights[axis]
        low, here, high, inside, after = z, z[apart:], z[2 * apart :], out[apart:], w[apart:]
        if axis == 0:
            for i in range(out.size):
                out[i] = 0.0
        for i in range(out.size - 2 * apart):
            inside[i] += w[i] * (low[i] - here[i]) + after[i] * (high[i] - here[i])


@inner_on_views
def _conjugate_gradients(W: Array, layout: Layout, modes: Array, weights: Array, s: float, bound: float) -> bool:
    """y with ‖D^½ r − (B + s D^½ A D^½) y‖ ≤ bound, from y = 0; whether it was reached."""
    root, diagonal, inverse, y, rest, direction, image, z = (
        W[ROOT], W[DIAGONAL], W[INVERSE], W[Y], W[REST], W[DIRECTION], W[IMAGE], W[Z],
    )  # fmt: skip
    for i in range(y.size):
        y[i], direction[i] = 0.0, inverse[i] * rest[i]
    product, size = dot(rest, direction), dot(rest, rest)
    lowest = _SMALLEST * _SMALLEST * size
    for _ in range(_MOST_ITERATIONS):
        if size <= max(bound * bound, lowest) or not np.isfinite(size):
            return np.isfinite(size)
        for i in range(z.size):
            z[i] = root[i] * direction[i]
        _second_differences(z, layout, modes, weights, image)
        for i in range(z.size):
            image[i] = diagonal[i] * direction[i] - s * root[i] * image[i]
        step = product / dot(direction, image)
        for i in range(z.size):
            y[i] += step * direction[i]
            rest[i] -= step * image[i]
            z[i] = inverse[i] * rest[i]
        following, size = dot(rest, z), dot(rest, rest)
        ratio, product = following / product, following
        for i in range(z.size):
            direction[i] = z[i] + ratio * direction[i]
    return False


@inner_on_views
def _linearise(W: Array, s: float, data: Array, system: TileSystem, flow: Array, number: int) -> float:
    """Fluxes, rate, B on the diagonal and the preconditioner at the present states; returns the largest Σ w."""
    laws, medium, grid = system.laws, system.medium, system.grid
    p, r, weights = medium.diffusion, medium.source, medium.weights
    layout, modes, pull = grid.layout, grid.modes, grid.pull
    u, rate, k, diagonal, inverse, gap, size = W[STATES], W[RATE], W[K], W[DIAGONAL], W[INVERSE], W[GAP], W.shape[1]
    workspace, left, right, ones = W[WORKSPACE : WORKSPACE + 2].reshape(2 * size), W[Y], W[Z], W[ONES]
    line = layout.shape[layout.shape.size - 1]
    d, ghost, edge, offsets = layout.shape.size, layout.ghost, layout.edge, layout.offsets
    law = function_at(laws.diffusion)
    fill_ghosts(u, layout, modes, pull, data, pull.shape[0])  # a bare 1 is a literal: it would be compiled again
    for i in range(size):
        rate[i], diagonal[i], inverse[i], ones[i] = 0.0, 1.0, 0.0, 1.0
    last = p[d - 1]
    law(u.ctypes, last.ctypes, ones.ctypes, workspace.ctypes, W[IMAGE].ctypes, k.ctypes, right.ctypes, size - 1, 1)
    k[size - 1] = 0.0
    for axis in range(d):
        apart, w, flux = layout.strides[axis], weights[axis], W[FLUXES + axis]
        faces, given = apart - size if laws.kind == ISOTROPIC else size - apart, (u.ctypes, p[axis].ctypes, w.ctypes)
        law(*given, workspace.ctypes, flux.ctypes, left.ctypes, right.ctypes, faces, apart)
        add_side_flows(flux, layout, axis, modes, data, flow, (1.0 / grid.spacing[axis], 0.0), laws.kind > 0)
        inside, degree, after, w_after = rate[apart:], inverse[apart:], flux[apart:], w[apart:]
        for i in range(size - 2 * apart):
            inside[i] += flux[i] - after[i]
        for i in range(size - 2 * apart):
            degree[i] += w[i] + w_after[i]
        for side in range(2 * axis, 2 * axis + 2):
            for e in range(
                offsets[side] if modes[side] == STATE else 0, offsets[side + 1] if modes[side] == STATE else 0
            ):
                at = ghost[e] if side % 2 == 0 else edge[e]
                weight, within = s * w[at], k[edge[e]]
                scaled = d * weight
                gap[e] = (
                    within
                    - side_slope(pull[0, side] * (scaled * k[ghost[e]]), scaled * within, number < UNDAMPED, number < 0)
                    / scaled
                )
                diagonal[edge[e]] += weight * gap[e]
                inverse[edge[e]] -= 0.5 * w[at]
    if laws.reacts:
        source, slope, none, react = W[SOURCE], W[BY_STATE], u.ctypes, function_at(laws.source)
        react(none, r.ctypes, none, none, source.ctypes, slope.ctypes, none, size, r.shape[1])
        for i in range(size):
            slope[i] = min(slope[i], 0.5 / s)
            rate[i] += source[i]
            diagonal[i] -= s * slope[i]
    most = 0.0
    for place in range(layout.lines.size):
        for i in range(layout.lines[place], layout.lines[place] + line):
            most = max(most, inverse[i])
    for i in range(size):
        inverse[i] = 1.0 / (diagonal[i] + (s * k[i]) * inverse[i])
    return most


@merged
def _step(W: Array, equation: Equation, data: Array, system: TileSystem, flow: Array, number: int) -> bool:
    """One step of Newton's method: leaves fluxes, source, D^½ y and δ; whether the conjugate gradients converged."""
    s, layout, modes, weights = equation.step, system.grid.layout, system.grid.modes, system.medium.weights
    line, steepest, cells = layout.shape[layout.shape.size - 1], 0.0, 0
    most = _linearise(W, s, data, system, flow, number)
    right, u, rate, k, root, residual, rest = W[RIGHT], W[STATES], W[RATE], W[K], W[ROOT], W[RESIDUAL], W[REST]
    moved, y, z, image, diagonal = W[MOVED], W[Y], W[Z], W[IMAGE], W[DIAGONAL]
    for i in range(rest.size):
        root[i] = rest[i] = residual[i] = moved[i] = 0.0
    for place in range(layout.lines.size):
        for i in range(layout.lines[place], layout.lines[place] + line):
            residual[i], root[i] = (right[i] - u[i]) + s * rate[i], np.sqrt(k[i])
            rest[i], steepest, cells = root[i] * residual[i], max(steepest, k[i]), cells + 1
    scale = max(min(1.0 / np.sqrt(steepest), s * most * np.sqrt(steepest)), 1e-300)
    bound = 0.05 * equation.allowed * np.sqrt(cells) / scale
    if not equation.linear:
        bound = max(bound, _REDUCTION * np.sqrt(dot(rest, rest)))
    solved = _conjugate_gradients(W, layout, modes, weights, s, bound)
    for i in range(z.size):
        z[i] = root[i] * y[i]
    _second_differences(z, layout, modes, weights, image)
    for place in range(layout.lines.size):
        for i in range(layout.lines[place], layout.lines[place] + line):
            moved[i] = (residual[i] + s * image[i]) / diagonal[i]
    return solved


@on_views
def solve_by_gradients(
    W: Array, equation: Equation, data: Array, system: TileSystem, flow: Array
) -> tuple[bool, int, float]:
    """Solves u = r + s·rate(u) of a row in the layout of ``rates``, with r and the guess in its arrays W.

    Leaves the rate in W, and adds what flows through the sides and comes from the source to
    ``flow (1, 2d + 1)``, by the linearised fluxes. Returns whether it has converged, the number of iterations and the
    mean |change| of the last one.
    """
    laws, layout, modes, spacing = system.laws, system.grid.layout, system.grid.modes, system.grid.spacing
    d, line, u, moved = layout.shape.size, layout.shape[layout.shape.size - 1], W[STATES], W[MOVED]
    cells, volume = 1, 1.0
    iterations, before, part, converged, mean = 0, 0.0, 1.0, False, 0.0
    for axis in range(d):
        cells, volume = cells * layout.shape[axis], volume * spacing[axis]
    while not converged and iterations < equation.iterations and np.isfinite(mean):
        solved = _step(W, equation, data, system, flow, -1 if equation.linear_law else iterations)
        iterations, mean, magnitude = iterations + 1, 0.0, 0.0
        for place in range(layout.lines.size):
            for i in range(layout.lines[place], layout.lines[place] + line):
                u[i] += part * moved[i]
                mean, magnitude = mean + abs(moved[i]), magnitude + abs(u[i])
        mean, magnitude = mean / cells, magnitude / cells
        ratio = before if mean >= _REDUCTION * before else mean / _REDUCTION
        least = max(equation.allowed, ROUND_OFF * magnitude)
        converged = solved and has_converged(mean, ratio, least, iterations == 1, equation.linear)
        part, before = relaxation(part, iterations, mean, before), mean
    rate, z, gap, produced, by_state = W[RATE], W[Z], W[GAP], W[SOURCE], W[BY_STATE]
    for i in range(rate.size):
        rate[i] = 0.0
    for axis in range(d):
        apart, w, flux = layout.strides[axis], system.medium.weights[axis], W[FLUXES + axis]
        z_after, inside, after = z[apart:], rate[apart:], flux[apart:]
        for i in range(rate.size - apart):
            flux[i] += w[i] * (z[i] - z_after[i])
        for side in range(2 * axis, 2 * axis + 2):
            for e in range(layout.offsets[side], layout.offsets[side + 1]):
                first, edge = side % 2 == 0, layout.edge[e]
                at = layout.ghost[e] if first else edge
                if modes[side] == STATE:
                    flux[at] += (-1.0 if first else 1.0) * w[at] * gap[e] * moved[edge]
        add_side_flows(flux, layout, axis, modes, data, flow, (1.0 / spacing[axis], volume), laws.kind > 0)
        for i in range(rate.size - 2 * apart):
            inside[i] += flux[i] - after[i]
    for i in range(rate.size if laws.reacts else 0):
        produced[i] += by_state[i] * moved[i]
        rate[i] += produced[i]
    flow[0, 2 * d] = volume * sum_cells(produced, layout.lines, line) if laws.reacts else 0.0
    return converged, iterations, mean
