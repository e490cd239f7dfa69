"""Scores of operators on test samples: relative L2, boundary error, error over time, values and slopes at walls."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import boon
from boon import boundary_error, relative_l2
from boon.slopes import slope_error
from experiments.boundary.cases import BoundaryCase
from experiments.boundary.data import Fields, by_time
from experiments.boundary.operator import Treatment, discretise_case, load
from experiments.records.record import Arrays
from solvers import Neumann, NodeGrid

SHOWN = 1  # test samples whose fields are kept for figures
NEAR = 8
"""Points from a wall on that are near it."""
ORDER = 3
"""Of the one-sided difference that slopes at walls are scored by; BOON meets another."""


def score_operator(
    path: Path, treatment: Treatment, case: BoundaryCase, test: Fields, fine: Fields | None = None
) -> Arrays:
    """Scores of a trained operator, see ``boon.scores.BoundaryError`` for those of the boundary.

    ``relative_l2`` is per sample, ``over_time`` ``(samples, t)``, ``validation`` the mean relative L2 on the validation
    set as the weights note it, and ``shown`` the first unknown of the first samples ``(samples, t, *nodes)``. ``fine``
    are the test samples on the grid on which slopes are scored as well.
    """
    model = load(path, treatment, case)
    u = model.predict(test, case.sizes.batch)
    pairs = zip(u.double().split(1), test.output.double().split(1), strict=True)
    scores = {
        "relative_l2": torch.stack([relative_l2(*pair) for pair in pairs]).numpy(),
        "over_time": over_time(by_time(u, case), by_time(test.output, case)).numpy(),
        "validation": np.array(boon.read_notes(path)["history"][-1]["relative_l2"]),
        "shown": by_time(u[:SHOWN], case)[:, :, 0].numpy(),
        **_boundary(case, u, test),
        **_walls(case, u, test),
    }
    if fine is not None:
        scores["slope_error_finer"] = _walls(case, model.predict(fine, case.sizes.batch), fine)["slope_error"]
    return scores


def score_truth(case: BoundaryCase, test: Fields) -> Arrays:
    """Boundary error of the true fields under the one-sided differences, and the fields that figures show.

    ``input`` has all input fields ``(samples, inputs, *nodes)``.
    """
    first = test.input[:SHOWN]
    return {
        "input": (first[..., 0] if case.sizes.network.time_modes else first).numpy(),
        "shown": by_time(test.output[:SHOWN], case)[:, :, 0].numpy(),
        **_boundary(case, test.output, test),
    }


def over_time(u: Float[Tensor, "batch t *fields"], truth: Float[Tensor, "batch t *fields"]) -> Float[Tensor, "batch t"]:
    """‖u − truth‖₂ at each time relative to the root mean square over times of ‖truth‖₂ of the sample.

    Its root mean square over times is the relative L2 of the whole field, and it is defined when the truth vanishes
    at some time, as standing waves do.
    """
    error, size = ((field.double().flatten(2).norm(dim=2)) for field in (u - truth, truth))
    return error / size.square().mean(dim=1, keepdim=True).sqrt()


def _boundary(case: BoundaryCase, u: Tensor, test: Fields) -> Arrays:
    error = boundary_error(u, discretise_case(case, u, test.values))
    return {
        "boundary": np.array(error.maximum),
        "boundary_relative": np.array(error.relative_l2),
        "boundary_relative_max": np.array(error.relative_maximum),
    }


def _walls(case: BoundaryCase, u: Tensor, test: Fields) -> Arrays:
    """Scores at the ends of the axes that are not periodic, every unknown in units of its spread."""
    axes = [axis for axis, periodic in enumerate(case.periodic) if not periodic]
    if not axes:
        return {}
    given, truth = (by_time(field.double(), case) for field in (u, test.output))
    spread = truth.transpose(1, 2).flatten(2).std(dim=(0, 2)).reshape(-1, *[1] * case.axes)
    scaled, truth = ((field / spread).flatten(1, 2) for field in (given, truth))
    grid = case.grid or NodeGrid((0.0,) * case.axes, (1.0,) * case.axes, tuple(truth.shape[2:]))
    scores = {**wall_scores(scaled - truth, axes, grid.weights), "slope_error": slope_errors(scaled, truth, axes)}
    return {name: score.numpy() for name, score in scores.items()}


def at_walls(field: Float[Tensor, "batch t *space"], axes: Sequence[int], count: int) -> Float[Tensor, "batch t p"]:
    """The first ``count`` points from both sides of some axes of space on."""
    sides = []
    for axis in axes:
        along, points = 2 + axis, field.shape[2 + axis]
        few = min(count, points)
        sides += [field.narrow(along, 0, few), field.narrow(along, points - few, few)]
    return torch.cat([side.flatten(2) for side in sides], dim=-1)


def wall_scores(
    missed: Float[Tensor, "batch t *space"], axes: Sequence[int], weights: Float[Tensor, "*space"]
) -> dict[str, Float[Tensor, " batch"]]:
    """Root mean squares over times of what a field misses: its mean, its values at walls and near them.

    Args:
        missed: u − truth, in units of the spread of the truth.
        axes: Axes of space with walls at their ends.
        weights: Those of the quadrature, with sum 1.
    """
    walls, near = (at_walls(missed, axes, count) for count in (1, NEAR))
    return {
        "total_drift": (missed * weights).flatten(2).sum(dim=-1).square().mean(dim=1).sqrt(),
        "wall_error": walls.square().mean(dim=(1, 2)).sqrt(),
        "near_wall_error": near.square().mean(dim=(1, 2)).sqrt(),
    }


def slope_errors(
    u: Float[Tensor, "batch t *space"], truth: Float[Tensor, "batch t *space"], axes: Sequence[int]
) -> Float[Tensor, " batch"]:
    """``boon.scores.slope_error`` of every sample by that difference, at both ends of some axes."""
    sides = [(Neumann(), Neumann()) if axis in axes else None for axis in range(u.ndim - 2)]
    pairs = zip(u.split(1), truth.split(1), strict=True)
    return torch.stack([slope_error(*pair, sides, (ORDER,)) for pair in pairs])
