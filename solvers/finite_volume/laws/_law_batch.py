"""The batch shape that the parameters of a law give."""

from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.errors import InvalidArgumentError
from solvers.finite_volume.laws._rows import name_of, not_of_shape
from solvers.finite_volume.laws.coefficients import Values
from solvers.finite_volume.laws.laws import DiffusiveLaw, Law, Transport
from solvers.finite_volume.laws.scalar import AtPoints
from solvers.grids import CellGrid

MOST_AXES = 5


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
