"""Explicit rates in implicit steps: convection, and sources that are not stiff."""

from typing import Any

import numpy as np

from solvers.finite_volume.march.kernels import Array
from solvers.finite_volume.march.tiles import Tile


class Rest:
    """The explicit terms of an operator on a tile of rows.

    Attributes:
        speed: Cells crossed per time by the fastest signal of every row, by the last rates.
    """

    def __init__(self, operator: Any, width: int, source: Any) -> None:
        self._sides, self._source, self.speed = operator.sides, source, np.zeros(width)
        self._tile = operator.convection and Tile(operator, width, (None, operator.convection, source))

    @classmethod
    def of(cls, operator: Any, width: int, reacts: bool) -> "Rest | None":
        """The explicit terms; None if there are none."""
        source = None if reacts else operator.source
        return cls(operator, width, source) if operator.convection is not None or source is not None else None

    def rates(self, u: Array, data: Array, times: Array, rows: Array, busy: Array) -> tuple[Array, Array]:
        """Rates ``(rows, cells)`` and flow ``(rows, 2d + 1)``, without given fluxes, which diffusion passes."""
        if self._tile is None:
            rate, flow, busy = np.zeros(u.shape), np.zeros((len(u), len(self._sides.modes) + 1)), np.flatnonzero(busy)
            rate[busy], flow[busy, -1] = self._source.of_rows(rows[busy]).rate(
                np.ascontiguousarray(u[busy]), times[busy]
            )
            return rate, flow
        self._tile.enter(rows)
        rate, flow, _ = self._tile.rates(u, self._sides.without_fluxes(data), times, busy)
        self.speed = flow[:, -2]
        return rate, flow[:, :-2]
