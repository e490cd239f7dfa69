"""Uniform grids in one or more space dimensions and their quadrature weights.

``NodeGrid`` is for point values at nodes, both ends of every axis included, as operators with boundary conditions need
them. ``CellGrid`` is for cell averages, as finite volumes need them.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, prod
from numbers import Real
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from solvers.errors import InvalidArgumentError

_Ends = float | Sequence[float] | np.ndarray | Tensor
_Counts = int | Sequence[int] | np.ndarray | Tensor


class Grid(ABC):
    """A uniform tensor-product grid with d axes; lengths in the units of the domain.

    Attributes:
        low: Lower end of every axis.
        high: Upper end of every axis.
        count: Number of unknowns along every axis.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    count: tuple[int, ...]

    @property
    @abstractmethod
    def location(self) -> Literal["node", "cell"]:
        """Whether the unknowns are at nodes (ends included) or at cell centres."""

    @property
    @abstractmethod
    def axes(self) -> tuple[Float[Tensor, " points"], ...]:
        """Coordinates of the unknowns along every axis, float64."""

    @property
    @abstractmethod
    def spacing(self) -> tuple[float, ...]:
        """Distance between neighbouring unknowns along every axis."""

    @property
    def dimension(self) -> int:
        """Number of axes d."""
        return len(self.count)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of unknowns along every axis: the trailing shape of a field on this grid."""
        return self.count

    @property
    def points(self) -> Tensor:
        """Coordinates of all unknowns: ``(n,)`` with one axis, ``(*shape, d)`` with more."""
        if self.dimension == 1:
            return self.axes[0]
        return torch.stack(torch.meshgrid(*self.axes, indexing="ij"), dim=-1)

    @property
    def axis_weights(self) -> tuple[Float[Tensor, " points"], ...]:
        """Quadrature weights along every axis: trapezoid on nodes, cell lengths on cells."""
        if self.location == "node":
            return tuple(trapezoid_weights(points) for points in self.axes)
        return tuple(torch.full((n,), h, dtype=torch.float64) for n, h in zip(self.count, self.spacing, strict=True))

    @property
    def weights(self) -> Tensor:
        """Quadrature weights of the whole domain ``(*shape)``: ``(weights * u).sum()`` is ∫ u dx."""
        weights = self.axis_weights[0]
        for along_axis in self.axis_weights[1:]:
            weights = weights[..., None] * along_axis
        return weights

    @property
    def volume(self) -> float:
        """Length, area or volume of the domain."""
        return prod(high - low for low, high in zip(self.low, self.high, strict=True))


@dataclass(frozen=True, init=False)
class NodeGrid(Grid):
    """Point values at ``count`` equally spaced nodes of every axis, both ends included.

    ``NodeGrid(0.0, 1.0, 201)`` has one axis, ``NodeGrid((0.0, 0.0), (1.0, 2.0), (51, 101))`` two. Quadrature is
    the trapezoid rule.

    Raises:
        InvalidArgumentError: If ends and counts do not match, an axis is empty, or has fewer than two nodes.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    count: tuple[int, ...]

    def __init__(self, low: _Ends, high: _Ends, count: _Counts) -> None:
        _set_extent(self, low, high, count, minimum=2)

    @property
    def location(self) -> Literal["node"]:
        return "node"

    @property
    def spacing(self) -> tuple[float, ...]:
        return tuple((b - a) / (n - 1) for a, b, n in zip(self.low, self.high, self.count, strict=True))

    @property
    def axes(self) -> tuple[Float[Tensor, " points"], ...]:
        return _linspaces(self, 0)


