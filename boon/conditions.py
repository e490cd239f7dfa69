"""Discretisation of boundary conditions: functionals and data on the grid of a field."""

from collections.abc import Callable, Sequence
from math import isfinite
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boon._tensors.values import are_readable
from boon.errors import InvalidArgumentError, MissingBoundaryError
from boon.functionals import Boundary, Functional, SideCondition, functional, harmonise
from solvers import Dirichlet, Neumann, Periodic, Robin

Pair = tuple[SideCondition | Periodic | None, SideCondition | Periodic | None]
AxisCondition = Pair | None
Value = float | np.ndarray | Tensor | Callable[..., Any] | None
SideValues = Sequence[tuple[Value, Value] | None]


def check_conditions(conditions: Sequence[Any]) -> tuple[AxisCondition, ...]:
    """Checks the conditions: one (first, last) pair per axis, None for a free axis or a free side.

    Raises:
        MissingBoundaryError: If neither side of a pair has a condition.
        InvalidArgumentError: If an entry is not a condition, Neumann is given as a flux, or only one side is periodic.
    """
    for axis, pair in enumerate(conditions):
        if pair is None:
            continue
        if not isinstance(pair, Sequence) or len(pair) != 2 or all(side is None for side in pair):
            raise MissingBoundaryError(
                f"conditions of axis {axis} must be a (first, last) pair with a condition on one side (the other None) "
                f"or on both, or None for an axis that is free (time), got {pair!r}."
            )
        for side in pair:
            if side is not None:
                _check_side(side, axis)
        if isinstance(pair[0], Periodic) != isinstance(pair[1], Periodic):
            raise InvalidArgumentError(f"Axis {axis} is periodic on one side only; give Periodic() on both sides.")
    return tuple(None if pair is None else (pair[0], pair[1]) for pair in conditions)


def check_lengths(lengths: Sequence[float] | None, dimension: int) -> tuple[float, ...]:
    """One length per axis, 1 by default.

    Raises:
        InvalidArgumentError: If a length is missing, not finite or not positive.
    """
    result = (1.0,) * dimension if lengths is None else tuple(float(length) for length in lengths)
    if len(result) != dimension or not all(isfinite(length) and length > 0 for length in result):
        raise InvalidArgumentError(f"lengths needs one positive number per axis ({dimension}), got {lengths}.")
    return result


def sides(conditions: Sequence[AxisCondition]) -> list[tuple[int, bool, SideCondition]]:
    """(axis, last, condition) of every side that is not periodic, in order of priority at corners."""
    result = [
        (axis, last, side)
        for axis, pair in enumerate(conditions)
        if pair is not None
        for last, side in enumerate(pair)
        if not (side is None or isinstance(side, Periodic))
    ]
    result.sort(key=lambda item: not isinstance(item[2], Dirichlet))
    return [(axis, bool(last), side) for axis, last, side in result]


def has_free_side(pair: AxisCondition) -> bool:
    """Whether an axis has a condition on one side only."""
    return pair is not None and (pair[0] is None or pair[1] is None)


def periodic_axes(conditions: Sequence[AxisCondition]) -> tuple[int, ...]:
    """The axes with ``Periodic()`` on both sides."""
    return tuple(axis for axis, pair in enumerate(conditions) if pair is not None and isinstance(pair[0], Periodic))


def functionals(
    conditions: Sequence[AxisCondition], lengths: Sequence[float], shape: Sequence[int], order: int
) -> tuple[Functional, ...]:
    """The functional of every side on a grid of ``shape`` nodes, both ends included.

    Raises:
        InvalidArgumentError: If an axis has too few nodes for the stencil or a Robin condition cannot be solved.
    """
    for axis, pair in enumerate(conditions):
        derivative = pair is not None and any(isinstance(side, Neumann | Robin) for side in pair)
        least = order + 2 if derivative else 2
        if pair is not None and shape[axis] < least:
            raise InvalidArgumentError(
                f"Axis {axis} needs at least {least} nodes for its conditions, got {shape[axis]}."
            )
    return tuple(
        functional(side, axis, last, lengths[axis] / (shape[axis] - 1), order) for axis, last, side in sides(conditions)
    )


def discretise(
    conditions: Sequence[AxisCondition],
    lengths: Sequence[float],
    values: SideValues | None,
    u: Tensor,
    order: int,
) -> Boundary:
    """Conditions and data of a field, checked and made compatible at corners.

    Args:
        conditions: One pair per axis, or None.
        lengths: One length per axis.
        values: Values given at the call, one (first, last) pair or None per axis.
        u: A field ``(batch, channels, *space)`` of the shape, dtype and device; its values are not used.
        order: Order of one-sided differences.

    Returns:
        The boundary; data are rounded to the dtype of u and stored in float64.

    Raises:
        MissingBoundaryError: If a side has no value, or both one in the condition and one at the call.
        InvalidArgumentError: If a value has the wrong shape or is not finite.
        IncompatibleCornersError: If Dirichlet sides disagree where they meet.
    """
    shape = tuple(u.shape[2:])
    if len(shape) != len(conditions):
        raise InvalidArgumentError(
            f"The field has {len(shape)} axes but conditions are given for {len(conditions)}; give one pair or None "
            "per axis."
        )
    at_call = _values_at_call(values, conditions)
    data = []
    for axis, last, side in sides(conditions):
        name = f"The {'last' if last else 'first'} side of axis {axis}"
        value = _one_value(_built_value(side), at_call.get((axis, last)), name)
        data.append(_on_side(value, axis, lengths, u, name))
    boundary = Boundary(
        functionals=functionals(conditions, lengths, shape, order),
        data=tuple(data),
        periodic=periodic_axes(conditions),
    )
    return harmonise(boundary, tolerance=100 * torch.finfo(u.dtype).eps)


