"""Compiled Newton's method for implicit stages along one axis, u = r + s·rate(u), with many rows side by side.

Rows are interleaved as ``(cells, width)``, so that the elimination along the axis runs over all of them at once; they
never mix, and a row has the same bits alone and in a tile. ``one`` is 1.0, or eight of them, as in ``_lanes``.

A law enters by Φ and k on the cells (the shipped laws), or by a kernel for the fluxes through the faces and their
derivatives; a source by a kernel for s and ∂s/∂u. Kernels get the states, and then
``info``: row, time and whether there is a row at all, of every lane.
"""

from typing import Any, NamedTuple

import numpy as np

from solvers._compiled import compiled, inner
from solvers.finite_volume._kernels import Array, call
from solvers.finite_volume.diffusion._lanes import load, magnitude, store
from solvers.finite_volume.diffusion._potentials import evaluate_lanes, spread_parameters
from solvers.finite_volume.laws._law_rows import DIFFUSION
from solvers.finite_volume.sides._side_data import GIVEN_FLUX, PERIODIC, STATE

UNDAMPED = 8
BY_FACES = -1
NEWTON_ROUND_OFF = 1e-13


class Medium(NamedTuple):
    """Law, source and sides of all rows.

    Attributes:
        kind: Code of the law; ``BY_FACES`` where it enters by ``faces``.
        values: Its parameters ``(rows, 1)``.
        coefficient: Diffusivities ``(rows, 1)`` or on the faces ``(rows, n + 1)``.
        modes: Modes of the sides ``(2,)``.
        pull: Derivatives of the states on the sides by the edge cells ``(rows, 2)``.
        spacing: Cell length.
        faces: Address of a kernel (u with the states beyond the ends, info, F, ∂F/∂left, ∂F/∂right, record), or 0.
        source: Address of a kernel (u, info, s, ∂s/∂u, –, record), or 0.
        records: Addresses of the arrays that these two read.
    """

    kind: int
    values: Array
    coefficient: Array
    modes: Array
    pull: Array
    spacing: float
    faces: int
    source: int
    records: tuple[Array, Array]


class Tile(NamedTuple):
    """States and scratch of a tile, interleaved; n cells, n + 1 faces, n + 2 states with those beyond the ends.

    Attributes:
        u: Present iterate, of all states; Φ (``potential``) and its derivative ``k`` likewise.
        right: r of the cells; their change ``delta``, ``source`` s and ∂s/∂u (``by_state``), reciprocal ``pivot`` and
            ``corner``, the right-hand side of the corners of a periodic matrix, likewise.
        weights: c/h² of the faces; ``flux`` is s F/h there, with derivatives by the states before (``by_left``) and
            behind it, times −1 (``by_right``).
        diagonal: First entry of the matrix's diagonal.
        parameters: Of the law ``(2, states)``.
        info: Row, time and whether there is a row ``(3 width,)``.
        s: Factor of the rate ``(width,)``.
        pull: Derivatives of the states on the sides ``(2, width)``.
        relaxation: Part of the next change to take; 0 where the iteration, number ``counts``, is no longer ``open``.
        converged: Whether it has converged to the mean |error| ``allowed``.
        means: Means of |δ| and of |u + δ| ``(2 width,)``; ``before`` is that of the last iteration.
        iterations: Iterations of all stages of the step.
    """

    u: Array
    right: Array
    weights: Array
    potential: Array
    k: Array
    flux: Array
    by_left: Array
    by_right: Array
    source: Array
    by_state: Array
    delta: Array
    diagonal: Array
    pivot: Array
    corner: Array
    parameters: Array
    info: Array
    s: Array
    pull: Array
    relaxation: Array
    counts: Array
    open: Array
    converged: Array
    allowed: Array
    means: Array
    before: Array
    iterations: Array


@inner
def empty_tile(n: int, width: int) -> Tile:
    """Scratch for n cells."""
    a, b, c = np.zeros((7, n * width)), np.zeros((4, (n + 1) * width)), np.zeros((3, (n + 2) * width))
    d, marks, counts = np.zeros((6, width)), np.zeros((2, width), np.bool_), np.zeros((2, width), np.int64)
    others = np.ones((2, (n + 2) * width)), np.zeros(3 * width), np.zeros((2, width)), np.zeros(2 * width)
    return Tile(
        *(c[0], a[0], b[0], c[1], c[2], b[1], b[2], b[3], a[1], a[2], a[3], d[0], a[4], a[5], others[0], others[1]),
        *(np.ones(width), others[2], d[1], counts[0], marks[0], marks[1], d[2], others[3], d[3], counts[1]),
    )


