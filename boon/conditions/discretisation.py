"""Discretisation of boundary conditions: functionals and data on the grid of a field."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boon._tensors.values import check_real, real_tensor
from boon.conditions.corners import name_of, tolerance_of
from boon.conditions.functionals import STENCILS, Boundary, Functional, functional, harmonise
from boon.conditions.parts import nodes_of
from boon.conditions.sides import AxisSides, Side, periodic_axes, sides_of
from boon.conditions.varying import Varying, assign_corners, coefficients
from boon.domain import Domain
from boon.errors import InvalidArgumentError, MissingBoundaryError
from solvers.recording import are_readable

Value = float | np.ndarray | Tensor | Callable[..., Any] | None
SideValues = Sequence[tuple[Value, Value] | None]


def check_nodes(axes: Sequence[AxisSides], shape: Sequence[int], order: int, cells: bool) -> None:
    """Raises an error if an axis has too few nodes or cells for its conditions."""
    for axis, each in enumerate(axes):
        derivative = not all(part.is_value for part in each.parts)
        least = order + 2 if derivative else order + 1 if cells and each.parts else 2
        if not each.is_free and shape[axis] < least:
            raise InvalidArgumentError(
                f"Axis {axis} needs at least {least} {'cells' if cells else 'nodes'} for its conditions, got "
                f"{shape[axis]}."
            )


def discretise(
    axes: Sequence[AxisSides],
    domain: Domain,
    values: SideValues | None,
    u: Tensor,
    order: int,
) -> Boundary:
    """Conditions and data of a field, checked and made compatible at corners.

    Args:
        axes: The sides of every axis, see ``check_conditions``.
        domain: The domain, and whether fields are at nodes or in cells.
        values: Values given at the call, one (first, last) pair or None per axis.
        u: A field ``(batch, channels, *space)`` of the shape, dtype and device; its values are not used.
        order: Order of one-sided differences.

    Returns:
        The boundary; data are rounded to the dtype of u and stored in float64.

    Raises:
        MissingBoundaryError: If a side has no value, or both one in the condition and one at the call.
        InvalidArgumentError: If the field is not real or has too few values along an axis, a value has the wrong shape,
            is complex or not finite, or a Robin condition cannot be solved.
        IncompatibleCornersError: If Dirichlet sides disagree where they meet.
    """
    shape = tuple(u.shape[2:])
    if len(shape) != len(axes):
        raise InvalidArgumentError(
            f"The field has {len(shape)} axes but conditions are given for {len(axes)}; give one pair or None per axis."
        )
    check_real(u)
    check_nodes(axes, shape, order, domain.cells)
    at_call, found = _values_at_call(values, axes), sides_of(axes)
    closed = () if domain.cells else periodic_axes(axes)
    boundary = Boundary(functionals=(), data=(), periodic=closed, grid=shape, cells=domain.cells)
    given = [(axis, last, side, at_call.get((axis, last)), domain, u, order) for axis, last, side in found]
    if any(side.varies for _, _, side in found):
        pairs = [_varying_side(*each) for each in given]
        varying, data = assign_corners(
            [side for side, _ in pairs], [data for _, data in pairs], closed, tolerance_of(u.dtype)
        )
        return replace(boundary, varying=varying, data=data)
    pairs = [_whole_side(*each) for each in given]
    functionals, data = tuple(side for side, _ in pairs), tuple(values for _, values in pairs)
    return harmonise(replace(boundary, functionals=functionals, data=data), tolerance_of(u.dtype))


def _whole_side(
    axis: int, last: bool, side: Side, given: Any, domain: Domain, u: Tensor, order: int
) -> tuple[Functional, Tensor]:
    """A side with one condition and constant coefficients, and its data."""
    (part,), name = side.parts, _name(axis, last)
    value = _one_value(part.value, given, name)
    coordinates = _coordinates(axis, domain, u) if callable(value) else ()
    spacing = domain.spacing(axis, u.shape[2 + axis])
    return functional(part, axis, last, spacing, order, domain.cells), _on_side(value, coordinates, axis, u, name)


def _varying_side(
    axis: int, last: bool, side: Side, given: Any, domain: Domain, u: Tensor, order: int
) -> tuple[Varying, Tensor]:
    """A side with its data, each part on its own nodes."""
    name, spacing = _name(axis, last), domain.spacing(axis, u.shape[2 + axis])
    of_value, difference = STENCILS[order, last, domain.cells]
    gradient = tuple(weight / spacing for weight in difference)
    coordinates = _coordinates(axis, domain, u)
    face = tuple(count for other, count in enumerate(u.shape[2:]) if other != axis)
    values = _values_of_parts(given, side, name)
    free = torch.ones(face, dtype=torch.bool, device=u.device)
    a = b = data = torch.zeros((1, 1, *face), dtype=torch.float64, device=u.device)
    valued = torch.zeros_like(free)
    for part, value in zip(side.parts, values, strict=True):
        here = free & (nodes_of(part, coordinates, name) if coordinates else True)
        free, own = free & ~here, _inside(coordinates, here)
        own_a, own_b = coefficients(part, own, here, (of_value[0], gradient[0]), u, name)
        value = _one_value(part.value, value, name)
        a, b = torch.where(here, own_a, a), torch.where(here, own_b, b)
        data = torch.where(here, _on_side(value, own, axis, u, name, here), data)
        valued = valued | here if part.is_value else valued
    weights = {"stencil": of_value, "gradient": gradient, "cells": domain.cells}
    side_here = Varying(axis=axis, last=last, a=a, b=b, holds=~free, given=valued, **weights)
    return side_here, data.expand(*u.shape[:2], *face)


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
    if not boundary.sides:
        raise MissingBoundaryError("boundary_channels needs a side with data; free and periodic axes have none.")
    channels = []
    for side, data in zip(boundary.sides, boundary.data, strict=True):
        dim = 2 + side.axis
        channels.append(data.to(dtype).unsqueeze(dim).expand(*data.shape[:2], *shape))
    return torch.cat(channels, dim=1)


def _name(axis: int, last: bool) -> str:
    return f"The {name_of(axis, last)}"


def _values_of_parts(given: Any, side: Side, name: str) -> Sequence[Any]:
    """The value at the call of every part: one entry for each, or the value itself where there is only one."""
    count = len(side.parts)
    if given is None:
        return [None] * count
    if not side.split or (count == 1 and not isinstance(given, list | tuple)):
        return [given]
    if not isinstance(given, list | tuple) or len(given) != count:
        raise InvalidArgumentError(
            f"{name} has {count} parts and takes a list with a value or None for each at the call, got {given!r}."
        )
    return given


def _values_at_call(values: SideValues | None, axes: Sequence[AxisSides]) -> dict[tuple[int, bool], Value]:
    if values is None:
        return {}
    if not isinstance(values, Sequence) or len(values) != len(axes):
        got = f"a {type(values).__name__} {tuple(values.shape)}" if isinstance(values, Tensor) else repr(values)
        raise InvalidArgumentError(
            f"boundary needs one (first, last) pair or None for each of {len(axes)} axes, got {got}."
        )
    result: dict[tuple[int, bool], Value] = {}
    for axis, pair in enumerate(values):
        if pair is None:
            continue
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise InvalidArgumentError(f"boundary of axis {axis} must be a (first, last) pair or None, got {pair!r}.")
        for last, (value, side) in enumerate(zip(pair, axes[axis].ends, strict=True)):
            if value is not None and not side.parts:
                raise InvalidArgumentError(
                    f"{_name(axis, bool(last))} is free or periodic and takes no boundary value."
                )
            result[axis, bool(last)] = value
    return result


def _one_value(built: Any, given: Value, name: str) -> Any:
    if (built is None) == (given is None):
        problem = "has no value" if built is None else "has a value in its condition and another at the call"
        raise MissingBoundaryError(
            f"{name} {problem}; give it once, as Dirichlet(value) or in boundary=[(first, last), …] at the call."
        )
    return given if built is None else built


def _coordinates(axis: int, domain: Domain, u: Tensor) -> Sequence[Tensor]:
    """Coordinates of the nodes of a side ``(*face)``, one tensor per other axis, float64."""
    counts = enumerate(u.shape[2:])
    along = [domain.coordinates(other, count, u.device) for other, count in counts if other != axis]
    return torch.meshgrid(*along, indexing="ij") if along else ()


def _inside(coordinates: Sequence[Tensor], here: Tensor) -> Sequence[Tensor]:
    """The coordinates of some nodes, those of one of them elsewhere: functions need not be defined there."""
    first = here.flatten().to(torch.uint8).argmax()
    return [torch.where(here, x, x.flatten()[first]) for x in coordinates]


def _is_batch(count: int, batch: int) -> bool:
    """Whether a number of entries is that of the batch; for sizes that a graph leaves open, whether it always is."""
    if torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
        return False  # sizes are tensors
    if not torch.compiler.is_compiling():
        return count == batch > 1
    from torch.fx.experimental.symbolic_shapes import statically_known_true  # imported with torch.compile already

    return statically_known_true(count == batch) and not statically_known_true(batch == 1)


def _on_side(
    value: Any, coordinates: Sequence[Tensor], axis: int, u: Tensor, name: str, here: Tensor | None = None
) -> Tensor:
    """The value as ``(batch, channels, *face)`` in float64, rounded to the dtype of u; 0 outside of ``here``."""
    shape = tuple(u.shape[:2]) + tuple(count for other, count in enumerate(u.shape[2:]) if other != axis)
    tensor = real_tensor(value(*coordinates) if callable(value) else value, u.dtype, u.device, name).to(torch.float64)
    axes_are_clear = callable(value) or tensor.ndim in (0, len(shape))
    if not axes_are_clear and _is_batch(tensor.shape[0], shape[0]):
        raise InvalidArgumentError(
            f"{name}: a value of shape {tuple(tensor.shape)} may start with the batch of "
            f"{shape[0]}, or with another axis. Give it one axis for the batch, one for the channels and those of the "
            f"side, each of the size in {shape} or 1: {(shape[0], *(1,) * (len(shape) - 1))} holds one number for each "
            "sample."
        )
    try:
        tensor = tensor.broadcast_to(shape)
    except RuntimeError as error:
        raise InvalidArgumentError(
            f"{name} needs a value that broadcasts to (batch, out_channels, *face) = {shape}, "
            f"got shape {tuple(tensor.shape)}."
        ) from error
    if here is not None:
        tensor = torch.where(here, tensor, 0.0)
    if are_readable(tensor) and not bool(torch.isfinite(tensor).all()):
        raise InvalidArgumentError(f"{name} has values that are NaN or infinite; repair the boundary data.")
    return tensor