def boundary_channels(boundary: Boundary, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Boundary data as input channels: the data of every side, extended as constants along the axis normal to it.

    Args:
        boundary: Conditions with data, ``BOON.discretise(u, values)``.
        shape: Nodes along every axis.
        dtype: Dtype of the result.

    Returns:
        ``(batch, sides·channels, *space)``, to concatenate with the input of the operator.

    Raises:
        MissingBoundaryError: If there is no side with data.
    """
    if not boundary.functionals:
        raise MissingBoundaryError("boundary_channels needs a side with data; free and periodic axes have none.")
    channels = []
    for side, data in zip(boundary.functionals, boundary.data, strict=True):
        dim = 2 + side.axis
        channels.append(data.to(dtype).unsqueeze(dim).expand(*data.shape[:2], *shape))
    return torch.cat(channels, dim=1)


def _check_side(side: Any, axis: int) -> None:
    if isinstance(side, Neumann) and side.flux is not None:
        raise InvalidArgumentError(
            f"Neumann(flux=…) on axis {axis} needs a physical law, which operators lack. Give the gradient instead."
        )
    if not isinstance(side, Dirichlet | Neumann | Robin | Periodic):
        raise InvalidArgumentError(
            f"conditions of axis {axis} must be Dirichlet, Neumann, Robin or Periodic, got {side!r}."
        )
    if isinstance(side, Robin) and not (isinstance(side.a, Real) and isinstance(side.b, Real)):
        raise InvalidArgumentError(
            f"Robin on axis {axis} takes numbers for a and b, the same for the whole batch, got a={side.a!r}, "
            f"b={side.b!r}; only the value may be an array or a tensor."
        )


def _built_value(side: SideCondition) -> Value:
    return side.gradient if isinstance(side, Neumann) else side.value


def _values_at_call(values: SideValues | None, conditions: Sequence[AxisCondition]) -> dict[tuple[int, bool], Value]:
    if values is None:
        return {}
    if not isinstance(values, Sequence) or len(values) != len(conditions):
        raise InvalidArgumentError(
            f"boundary needs one (first, last) pair or None for each of {len(conditions)} axes, got {values!r}."
        )
    result: dict[tuple[int, bool], Value] = {}
    for axis, pair in enumerate(values):
        if pair is None:
            continue
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise InvalidArgumentError(f"boundary of axis {axis} must be a (first, last) pair or None, got {pair!r}.")
        wanted = conditions[axis]
        for last, value in enumerate(pair):
            if value is not None and (wanted is None or wanted[last] is None or isinstance(wanted[last], Periodic)):
                name = f"The {'last' if last else 'first'} side of axis {axis}"
                raise InvalidArgumentError(f"{name} is free or periodic and takes no boundary value.")
            result[axis, bool(last)] = value
    return result


def _one_value(built: Any, given: Value, name: str) -> Any:
    if (built is None) == (given is None):
        problem = "has no value" if built is None else "has a value in its condition and another at the call"
        raise MissingBoundaryError(
            f"{name} {problem}; give it once, as Dirichlet(value) or in boundary=[(first, last), …] at the call."
        )
    return given if built is None else built


def _on_side(value: Any, axis: int, lengths: Sequence[float], u: Tensor, name: str) -> Tensor:
    """The value as ``(batch, channels, *face)`` in float64, rounded to the dtype of u."""
    shape = tuple(u.shape[:2]) + tuple(count for other, count in enumerate(u.shape[2:]) if other != axis)
    if callable(value):
        coordinates = [
            torch.linspace(0.0, length, count, dtype=torch.float64, device=u.device)
            for other, (length, count) in enumerate(zip(lengths, u.shape[2:], strict=True))
            if other != axis
        ]
        value = value(*torch.meshgrid(*coordinates, indexing="ij")) if coordinates else value()
    tensor = torch.as_tensor(value, dtype=u.dtype, device=u.device).to(torch.float64)
    try:
        tensor = tensor.broadcast_to(shape)
    except RuntimeError as error:
        raise InvalidArgumentError(
            f"{name} needs a value that broadcasts to (batch, out_channels, *face) = {shape}, "
            f"got shape {tuple(tensor.shape)}."
        ) from error
    if are_readable(tensor) and not bool(torch.isfinite(tensor).all()):
        raise InvalidArgumentError(f"{name} has values that are NaN or infinite; repair the boundary data.")
    return tensor
