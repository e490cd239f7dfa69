"""Compiled Newton's method for implicit diffusion along one axis, many rows at once.

u + s A Φ(u) = r with A the negative second difference with face weights w. Rows are taken in tiles of eight,
interleaved as ``(cells, 8)``, so that the elimination along the axis runs over eight rows at once; a lane whose row
has converged takes the next row. The rows never mix: a row has the same bits alone and in a tile.
"""

from typing import Any

import numpy as np

from solvers._compiled import compiled
from solvers.finite_volume.diffusion._lanes import WIDTH, broadcast, load, magnitude, store
from solvers.finite_volume.diffusion._potentials import evaluate_lanes, spread_parameters
from solvers.finite_volume.laws._kernel_codes import DIFFUSION
from solvers.finite_volume.sides._side_data import GIVEN_FLUX, PERIODIC, STATE

_Array = np.ndarray

UNDAMPED = 8
NEWTON_ROUND_OFF = 1e-13


@compiled
def face_weights(coefficient: _Array, modes: _Array, spacing: float, weights: _Array) -> None:
    """Weights c/h² of the n + 1 faces of a row: twice as large over the half cell at a side, 0 under a given flux."""
    n = weights.shape[0] - 1
    scale = 1.0 / (spacing * spacing)
    for i in range(n + 1):
        weights[i] = scale * (coefficient[i] if coefficient.shape[0] > 1 else coefficient[0])
    for side, face in ((0, 0), (1, n)):
        if modes[side] == STATE:
            weights[face] *= 2.0
        elif modes[side] != PERIODIC:
            weights[face] = 0.0


@compiled
def _factor(k: _Array, weights: _Array, diagonal: _Array, pivot: _Array, one: Any, width: int) -> None:
    """Reciprocal pivots of the matrix with columns scaled by k: −w_i k_{i−1}, d_i, −w_{i+1} k_{i+1} in row i."""
    n = diagonal.shape[0] // width
    last = one / load(diagonal, 0, one)
    store(pivot, 0, last)
    for i in range(1, n):
        at = i * width
        w = load(weights, at, one)
        product = (w * load(k, at, one)) * (w * load(k, at + width, one))
        last = one / (load(diagonal, at, one) - product * last)
        store(pivot, at, last)


@compiled
def _substitute(k: _Array, weights: _Array, pivot: _Array, right: _Array, one: Any, width: int) -> None:
    """Overwrites ``right`` by the solution of the factored system."""
    n = pivot.shape[0] // width
    last = load(right, 0, one)
    for i in range(1, n):
        at = i * width
        factor = (load(weights, at, one) * load(k, at, one)) * load(pivot, at - width, one)
        last = load(right, at, one) + factor * last
        store(right, at, last)
    last = last * load(pivot, (n - 1) * width, one)
    store(right, (n - 1) * width, last)
    for i in range(n - 2, -1, -1):
        at = i * width
        scale = load(pivot, at, one)
        factor = (load(weights, at + width, one) * load(k, at + 2 * width, one)) * scale
        last = load(right, at, one) * scale + factor * last
        store(right, at, last)


@compiled
def _add(u: _Array, delta: _Array, relaxation: _Array, means: _Array, one: Any, width: int) -> None:
    """Adds δ, or a part of it, to u; the means of |δ| and |u| over cells."""
    n = delta.shape[0] // width
    total, size, part = one - one, one - one, load(relaxation, 0, one)
    for i in range(n):
        at = i * width
        step = load(delta, at, one)
        total = total + magnitude(step)
        following = load(u, at + width, one) + part * step
        size = size + magnitude(following)
        store(u, at + width, following)
    store(means, 0, total)
    store(means, width, size)
    for i in range(2 * width):
        means[i] /= n


@compiled
def _wrap(k: _Array, weights: _Array, diagonal: _Array, corner: _Array, width: int) -> None:
    """Changes the diagonal for Sherman and Morrison's formula, with the right-hand side of the corners."""
    n = diagonal.shape[0] // width
    end = (n - 1) * width
    corner[:] = 0.0
    for lane in range(width):
        top = -weights[lane] * k[end + width + lane]
        bottom = -weights[end + width + lane] * k[width + lane]
        shift = -diagonal[lane]
        diagonal[lane] -= shift
        diagonal[end + lane] -= bottom * top / shift
        corner[lane], corner[end + lane] = shift, bottom


