"""Values between the points of a grid as sparse rows: multilinear interpolation."""

from collections.abc import Sequence
from itertools import product
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor

from probconserv._linalg.rows import SparseRows, as_sparse_rows
from probconserv._linalg.values import as_tensor
from probconserv.errors import IncompatibleQueryError, InvalidArgumentError

_ROUNDING = 1e-9  # of an interval's length, by which a point may lie outside


def interpolation_rows(axes: Sequence[Float[Tensor, " length"]], points: Float[Tensor, "m d"]) -> SparseRows:
    """The rows W with (W u)_i the multilinear interpolant of a field at point i.

    Args:
        axes: Increasing coordinates of the grid along every axis, time first.
        points: Points within the grid.

    Returns:
        Rows ``(m, n)`` over fields flattened in row-major order.

    Raises:
        IncompatibleQueryError: If points have another number of coordinates or lie outside the grid.
    """
    if points.ndim != 2 or points.shape[-1] != len(axes):
        raise IncompatibleQueryError(
            f"points must be (m, d) with the d = {len(axes)} coordinates of the grid, got {tuple(points.shape)}."
        )
    lengths = [len(axis) for axis in axes]
    nodes, weights = zip(*(_neighbours(axis, points[:, i], i) for i, axis in enumerate(axes)), strict=True)
    row, column, entries = [], [], []
    for corner in product((0, 1), repeat=len(axes)):
        index = torch.zeros(len(points), dtype=torch.int64)
        weight = torch.ones(len(points), dtype=torch.float64)
        for i, side in enumerate(corner):
            index = index * lengths[i] + nodes[i] + side
            weight = weight * (weights[i] if side else 1 - weights[i])
        used = weight != 0
        row.append(torch.arange(len(points))[used])
        column.append(index[used])
        entries.append(weight[used])
    index = torch.stack([torch.cat(row), torch.cat(column)])
    shape = (len(points), prod(lengths))
    return as_sparse_rows(torch.sparse_coo_tensor(index, torch.cat(entries), shape, check_invariants=False))


def check_axes(axes: Sequence[Tensor], shape: tuple[int, ...]) -> tuple[Tensor, ...]:
    """The axes in float64.

    Raises:
        InvalidArgumentError: If they do not increase or have other lengths than the field.
    """
    double = tuple(as_tensor(axis).detach() for axis in axes)
    lengths = tuple(len(axis) for axis in double if axis.ndim == 1)
    if lengths != shape or min(lengths) < 2 or not all(bool((axis.diff() > 0).all()) for axis in double):
        raise InvalidArgumentError(
            f"axes must be increasing coordinates, one tensor for every axis of a field {shape} and as long, got "
            f"{[tuple(axis.shape) for axis in double]}."
        )
    return double


def _neighbours(axis: Tensor, values: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """The node to the left of every value, and the weight of the one to the right."""
    values, slack = values.to(torch.float64), _ROUNDING * (axis[-1] - axis[0])
    outside = (values < axis[0] - slack) | (values > axis[-1] + slack)
    if bool(outside.any()):
        raise IncompatibleQueryError(
            f"Coordinate {number} of a point is {float(values[outside][0]):g}, outside the model's grid "
            f"[{float(axis[0]):g}, {float(axis[-1]):g}]; a generative model predicts on its own domain only."
        )
    left = (torch.searchsorted(axis, values.contiguous(), right=True) - 1).clamp(0, len(axis) - 2)
    return left, ((values - axis[left]) / (axis[left + 1] - axis[left])).clamp(0.0, 1.0)
