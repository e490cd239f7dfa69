"""Assembly of the linear systems of steady problems, and fluxes and side values from their solutions."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from solvers.conditions import AxisConditions, Periodic
from solvers.errors import InvalidArgumentError
from solvers.grids import CellGrid
from solvers.steady._sides import SideFlux, common_batch
from solvers.steady.linear import LinearSolver

_COMPATIBLE = 1e-10  # mismatch of a problem without Dirichlet or Robin data, relative to its terms


@dataclass(frozen=True, kw_only=True)
class System:
    """Σ over the faces of a cell (F out − F in)/h = s, for a batch.

    Args:
        grid: The cells.
        conditions: Conditions of every axis.
        conductivity: k ``(*batch, *cells)``.
        source: s ``(*batch, *cells)``.
        sides: All sides that are not periodic.
    """

    grid: CellGrid
    conditions: tuple[AxisConditions, ...]
    conductivity: Tensor
    source: Tensor
    sides: list[SideFlux]

    @property
    def batch(self) -> tuple[int, ...]:
        """Shape of the batch."""
        of_sides = (values for side in self.sides for values in (side.offset, side.slope))
        return common_batch([*map(self._leading, (self.conductivity, self.source, *of_sides))])

    def conductances(self) -> list[Tensor]:
        """Harmonic mean of k over h, between each cell and the next one along each axis (cyclic if periodic)."""
        k, conductances = self.conductivity, []
        for axis, h in enumerate(self.grid.spacing):
            position = axis - self.grid.dimension
            mean = 2 / (1 / k + 1 / k.roll(-1, position)) / h
            if not self._periodic(axis):
                mean = mean.narrow(position, 0, self.grid.count[axis] - 1)
            conductances.append(mean)
        return conductances

    def solve(self, solver: LinearSolver) -> tuple[Tensor, int]:
        """u ``(*batch, *cells)`` and the largest number of iterations.

        One matrix serves the batch if neither k nor the slopes of the sides have a batch axis.
        """
        batch = self.batch  # first, since it is an error if batch axes do not broadcast
        diagonal, right = self._diagonal_and_right()
        singular = ~(diagonal != 0).flatten(-self.grid.dimension).any(-1)
        self._check_compatible(singular.expand(batch), right)
        rounding = right.mean(dim=tuple(range(-self.grid.dimension, 0)), keepdim=True)
        right = right - rounding * singular.reshape(*singular.shape, *(1,) * self.grid.dimension)
        inner = self.conductances()
        shared = prod(torch.broadcast_shapes(*map(self._leading, (self.conductivity, diagonal)))) == 1
        rows = [self._rows(values, () if shared else batch) for values in (*inner, diagonal)]
        flags = (singular if shared else singular.expand(batch)).reshape(-1).tolist()
        rights = right.reshape(-1, prod(self.grid.shape)).numpy()
        columns = [rights.T] if shared else [row[:, None] for row in rights]
        neighbours = self._neighbours()

        def solve_one(index: int) -> tuple[np.ndarray, int]:
            between = [row[index] / h for row, h in zip(rows, self.grid.spacing, strict=False)]
            matrix = _matrix(np.concatenate(between), rows[-1][index], neighbours)
            return _solve_definite(solver, matrix, columns[index], flags[index])

        if not rights.size:
            return right.clone(), 0
        with ThreadPoolExecutor(max_workers=torch.get_num_threads()) as pool:
            results = list(pool.map(solve_one, range(len(columns))))
        values = torch.from_numpy(np.concatenate([x.T for x, _ in results]))
        return values.reshape(*batch, *self.grid.shape), max(count for _, count in results)

    def fluxes(self, u: Tensor) -> tuple[tuple[Tensor, ...], tuple[tuple[Tensor, Tensor], ...]]:
        """Flux densities through the faces across each axis, and values on the first and last side of each axis."""
        fluxes, values = [], []
        for axis, conductance in enumerate(self.conductances()):
            position, n = axis - self.grid.dimension, self.grid.count[axis]
            edges = u.narrow(position, 0, 1), u.narrow(position, n - 1, 1)
            between = conductance * (u - u.roll(-1, position)).narrow(position, 0, conductance.shape[position])
            if self._periodic(axis):
                outer = between.narrow(position, n - 1, 1), between.narrow(position, n, 0)
                weights = self.conductivity.narrow(position, 0, 1), self.conductivity.narrow(position, n - 1, 1)
                shared = (weights[0] * edges[0] + weights[1] * edges[1]) / (weights[0] + weights[1])
                ends = shared, shared
            else:
                pair = [side for side in self.sides if side.axis == axis]
                outer = pair[0].flux(edges[0]), pair[1].flux(edges[1])
                ends = pair[0].value(edges[0]), pair[1].value(edges[1])
            fluxes.append(torch.cat([outer[0], between, outer[1]], dim=position))
            values.append((ends[0].squeeze(position), ends[1].squeeze(position)))
        return tuple(fluxes), tuple(values)

    def _periodic(self, axis: int) -> bool:
        return isinstance(self.conditions[axis][0], Periodic)

    def _leading(self, values: Tensor) -> tuple[int, ...]:
        return tuple(values.shape[: values.ndim - self.grid.dimension])

    def _rows(self, values: Tensor, batch: tuple[int, ...]) -> np.ndarray:
        """Values ``(entries of the batch, n)``; one entry for a matrix that the whole batch shares."""
        space = tuple(values.shape[values.ndim - self.grid.dimension :])
        if batch:
            values = values.expand((*batch, *space))
        return values.reshape(prod(batch), prod(space)).numpy()

    def _diagonal_and_right(self) -> tuple[Tensor, Tensor]:
        """What the sides add to the diagonal ``(*, *cells)``, and the right-hand side ``(*batch, *cells)``."""
        diagonal, right = torch.zeros(self.grid.shape, dtype=torch.float64), self.source
        for side in self.sides:
            sign = (2.0 * side.last - 1.0) / self.grid.spacing[side.axis]
            diagonal = diagonal + self._at_edge(sign * side.slope, side)
            right = right - self._at_edge(sign * side.offset, side)
        return diagonal, right.expand((*self.batch, *self.grid.shape))

    def _at_edge(self, values: Tensor, side: SideFlux) -> Tensor:
        """Values of a side's edge cells, zero in all other cells."""
        axis, count = side.axis - self.grid.dimension, self.grid.count[side.axis]
        result = torch.zeros(*self._leading(values), *self.grid.shape, dtype=torch.float64)
        result.narrow(axis, side.last * (count - 1), 1).copy_(values)
        return result

    def _neighbours(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the cells before and after every face between cells, in the order of the conductances."""
        numbers = np.arange(prod(self.grid.shape)).reshape(self.grid.shape)
        before, after = [], []
        for axis, n in enumerate(self.grid.count):
            faces = np.arange(n if self._periodic(axis) else n - 1)
            before.append(np.take(numbers, faces, axis=axis).ravel())
            after.append(np.take(np.roll(numbers, -1, axis=axis), faces, axis=axis).ravel())
        return np.concatenate(before), np.concatenate(after)

    def _check_compatible(self, singular: Tensor, right: Tensor) -> None:
        """Refuses fluxes and sources that do not add up where nothing else determines u."""
        d = self.grid.dimension
        mismatch, scale = right.flatten(-d).sum(-1), self.source.abs().flatten(-d).sum(-1)
        for side in self.sides:
            scale = scale + (side.offset / self.grid.spacing[side.axis]).abs().flatten(-d).sum(-1)
        wrong = singular & (mismatch.abs() > _COMPATIBLE * scale)
        if bool(wrong.any()):
            index = tuple(int(i) for i in wrong.nonzero()[0])
            excess = float(mismatch[index]) / prod(self.grid.shape)
            raise InvalidArgumentError(
                f"Only fluxes are given, and they do not balance the source in sample {index}: inflow + ∫ s dx = "
                f"{excess * self.grid.volume:.6g}, so no steady solution exists. Add {-excess:.17g} to the source "
                "there, or give a Dirichlet or Robin condition on a side."
            )


def _matrix(between: np.ndarray, diagonal: np.ndarray, neighbours: tuple[np.ndarray, np.ndarray]) -> sparse.csr_array:
    """The symmetric matrix with conductances between cells, and ``diagonal`` towards the sides."""
    first, second = neighbours
    size = len(diagonal)
    total = diagonal + np.bincount(first, between, size) + np.bincount(second, between, size)
    numbers = np.arange(size)
    entries = np.concatenate([total, -between, -between])
    where = np.concatenate([numbers, first, second]), np.concatenate([numbers, second, first])
    return sparse.csr_array((entries, where), shape=(size, size))


def _solve_definite(
    solver: LinearSolver, matrix: sparse.csr_array, right: np.ndarray, singular: bool
) -> tuple[np.ndarray, int]:
    """x ``(n, r)`` and the iterations; if constants are in the null space, x has mean 0."""
    if not singular:
        return solver.solve(matrix, right)
    x, iterations = np.zeros_like(right), 0
    if len(right) > 1:
        x[:-1], iterations = solver.solve(matrix[:-1, :-1], right[:-1])
    return x - x.mean(axis=0), iterations