@compiled
def _unwrap(k: _Array, weights: _Array, shifted: _Array, delta: _Array, corner: _Array) -> None:
    """Completes Sherman and Morrison's formula; ``shifted`` is twice the first diagonal entry."""
    width = shifted.shape[0]
    end = delta.shape[0] - width
    factor = np.empty(width)
    for lane in range(width):
        ratio = weights[lane] * k[end + width + lane] / (0.5 * shifted[lane])
        factor[lane] = (delta[lane] + ratio * delta[end + lane]) / (1.0 + corner[lane] + ratio * corner[end + lane])
    for i in range(0, delta.shape[0], width):
        for lane in range(width):
            delta[i + lane] -= factor[lane] * corner[i + lane]


@compiled
def _close_sides(u: _Array, modes: _Array, sides: _Array, width: int) -> None:
    """States beyond the ends of the axis; ``sides`` holds data and pull of both sides, ``(4, width)``."""
    end = u.shape[0] - width
    for lane in range(width):
        if modes[0] == PERIODIC:
            u[lane], u[end + lane] = u[end - width + lane], u[width + lane]
        else:
            u[lane] = sides[0, lane] + sides[2, lane] * u[width + lane]
            u[end + lane] = sides[1, lane] + sides[3, lane] * u[end - width + lane]


@compiled
def side_slope(outer: Any, inner: Any, pull: float, weight: float, iterations: int) -> float:
    """Derivative of Φ on a side by the edge cell, for the iteration after so many.

    It is limited so that the matrix stays diagonally dominant by columns. After many iterations it is dropped, since
    a kink of Φ on the side may keep them from converging. A linear law has one iteration, number −1.
    """
    slope = pull * outer
    if iterations < 0 or weight == 0.0:
        return slope
    return min(slope, inner + 0.5 / weight) if iterations < UNDAMPED else min(slope, 0.0)


@compiled
def _assemble(
    u: _Array, right: _Array, weights: _Array, potential: _Array, k: _Array, delta: _Array, diagonal: _Array, width: int
) -> None:
    """Residual r − u + s ∇²Φ and diagonal; ``weights`` include s."""
    for i in range(delta.shape[0]):
        low, high = weights[i], weights[i + width]
        here = potential[i + width]
        change = low * (potential[i] - here) + high * (potential[i + 2 * width] - here)
        delta[i] = (right[i] - u[i + width]) + change
        diagonal[i] = 1.0 + (low + high) * k[i + width]


@compiled
def linear_step(tile: Any, modes: _Array, kind: int, lanes: Any, one: Any) -> None:
    """Φ, k and the change δ of Newton's method of every lane, left in the tile."""
    u, right, weights, potential, k, delta, diagonal, pivot, corner, parameters = tile
    sides, inflow, _, counts, width = lanes
    end = delta.shape[0]
    _close_sides(u, modes, sides, width)
    evaluate_lanes(kind, u, parameters, potential, k)
    _assemble(u, right, weights, potential, k, delta, diagonal, width)
    if modes[0] == PERIODIC:
        _wrap(k, weights, diagonal, corner, width)
    else:
        for lane in range(width):
            for side, cell, ghost, at in ((0, width, 0, 0), (1, end, end + width, end - width)):
                weight = weights[(0 if side == 0 else end) + lane]
                slope = side_slope(k[ghost + lane], k[cell + lane], sides[2 + side, lane], weight, counts[lane])
                diagonal[at + lane] -= weight * slope
                delta[at + lane] += inflow[side, lane]
    _factor(k, weights, diagonal, pivot, one, width)
    _substitute(k, weights, pivot, delta, one, width)
    if modes[0] == PERIODIC:
        _substitute(k, weights, pivot, corner, one, width)
        _unwrap(k, weights, diagonal[:width], delta, corner)


@compiled
def _enter(tile: Any, problem: Any, scratch: Any, row: Any, lane: int, lanes: Any) -> None:
    """Puts a row into a lane."""
    u, right, weights, _, _, _, _, _, _, parameters = tile
    kind, values, coefficient, modes, pull, spacing, data, s, target, guess = problem
    sides, inflow, relaxation, counts, width = lanes
    face = scratch[0]
    n = target.shape[1]
    relaxation[lane], counts[lane] = 1.0, -1 if kind == DIFFUSION else 0
    face_weights(coefficient[row], modes, spacing, face)
    for i in range(n + 1):
        weights[i * width + lane] = s[row] * face[i]
    for i in range(n):
        right[i * width + lane] = target[row, i]
        u[(i + 1) * width + lane] = guess[row, i]
    spread_parameters(kind, values[row], parameters, lane, width)
    for side in range(2):
        state, sign = modes[side] == STATE, 1.0 if side == 0 else -1.0
        sides[side, lane] = data[row, side] if state else 0.0
        sides[2 + side, lane] = pull[row, side] if state else 1.0
        inflow[side, lane] = sign * s[row] * data[row, side] / spacing if modes[side] == GIVEN_FLUX else 0.0


