"""Compiled implicit stages of diffusion along one axis for a tile of rows that go through their stages together.

The lanes of a tile iterate until the last one has converged. A lane that has stays where it was before its last change,
so that its Φ, k and change remain what they were: a row has the same bits alone and in a tile.
"""

from typing import Any, NamedTuple

import numpy as np

from solvers._compiled import compiled
from solvers.finite_volume.diffusion._lanes import load, magnitude, store
from solvers.finite_volume.diffusion._newton_kernels import (
    NEWTON_ROUND_OFF,
    empty_tile,
    face_weights,
    has_converged,
    linear_step,
    relaxation,
    side_slope,
)
from solvers.finite_volume.diffusion._potentials import spread_parameters
from solvers.finite_volume.laws._kernel_codes import DIFFUSION
from solvers.finite_volume.sides._side_data import GIVEN_FLUX, PERIODIC, STATE

_Array = np.ndarray


class Medium(NamedTuple):
    """Law and sides of all rows.

    Attributes:
        kind: Code of the law.
        values: Its parameters ``(rows, 1)``.
        coefficient: Diffusivities ``(rows, 1)`` or on the faces ``(rows, n + 1)``.
        modes: Modes of the sides ``(2,)``.
        pull: Derivatives of the states on the sides by the edge cells ``(rows, 2)``.
        spacing: Cell length.
    """

    kind: int
    values: _Array
    coefficient: _Array
    modes: _Array
    pull: _Array
    spacing: float


class Stages(NamedTuple):
    """Scratch of the stages of a tile.

    Attributes:
        tile: Arrays of Newton's method.
        faces: Weights c/h² of the faces ``((n + 1) width,)``.
        s: Factor of the rate in the equation u = r + s·rate ``(width,)``.
        sides: Data and pulls of the states on both sides ``(4, width)``.
        inflow: s·F/h of given fluxes, into the cells ``(2, width)``.
        relaxation: Part of the next change to take ``(width,)``; 0 where the iteration has ended.
        counts: Number of the iteration ``(width,)``.
        open: Whether the iteration goes on ``(width,)``.
        converged: Whether it has converged ``(width,)``.
        allowed: Allowed mean |error| ``(width,)``.
        means: Means of |δ| and of |u + δ| ``(2 width,)``.
        before: Mean |δ| of the iteration before ``(width,)``.
        iterations: Iterations of all stages of the step ``(width,)``.
        weights: Scratch ``(n + 1,)``.
    """

    tile: Any
    faces: _Array
    s: _Array
    sides: _Array
    inflow: _Array
    relaxation: _Array
    counts: _Array
    open: _Array
    converged: _Array
    allowed: _Array
    means: _Array
    before: _Array
    iterations: _Array
    weights: _Array


@compiled
def empty_stages(n: int, width: int) -> Stages:
    """Scratch for n cells."""
    return Stages(
        empty_tile(n, width),
        np.zeros((n + 1) * width),
        np.zeros(width),
        np.zeros((4, width)),
        np.zeros((2, width)),
        np.zeros(width),
        np.zeros(width, np.int64),
        np.zeros(width, np.bool_),
        np.zeros(width, np.bool_),
        np.zeros(width),
        np.zeros(2 * width),
        np.zeros(width),
        np.zeros(width, np.int64),
        np.zeros(n + 1),
    )


@compiled
def enter_medium(stages: Stages, medium: Medium, row: int, lane: int, width: int) -> None:
    """Sets what does not change with time in the lane of a row."""
    face_weights(medium.coefficient[row], medium.modes, medium.spacing, stages.weights)
    for i in range(stages.weights.shape[0]):
        stages.faces[i * width + lane] = stages.weights[i]
    spread_parameters(medium.kind, medium.values[row], stages.tile[9], lane, width)
    for side in range(2):
        stages.sides[2 + side, lane] = medium.pull[row, side] if medium.modes[side] == STATE else 1.0


@compiled
def set_factor(stages: Stages, one: Any, width: int) -> None:
    """Multiplies the weights of the faces by ``s``."""
    weights, s = stages.tile[2], load(stages.s, 0, one)
    for at in range(0, stages.faces.shape[0], width):
        store(weights, at, s * load(stages.faces, at, one))


