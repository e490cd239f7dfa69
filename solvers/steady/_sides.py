"""Sides of a steady problem: the flux through each as a linear function of the edge cell's value."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from solvers.conditions import (
    AxisConditions,
    BoundaryValue,
    Condition,
    Dirichlet,
    Neumann,
    Outflow,
    Periodic,
    Robin,
    value_at,
)
from solvers.errors import InvalidArgumentError
from solvers.grids import CellGrid

Coefficient = float | np.ndarray | Tensor | Callable[[Tensor], Tensor | float]


@dataclass(frozen=True, kw_only=True)
class SideFlux:
    """Flux density F = offset + slope · u_edge through a side, positive along +axis.

    Args:
        axis: Axis of the side.
        end: First or last side.
        offset: ``(*batch, *space)`` with one entry along ``axis``.
        slope: Same form; ≤ 0 on a first and ≥ 0 on a last side.
        half: k/(h/2) of the half cell between edge cell and side, signed so that F = half · (u_edge − u_side).
    """

    axis: int
    end: Literal["first", "last"]
    offset: Tensor
    slope: Tensor
    half: Tensor

    def flux(self, edge: Tensor) -> Tensor:
        """Flux density for values of the edge cells, ``(*batch, *space)`` with one entry along the axis."""
        return self.offset + self.slope * edge

    def value(self, edge: Tensor) -> Tensor:
        """Value on the side, from the flux through the half cell."""
        return edge - self.flux(edge) / self.half


def evaluate_coefficient(coefficient: Coefficient, points: Tensor, grid: CellGrid, name: str) -> Tensor:
    """A coefficient at points, float64.

    Args:
        coefficient: Number, array that broadcasts to ``(*batch, *space)``, or function of the points.
        points: ``(n,)`` with one axis, ``(*space, d)`` with more.
        grid: The cells.
        name: Name of the coefficient in error messages.

    Returns:
        Values ``(*batch, *space)``.

    Raises:
        InvalidArgumentError: If values are not finite, require a gradient, or do not have the shape of the points.
    """
    space = tuple(points.shape[: grid.dimension])
    given = coefficient(points) if callable(coefficient) else coefficient
    values = _as_values(given, name)
    if values.ndim == 0:
        return values.expand(space)
    trailing = tuple(values.shape[-grid.dimension :])
    if values.ndim < grid.dimension or any(a not in (1, b) for a, b in zip(trailing, space, strict=True)):
        raise InvalidArgumentError(
            f"{name} has shape {tuple(values.shape)}, which does not end in the cells {space}; give a number, an array "
            f"(*batch, *cells), or a function of x with such values (per sample: (*batch{', 1' * grid.dimension}))."
        )
    return values.expand((*values.shape[: -grid.dimension], *space))


def side_fluxes(
    conductivity: Coefficient, cells: Tensor, source: Tensor, grid: CellGrid, conditions: tuple[AxisConditions, ...]
) -> list[SideFlux]:
    """The flux through every side that is not periodic.

    A function is evaluated on the side too, and the half cell has the harmonic mean of side and edge cell; given cell
    values hold up to the side.

    Args:
        conductivity: k as the caller gave it.
        cells: k at the cells ``(*batch, *cells)``.
        source: s at the cells ``(*batch, *cells)``.
        grid: The cells.
        conditions: Conditions of every axis.

    Returns:
        Sides in the order first, last of each axis.

    Raises:
        InvalidArgumentError: If a condition does not suit a steady problem.
    """
    sides = []
    leading = [tuple(values.shape[: values.ndim - grid.dimension]) for values in (cells, source)]
    batch = _stated_batch(leading, grid, conditions)
    for axis, pair in enumerate(conditions):
        for end, condition in zip(("first", "last"), pair, strict=True):
            if isinstance(condition, Periodic):
                continue
            edge = cells.narrow(axis - grid.dimension, 0 if end == "first" else grid.count[axis] - 1, 1)
            name = f"boundary of axis {axis}, {end} side"
            at_side = edge
            if callable(conductivity):
                at_side = evaluate_coefficient(
                    conductivity, _side_points(grid, axis, end), grid, f"conductivity ({name})"
                )
                check_positive(at_side, f"conductivity ({name})")
            half = 2 * at_side * edge / (at_side + edge) * (2 / grid.spacing[axis]) * (-1 if end == "first" else 1)
            offset, slope = _flux(condition, at_side, half, axis, name, grid, batch)
            sides.append(SideFlux(axis=axis, end=end, offset=offset, slope=slope, half=half))
    return sides


def check_positive(conductivity: Tensor, name: str) -> None:
    """Raises an error unless the conductivity is positive."""
    if not bool((conductivity > 0).all()):
        raise InvalidArgumentError(
            f"{name} must be positive everywhere, got a smallest value of {float(conductivity.min()):g}; "
            "an impermeable part needs a small positive conductivity."
        )


def _flux(
    condition: Condition,
    at_side: Tensor,
    half: Tensor,
    axis: int,
    name: str,
    grid: CellGrid,
    batch: tuple[int, ...],
) -> tuple[Tensor, Tensor]:
    """Offset and slope of F = −k ∂u/∂x = half (u_edge − u_side) under a condition.

    From a u_s + b ∂u/∂x = g with −k_s ∂u/∂x = half (u_e − u_s): F = half (a u_e − g)/(a + b half/k_s).
    """
    if isinstance(condition, Outflow):
        raise InvalidArgumentError(f"{name}: Outflow is for convective laws; use Neumann(flux=0.0) or Dirichlet.")
    assert not isinstance(condition, Periodic)
    value = side_value(_stated_value(condition), axis, name, grid)
    if isinstance(condition, Neumann):
        return (-at_side * value if condition.flux is None else value + 0 * half), torch.zeros_like(half)
    if isinstance(condition, Dirichlet):
        return -half * value, half
    a, b = (_robin_coefficient(each, axis, name, grid, batch) for each in (condition.a, condition.b))
    if bool((a * b * torch.sign(half) < 0).any()):
        sign = "≤" if "first" in name else "≥"
        raise InvalidArgumentError(
            f"{name}: Robin needs a/b {sign} 0 there (∂u/∂x is along the axis, not outward), got "
            f"a={condition.a}, b={condition.b}; with the other sign the problem may have no solution."
        )
    pull = half / (a + b * half / at_side)
    return -pull * value, pull * a


def common_batch(leading: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape that batch axes of conductivity, source and boundary values broadcast to."""
    try:
        return tuple(torch.broadcast_shapes(*leading))
    except RuntimeError:
        raise InvalidArgumentError(
            f"The batch axes of conductivity, source and boundary values do not broadcast: {list(leading)}."
        ) from None


