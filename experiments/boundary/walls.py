"""Scores at walls, in which operators of one relative L2 differ: values, slopes, what is near them, and the total."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from boon import slope_error
from solvers import Neumann

NEAR = 8
"""Points from a wall on that are near it."""
ORDER = 3
"""Of the one-sided difference that slopes at walls are scored by; BOON meets another."""


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
    """``boon.slope_error`` of every sample by that difference, at both ends of some axes."""
    sides = [(Neumann(), Neumann()) if axis in axes else None for axis in range(u.ndim - 2)]
    pairs = zip(u.split(1), truth.split(1), strict=True)
    return torch.stack([slope_error(*pair, sides, (ORDER,)) for pair in pairs])