@dataclass(frozen=True, init=False)
class CellGrid(Grid):
    """Cell averages on ``count`` equal cells of every axis; coordinates are the cell centres.

    ``CellGrid(0.0, 1.0, 200)`` has one axis, ``CellGrid((0.0, 0.0), (1.0, 2.0), (50, 100))`` two. Quadrature is
    the cell sum, exact for cell averages.

    Raises:
        InvalidArgumentError: If ends and counts do not match, an axis is empty, or has no cell.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    count: tuple[int, ...]

    def __init__(self, low: _Ends, high: _Ends, count: _Counts) -> None:
        _set_extent(self, low, high, count, minimum=1)

    @property
    def location(self) -> Literal["cell"]:
        return "cell"

    @property
    def spacing(self) -> tuple[float, ...]:
        return tuple((b - a) / n for a, b, n in zip(self.low, self.high, self.count, strict=True))

    @property
    def faces(self) -> tuple[Float[Tensor, " faces"], ...]:
        """Coordinates of the faces between cells along every axis, ends included, ``(count + 1,)`` each."""
        return _linspaces(self, 1)

    @property
    def axes(self) -> tuple[Float[Tensor, " points"], ...]:
        return tuple(0.5 * (faces[1:] + faces[:-1]) for faces in self.faces)

    def face_points(self, axis: int) -> Tensor:
        """Centres of the faces across an axis: ``(n + 1,)`` with one axis, ``(*faces, d)`` with more."""
        axes = [self.faces[other] if other == axis else points for other, points in enumerate(self.axes)]
        return axes[0] if self.dimension == 1 else torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def trapezoid_weights(points: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    """Weights of the trapezoid rule at increasing, possibly unequally spaced points.

    Args:
        points: Positions ``(*batch, n)``, strictly increasing along the last axis, n ≥ 2.

    Returns:
        Weights ``(*batch, n)`` in float64 with ``(weights * u).sum(-1)`` = ∫ u dx for piecewise linear u.

    Raises:
        InvalidArgumentError: If there are fewer than two points or they do not increase.
    """
    points = points.to(torch.float64)
    if points.ndim == 0 or points.shape[-1] < 2:
        raise InvalidArgumentError(f"points needs at least two entries along its last axis, got {tuple(points.shape)}.")
    gaps = points.diff(dim=-1)
    if not torch.compiler.is_compiling() and not bool((gaps > 0).all()):
        raise InvalidArgumentError(
            "points must be finite and strictly increasing along the last axis; sort them and drop duplicates."
        )
    weights = torch.zeros_like(points)
    weights[..., :-1] += 0.5 * gaps
    weights[..., 1:] += 0.5 * gaps
    return weights


def _linspaces(grid: Grid, more: int) -> tuple[Tensor, ...]:
    """Equally spaced points from end to end of every axis, ``count`` plus some more."""
    ends = zip(grid.low, grid.high, grid.count, strict=True)
    return tuple(torch.linspace(a, b, n + more, dtype=torch.float64) for a, b, n in ends)


def _set_extent(grid: "NodeGrid | CellGrid", low: _Ends, high: _Ends, count: _Counts, minimum: int) -> None:
    lows, highs, counts = (_entries(value, name) for value, name in ((low, "low"), (high, "high"), (count, "count")))
    if not len(lows) == len(highs) == len(counts) >= 1:
        raise InvalidArgumentError(
            f"low, high and count need one entry per axis, got {len(lows)}, {len(highs)} and {len(counts)} entries."
        )
    for a, b, n in zip(lows, highs, counts, strict=True):
        if not (isfinite(a) and isfinite(b) and a < b):
            raise InvalidArgumentError(f"Each axis needs finite ends with low < high, got low={a}, high={b}.")
        if not isfinite(n) or int(n) != n or n < minimum:
            raise InvalidArgumentError(f"count must be an integer of at least {minimum} on every axis, got {n}.")
    object.__setattr__(grid, "low", tuple(float(a) for a in lows))
    object.__setattr__(grid, "high", tuple(float(b) for b in highs))
    object.__setattr__(grid, "count", tuple(int(n) for n in counts))


def _entries(value: Any, name: str) -> tuple[Any, ...]:
    """One number per axis from a number or a sequence, array or tensor of numbers."""
    if isinstance(value, np.ndarray | Tensor):
        value = value.tolist()
    entries = tuple(value) if isinstance(value, Sequence) else (value,)
    if not all(isinstance(entry, Real) for entry in entries):
        raise InvalidArgumentError(f"{name} must be a number, or one number per axis, got {value!r}.")
    return entries
