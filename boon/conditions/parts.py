"""Parts of a side: conditions that hold on some of its nodes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from boon.errors import InvalidArgumentError
from solvers import Dirichlet, Neumann, Robin
from solvers.recording import are_readable

Intervals = tuple[float, float] | tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Part:
    """A condition on a part of a side.

    A side of ``BOON`` takes one part, or a sequence of parts; at a node that several of them cover the first counts. A
    node that none covers has no condition.

    Args:
        condition: ``Dirichlet``, ``Neumann`` or ``Robin``. Its value is given along the whole side; what it is outside
            of the part does not matter.
        where: The nodes of the part: an interval ``(first, last)`` of the position along the side, ends included, or
            one for each axis of the side; a function of position, called as values are (see ``BOON``); or an array of
            booleans ``(*face)``. None is all nodes, after other parts the rest of the side. ``boon.save`` takes
            intervals and None. An interval without a node of the grid is an error.

    Raises:
        InvalidArgumentError: If an interval is empty or not two numbers.

    Example:
        >>> Part(Dirichlet(1.0), where=(0.25, 0.5)).where
        (0.25, 0.5)
    """

    condition: Dirichlet | Neumann | Robin
    where: Intervals | Callable[..., Any] | Tensor | np.ndarray | None = None

    def __post_init__(self) -> None:
        where: Any = self.where
        if not isinstance(where, list | tuple):
            return
        several = all(isinstance(each, list | tuple) for each in where)
        try:
            intervals = tuple(tuple(map(float, each)) for each in (where if several else [where]))
        except (TypeError, ValueError, RuntimeError):  # what is no number
            intervals = ()
        if not intervals or any(len(each) != 2 or not each[0] <= each[1] for each in intervals):
            raise InvalidArgumentError(
                f"where of a Part needs an interval (first, last) with first ≤ last, or one for each axis of the "
                f"side, got {where}."
            )
        object.__setattr__(self, "where", intervals if several else intervals[0])

    @property
    def intervals(self) -> tuple[tuple[float, ...], ...] | None:
        """One interval for each axis of the side; None if the nodes are given otherwise."""
        if not isinstance(self.where, tuple):
            return None
        if all(isinstance(each, tuple) for each in self.where):
            return cast(tuple[tuple[float, ...], ...], self.where)
        return (cast(tuple[float, ...], self.where),)

    @property
    def is_value(self) -> bool:
        """Whether the field itself is given, not a slope or a sum with it."""
        return isinstance(self.condition, Dirichlet)

    @property
    def coefficients(self) -> tuple[Any, Any]:
        """a and b of a u + b ∂u/∂x, as they are given."""
        if isinstance(self.condition, Robin):
            return self.condition.a, self.condition.b
        return (1.0, 0.0) if self.is_value else (0.0, 1.0)

    @property
    def value(self) -> Any:
        """a u + b ∂u/∂x as the condition gives it; None if it is given at the call."""
        return self.condition.gradient if isinstance(self.condition, Neumann) else self.condition.value

    def without_data(self) -> "Part":
        """The same part with value 0."""
        data = {"gradient" if isinstance(self.condition, Neumann) else "value": 0.0}
        return replace(self, condition=replace(self.condition, **data))


Parts = tuple[Part, ...]
_ROUNDING = 1e-9
"""How far a node may lie beyond the end of an interval, in units of the length of the axis: (1/20)·6 is above 0.3."""


def nodes_of(part: Part, coordinates: Sequence[Tensor], name: str) -> Bool[Tensor, "*face"]:
    """The nodes of a part.

    Args:
        part: The part.
        coordinates: Coordinates of the nodes of the side, ``(*face)`` each.
        name: Name of the side in error messages.

    Raises:
        InvalidArgumentError: If these are no booleans of the shape of the side, or intervals of another number of axes
            or without a node.
    """
    where, face, intervals = part.where, coordinates[0].shape, part.intervals
    if intervals is not None:
        if len(intervals) != len(coordinates):
            raise InvalidArgumentError(
                f"{name}: where of a Part needs one interval for each of the {len(coordinates)} axes of the side, got "
                f"{len(intervals)}."
            )
        inside = [_between(x, *interval) for x, interval in zip(coordinates, intervals, strict=True)]
        nodes = torch.stack(inside).all(dim=0)
        if are_readable(nodes) and not bool(nodes.any()):
            raise InvalidArgumentError(
                f"{name} has no node in the interval {part.where} of a Part, so its condition would not hold anywhere; "
                "take a finer grid or a wider interval."
            )
        return nodes
    if where is None:
        return torch.ones(face, dtype=torch.bool, device=coordinates[0].device)
    mask = torch.as_tensor(where(*coordinates) if callable(where) else where, device=coordinates[0].device)
    if mask.dtype != torch.bool or (mask.shape != face and mask.ndim > 0):
        raise InvalidArgumentError(
            f"{name}: where of a Part needs booleans of the shape {tuple(face)} of the side, got {mask.dtype} of shape "
            f"{tuple(mask.shape)}; give an array of that shape or a function of position such as lambda y: y < 0.5."
        )
    return mask.expand(face)


def _between(x: Tensor, first: float, last: float) -> Tensor:
    """True where coordinates lie in an interval, ends included up to rounding."""
    slack = _ROUNDING * x.abs().max()
    return (first - slack <= x) & (x <= last + slack)