@inner
def enter_medium(tile: Tile, medium: Medium, row: int, lane: int, width: int) -> None:
    """Sets what does not change with time in the lane of a row."""
    coefficient, faces = medium.coefficient[row], tile.weights.shape[0] // width
    scale, several = 1.0 / (medium.spacing * medium.spacing), coefficient.shape[0] > 1
    for i in range(faces):
        tile.weights[i * width + lane] = scale * coefficient[i if several else 0]
    for side in range(2):
        if medium.modes[side] == STATE:
            tile.weights[side * (faces - 1) * width + lane] *= 2.0
        tile.pull[side, lane] = medium.pull[row, side] if medium.modes[side] == STATE else 1.0
    spread_parameters(medium.kind, medium.values[row], tile.parameters, lane, width)
    tile.info[lane], tile.info[2 * width + lane] = row, 1.0


@inner(inline="always")
def linearise(tile: Tile, medium: Medium, data: Array, one: Any, width: int) -> None:
    """Fluxes and source at the present iterate, with their derivatives, by the data of the sides ``(width, 2)``."""
    end = tile.u.shape[0] - width
    for lane in range(width):
        if medium.modes[0] == PERIODIC:
            tile.u[lane], tile.u[end + lane] = tile.u[end - width + lane], tile.u[width + lane]
        else:
            first = data[lane, 0] if medium.modes[0] == STATE else 0.0
            last = data[lane, 1] if medium.modes[1] == STATE else 0.0
            tile.u[lane] = first + tile.pull[0, lane] * tile.u[width + lane]
            tile.u[end + lane] = last + tile.pull[1, lane] * tile.u[end - width + lane]
    if medium.faces != 0:
        states = tile.u, tile.info, tile.flux, tile.by_left, tile.by_right, medium.records[0]
        call(medium.faces, states, (tile.u.shape[0] // width, width))
        _scale_fluxes(tile, medium.spacing, one, width)
    else:
        evaluate_lanes(medium.kind, tile.u, tile.parameters, tile.potential, tile.k)
        _difference_potentials(tile, one, width)
    if medium.modes[0] != PERIODIC:
        _close_faces(tile, medium, data, width)
    if medium.source != 0:
        states = tile.u[width:], tile.info, tile.source, tile.by_state, tile.info, medium.records[1]
        call(medium.source, states, (tile.source.shape[0] // width, width))


@inner
def _scale_fluxes(tile: Tile, spacing: float, one: Any, width: int) -> None:
    """From fluxes and their derivatives as a kernel gives them to those of the tile."""
    for lane in range(width):
        tile.means[lane] = tile.s[lane] / spacing
    scale = load(tile.means, 0, one)
    for at in range(0, tile.flux.shape[0], width):
        store(tile.flux, at, scale * load(tile.flux, at, one))
        store(tile.by_left, at, scale * load(tile.by_left, at, one))
        store(tile.by_right, at, (one - one) - scale * load(tile.by_right, at, one))


@inner
def _difference_potentials(tile: Tile, one: Any, width: int) -> None:
    """Fluxes as differences of Φ."""
    s = load(tile.s, 0, one)
    for at in range(0, tile.flux.shape[0], width):
        w = s * load(tile.weights, at, one)
        store(tile.flux, at, w * (load(tile.potential, at, one) - load(tile.potential, at + width, one)))
        store(tile.by_left, at, w * load(tile.k, at, one))
        store(tile.by_right, at, w * load(tile.k, at + width, one))


@inner
def _close_faces(tile: Tile, medium: Medium, data: Array, width: int) -> None:
    """Given fluxes, and derivatives by the edge cells at sides with a state."""
    last = tile.flux.shape[0] - width
    for side in range(2):
        at, outside, inside = 0, tile.by_left, tile.by_right
        if side == 1:
            at, outside, inside = last, tile.by_right, tile.by_left
        for lane in range(width):
            if medium.modes[side] == GIVEN_FLUX:
                tile.flux[at + lane] = tile.s[lane] * data[lane, side] / medium.spacing
                inside[at + lane] = 0.0
            else:
                pull, count = tile.pull[side, lane], tile.counts[lane]
                inside[at + lane] -= side_slope(outside[at + lane], inside[at + lane], pull, count)
            outside[at + lane] = 0.0


@compiled
def side_slope(outer: Any, inner: Any, pull: float, iterations: int) -> float:
    """Derivative of the flux through a side by that of the edge cell through the side's state, where it is limited.

    ``outer`` is s/h ∂F/∂u by the state on the side, ``inner`` that by the edge cell alone, and ``pull`` the derivative
    of the state by the edge cell. It is limited so that the matrix stays diagonally dominant by columns. After many
    iterations it is dropped, since a kink of Φ on the side may keep them from converging. A linear law has one
    iteration, number −1.
    """
    slope = pull * outer
    if iterations < 0:
        return slope
    return min(slope, inner + 0.5) if iterations < UNDAMPED else min(slope, 0.0)


@inner(inline="always")
def linear_step(tile: Tile, medium: Medium, data: Array, one: Any, width: int) -> None:
    """The change δ of Newton's method of every lane, left in the tile with what it was linearised about."""
    linearise(tile, medium, data, one, width)
    periodic = medium.modes[0] == PERIODIC
    _eliminate(tile, periodic, medium.source != 0, one, width)
    _substitute_back(tile, tile.delta, one, width)
    if periodic:
        _close_circle(tile, one, width)


@inner
def _eliminate(tile: Tile, periodic: bool, reacts: bool, one: Any, width: int) -> None:
    """Assembles residual and matrix row by row and eliminates what is below the diagonal.

    On a circle the first and the last diagonal entries change by Sherman and Morrison's formula.
    """
    s, end = load(tile.s, 0, one), tile.delta.shape[0]
    pivot, change = one - one, one - one
    for at in range(0, end, width):
        low, high = load(tile.by_left, at, one), load(tile.by_right, at, one)
        residual = load(tile.right, at, one) - load(tile.u, at + width, one)
        residual = residual + (load(tile.flux, at, one) - load(tile.flux, at + width, one))
        diagonal = one + (high + load(tile.by_left, at + width, one))
        if reacts:
            residual = residual + s * load(tile.source, at, one)
            diagonal = diagonal - s * load(tile.by_state, at, one)
        if periodic and at == 0:
            store(tile.diagonal, 0, diagonal)
            diagonal = diagonal + diagonal
        if periodic and at == end - width:
            corners = load(tile.by_right, end, one) * load(tile.by_left, 0, one)
            diagonal = diagonal + corners / load(tile.diagonal, 0, one)
        if at > 0:
            change = residual + (low * pivot) * change
            diagonal = diagonal - (low * high) * pivot
        else:
            change = residual
        pivot = one / diagonal
        store(tile.pivot, at, pivot)
        store(tile.delta, at, change)


@inner
def _substitute_back(tile: Tile, right: Array, one: Any, width: int) -> None:
    """Overwrites ``right``, after elimination, by the solution."""
    pivot, end = tile.pivot, tile.pivot.shape[0]
    last = load(right, end - width, one) * load(pivot, end - width, one)
    store(right, end - width, last)
    for at in range(end - 2 * width, -1, -width):
        scale = load(pivot, at, one)
        factor = load(tile.by_right, at + width, one) * scale
        last = load(right, at, one) * scale + factor * last
        store(right, at, last)


@inner
def _close_circle(tile: Tile, one: Any, width: int) -> None:
    """Completes Sherman and Morrison's formula by the solution for the corners of the matrix."""
    end, delta, corner, zero = tile.delta.shape[0] - width, tile.delta, tile.corner, one - one
    last = zero - load(tile.diagonal, 0, one)
    store(corner, 0, last)
    for at in range(width, end + width, width):
        last = (load(tile.by_left, at, one) * load(tile.pivot, at - width, one)) * last
        if at == end:
            last = last - load(tile.by_right, end + width, one)
        store(corner, at, last)
    _substitute_back(tile, corner, one, width)
    ratio = load(tile.by_left, 0, one) / load(tile.diagonal, 0, one)
    below = (one + load(corner, 0, one)) + ratio * load(corner, end, one)
    factor = (load(delta, 0, one) + ratio * load(delta, end, one)) / below
    for at in range(0, end + width, width):
        store(delta, at, load(delta, at, one) - factor * load(corner, at, one))


@inner
def solve_stage(tile: Tile, medium: Medium, data: Array, limit: int, one: Any, width: int) -> None:
    """Iterates from the guess in the tile until no lane is open."""
    linear = medium.kind == DIFFUSION and medium.source == 0
    for lane in range(width):
        tile.counts[lane] = -1 if linear else 0
        tile.converged[lane], tile.relaxation[lane] = False, 1.0
    iteration, any_open = 0, True
    while any_open:
        if iteration > 0:
            _move(tile, one, width)
        linear_step(tile, medium, data, one, width)
        _measure(tile, one, width)
        iteration += 1
        any_open = _assess(tile, iteration, limit, linear, width)


@inner
def _move(tile: Tile, one: Any, width: int) -> None:
    """Adds a part of δ to u."""
    taken = load(tile.relaxation, 0, one)
    for at in range(0, tile.delta.shape[0], width):
        store(tile.u, at + width, load(tile.u, at + width, one) + taken * load(tile.delta, at, one))


@inner
def _measure(tile: Tile, one: Any, width: int) -> None:
    """Means over the cells of |δ| and of |u| after the change."""
    taken, total, size = load(tile.relaxation, 0, one), one - one, one - one
    for at in range(0, tile.delta.shape[0], width):
        step = load(tile.delta, at, one)
        total = total + magnitude(step)
        size = size + magnitude(load(tile.u, at + width, one) + taken * step)
    store(tile.means, 0, total)
    store(tile.means, width, size)
    for i in range(2 * width):
        tile.means[i] /= tile.delta.shape[0] // width


@inner
def _assess(tile: Tile, iteration: int, limit: int, linear: bool, width: int) -> bool:
    """Closes the lanes whose iteration ends here; whether one is left open."""
    any_open = False
    for lane in range(width):
        if not tile.open[lane]:
            tile.relaxation[lane] = 0.0
            continue
        tile.iterations[lane] += 1
        change, before = tile.means[lane], tile.before[lane]
        least = max(tile.allowed[lane], NEWTON_ROUND_OFF * tile.means[width + lane])
        tile.converged[lane] = has_converged(change, before, least, iteration == 1, linear)
        tile.before[lane] = change
        if tile.converged[lane] or iteration == limit or not np.isfinite(change):
            tile.open[lane], tile.relaxation[lane] = False, 0.0
            continue
        tile.relaxation[lane] = relaxation(tile.relaxation[lane], iteration, change, before)
        tile.counts[lane] = iteration
        any_open = True
    return any_open


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


@inner
def finish_stage(tile: Tile, medium: Medium, results: Any, one: Any, width: int) -> None:
    """Writes u = r + s·rate and the rate ``(n width,)`` by the linearised fluxes and source, and ``flow (3, width)``.

    ``results`` are these three; flow is the fluxes through the sides along +axis and the integral of the source. With
    δ = 0 in the tile this is the rate at u.
    """
    u, rate, flow = results
    flux, delta, end = tile.flux, tile.delta, tile.delta.shape[0]
    for lane in range(width):
        tile.means[lane] = 1.0 / tile.s[lane]
    s, inverse = load(tile.s, 0, one), load(tile.means, 0, one)
    periodic, reacts = medium.modes[0] == PERIODIC, medium.source != 0
    behind = load(delta, end - width, one) if periodic else one - one
    for at in range(0, end, width):
        here = load(delta, at, one)
        store(
            flux, at, load(flux, at, one) + (load(tile.by_left, at, one) * behind - load(tile.by_right, at, one) * here)
        )
        behind = here
    after = load(delta, 0, one) if periodic else one - one
    moved = load(tile.by_left, end, one) * behind - load(tile.by_right, end, one) * after
    store(flux, end, load(flux, end, one) + moved)
    produced = one - one
    for at in range(0, end, width):
        change = inverse * (load(flux, at, one) - load(flux, at + width, one))
        if reacts:
            source = load(tile.source, at, one) + load(tile.by_state, at, one) * load(delta, at, one)
            produced, change = produced + source, change + source
        store(rate, at, change)
        store(u, at, load(tile.right, at, one) + s * change)
    store(tile.means, width, produced)
    for lane in range(width):
        flow[0, lane] = medium.spacing * tile.means[lane] * flux[lane]
        flow[1, lane] = medium.spacing * tile.means[lane] * flux[end + lane]
        flow[2, lane] = medium.spacing * tile.means[width + lane]