def _stated_batch(
    leading: list[tuple[int, ...]], grid: CellGrid, conditions: tuple[AxisConditions, ...]
) -> tuple[int, ...]:
    """Batch axes that conductivity, source and the values of the sides have, without those of Robin coefficients."""
    for axis, pair in enumerate(conditions):
        for end, condition in zip(("first", "last"), pair, strict=True):
            if isinstance(condition, Periodic | Outflow):
                continue
            values = side_value(_stated_value(condition), axis, f"boundary of axis {axis}, {end} side", grid)
            leading = [*leading, tuple(values.shape[: values.ndim - grid.dimension])]
    return common_batch(leading)


def _stated_value(condition: Dirichlet | Neumann | Robin) -> BoundaryValue:
    if isinstance(condition, Neumann):
        return condition.gradient if condition.flux is None else condition.flux
    return condition.value


def _robin_coefficient(
    coefficient: BoundaryValue, axis: int, name: str, grid: CellGrid, batch: tuple[int, ...]
) -> Tensor:
    """a or b as ``(*batch, *space)`` with one entry along the axis.

    Args:
        coefficient: Number or array ``(*batch,)``; also ``(*batch, *face)`` if other data have the batch axes.
        axis: Axis of the side.
        name: Name of the side in error messages.
        grid: The cells.
        batch: Batch axes of the other data.

    Raises:
        InvalidArgumentError: If an array might be meant for the batch or for the faces.
    """
    values = value_at(coefficient, 0.0, f"{name}, Robin coefficient")
    shape, face = tuple(values.shape), tuple(n for other, n in enumerate(grid.count) if other != axis)
    per_entry = values.reshape(*shape, *(1,) * grid.dimension)
    if _expands(shape, batch) or not face:
        return per_entry
    fits = all(a in (1, b) for a, b in zip(reversed(shape), reversed(face), strict=False))
    if fits and batch and len(shape) == len(batch) + len(face):
        return side_value(values, axis, f"{name}, Robin coefficient", grid)
    if fits and values.numel() > 1:
        raise InvalidArgumentError(
            f"{name}: a and b of Robin are one number per batch entry, but shape {shape} might be meant for the {face} "
            f"faces of the side. If it is a batch, say so by a source of shape {(*shape, *grid.shape)}; if it varies "
            f"along the side, give (*batch, *face) and a source with the batch axes, such as {(1, *grid.shape)}."
        )
    return per_entry


