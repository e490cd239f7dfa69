"""The sides of a domain: what is given for the two ends of every axis, as lists of parts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, cast

from boon.conditions.parts import Part, Parts
from boon.errors import InvalidArgumentError, MissingBoundaryError
from solvers import Dirichlet, Neumann, Periodic, Robin

AxisCondition = tuple[Any, Any] | None


@dataclass(frozen=True)
class Side:
    """One end of an axis.

    Args:
        parts: What holds on its nodes; none if the side is free or the axis periodic.
        split: Whether it is given by parts: values at the call are then a list, one for each.
        varies: Whether the condition or its coefficients may differ between the nodes of the side.
    """

    parts: Parts = ()
    split: bool = False
    varies: bool = False

    @property
    def is_value(self) -> bool:
        """Whether the field itself is given on the whole side by one condition."""
        return not self.split and any(part.is_value for part in self.parts)

    @property
    def may_be_free(self) -> bool:
        """Whether some nodes may have no condition: no part is the rest of the side."""
        return all(part.where is not None for part in self.parts)

    @property
    def given(self) -> Any:
        """The side as ``BOON`` takes it: None, a condition or a tuple of parts."""
        if self.split:
            return self.parts
        return self.parts[0].condition if self.parts else None

    def without_data(self) -> "Side":
        """The same side with values 0."""
        return replace(self, parts=tuple(part.without_data() for part in self.parts))


@dataclass(frozen=True)
class AxisSides:
    """Both ends of an axis; neither has parts if the axis is free (time) or periodic."""

    first: Side = Side()
    last: Side = Side()
    periodic: bool = False

    @property
    def ends(self) -> tuple[Side, Side]:
        """The first and the last side."""
        return self.first, self.last

    @property
    def parts(self) -> Parts:
        """The parts of both sides."""
        return self.first.parts + self.last.parts

    @property
    def is_free(self) -> bool:
        """Whether the axis has no condition."""
        return len(self.parts) == 0 and not self.periodic

    @property
    def has_free_side(self) -> bool:
        """Whether an axis with a condition has nodes without one on a side."""
        return len(self.parts) > 0 and any(side.may_be_free for side in self.ends)

    @property
    def given(self) -> AxisCondition:
        """The axis as ``BOON`` takes it: None or a (first, last) pair."""
        if self.periodic:
            return Periodic(), Periodic()
        return (self.first.given, self.last.given) if self.parts else None

    def without_data(self) -> "AxisSides":
        """The same axis with values 0."""
        return AxisSides(self.first.without_data(), self.last.without_data(), self.periodic)


def check_conditions(conditions: Sequence[Any]) -> tuple[AxisSides, ...]:
    """The sides of every axis from one (first, last) pair per axis, None for a free axis or side, or ``Periodic()``.

    Raises:
        MissingBoundaryError: If neither side of a pair has a condition.
        InvalidArgumentError: If an entry is not a condition, Neumann is given as a flux, or only one side is periodic.
    """
    if not isinstance(conditions, Sequence):
        raise InvalidArgumentError(
            "conditions needs one (first, last) pair, Periodic() or None per axis, as [(first, last)], got "
            f"{conditions!r}."
        )
    return tuple(_axis_sides(pair, axis, len(conditions)) for axis, pair in enumerate(conditions))


def sides_of(axes: Sequence[AxisSides]) -> list[tuple[int, bool, Side]]:
    """(axis, last, side) of every side with a condition, in order of priority at corners: values first."""
    found = [
        (axis, bool(last), side) for axis, each in enumerate(axes) for last, side in enumerate(each.ends) if side.parts
    ]
    return sorted(found, key=lambda item: not item[2].is_value)


def periodic_axes(axes: Sequence[AxisSides]) -> tuple[int, ...]:
    """The numbers of the periodic axes."""
    return tuple(axis for axis, each in enumerate(axes) if each.periodic)


def _axis_sides(pair: Any, axis: int, axes: int) -> AxisSides:
    if pair is None:
        return AxisSides()
    if isinstance(pair, Periodic):
        return AxisSides(periodic=True)
    if not isinstance(pair, Sequence) or len(pair) != 2 or all(side is None for side in pair):
        raise MissingBoundaryError(
            f"conditions of axis {axis} must be a (first, last) pair with a condition on one side (the other None) "
            f"or on both, or None for an axis that is free (time), got {pair!r}."
        )
    periodic = [isinstance(side, Periodic) for side in pair]
    first, last = (Side() if closed else _side(side, axis, axes) for side, closed in zip(pair, periodic, strict=True))
    if periodic[0] != periodic[1]:
        raise InvalidArgumentError(f"Axis {axis} is periodic on one side only; give Periodic() on both sides.")
    return AxisSides(first, last, periodic[0])


def _side(side: Any, axis: int, axes: int) -> Side:
    """A side from None, a condition, a part or a sequence of parts."""
    if side is None:
        return Side()
    entries: list[Any] = list(side) if isinstance(side, Sequence) else [side]
    split = len(entries) > 0 and all(isinstance(entry, Part) for entry in entries)
    if split and axes == 1:
        raise InvalidArgumentError(
            f"A side of axis {axis} is a single node, which has no parts; give the condition itself."
        )
    parts = tuple(entries) if split else (Part(cast(Any, side)),)
    for part in parts:
        _check_condition(part if split else side, part.condition, axis)
    numbers = all(isinstance(each, Real) for part in parts for each in part.coefficients)
    return Side(parts, split, varies=split or not numbers)


def _check_condition(given: Any, condition: Any, axis: int) -> None:
    if isinstance(condition, Neumann) and condition.flux is not None:
        raise InvalidArgumentError(
            f"Neumann(flux=…) on axis {axis} needs a physical law, which operators lack. Give the gradient instead."
        )
    if not isinstance(condition, Dirichlet | Neumann | Robin):
        raise InvalidArgumentError(
            f"conditions of axis {axis} must be Dirichlet, Neumann, Robin or Periodic, or parts of a side with one of "
            f"the first three, got {given!r}."
        )
