"""Positions of a field's values along its axes: at nodes, both ends included, or in cells, as averages."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from numbers import Real

import torch
from jaxtyping import Float
from torch import Tensor

from boon.errors import InvalidArgumentError
from solvers.grids import Grid


@dataclass(frozen=True)
class Domain:
    """The domain of a field, and where its values are; the number of values is that of the field.

    Args:
        low: First end of every axis.
        high: Last end of every axis.
        cells: Whether values are averages over cells, else at nodes.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    cells: bool = False

    @property
    def lengths(self) -> tuple[float, ...]:
        """Length of every axis."""
        return tuple(high - low for low, high in zip(self.low, self.high, strict=True))

    def spacing(self, axis: int, count: int) -> float:
        """Distance between ``count`` values along an axis."""
        return self.lengths[axis] / intervals(count, self.cells)

    def coordinates(self, axis: int, count: int, device: torch.device) -> Float[Tensor, " count"]:
        """Coordinates of ``count`` values along an axis, float64."""
        low, high = self.low[axis], self.high[axis]
        if self.cells:
            return low + (high - low) * positions(count, cells=True).to(device)
        return torch.linspace(low, high, count, dtype=torch.float64, device=device)


def intervals(count: int, cells: bool) -> int:
    """Length of an axis in units of the distance between its values."""
    return count if cells else count - 1


def positions(count: int, cells: bool) -> Float[Tensor, " count"]:
    """Positions of values along an axis of length 1, float64."""
    if cells:
        return (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return torch.linspace(0.0, 1.0, count, dtype=torch.float64)


def domain_of(lengths: Sequence[float] | None, grid: Grid | None, dimension: int) -> Domain:
    """The domain by lengths, 1 by default, of fields at nodes, or by a grid.

    Raises:
        InvalidArgumentError: If both are given, the grid has another number of axes, or a length is missing, not finite
            or not positive.
    """
    if grid is not None:
        if not isinstance(grid, Grid) or grid.dimension != dimension or lengths is not None:
            raise InvalidArgumentError(
                f"grid needs a NodeGrid or a CellGrid with {dimension} axes in place of lengths, got {grid!r} and "
                f"lengths={lengths}."
            )
        return Domain(grid.low, grid.high, cells=grid.location == "cell")
    given = () if isinstance(lengths, Real) else lengths
    result = (1.0,) * dimension if given is None else tuple(float(length) for length in given)
    if len(result) != dimension or not all(isfinite(length) and length > 0 for length in result):
        raise InvalidArgumentError(f"lengths needs one positive number per axis ({dimension}), got {lengths}.")
    return Domain((0.0,) * dimension, result)
