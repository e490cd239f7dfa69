"""A law on some rows of a flattened batch, what compiled kernels need of it, and the batch that its parameters give."""

from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property, partialmethod
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.errors import InvalidArgumentError
from solvers.finite_volume.laws._rows import BatchRows, is_divisible, name_of, not_of_shape, require_batch_axes
from solvers.finite_volume.laws.coefficients import Values
from solvers.finite_volume.laws.laws import (
    Advection,
    Burgers,
    Diffusion,
    DiffusiveLaw,
    Law,
    PorousMedium,
    Stefan,
    Transport,
)
from solvers.finite_volume.laws.scalar import AtPoints
from solvers.grids import CellGrid

SHIPPED_LAWS = (Diffusion, PorousMedium, Stefan, Advection, Burgers, Transport)
MOST_AXES = 5


@dataclass(frozen=True)
class LawRows:
    """A law on some rows of a flattened batch; states are ``(rows, *space)``, or on faces ``(rows, *faces)``.

    A law that varies in space or time has its formulas after ``at`` only.

    Attributes:
        law: The law of the whole batch.
        grid: The cells.
        periodic: Whether the sides of each axis are periodic.
        selection: The rows.
        divisible: Whether the law is cut into rows, or evaluated on the whole batch.
    """

    law: Law
    grid: CellGrid
    periodic: tuple[bool, ...]
    selection: BatchRows
    divisible: bool

    @classmethod
    def build(
        cls,
        law: Law,
        batch: tuple[int, ...],
        grid: CellGrid,
        periodic: tuple[bool, ...] | None = None,
        start: float = 0.0,
    ) -> "LawRows":
        """The law on all rows, cut into them if it can be at the time ``start``; no axis is periodic by default."""
        require_batch_axes(law, batch)
        selection = BatchRows.whole(batch, grid.dimension)
        whole = cls(law, grid, periodic or (False,) * grid.dimension, selection, divisible=True)
        return (
            whole
            if type(law) in SHIPPED_LAWS or isinstance(law, AtPoints)
            else replace(whole, divisible=_is_divisible(whole.at(start)))
        )

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.selection.size

    @cached_property
    def varies_in_space(self) -> bool:
        """Whether the law differs from cell to cell or along the axes."""
        return self.law.varies_in_space

    @cached_property
    def varies_in_time(self) -> bool:
        """Whether the law depends on time."""
        return self.law.varies_in_time

    def take(self, index: np.ndarray) -> "LawRows":
        """Some of these rows."""
        return replace(self, selection=self.selection.take(index))

    def repeated(self, count: int) -> "LawRows":
        """The law on these rows so many times, as ``BatchRows.repeated``."""
        return replace(self, law=self.selection.broadcast(self.law), selection=self.selection.repeated(count))

    def at(self, time: np.ndarray | float, axis: int | None = None) -> "LawRows":
        """The law on the cells, or on the faces of an axis, at times ``(rows,)``."""
        if not self.varies_in_space:
            return self
        last = self._placed.get(axis)
        if last is None or (self.varies_in_time and not np.array_equal(last[0], time)):
            periodic = axis is not None and self.periodic[axis]
            law = self.law.at(self.grid, self.selection.times(time), axis, periodic)
            last = self._placed[axis] = np.array(time), replace(self, law=law)
        return last[1]

    def stationary_points(self) -> tuple[float, ...] | None:
        """States where f′ changes sign."""
        return self.law.stationary_points()  # type: ignore[union-attr]

    def inflection_points(self) -> tuple[float, ...] | None:
        """States where f″ changes sign."""
        return self.law.inflection_points()  # type: ignore[union-attr]

    @cached_property
    def _placed(self) -> dict[int | None, tuple[np.ndarray, "LawRows"]]:
        """The last time and the law then, by axis."""
        return {}

    @cached_property
    def parameters(self) -> Any:
        """The law with the parameters of these rows."""
        return self.selection.select(self.law)

    def _values(self, name: str, *states: Tensor) -> Tensor:
        """A method of the law at states of these rows."""
        if self.divisible:
            return getattr(self.parameters, name)(*states)
        return self.selection.gather(getattr(self.law, name)(*(self.selection.scatter(u) for u in states)))

    potential = partialmethod(_values, "potential")
    potential_difference = partialmethod(_values, "potential_difference")
    conductivity = partialmethod(_values, "conductivity")
    convective_flux = partialmethod(_values, "convective_flux")
    characteristic_speed = partialmethod(_values, "characteristic_speed")


def _is_divisible(rows: LawRows) -> bool:
    diffusive = isinstance(rows.law, DiffusiveLaw)
    names = ("potential", "conductivity") if diffusive else ("convective_flux", "characteristic_speed")
    states = torch.linspace(0.0, 1.0, rows.rows * prod(rows.grid.shape), dtype=torch.float64)
    states = states.reshape(rows.rows, *rows.grid.shape)
    return is_divisible(rows.law, rows.selection, states, lambda law, u: [getattr(law, name)(u) for name in names])


