"""Sources on rows."""

from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.errors import InvalidArgumentError
from solvers.finite_volume._rows import BatchRows, is_divisible
from solvers.finite_volume.balance import Source, SourceFunction
from solvers.finite_volume.grid import CellGrid


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
        """The source on all rows.

        Args:
            source: A ``Source``, or a function of u, x and t.
            batch: Shape of the batch.
            grid: The cells.
            start: Time at which a source is tried.

        Returns:
            The term.

        Raises:
            InvalidArgumentError: If the source is not callable or its values have not the shape of u.
        """
        if isinstance(source, type) or not callable(source):
            raise InvalidArgumentError(
                f"source must be a Source, such as Logistic(rate), or a function of u, x and t, got {source!r}."
            )
        term = cls(source, grid, BatchRows.whole(batch, grid.dimension), divisible=False)
        states = torch.linspace(0.0, 1.0, term.selection.size * prod(grid.shape), dtype=torch.float64)
        states = states.reshape(-1, *grid.shape)
        time = term.selection.times(start)
        term._check(term.selection.scatter(states), time)
        if not isinstance(source, Source):
            return term
        placed = source.at(grid, time)
        row_times = time.reshape(-1, *[1] * grid.dimension)

        def evaluate(part: Any, u: Tensor) -> list[Tensor]:
            return [part(u, grid.points, time if part is placed else row_times[: len(u)])]

        return replace(term, divisible=is_divisible(placed, term.selection, states, evaluate))

    def take(self, index: np.ndarray) -> "SourceTerm":
        """The source of some of the rows."""
        return replace(self, selection=self.selection.take(index))

    def rate(self, u: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Source and its integral over the domain.

        Args:
            u: Cell averages ``(rows, cells)``.
            t: Times ``(rows,)``.

        Returns:
            s ``(rows, cells)`` and ∫ s dx ``(rows,)``.
        """
        states = torch.from_numpy(u).reshape(-1, *self.grid.shape)
        with torch.no_grad():
            if self.divisible:
                times = torch.from_numpy(np.asarray(t, dtype=float)).reshape(-1, *[1] * self.grid.dimension)
                values = self._parameters(t)(states, self.grid.points, times)
            else:
                values = self._whole(self.selection.scatter(states), self.selection.times(t))
                values = self.selection.gather(values)
        values = np.ascontiguousarray(values.reshape(u.shape).numpy())
        return values, values.sum(-1) * prod(self.grid.spacing)

    def _parameters(self, t: np.ndarray) -> Any:
        """The source with the parameters of these rows."""
        if getattr(self.source, "varies_in_time", False):
            return self.selection.cut(self.source.at(self.grid, self.selection.times(t)))  # type: ignore[union-attr]
        return self._fixed_parameters

    @cached_property
    def _fixed_parameters(self) -> Any:
        return self.selection.cut(self.source.at(self.grid))  # type: ignore[union-attr]

    def _whole(self, u: Tensor, time: Tensor) -> Tensor:
        source = self.source.at(self.grid, time) if isinstance(self.source, Source) else self.source
        return source(u, self.grid.points, time)

    def _check(self, u: Tensor, time: Tensor) -> None:
        values = self._whole(u, time)
        if not isinstance(values, Tensor) or values.shape != u.shape:
            got = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
            name = type(self.source).__name__ if isinstance(self.source, Source) else "source"
            raise InvalidArgumentError(
                f"{name}(u, x, t) must return a tensor of the shape of u, got {got} for u of shape {tuple(u.shape)}; "
                "for a constant c return c + 0.0 * u."
            )
