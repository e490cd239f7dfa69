"""Queries: a few noisy values of a function, and K averages of the wanted field that are drawn with the query.

windows   masses in random windows of the interval, which may overlap
rays      means along random straight paths through the square, from one side to another

A case may know the averages with an error, or have one window where the field has least mass, mostly none at all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from experiments.gpme.cases import Case, Observed
from experiments.gpme.functions import STREAMS, Split
from probconserv import Context, LinearConstraint, Query
from solvers import CellGrid

QUANTILE = 0.8
"""Of the mass in a region over the training functions: the threshold that a decision is about."""
NARROW = 0.1
"""Width of the narrowest window."""
_STEPS = 256


def windows(grid: CellGrid, count: int, generator: Generator) -> Tensor:
    """Rows ``(count, n)`` of the masses in windows of a tenth to four tenths of the interval [0, 1]."""
    place, width = torch.rand(2, count, 1, generator=generator, dtype=torch.float64)
    first, x = 0.7 * place, grid.axes[0]
    inside = (x >= first) & (x <= first + NARROW + 0.3 * width)
    return inside.double() / len(x)


def rays(grid: CellGrid, count: int, generator: Generator) -> Tensor:
    """Rows ``(count, n)`` of the means along straight paths between random points of two sides of the unit square."""
    nx, ny = grid.shape
    rows = torch.zeros(count, nx * ny, dtype=torch.float64)
    along = (torch.arange(_STEPS, dtype=torch.float64) + 0.5) / _STEPS
    for row in rows:
        ends = torch.rand(2, 2, generator=generator, dtype=torch.float64)
        for end, side in zip(ends, torch.randperm(4, generator=generator).tolist(), strict=False):
            end[side // 2] = side % 2
        x, y = (ends[0] + along[:, None] * (ends[1] - ends[0])).mT
        cell = (x * nx).long().clamp_max(nx - 1) * ny + (y * ny).long().clamp_max(ny - 1)
        row.index_add_(0, cell, torch.full_like(along, 1 / _STEPS))
    return rows


class Decision(NamedTuple):
    """Whether the mass in a region exceeds a threshold: weights ``(n,)`` of the cells, and the threshold."""

    weights: Tensor
    threshold: float


@dataclass(frozen=True, kw_only=True)
class QueryCase:
    """One kind of laws in one number.

    Args:
        base: The functions and their noisy values.
        rows: Draws the rows of K laws from the grid, K and a generator.
        laws: K.
        error: Standard deviation of the errors of the averages.
        empty: Whether one window lies where the field has least mass.
        fewer: Queries on the functions of further seeds.
    """

    base: Case
    rows: Callable[[CellGrid, int, Generator], Tensor]
    laws: int
    error: float = 0.0
    empty: bool = False
    fewer: int = 100

    @property
    def key(self) -> str:
        return f"{self.rows.__name__}-{self.laws}{'-noisy' if self.error else ''}{'-empty' if self.empty else ''}"

    @property
    def label(self) -> str:
        noisy = f" with errors of {self.error:g}" if self.error else ""
        return f"{self.laws} {self.rows.__name__}{noisy}{', one where nothing is' if self.empty else ''}"

    @property
    def config(self) -> dict[str, Any]:
        return {**self.base.config, "laws": self.key, "error": self.error, "fewer": self.fewer}

    @property
    def is_bounded(self) -> bool:
        """Whether rows are scored under u ≥ 0 as well: under four exact windows, everywhere or not."""
        return self.laws == 4 and not self.error

    def observed(self, split: Split, seed: int) -> Observed:
        """The noisy values, the wanted fields, and the laws of every query ``(queries, K)``."""
        seen = self.base.observed(split, seed)
        generator = Generator().manual_seed(100_000 + 1000 * seed + 10 * self.laws + STREAMS[split])
        rows = torch.stack([self._rows_of(field, generator) for field in seen.truth])
        totals = torch.einsum("qkn,qn->qk", rows, seen.truth)
        if self.error:
            totals = totals + self.error * torch.randn(totals.shape, generator=generator, dtype=totals.dtype)
        law = LinearConstraint(rows, totals, noise_variance=self.error**2)
        return Observed(seen.context, seen.query, seen.truth, law)

    def _rows_of(self, field: Tensor, generator: Generator) -> Tensor:
        """Rows ``(K, n)`` for a field, none of which follows from the others."""
        grid = self.base.member.grid
        while True:
            rows = self.rows(grid, self.laws, generator)
            if self.empty:
                rows[0] = _least(grid, field)
            if int(torch.linalg.matrix_rank(rows)) == self.laws:
                return rows

    def decision(self, seed: int) -> Decision:
        """The mass in [0.6, 0.8], on the square in [0.6, 0.85]², over a quantile of that of the training functions."""
        grid = self.base.member.grid
        end = 0.8 if grid.dimension == 1 else 0.85
        inside = [(axis > 0.6) & (axis < end) for axis in grid.axes]
        weights = torch.cartesian_prod(*(part.double() for part in inside)).reshape(-1, grid.dimension).prod(dim=-1)
        weights = weights / len(weights)
        fields = self.base.functions("training", seed)[:, self.base.member.wanted].flatten(1)
        return Decision(weights, float(torch.quantile(fields @ weights, QUANTILE)))


def _least(grid: CellGrid, field: Tensor) -> Tensor:
    """The row ``(n,)`` of the narrowest window that holds least mass, the first of several."""
    width = max(1, round(NARROW * len(field)))
    first = int(field.unfold(0, width, 1).sum(dim=-1).argmin())
    row = torch.zeros_like(field)
    row[first : first + width] = 1 / len(grid.axes[0])
    return row


def part_of(observed: Observed, queries: slice) -> Observed:
    """Some of the queries."""
    seen, law = observed.context, observed.law
    assert seen.noise is not None
    context = Context(seen.points[queries], seen.values[queries], noise_variance=seen.noise[queries])
    few = LinearConstraint(law.rows[queries], law.b[queries], noise_variance=law.noise_variance)
    return Observed(context, Query(observed.query.points[queries]), observed.truth[queries], few)