@compiled
def solve_stage(stages: Stages, medium: Medium, data: _Array, limit: int, one: Any, width: int) -> None:
    """Iterates from the guess in the tile until no lane is open.

    ``data`` holds the data of the sides ``(width, 2)``.
    """
    u, delta, linear = stages.tile[0], stages.tile[5], medium.kind == DIFFUSION
    for lane in range(width):
        stages.counts[lane] = -1 if linear else 0
        stages.converged[lane], stages.relaxation[lane] = False, 1.0
        for side in range(2):
            sign = 1.0 if side == 0 else -1.0
            given = sign * stages.s[lane] * data[lane, side] / medium.spacing
            stages.inflow[side, lane] = given if medium.modes[side] == GIVEN_FLUX else 0.0
            stages.sides[side, lane] = data[lane, side] if medium.modes[side] == STATE else 0.0
    lanes = stages.sides, stages.inflow, stages.relaxation, stages.counts, width
    iteration, any_open = 0, True
    while any_open:
        if iteration > 0:
            _move(u, delta, stages.relaxation, one, width)
        linear_step(stages.tile, medium.modes, medium.kind, lanes, one)
        _measure(u, delta, stages.relaxation, stages.means, one, width)
        iteration += 1
        any_open = _assess(stages, iteration, limit, linear, width)


@compiled
def _move(u: _Array, delta: _Array, part: _Array, one: Any, width: int) -> None:
    """Adds a part of δ to u."""
    taken = load(part, 0, one)
    for at in range(0, delta.shape[0], width):
        store(u, at + width, load(u, at + width, one) + taken * load(delta, at, one))


@compiled
def _measure(u: _Array, delta: _Array, part: _Array, means: _Array, one: Any, width: int) -> None:
    """Means over the cells of |δ| and of |u| after the change."""
    taken, total, size = load(part, 0, one), one - one, one - one
    for at in range(0, delta.shape[0], width):
        step = load(delta, at, one)
        total = total + magnitude(step)
        size = size + magnitude(load(u, at + width, one) + taken * step)
    store(means, 0, total)
    store(means, width, size)
    for i in range(2 * width):
        means[i] /= delta.shape[0] // width


@compiled
def _assess(stages: Stages, iteration: int, limit: int, linear: bool, width: int) -> bool:
    """Closes the lanes whose iteration ends here; whether one is left open."""
    any_open = False
    for lane in range(width):
        if not stages.open[lane]:
            stages.relaxation[lane] = 0.0
            continue
        stages.iterations[lane] += 1
        change, before = stages.means[lane], stages.before[lane]
        least = max(stages.allowed[lane], NEWTON_ROUND_OFF * stages.means[width + lane])
        stages.converged[lane] = has_converged(change, before, least, iteration == 1, linear)
        if stages.converged[lane] or iteration == limit or not np.isfinite(change):
            stages.open[lane], stages.relaxation[lane] = False, 0.0
            continue
        stages.relaxation[lane] = relaxation(stages.relaxation[lane], iteration, change, before)
        stages.counts[lane], stages.before[lane] = iteration, change
        any_open = True
    return any_open


@compiled
def finish_stage(
    stages: Stages, medium: Medium, data: _Array, results: tuple[_Array, _Array, _Array], one: Any, width: int
) -> None:
    """Writes u = r + s·rate, the rate, by the fluxes of Φ + k δ, and the fluxes through the sides ``(2, width)``."""
    u, rate, flux = results
    _, right, weights, potential, k, delta = stages.tile[:6]
    end = delta.shape[0]
    for at in range(0, end, width):
        moved = load(potential, at + width, one) + load(k, at + width, one) * load(delta, at, one)
        store(potential, at + width, moved)
    for lane in range(width):
        first, last = lane, end + width + lane
        if medium.modes[0] == PERIODIC:
            potential[first], potential[last] = potential[last - width], potential[first + width]
        else:
            for ghost, edge, face, side in ((first, first + width, first, 0), (last, last - width, end + lane, 1)):
                slope = side_slope(k[ghost], k[edge], stages.sides[2 + side, lane], weights[face], stages.counts[lane])
                potential[ghost] += slope * delta[edge - width]
        flux[0, lane] = medium.spacing * (stages.faces[first] * (potential[first] - potential[first + width]))
        flux[1, lane] = medium.spacing * (stages.faces[end + lane] * (potential[last - width] - potential[last]))
    _second_difference(potential, stages.faces, rate, one, width)
    for side, edge, sign in ((0, 0, 1.0), (1, end - width, -1.0)):
        if medium.modes[side] == GIVEN_FLUX:
            for lane in range(width):
                flux[side, lane] = data[lane, side]
                rate[edge + lane] += sign * data[lane, side] / medium.spacing
    s = load(stages.s, 0, one)
    for at in range(0, end, width):
        store(u, at, load(right, at, one) + s * load(rate, at, one))


@compiled
def _second_difference(potential: _Array, weights: _Array, out: _Array, one: Any, width: int) -> None:
    """Σ over the faces of a cell of w (Φ beyond − Φ)."""
    for at in range(0, out.shape[0], width):
        here = load(potential, at + width, one)
        low = load(weights, at, one) * (load(potential, at, one) - here)
        store(out, at, low + load(weights, at + width, one) * (load(potential, at + 2 * width, one) - here))