@compiled
def _leave(tile: Any, problem: Any, scratch: Any, row: int, lane: int, lanes: Any, results: Any) -> None:
    """Writes u = r + s ∇²(Φ + k δ) of a lane's row, its rate and the fluxes through its sides."""
    _, _, _, potential, k, delta, _, _, _, _ = tile
    _, _, coefficient, modes, _, spacing, data, s, target, _ = problem
    sides, _, _, counts, width = lanes
    u_out, rate, flux = results
    weights, moved = scratch
    n = target.shape[1]
    face_weights(coefficient[row], modes, spacing, weights)
    for i in range(n):
        at = (i + 1) * width + lane
        moved[i + 1] = potential[at] + k[at] * delta[at - width]
    if modes[0] == PERIODIC:
        moved[0], moved[n + 1] = moved[n], moved[1]
    else:
        end = (n + 1) * width + lane
        low, high = weights[0] * s[row], weights[n] * s[row]
        slope = side_slope(k[lane], k[width + lane], sides[2, lane], low, counts[lane])
        moved[0] = potential[lane] + slope * delta[lane]
        slope = side_slope(k[end], k[end - width], sides[3, lane], high, counts[lane])
        moved[n + 1] = potential[end] + slope * delta[end - 2 * width]
    second_difference(moved, weights, rate[row])
    for side in range(2):
        i = 0 if side == 0 else n
        flux[row, side] = spacing * (weights[i] * (moved[i] - moved[i + 1]))
        if modes[side] == GIVEN_FLUX:
            flux[row, side] = data[row, side]
            rate[row, max(0, i - 1)] += (data[row, side] if side == 0 else -data[row, side]) / spacing
    for i in range(n):
        u_out[row, i] = target[row, i] + s[row] * rate[row, i]


@compiled
def second_difference(potential: _Array, weights: _Array, out: _Array) -> None:
    """Σ over the faces of a cell of w (Φ beyond − Φ)."""
    for i in range(out.shape[0]):
        here = potential[i + 1]
        out[i] = weights[i] * (potential[i] - here) + weights[i + 1] * (potential[i + 2] - here)


@compiled
def empty_tile(n: int, width: int) -> Any:
    """u, r, s w, Φ, k, δ, diagonal, pivots, right-hand side of the corners and parameters, interleaved by lanes."""
    small, large = n * width, (n + 2) * width
    u, right, weights = np.zeros(large), np.zeros(small), np.zeros(small + width)
    potential, k, delta, diagonal = np.zeros(large), np.zeros(large), np.zeros(small), np.ones(small)
    return u, right, weights, potential, k, delta, diagonal, np.zeros(small), np.zeros(small), np.ones((2, large))


@compiled(inline="always")
def _run(problem: Any, allowed: _Array, limit: int, results: Any, report: Any, one: Any, width: int) -> None:
    """All rows through the lanes of one tile."""
    kind, modes, target = problem[0], problem[3], problem[8]
    converged, iterations, residual = report
    rows, n = target.shape
    tile = empty_tile(n, width)
    scratch = np.empty(n + 1), np.empty(n + 2)
    lanes = np.zeros((4, width)), np.zeros((2, width)), np.ones(width), np.zeros(width, np.int64), width
    means, before = np.zeros(2 * width), np.zeros(width)
    occupant = np.full(width, -1)
    following, active = np.int64(0), 0  # a plain 0 compiles _enter twice, once for the constant
    while True:
        for lane in range(width):
            if occupant[lane] < 0 and following < rows:
                _enter(tile, problem, scratch, following, lane, lanes)
                occupant[lane], iterations[following] = following, 0
                following += 1
                active += 1
        if active == 0:
            return
        linear_step(tile, modes, kind, lanes, one)
        _add(tile[0], tile[5], lanes[2], means, one, width)
        for lane in range(width):
            row = occupant[lane]
            if row < 0:
                continue
            iterations[row] += 1
            change = means[lane]
            least = max(allowed[row], NEWTON_ROUND_OFF * means[width + lane])
            first = iterations[row] == 1
            converged[row] = has_converged(change, before[lane], least, first, kind == DIFFUSION)
            if converged[row] or iterations[row] == limit or not np.isfinite(change):
                _leave(tile, problem, scratch, row, lane, lanes, results)
                occupant[lane] = -1
                active -= 1
            lanes[2][lane] = relaxation(lanes[2][lane], iterations[row], change, before[lane])
            lanes[3][lane] = iterations[row]
            before[lane] = residual[row] = change