def _expands(shape: tuple[int, ...], batch: tuple[int, ...]) -> bool:
    """Whether an array expands to the batch as it is."""
    last = batch[max(0, len(batch) - len(shape)) :]
    return len(shape) <= len(batch) and all(a in (1, b) for a, b in zip(shape, last, strict=True))


def side_value(value: BoundaryValue, axis: int, name: str, grid: CellGrid, extra: int = 0) -> Tensor:
    """A value of a condition ``(*batch, *face)`` as ``(*batch, *space)`` with one entry along the axis.

    Args:
        value: Number or array.
        axis: Axis of the side.
        name: Name in error messages.
        grid: The cells.
        extra: 1 for values at the nodes of the side, 0 for values at its faces.

    Raises:
        InvalidArgumentError: If the value is missing, a function of time, not finite, or has the wrong shape.
    """
    if callable(value):
        raise InvalidArgumentError(f"{name}: a steady problem has no time; give a number or an array, not a function.")
    if isinstance(value, Tensor):
        _as_values(value, name)
    values = value_at(value, 0.0, name)
    face = [n + extra for other, n in enumerate(grid.count) if other != axis]
    values = values.reshape((1,) * max(0, len(face) - values.ndim) + tuple(values.shape))
    if any(a not in (1, b) for a, b in zip(values.shape[values.ndim - len(face) :], face, strict=True)):
        raise InvalidArgumentError(
            f"{name}: a value of shape {tuple(values.shape)} does not broadcast to (*batch, *face) with face "
            f"{tuple(face)}; give one value per batch entry, with one axis of size 1 per face axis."
        )
    return values.unsqueeze(values.ndim - len(face) + axis)


def _as_values(given: object, name: str) -> Tensor:
    try:
        values = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError):
        raise InvalidArgumentError(f"{name} must be a number, an array or a function of x, got {given!r}.") from None
    if values.requires_grad:
        raise InvalidArgumentError(f"{name} requires a gradient, which the solver does not give; pass {name}.detach().")
    if values.is_complex() or not bool(torch.isfinite(values).all()):
        raise InvalidArgumentError(f"{name} must be real and finite.")
    return values.to(torch.float64)


def _side_points(grid: CellGrid, axis: int, end: str) -> Tensor:
    """Centres of the faces of a side, ``(1,)`` with one axis, ``(*space, d)`` with one entry along the axis else."""
    at = grid.low[axis] if end == "first" else grid.high[axis]
    axes = [torch.tensor([at], dtype=torch.float64) if i == axis else points for i, points in enumerate(grid.axes)]
    return axes[0] if grid.dimension == 1 else torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
