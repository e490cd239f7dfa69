"""Sources on rows."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.errors import InvalidArgumentError
from solvers.finite_volume.laws._law_rows import (
    MOST_AXES,
    batch_of_arguments,
    broadcast_batch,
    columns_of,
    refuse_space,
)
from solvers.finite_volume.laws._rows import (
    BatchRows,
    is_divisible,
    name_of,
    not_of_shape,
    require_batch_axes,
    result_of,
)
from solvers.finite_volume.laws._scalar_kernels import source_kernel
from solvers.finite_volume.laws.laws import Source, SourceFunction
from solvers.finite_volume.laws.scalar import AtPoints, ScalarSource
from solvers.finite_volume.march.tiles import CompiledLaw
from solvers.grids import CellGrid


class _NoTime:
    """A time that nothing can be done with."""


_STIFF = 50.0
_DIFFERENCE = 6e-6


@dataclass(frozen=True)
class SourceTerm:
    """A source s(u, x, t) on some rows of a flattened batch.

    Attributes:
        source: The source of the whole batch.
        grid: The cells.
        selection: The rows.
        divisible: Whether the source is cut into rows, or evaluated on the whole batch.
    """

    source: Source | SourceFunction
    grid: CellGrid
    selection: BatchRows
    divisible: bool

    @classmethod
    def build(
        cls, source: Source | SourceFunction, batch: tuple[int, ...], grid: CellGrid, start: float = 0.0
    ) -> "SourceTerm":
        """The source on all rows; an error if at the time ``start`` it fails or its values have not the shape of u."""
        term = cls(source, grid, BatchRows.whole(batch, grid.dimension), divisible=False)
        states = torch.linspace(0.0, 1.0, term.selection.size * prod(grid.shape), dtype=torch.float64)
        states = states.reshape(-1, *grid.shape)
        time = term.selection.times(start)
        u = term.selection.scatter(states)
        _values(source, grid, term._points, u, time)
        if not isinstance(source, Source):
            return term
        require_batch_axes(source, batch)
        placed = source.at(grid, time)
        row_times = time.reshape(-1, *[1] * grid.dimension)

        def evaluate(part: Any, u: Tensor) -> list[Tensor]:
            return [part(u, grid.points, time if part is placed else row_times[: len(u)])]

        divisible = is_divisible(placed, term.selection, states, evaluate)
        if not divisible and _arrays(source):
            _refuse_shared_parameters(source, term.selection, evaluate, placed, states)
        return replace(term, divisible=divisible)

    def take(self, index: np.ndarray) -> "SourceTerm":
        """The source of some of the rows."""
        return replace(self, selection=self.selection.take(index))

    def repeated(self, count: int) -> "SourceTerm":
        """The source of these rows so many times, as ``BatchRows.repeated``; a function sees one more axis."""
        source = self.selection.broadcast(self.source) if isinstance(self.source, Source) else self.source
        return replace(self, source=source, selection=self.selection.repeated(count))

    @cached_property
    def _points(self) -> Tensor:
        return self.grid.points

    def rate(self, u: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """s ``(rows, cells)`` and ∫ s dx ``(rows,)`` for cell averages ``(rows, cells)`` at times ``(rows,)``."""
        states = torch.from_numpy(u).reshape(-1, *self.grid.shape)
        with torch.no_grad():
            if self.divisible:
                times = torch.from_numpy(np.asarray(t, dtype=float)).reshape(-1, *[1] * self.grid.dimension)
                values = self._parameters(t)(states, self._points, times)
            else:
                given = self.selection.scatter(states), self.selection.times(t)
                values = self.selection.gather(_values(self.source, self.grid, self._points, *given))
        values = np.ascontiguousarray(values.reshape(u.shape).numpy())
        return values, values.sum(-1) * prod(self.grid.spacing)

    @property
    def may_vary_in_time(self) -> bool:
        """Whether the source may depend on time by itself: only a scalar function without t says that it does not."""
        return not isinstance(self.source, ScalarSource) or self.source.varies_in_time

    @cached_property
    def varies_in_time(self) -> bool:
        """Whether the source uses the time: one in tensors that gets along without it does not."""
        if isinstance(self.source, AtPoints) or (isinstance(self.source, Source) and self.source.varies_in_time):
            return self.source.varies_in_time
        source: Any = self.source.at(self.grid) if isinstance(self.source, Source) else self.source
        shape = self.selection.batch if not self.divisible else (1,)
        try:
            with torch.no_grad():
                source(torch.full((*shape, *self.grid.shape), 0.5, dtype=torch.float64), self.grid.points, _NoTime())
        except Exception:
            return True
        return False

    def check(self, u: np.ndarray, start: float) -> None:
        """Raises an error unless the source is finite for the initial field."""
        values = self.rate(u, np.full(len(u), start))[0]
        if not np.isfinite(values).all():
            where = np.argwhere(~np.isfinite(values))[0]
            raise InvalidArgumentError(
                f"{_name(self.source)} must be finite, got {values[tuple(where)]} in cell {where[1]} of the initial "
                f"field, where u = {u[tuple(where)]:.6g}."
            )

    @cached_property
    def compiled_law(self) -> CompiledLaw | None:
        """The compiled source; None unless it is a user's scalar function."""
        if not isinstance(self.source, ScalarSource):
            return None
        part = self.selection.select(self.source.at(self.grid))
        names = part.arguments.names
        timed = names.index("t") if "t" in names else -1
        return CompiledLaw(source_kernel(part.call("source")), (columns_of(part, self.selection.size),), timed)

    def slope(self, u: np.ndarray, t: np.ndarray) -> np.ndarray:
        """∂s/∂u ``(rows, cells)`` by central differences."""
        step = _DIFFERENCE * np.maximum(np.abs(u), 1e-3)
        ahead, behind = (self.rate(u + sign * step, t)[0] for sign in (1.0, -1.0))
        return (ahead - behind) / (2.0 * step)

    def is_stiff(self, u: np.ndarray, start: float, span: float) -> np.ndarray:
        """Whether it would shorten explicit steps below a fiftieth of the span: by ∂s/∂u at the start ``(rows,)``.

        Along one axis a source with a kernel is always taken for stiff, since that costs less.
        """
        if self.grid.dimension == 1 and self.compiled_law is not None:
            return np.ones(len(u), dtype=bool)
        return np.abs(self.slope(u, np.full(len(u), start))).max(1) * span > _STIFF

    def _parameters(self, t: np.ndarray) -> Any:
        """The source with the parameters of these rows."""
        if getattr(self.source, "varies_in_time", False):
            return self.selection.select(self.source.at(self.grid, self.selection.times(t)))  # type: ignore[union-attr]
        return self._fixed_parameters

    @cached_property
    def _fixed_parameters(self) -> Any:
        return self.selection.select(self.source.at(self.grid))  # type: ignore[union-attr]