@compiled
def relaxation(last: float, iterations: Any, change: float, before: float) -> float:
    """Part of the next change to take: less if many iterations go to and fro between the branches of a kinked Φ."""
    if iterations < UNDAMPED:
        return 1.0
    return 0.5 * last if change > 0.9 * before else min(1.0, 1.25 * last)


@compiled
def has_converged(change: float, before: float, allowed: Any, first: bool, linear: bool) -> bool:
    """Whether what is left after the last change is allowed, if the changes go on shrinking by the last ratio θ."""
    if linear or change <= 0.0:
        return np.isfinite(change)
    if first or change <= 0.01 * allowed:
        return change <= allowed
    ratio = change / before
    return ratio < 1.0 and change * ratio <= allowed * (1.0 - ratio)


def solve_rows(problem: Any, allowed: _Array, limit: int) -> tuple[Any, Any]:
    """Solves u = r + s·rate(u) of every row; one or two go one after the other, which compiles half of the code.

    Args:
        problem: Kind of law, its parameters ``(rows, p)``, coefficients ``(rows, 1)`` or ``(rows, n + 1)``, modes of
            the sides ``(2,)``, pulls ``(rows, 2)``, cell length, side data ``(rows, 2)``, s ``(rows,)``, r
            ``(rows, n)``, first iterate ``(rows, n)``.
        allowed: Allowed mean |error| ``(rows,)``.
        limit: Largest number of iterations.

    Returns:
        (u, rate, fluxes through the sides) and (converged, iterations, mean |change| of the last iteration).
    """
    rows, n = problem[8].shape
    results = np.empty((rows, n)), np.empty((rows, n)), np.empty((rows, 2))
    report = np.zeros(rows, np.bool_), np.zeros(rows, np.int64), np.zeros(rows)
    solve = _solve_lanes if rows > 2 else _solve_singly
    solve(problem, allowed, limit, results, report)
    return results, report


@compiled
def _solve_lanes(problem: Any, allowed: _Array, limit: int, results: Any, report: Any) -> None:
    _run(problem, allowed, limit, results, report, broadcast(1.0), WIDTH)


@compiled
def _solve_singly(problem: Any, allowed: _Array, limit: int, results: Any, report: Any) -> None:
    _run(problem, allowed, limit, results, report, 1.0, 1)


@compiled
def solve_tridiagonal_rows(by_left: _Array, by_right: _Array, scale: _Array, periodic: bool, right: _Array) -> None:
    """Overwrites r by the solution of δ + s/h (δF_{i+1} − δF_i) = r, with δF = L δ_left + R δ_right on faces.

    Args:
        by_left: L ``(rows, n + 1)``.
        by_right: R ``(rows, n + 1)``.
        scale: s/h ``(rows,)``.
        periodic: Whether the first and last face join the first and last cell.
        right: r ``(rows, n)``, overwritten.
    """
    rows, n = right.shape
    diagonal, pivot, corner = np.empty(n), np.empty(n), np.zeros(n)
    for b in range(rows):
        s, low, high, r = scale[b], by_left[b], by_right[b], right[b]
        for i in range(n):
            diagonal[i] = 1.0 + s * (low[i + 1] - high[i])
        top, bottom, shift = -s * low[0], s * high[n], -diagonal[0]
        if periodic:
            diagonal[0] -= shift
            diagonal[n - 1] -= bottom * top / shift
            corner[:] = 0.0
            corner[0], corner[n - 1] = shift, bottom
        pivot[0] = 1.0 / diagonal[0]
        for i in range(1, n):
            factor = s * low[i] * pivot[i - 1]
            pivot[i] = 1.0 / (diagonal[i] + factor * (s * high[i]))
            r[i] += factor * r[i - 1]
            corner[i] += factor * corner[i - 1]
        r[n - 1] *= pivot[n - 1]
        corner[n - 1] *= pivot[n - 1]
        for i in range(n - 2, -1, -1):
            r[i] = (r[i] - s * high[i + 1] * r[i + 1]) * pivot[i]
            corner[i] = (corner[i] - s * high[i + 1] * corner[i + 1]) * pivot[i]
        if periodic:
            ratio = top / shift
            weight = (r[0] + ratio * r[n - 1]) / (1.0 + corner[0] + ratio * corner[n - 1])
            for i in range(n):
                r[i] -= weight * corner[i]
