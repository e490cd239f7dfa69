"""Sides of a system: walls, states, open and periodic ends, as ghost cells."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from solvers.conditions import Dirichlet, Outflow, Periodic, pairs_of, side_name, value_at
from solvers.errors import InvalidArgumentError


@dataclass(frozen=True)
class Reflecting:
    """A wall without friction, for systems: the law's ``reflect`` gives the state that a wall mirrors."""


Condition = Dirichlet | Outflow | Periodic | Reflecting


@dataclass(frozen=True)
class Side:
    """One side of one axis.

    Args:
        condition: Condition of the side.
        axis: Space axis, from 0.
        last: Whether it is the last side of the axis.
    """

    condition: Condition
    axis: int
    last: bool

    @property
    def name(self) -> str:
        """Name of the side in error messages."""
        return side_name(self.axis, self.last)

    @property
    def changes(self) -> bool:
        """Whether the condition changes with time."""
        return isinstance(self.condition, Dirichlet) and callable(self.condition.value)


def make_sides(boundary: Sequence[Any], dimension: int) -> tuple[tuple[Side, Side], ...]:
    """One (first, last) pair of sides per axis, from conditions in the forms of ``pairs_of``."""
    pairs = pairs_of(boundary, dimension, Condition, "Reflecting(), Periodic(), Outflow() or Dirichlet(state)")
    return tuple(
        (Side(first, axis, last=False), Side(last, axis, last=True)) for axis, (first, last) in enumerate(pairs)
    )


def stated(side: Side, time: float, batch: tuple[int, ...], face: tuple[int, ...]) -> Tensor:
    """States ``(entries, c, *face)`` of a Dirichlet side at a time; ``batch`` is ``(*batch, c)``.

    An error if the value is missing, not finite, or has the wrong shape.
    """
    assert isinstance(side.condition, Dirichlet)
    value = value_at(side.condition.value, time, side.name)
    given = tuple(value.shape)
    if value.ndim == 1:
        value = value.reshape(-1, *[1] * len(face))
    shape = (*batch, *face)
    if value.ndim < 1 + len(face) or value.ndim > len(shape) or value.shape[-1 - len(face)] != batch[-1]:
        raise _wrong_shape(side, given, batch, face)
    try:
        value = value.expand(shape).reshape(-1, batch[-1], *face)
    except RuntimeError:
        raise _wrong_shape(side, given, batch, face) from None
    return value


def _wrong_shape(side: Side, got: tuple[int, ...], batch: tuple[int, ...], face: tuple[int, ...]) -> Exception:
    return InvalidArgumentError(
        f"{side.name}: Dirichlet needs a state of shape (c,) or one that broadcasts to (*batch, c, *face) = "
        f"{(*batch, *face)}, got shape {got}."
    )


def bottom_ghosts(side: Side, cells: Tensor, count: int) -> Tensor:
    """Bottom beyond a side: mirrored by a wall, continued by periodicity, else level with the edge cell.

    From the bottom ``(entries, *face, n)``, with the axis of the side last: ``(entries, *face, count)``, count ≤ n.
    """
    ends = cells[..., :count], cells[..., -count:]
    near = ends[side.last]
    if isinstance(side.condition, Periodic):
        return ends[1 - side.last]
    if isinstance(side.condition, Reflecting):
        return near.flip(-1)
    return (near[..., -1:] if side.last else near[..., :1]).expand(near.shape)
