"""Whether the first and last values of fields lie where conditions hold, judged by the mean of training fields."""

import warnings
from collections.abc import Sequence
from numbers import Real

import torch
from jaxtyping import Float
from torch import Tensor

from boon.conditions.corners import name_of
from boon.conditions.sides import AxisSides, sides_of
from boon.domain import Domain

_LEAST, _MOST, _BENT, _NEAR = 0.25, 1.5, 0.5, 8
"""Distances to the wall, in steps, that are no error of extrapolation; how far the slope of a smooth field changes in a
step, relative to it; and the values next to a wall that are looked at."""


def warn_off_walls(
    mean: Float[Tensor, " channels *space"], axes: Sequence[AxisSides], domain: Domain, stacklevel: int = 3
) -> None:
    """Warns if a mean field reaches a given value about half a step, or a step, away from where it is given."""
    for axis, last, side in sides_of(axes):
        given = side.parts[0].value if side.is_value else None
        if not isinstance(given, Real) or mean.shape[1 + axis] < _NEAR:
            continue
        near = torch.stack([mean.select(1 + axis, -1 - j if last else j).double() for j in range(_NEAR)])
        steps, step = near.diff(dim=0), (near[1] - near[0]).norm()
        missed = ((1.5 * near[0] - 0.5 * near[1] if domain.cells else near[0]) - float(given)).norm()
        smooth = steps.diff(dim=0).square().mean() < _BENT**2 * steps.square().mean()
        if bool(smooth & (_LEAST * step < missed) & (missed < _MOST * step)):
            warnings.warn(
                f"The condition on the {name_of(axis, last)} says {given}; the mean of the training outputs has that "
                f"value about {float(missed / step):.1f} grid steps away. Averages over cells need BOON(..., "
                "grid=CellGrid(...)), fields at nodes must not have it; where fields end one step before the wall, "
                "append its nodes.",
                stacklevel=stacklevel,
            )
