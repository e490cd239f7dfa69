"""Linear systems of steady problems: sides, matrix and right-hand side, and fluxes and side values from solutions."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from scipy import sparse
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
from solvers.errors import InvalidArgumentError, SolverDivergedError
from solvers.grids import CellGrid
from solvers.steady.linear import LinearSolver

Coefficient = float | np.ndarray | Tensor | Callable[[Tensor], Tensor | float]
_COMPATIBLE = 1e-10  # mismatch of a problem without Dirichlet or Robin data, relative to its terms


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

    def solve(self, solver: LinearSolver) -> Tensor:
        """u ``(*batch, *cells)``.

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

        def solve_one(index: int) -> np.ndarray:
            between = [row[index] / h for row, h in zip(rows, self.grid.spacing, strict=False)]
            matrix = _matrix(np.concatenate(between), rows[-1][index], neighbours)
            return _solve_definite(solver, matrix, columns[index], flags[index])

        if not rights.size:
            return right.clone()
        with ThreadPoolExecutor(max_workers=torch.get_num_threads()) as pool:
            results = list(pool.map(solve_one, range(len(columns))))
        values = torch.from_numpy(np.concatenate([x.T for x in results]))
        return values.reshape(*batch, *self.grid.shape)

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
        """Diagonal entries ``(*, *cells)`` and right-hand side of the sides ``(*batch, *cells)``."""
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


def _solve_definite(solver: LinearSolver, matrix: sparse.csr_array, right: np.ndarray, singular: bool) -> np.ndarray:
    """x ``(n, r)``; if constants are in the null space, x has mean 0."""
    if not singular:
        return _solve_checked(solver, matrix, right)
    x = np.zeros_like(right)
    if len(right) > 1:
        x[:-1] = _solve_checked(solver, matrix[:-1, :-1], right[:-1])
    return x - x.mean(axis=0)


def _solve_checked(solver: LinearSolver, matrix: sparse.csr_array, right: np.ndarray) -> np.ndarray:
    """A linear solver's result, an array ``(n, r)`` of finite numbers; ``(n,)`` will do if r = 1."""
    x = solver(matrix, right)
    if not isinstance(x, np.ndarray) or x.size != right.size or len(x) != len(right):
        got = f"an array {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
        raise InvalidArgumentError(
            f"solver must return x with A x = b as an array of the shape of b, {right.shape}, got {got}; of a function "
            "that returns more, pass lambda matrix, right: the part that is x."
        )
    if not np.isfinite(x).all():
        raise SolverDivergedError(
            "The linear solver returned numbers that are not finite; leave solver= out for elimination or conjugate "
            "gradients."
        )
    return x.reshape(right.shape)
