"""Linear interpolation on a grid as weighted sums of the corners of cells."""

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from probconserv._linalg.values import Array, as_tensor
from probconserv.errors import IncompatibleQueryError, InvalidArgumentError

_ROUNDING = 1e-9  # of an interval's length, by which a point may lie outside


def check_axes(axes: Sequence[Array], shape: Sequence[int]) -> tuple[Tensor, ...]:
    """The axes of a field in float64; copies, so that a surrogate stays as it was built."""
    double = tuple(as_tensor(axis).detach().clone() for axis in axes)
    lengths = tuple(len(axis) for axis in double if axis.ndim == 1)
    if (
        lengths != tuple(shape)
        or min(lengths, default=0) < 2
        or not all(bool((axis.diff() > 0).all()) for axis in double)
    ):
        raise InvalidArgumentError(
            f"axes must be increasing coordinates, one tensor for every axis of a field {tuple(shape)} and as long, "
            f"got {[tuple(axis.shape) for axis in double]}."
        )
    return double


def corners_of(axes: Sequence[Tensor], points: Tensor, beyond: float = 0.0) -> tuple[Tensor, Tensor]:
    """The 2ᵈ grid points around points ``(q, d)`` by their row-major numbers ``(q, corners)``, and their weights.

    Beyond the ends of an axis values continue as constants for a part of a spacing: half of one for cell centres.

    Raises:
        IncompatibleQueryError: If a point lies farther outside, or has another number of coordinates.
    """
    if points.ndim != 2 or points.shape[1] != len(axes):
        raise IncompatibleQueryError(
            f"points must be (q, d) with the d = {len(axes)} coordinates of the grid, got {tuple(points.shape)}."
        )
    left, weights = [], []
    for number, (axis, position) in enumerate(zip(axes, points.mT.contiguous(), strict=True)):
        gaps, slack = axis.diff(), _ROUNDING * (axis[-1] - axis[0])
        if bool(
            ((position < axis[0] - beyond * gaps[0] - slack) | (position > axis[-1] + beyond * gaps[-1] + slack)).any()
        ):
            raise IncompatibleQueryError(
                f"Coordinate {number} of a point lies between {float(position.min()):g} and {float(position.max()):g}, "
                f"but fields are known from {float(axis[0]):g} to {float(axis[-1]):g}; ask within them, with the "
                "columns in the order of the axes."
            )
        cell = (torch.searchsorted(axis, position, right=True) - 1).clamp(0, len(axis) - 2)
        weight = ((position - axis[cell]) / gaps[cell]).clamp(0.0, 1.0)
        left.append(cell)
        weights.append((1 - weight, weight))
    index, share = [], []
    for corner in product((0, 1), repeat=len(axes)):
        flat, total = torch.zeros_like(left[0]), torch.ones_like(weights[0][0])
        for axis, cell, weight, side in zip(axes, left, weights, corner, strict=True):
            flat, total = flat * len(axis) + cell + side, total * weight[side]
        index.append(flat)
        share.append(total)
    return torch.stack(index, dim=-1), torch.stack(share, dim=-1)


def interpolated(values: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Values of functions at points ``(q, functions)``, float64, of those at stored points ``(n, functions)``."""
    result = values.new_zeros(len(index), values.shape[1], dtype=torch.float64)
    for corner in range(index.shape[1]):
        weight = weights[:, corner]
        used = weight.nonzero()[:, 0]
        if len(used) == len(index):
            result.add_(weight[:, None] * values[index[:, corner]])
        elif len(used):
            result.index_add_(0, used, weight[used, None] * values[index[used, corner]])
    return result
