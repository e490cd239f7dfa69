"""Sides of a steady problem: the flux through each as a linear function of the edge cell's value."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from solvers._arguments import checked_values
from solvers.conditions import (
    AxisConditions,
    BoundaryValue,
    Dirichlet,
    Outflow,
    Periodic,
    Robin,
    side_name,
    stated_value,
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
        last: 0 for its first and 1 for its last side.
        offset: ``(*batch, *space)`` with one entry along ``axis``.
        slope: Same form; ≤ 0 on a first and ≥ 0 on a last side.
        half: k/(h/2) of the half cell between edge cell and side, signed so that F = half · (u_edge − u_side).
    """

    axis: int
    last: int
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
    """A coefficient at points, float64 ``(*batch, *space)``.

    It is a number, an array that broadcasts so, or a function of the points, ``(n,)`` with one axis and ``(*space, d)``
    with more.
    """
    space = tuple(points.shape[: grid.dimension])
    values = checked_values(coefficient(points) if callable(coefficient) else coefficient, name)
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
    """The flux through every side that is not periodic, in the order first, last of each axis.

    A function is evaluated on the side too, and the half cell has the harmonic mean of side and edge cell; given cell
    values hold up to the side. ``conductivity`` is k as the caller gave it, ``cells`` and ``source`` are k and s at the
    cells ``(*batch, *cells)``.
    """
    stated, d = [], grid.dimension
    for axis, pair in enumerate(conditions):
        for last, condition in enumerate(pair):
            name = side_name(axis, last)
            if isinstance(condition, Outflow):
                raise InvalidArgumentError(
                    f"{name}: Outflow is for convective laws; use Neumann(flux=0.0) or Dirichlet."
                )
            if not isinstance(condition, Periodic):
                stated.append((condition, axis, last, name, side_value(stated_value(condition), axis, name, grid)))
    batch = common_batch(
        [tuple(each.shape[: each.ndim - d]) for each in (cells, source, *(side[-1] for side in stated))]
    )
    sides = []
    for condition, axis, last, name, value in stated:
        at_side = edge = cells.narrow(axis - d, last * (grid.count[axis] - 1), 1)
        if callable(conductivity):
            name_there, points = f"conductivity ({name})", grid.face_points(axis)
            at_side = evaluate_coefficient(
                conductivity, points.narrow(axis, last * grid.count[axis], 1), grid, name_there
            )
            check_positive(at_side, name_there)
        half = 2 * at_side * edge / (at_side + edge) * (2 / grid.spacing[axis]) * (2 * last - 1)
        if isinstance(condition, Robin):
            a, b = (_robin_coefficient(each, axis, name, grid, batch) for each in (condition.a, condition.b))
            _check_sign(condition, a * b * (2 * last - 1), name)
            # From a u_s + b ∂u/∂x = g with −k_s ∂u/∂x = half (u_e − u_s): F = half (a u_e − g)/(a + b half/k_s).
            pull = half / (a + b * half / at_side)
            offset, slope = -pull * value, pull * a
        elif isinstance(condition, Dirichlet):
            offset, slope = -half * value, half
        else:
            offset, slope = -at_side * value if condition.flux is None else value + 0 * half, torch.zeros_like(half)
        sides.append(SideFlux(axis=axis, last=last, offset=offset, slope=slope, half=half))
    return sides


def check_positive(conductivity: Tensor, name: str) -> None:
    """Raises an error unless the conductivity is positive."""
    if not bool((conductivity > 0).all()):
        raise InvalidArgumentError(
            f"{name} must be positive everywhere, got a smallest value of {float(conductivity.min()):g}; "
            "an impermeable part needs a small positive conductivity."
        )


def _check_sign(condition: Robin, outward: Tensor, name: str) -> None:
    """Raises an error where a b is negative along the outward normal."""
    if bool((outward < 0).any()):
        raise InvalidArgumentError(
            f"{name}: Robin needs a/b {'≤' if 'first' in name else '≥'} 0 there (∂u/∂x is along the axis, not "
            f"outward), got a={condition.a}, b={condition.b}; with the other sign the problem may have no solution."
        )


def common_batch(leading: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape that batch axes of conductivity, source and boundary values broadcast to."""
    try:
        return tuple(torch.broadcast_shapes(*leading))
    except RuntimeError:
        raise InvalidArgumentError(
            f"The batch axes of conductivity, source and boundary values do not broadcast: {list(leading)}."
        ) from None


def _robin_coefficient(
    coefficient: BoundaryValue, axis: int, name: str, grid: CellGrid, batch: tuple[int, ...]
) -> Tensor:
    """a or b as ``(*batch, *space)`` with one entry along the axis.

    An array is ``(*batch,)``, or ``(*batch, *face)`` if other data have the axes ``batch``; one that might be either is
    an error.
    """
    values = value_at(coefficient, 0.0, f"{name}, Robin coefficient")
    shape, face = tuple(values.shape), tuple(n for other, n in enumerate(grid.count) if other != axis)
    per_entry = values.reshape(*shape, *(1,) * grid.dimension)
    same = len(shape) <= len(batch) and all(a in (1, b) for a, b in zip(reversed(shape), reversed(batch), strict=False))
    if same or not face:
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


def side_value(value: BoundaryValue, axis: int, name: str, grid: CellGrid, extra: int = 0) -> Tensor:
    """A value of a condition ``(*batch, *face)`` as ``(*batch, *space)`` with one entry along the axis.

    For values at the nodes of the side, one more along every other axis than there are faces, ``extra`` is 1.
    """
    if callable(value):
        raise InvalidArgumentError(f"{name}: a steady problem has no time; give a number or an array, not a function.")
    values = value_at(value, 0.0, name)
    face = [n + extra for other, n in enumerate(grid.count) if other != axis]
    values = values.reshape((1,) * max(0, len(face) - values.ndim) + tuple(values.shape))
    if any(a not in (1, b) for a, b in zip(values.shape[values.ndim - len(face) :], face, strict=True)):
        raise InvalidArgumentError(
            f"{name}: a value of shape {tuple(values.shape)} does not broadcast to (*batch, *face) with face "
            f"{tuple(face)}; give one value per batch entry, with one axis of size 1 per face axis."
        )
    return values.unsqueeze(values.ndim - len(face) + axis)
