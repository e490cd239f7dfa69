"""Linear interpolation as weighted sums of a few stored points: on a grid of axes, or between scattered points."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probconserv._linalg.values import cached
from probconserv.errors import IncompatibleQueryError, InvalidArgumentError


class Places(ABC):
    """Stored points in d dimensions."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of the values of one function."""

    @property
    @abstractmethod
    def dimension(self) -> int:
        """Number d of coordinates."""

    @abstractmethod
    def between(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers of stored points ``(q, corners)`` and their weights, for points ``(q, d)``.

        Raises:
            IncompatibleQueryError: If a point lies outside the stored ones.
        """


@dataclass(frozen=True, eq=False)
class Axes(Places):
    """All combinations of coordinates, in row-major order.

    Beyond the ends of an axis the values continue as constants, for half a spacing: the end of an axis of cell centres.
    """

    axes: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        for number, axis in enumerate(self.axes):
            if axis.ndim != 1 or len(axis) < 2 or not bool((axis.diff() > 0).all()):
                raise InvalidArgumentError(
                    f"Axis {number} of the points must be at least two increasing coordinates, got the shape "
                    f"{tuple(axis.shape)}; scattered points are one tensor (n, d)."
                )

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(axis) for axis in self.axes)

    @property
    def dimension(self) -> int:
        return len(self.axes)

    def between(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Places``; 2ᵈ corners."""
        for number, axis in enumerate(self.axes):
            position = points[:, number]
            first, last = axis[0] - 0.5 * (axis[1] - axis[0]), axis[-1] + 0.5 * (axis[-1] - axis[-2])
            slack = 1e-9 * (axis[-1] - axis[0])
            if bool(((position < first - slack) | (position > last + slack)).any()):
                raise _outside(number, position, axis)
        return corners_of(self.axes, points)


@dataclass(frozen=True, eq=False)
class Scattered(Places):
    """Scattered points ``(n, d)`` in two dimensions or more, interpolated on their Delaunay triangulation."""

    points: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.points),)

    @property
    def dimension(self) -> int:
        return self.points.shape[1]

    def between(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Places``; d + 1 corners, or the one stored point that it is."""
        low, size = self._box
        scaled = (points.numpy(force=True) - low) / size
        simplex = self._mesh.find_simplex(scaled, tol=1e-9)
        if (simplex < 0).any():
            point = points[int(np.flatnonzero(simplex < 0)[0])].tolist()
            raise IncompatibleQueryError(
                f"The point {tuple(point)} lies outside the triangulation of the functions' points; ask within them."
            )
        transform = self._mesh.transform[simplex]
        part = np.einsum("qij,qj->qi", transform[:, :-1], scaled - transform[:, -1])
        weights = np.concatenate([part, 1 - part.sum(axis=1, keepdims=True)], axis=1).clip(0.0, 1.0)
        weights /= weights.sum(axis=1, keepdims=True)
        index = torch.as_tensor(self._mesh.simplices[simplex].astype(np.int64), device=points.device)
        return index, torch.as_tensor(weights, device=points.device)

    @cached
    def _box(self) -> tuple[np.ndarray, np.ndarray]:
        points = self.points.numpy(force=True)
        return points.min(axis=0), np.maximum(np.ptp(points, axis=0), 1e-300)

    @cached
    def _mesh(self) -> Any:
        from scipy.spatial import Delaunay  # slow to import, rarely needed

        low, size = self._box
        try:
            return Delaunay((self.points.numpy(force=True) - low) / size)
        except Exception as error:  # scipy.spatial.QhullError, which is no ValueError
            raise InvalidArgumentError(
                f"Points (n, d) = {tuple(self.points.shape)} cannot be triangulated; on a grid give its axes, a "
                "sequence of coordinates."
            ) from error


def corners_of(axes: Sequence[Tensor], points: Tensor) -> tuple[Tensor, Tensor]:
    """The 2ᵈ grid points around points ``(q, d)`` by their row-major numbers ``(q, corners)``, and their weights."""
    left, weights = [], []
    for axis, position in zip(axes, points.mT.contiguous(), strict=True):
        cell = (torch.searchsorted(axis, position, right=True) - 1).clamp(0, len(axis) - 2)
        weight = ((position - axis[cell]) / (axis[cell + 1] - axis[cell])).clamp(0.0, 1.0)
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


def places_of(points: Tensor | tuple[Tensor, ...]) -> Places:
    """Axes for a tuple of coordinates or for points along one axis, scattered points otherwise."""
    if isinstance(points, tuple):
        return Axes(points)
    if points.ndim == 1 or points.shape[1] == 1:
        return Axes((points.flatten(),))
    return Scattered(points)


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


def _outside(number: int, position: Tensor, axis: Tensor) -> IncompatibleQueryError:
    return IncompatibleQueryError(
        f"Coordinate {number} of a point lies between {float(position.min()):g} and {float(position.max()):g}, but the "
        f"functions are known from {float(axis[0]):g} to {float(axis[-1]):g}; ask within them, with the columns in the "
        "order of the axes."
    )