def columns_of(part: Any, rows: int) -> np.ndarray:
    """Arguments ``(rows or 1, k, 1 or points)`` of scalar functions, whose ``part`` is on the rows, after ``at``."""
    columns = []
    for name, value in zip(part.arguments.names, part.arguments.values, strict=True):
        if name == "t":
            columns.append(np.zeros((1, 1)))
        elif isinstance(value, Values):
            columns.append(value.values.numpy().reshape(1, -1))
        else:
            columns.append(on_rows(value, rows)[:, None])
    if not columns:
        return np.zeros((1, 0, 1))
    return np.stack(np.broadcast_arrays(*columns), axis=1)


def on_rows(value: Any, rows: int) -> np.ndarray:
    """A parameter as ``(rows,)``, or ``(rows, cells)`` if it varies in space."""
    if isinstance(value, Values):
        return value.values.flatten(1).expand(rows, -1).numpy().copy()
    return np.array(np.broadcast_to(np.asarray(value, dtype=float), (rows,)))


def batch_of_law(law: Law, batch: tuple[int, ...], grid: CellGrid, start: float = 0.0) -> tuple[int, ...]:
    """The batch shape of initial and boundary values with the parameters of a law.

    It has the fewest axes with which the law does not broadcast over space. An error if the parameters do not fit the
    batch, or might be meant as values on cells or axes.
    """
    if isinstance(law, AtPoints):
        return batch_of_arguments(law, batch, grid)
    axis = [None] if not isinstance(law, Transport) else range(grid.dimension)
    for placed in (law.at(grid, start, each) for each in axis):
        one_cell, given = _one_cell(placed, batch, grid.dimension)
        batch = broadcast_batch(given, _evaluated_batch(one_cell, given, grid.dimension), type(law).__name__)
        refuse_space(law, given, batch, grid)
    return batch


def batch_of_arguments(part: AtPoints, batch: tuple[int, ...], grid: CellGrid) -> tuple[int, ...]:
    """The batch shape with the parameters of scalar functions."""
    given = batch
    for value in part.arguments.values:
        batch = broadcast_batch(batch, tuple(value.shape), name_of(part))
    refuse_space(part, given, batch, grid)
    return batch


def _one_cell(law: Law, batch: tuple[int, ...], d: int) -> tuple[Law, tuple[int, ...]]:
    """The law with its values at the first point only, and the batch with the batch axes of these values."""
    if not is_dataclass(law):
        return law, batch
    parts = {field.name: getattr(law, field.name) for field in fields(law)}
    parts = {name: value.values for name, value in parts.items() if isinstance(value, Values)}
    for value in parts.values():
        batch = broadcast_batch(batch, tuple(value.shape[: value.ndim - d]), type(law).__name__)
    first = {name: Values(value[(..., *[slice(1)] * d)]) for name, value in parts.items()}
    return (replace(law, **first) if first else law), batch


def _evaluated_batch(law: Law, batch: tuple[int, ...], d: int) -> tuple[int, ...]:
    method = "conductivity" if isinstance(law, DiffusiveLaw) else "characteristic_speed"
    for axes in range(len(batch), len(batch) + MOST_AXES):
        values = getattr(law, method)(torch.zeros((1,) * (axes + d), dtype=torch.float64))
        if not isinstance(values, Tensor) or not values.ndim:
            got = "a tensor without axes" if isinstance(values, Tensor) else type(values).__name__
            raise not_of_shape(f"{type(law).__name__}.{method}(u)", got)
        shape = tuple(values.shape)
        if len(shape) == axes + d and all(size == 1 for size in shape[axes:]):
            return shape[:axes]
    raise _no_batch(type(law).__name__, batch)


def broadcast_batch(batch: tuple[int, ...], other: tuple[int, ...], name: str) -> tuple[int, ...]:
    """The common batch shape; ``name`` is that of the law or source in the error."""
    try:
        return tuple(np.broadcast_shapes(batch, other))
    except ValueError:
        raise _no_batch(name, batch) from None


def _no_batch(name: str, batch: tuple[int, ...]) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"The parameters of {name} do not broadcast with the batch shape {batch} of initial and boundary values; give "
        "parameters of shape (*batch,), which the methods of a law of your own shape by solvers.align(parameter, u), "
        "or a Field (*batch, *space) or a function of x for values that vary in space."
    )


def refuse_space(law: Any, before: tuple[int, ...], after: tuple[int, ...], grid: CellGrid) -> None:
    """Raises an error if batch axes that come from arrays alone might be meant as cells or axes of the grid."""
    if not after or after[-1] == 1 or before[-1:] == after[-1:]:
        return
    per_axis = grid.dimension > 1 and after == (grid.dimension,)
    if not per_axis and after[-1] not in grid.shape:
        return
    name = name_of(law)
    meaning = (
        "has one entry per axis of the grid; a velocity is Transport((…,)), other coefficients are the same along all "
        "axes"
        if per_axis
        else "has as many entries as an axis has cells; for values on cells "
        + ("take x in the functions" if isinstance(law, AtPoints) else f"use {name}(Field(values)) or a function")
    )
    raise InvalidArgumentError(
        f"{name}: an array parameter means one value per batch entry, and the batch {after} {meaning}. If it is a "
        f"batch, say so by initial of shape {(*after, *grid.shape)}."
    )
