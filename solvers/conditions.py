"""Boundary conditions of solvers and of operators.

Conditions are given per axis as a pair (first side, last side) and may differ. ``u_x`` is always ∂/∂x along the
axis, never the outward normal derivative, and fluxes are positive along +x, at both ends.

A value is a number, an array that broadcasts to ``(*batch, *face)`` where ``face`` is the shape of that side (empty
with one axis), or a function of time returning one of these. ``None`` means that the value is given later: ``BOON``
takes it at the call, ``solve`` raises an error.

``solve`` looks at a function of time over the whole span, to find events that its steps must not miss. It calls the
function with a float or, where that gives the same at some probe times, with an array or a tensor of many times
``(k, *batch or ones, one per face axis)``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers._arguments import checked_values
from solvers.errors import InvalidArgumentError

Value = float | np.ndarray | Tensor
BoundaryValue = Value | Callable[[float], Value] | None


@dataclass(frozen=True)
class Dirichlet:
    """u = value on the side.

    Args:
        value: A number, or an array or tensor ``(*batch, *face)``. A function takes the time in ``solve`` and
            ``solve_system``, so values along a side go in as an array; for operators it takes the position on the side.
    """

    value: BoundaryValue = None


@dataclass(frozen=True)
class Neumann:
    """The derivative of the field on the side, stated as a gradient or as a flux; give at most one.

    Args:
        gradient: ∂u/∂x on the side (not the outward normal derivative).
        flux: Physical flux F through the side, positive along +x, f − k ∂u/∂x with convection and diffusion; for the
            finite-volume solver only, since it depends on the law.

    Raises:
        InvalidArgumentError: If both are given.
    """

    gradient: BoundaryValue = None
    flux: BoundaryValue = None

    def __post_init__(self) -> None:
        if self.gradient is not None and self.flux is not None:
            raise InvalidArgumentError("Neumann takes a gradient or a flux, not both; drop one of them.")


@dataclass(frozen=True)
class Robin:
    """a·u + b·∂u/∂x = value on the side.

    Args:
        a: Number, or for ``solve`` and ``solve_steady`` an array or tensor ``(*batch,)``, for operators one
            ``(batch|1, channels|1, *face)`` or a function of the position on the side that returns it.
        b: The same; not zero.
        value: The value.

    Raises:
        InvalidArgumentError: If a and b are not finite real numbers or b is zero (that is ``Dirichlet``).
    """

    a: Value | Callable[..., Value]
    b: Value | Callable[..., Value]
    value: BoundaryValue = None

    def __post_init__(self) -> None:
        if not all(isinstance(each, Real | np.ndarray | Tensor) or callable(each) for each in (self.a, self.b)):
            raise InvalidArgumentError(
                f"Robin takes numbers for a and b, one number per batch entry, or for operators a function of the "
                f"position on the side, got a={self.a!r}, b={self.b!r}."
            )
        a, b = (torch.ones(()) if callable(each) else torch.as_tensor(each) for each in (self.a, self.b))
        if a.is_complex() or b.is_complex():
            raise InvalidArgumentError(f"Robin needs real a and b, got a={self.a}, b={self.b}.")
        if not (bool(torch.isfinite(a).all()) and bool(torch.isfinite(b).all())) or bool((b == 0).any()):
            raise InvalidArgumentError(
                f"Robin needs finite a and b with b ≠ 0, got a={self.a}, b={self.b}; use Dirichlet for b = 0."
            )


@dataclass(frozen=True)
class Periodic:
    """The field continues at the other end of the axis: ``Periodic()`` for the axis, or on both of its sides."""


@dataclass(frozen=True)
class Outflow:
    """Zero-order extrapolation, for convective laws: waves that reach the side leave the domain."""


Condition = Dirichlet | Neumann | Robin | Periodic | Outflow
AxisConditions = tuple[Condition, Condition]


def per_axis(boundary: Sequence[Any], dimension: int) -> tuple[AxisConditions, ...]:
    """One (first, last) pair of conditions per axis, as ``pairs_of`` checks them."""
    pairs = pairs_of(boundary, dimension, Condition, "Dirichlet, Neumann, Robin, Periodic or Outflow")
    if any(isinstance(side, Robin) and (callable(side.a) or callable(side.b)) for pair in pairs for side in pair):
        raise InvalidArgumentError(
            "Functions as a and b of Robin are for operators; solvers take numbers or one number per batch entry, and "
            "only the value may be a function of time."
        )
    return pairs


def pairs_of(boundary: Sequence[Any], dimension: int, kinds: Any, listed: str) -> tuple[tuple[Any, Any], ...]:
    """One (first, last) pair per axis of conditions that are of some kinds, ``listed`` in words.

    With one axis ``boundary`` is ``(first, last)`` or ``[(first, last)]``, with d axes one pair per axis, where
    ``Periodic()`` stands for both sides of an axis.

    Raises:
        InvalidArgumentError: If a side is missing or of another kind, or only one side is periodic.
    """
    if not isinstance(boundary, Sequence) or isinstance(boundary, str) or len(boundary) == 0:
        raise InvalidArgumentError(
            "boundary must be a (first, last) pair of conditions with one axis, or a sequence of one such pair per "
            f"axis, got {boundary!r}."
        )
    flat = dimension == 1 and len(boundary) > 1 and not isinstance(boundary[0], Sequence)
    pairs = [tuple(boundary)] if flat else list(boundary)
    pairs = [(pair, pair) if isinstance(pair, Periodic) else pair for pair in pairs]
    if len(pairs) != dimension:
        raise InvalidArgumentError(
            f"boundary needs one (first, last) pair for each of {dimension} axes, got {len(pairs)} entries."
        )
    for axis, pair in enumerate(pairs):
        if not isinstance(pair, Sequence) or len(pair) != 2 or not all(isinstance(side, kinds) for side in pair):
            raise InvalidArgumentError(
                f"boundary of axis {axis} must be a (first, last) pair of {listed}, got {pair!r}."
            )
        if isinstance(pair[0], Periodic) != isinstance(pair[1], Periodic):
            raise InvalidArgumentError(
                f"boundary of axis {axis} is periodic on one side only; give Periodic() on both."
            )
    return tuple((first, last) for first, last in pairs)


def side_name(axis: int, last: int) -> str:
    """Name of a side in error messages."""
    return f"boundary of axis {axis}, {'last' if last else 'first'} side"


def stated_value(condition: Condition) -> BoundaryValue:
    """The value of a condition; None where there is none."""
    if isinstance(condition, Neumann):
        return condition.gradient if condition.flux is None else condition.flux
    return None if isinstance(condition, Periodic | Outflow) else condition.value


def value_at(value: BoundaryValue, time: float, name: str = "boundary value") -> Tensor:
    """A boundary value at a time, a float64 tensor.

    An error, with the name of the value, if it is missing, no finite number or array, or requires a gradient.
    """
    if value is None:
        raise InvalidArgumentError(f"{name} is missing; give the condition a value, an array or a function of time.")
    return checked_values(value(time) if callable(value) else value, name, f" at time {time:g}")