def batch_of_source(
    source: Source | SourceFunction, batch: tuple[int, ...], grid: CellGrid, start: float = 0.0
) -> tuple[int, ...]:
    """The batch shape of initial and boundary values and of the law, with the parameters of a source.

    An error if it is no source, fails at the time ``start``, or its values do not fit the batch.
    """
    if isinstance(source, type) or not callable(source):
        raise InvalidArgumentError(
            f"source must be a Source, such as Logistic(rate), or a function of u, x and t, got {source!r}."
        )
    if isinstance(source, AtPoints):
        return batch_of_arguments(source, batch, grid)
    for value in _arrays(source):
        if value.ndim > len(batch):
            refuse_space(source, batch, tuple(value.shape), grid)
    failure = None
    for axes in range(len(batch), len(batch) + MOST_AXES):
        time = torch.full((1,) * (axes + grid.dimension), start, dtype=torch.float64)
        try:
            u = torch.zeros((1,) * axes + grid.shape, dtype=torch.float64)
            values = _values(source, grid, grid.points, u, time, shaped=False)
        except _FailedError as error:
            failure = failure or error
            continue
        lead = values.ndim - grid.dimension
        if lead >= 0 and tuple(values.shape[lead:]) == grid.shape:
            return broadcast_batch(batch, tuple(values.shape[:lead]), type(source).__name__)
    raise failure or not_of_shape(_name(source), "values that broadcast over the cells")


def _refuse_shared_parameters(
    source: Source, rows: BatchRows, evaluate: Callable[[Any, Tensor], list[Tensor]], placed: Any, states: Tensor
) -> None:
    """Raises InvalidArgumentError if the first row has another source with its own parameters alone than in the batch,
    as where an array with one entry per function broadcasts over the cells.
    """
    whole = rows.gather(evaluate(placed, rows.scatter(states))[0])[:1]
    try:
        alone = evaluate(rows.take(np.array([0])).select(placed), states[:1])[0]
    except Exception:
        return
    if alone.shape == whole.shape and not torch.allclose(alone, whole, rtol=1e-12, atol=0.0, equal_nan=True):
        raise InvalidArgumentError(
            f"{type(source).__name__}: the first function of the batch has another source in the batch than alone. An "
            "array parameter means one value per batch entry: shape it by solvers.align(parameter, u) in the source, "
            "and give values on cells as a Field."
        )


class _FailedError(InvalidArgumentError):
    """A source raised an error."""


def _values(
    source: Source | SourceFunction, grid: CellGrid, points: Tensor, u: Tensor, time: Tensor, *, shaped: bool = True
) -> Tensor:
    """Values of a source at the points of a grid, in the shape of u if it is ``shaped``."""
    placed = source.at(grid, time) if isinstance(source, Source) else source

    def evaluate() -> Any:
        try:
            return placed(u, points, time)
        except Exception as error:
            raise _FailedError(
                f"{_name(source)} failed for u of shape {tuple(u.shape)}, x of shape {tuple(points.shape)} "
                f"and t a tensor of shape {tuple(time.shape)}, one time per batch entry; use torch functions, and "
                f"torch.where instead of if. It raised {type(error).__name__}: {error}"
            ) from error

    return result_of(_name(source), evaluate, u, shaped=shaped)


def _name(source: Source | SourceFunction) -> str:
    """The call of a source in error messages."""
    return f"{name_of(source) if isinstance(source, Source) else 'source'}(u, x, t)"


def _arrays(source: Source | SourceFunction) -> list[np.ndarray | Tensor]:
    """Parameters of a source that are arrays and not fields."""
    values = vars(source).values() if isinstance(source, Source) else ()
    return [value for value in values if isinstance(value, np.ndarray | Tensor) and value.ndim > 0]
