"""``solve_steady``: a batch of solutions of ∇·(k ∇u) + s = 0 with mixed sides, and their values at nodes."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor

from solvers.conditions import AxisConditions, Dirichlet, Periodic, per_axis, side_name
from solvers.errors import InvalidArgumentError
from solvers.grids import CellGrid
from solvers.steady._system import Coefficient, System, check_positive, evaluate_coefficient, side_fluxes, side_value
from solvers.steady.linear import ConjugateGradients, Direct, LinearSolver

_DIRECT_CELLS = {1: 10**9, 2: 1_000_000, 3: 5_000}  # above, conjugate gradients are faster; in 3-D elimination fills in


@dataclass(frozen=True, kw_only=True)
class SteadySolution:
    """Solution of ∇·(k ∇u) + s = 0; float64.

    Attributes:
        grid: The cells.
        boundary: Conditions, one pair per axis.
        values: u at the cell centres ``(*batch, *cells)``.
        fluxes: Flux density −k ∂u/∂x through the faces across each axis, positive along +axis: one tensor per axis,
            ``(*batch, *cells)`` with one entry more along the axis.
        side_values: u on the first and last side of each axis ``(*batch, *face)``; on a periodic side the value of
            the face that both sides share.
        conductivity: k at the cells ``(*batch, *cells)``.
        source: s at the cells ``(*batch, *cells)``.
        solver: How the linear systems were solved.
    """

    grid: CellGrid
    boundary: tuple[AxisConditions, ...]
    values: Tensor
    fluxes: tuple[Tensor, ...]
    side_values: tuple[tuple[Tensor, Tensor], ...]
    conductivity: Tensor
    source: Tensor
    solver: LinearSolver

    @property
    def outflow(self) -> Tensor:
        """Net flux out of the domain through all sides ``(*batch,)``."""
        total = torch.zeros(self.values.shape[: -self.grid.dimension], dtype=torch.float64)
        for axis, flux in enumerate(self.fluxes):
            ends = flux.select(axis - self.grid.dimension, -1) - flux.select(axis - self.grid.dimension, 0)
            total = total + _sum_space(ends, self.grid.dimension - 1) * _face_area(self.grid, axis)
        return total

    @property
    def imbalance(self) -> Tensor:
        """Net outflow − ∫ s dx ``(*batch,)``: round-off of the linear solver. It says nothing of the accuracy of u."""
        return self.outflow - _sum_space(self.source, self.grid.dimension) * prod(self.grid.spacing)


def solve_steady(
    conductivity: Coefficient,
    grid: CellGrid,
    boundary: Sequence[Any],
    source: Coefficient = 0.0,
    *,
    solver: LinearSolver | None = None,
) -> SteadySolution:
    """Solves ∇·(k ∇u) + s = 0 for a whole batch in one call.

    Finite volumes with two-point fluxes F = −k ∂u/∂x and the harmonic mean of k at faces, which is exact in one axis
    for k constant in each cell. A source is positive where it adds, as in ``solve``. If only fluxes, gradients and
    periodic sides are given, u has mean 0.

    Second order for smooth k, about first for inclusions with corners. Where two phases meet at a point like the
    squares of a checkerboard, u is singular and converges slowly: with k = 1 and 20 on random 8 × 8 blocks the flux
    is 13 % low on 128 × 128 cells. Refine until the result no longer changes.

    u is exact to round-off of the linear solver, a flux to round-off of k u/h. Where a layer of low conductivity lets
    little through, fluxes in the cells around it have a relative error of some 1e-16 times the ratio of the
    conductivities; those through the faces of the layer keep their digits.

    Args:
        conductivity: k > 0: a number, an array that broadcasts to ``(*batch, *cells)`` and is constant within each
            cell up to the sides, or a function of ``grid.points`` returning one. Give smooth k as a function: it is
            evaluated on the sides too, which second order with a gradient or Robin condition needs.
        grid: Cells of the domain, in one or more axes.
        boundary: With one axis a pair (first, last) of conditions, with d axes one pair per axis. Values are numbers
            or arrays ``(*batch, *face)``; without time. a and b of ``Robin`` are numbers or ``(*batch,)`` as in
            ``solve``, or ``(*batch, *face)`` if conductivity, source or values have the batch axes too.
        source: s, in the same forms.
        solver: A function from A, a ``scipy.sparse.csr_array`` ``(n, n)``, and b ``(n, r)`` to the x with A x = b,
            such as ``scipy.sparse.linalg.spsolve`` or ``ConjugateGradients(tolerance=1e-6)``. A is symmetric and
            positive definite. By default elimination, and ``ConjugateGradients()`` beyond a million cells in a plane
            and 5,000 in space.

    Returns:
        The solution with its fluxes.

    Raises:
        InvalidArgumentError: If an argument has the wrong type, shape or value, or a problem without Dirichlet and
            Robin conditions has no solution since fluxes and source do not add up.
        SolverDivergedError: If a linear system could not be solved to round-off or the solver's tolerance.
    """
    _check_kinds(grid, solver)
    conditions = per_axis(boundary, grid.dimension)
    k = evaluate_coefficient(conductivity, grid.points, grid, "conductivity")
    check_positive(k, "conductivity")
    s = evaluate_coefficient(source, grid.points, grid, "source")
    sides = side_fluxes(conductivity, k, s, grid, conditions)
    system = System(grid=grid, conditions=conditions, conductivity=k, source=s, sides=sides)
    if solver is None:
        factorised = prod(grid.shape) <= _DIRECT_CELLS[min(grid.dimension, 3)]
        solver = Direct() if factorised else ConjugateGradients()
    u = system.solve(solver)
    fluxes, side_values = system.fluxes(u)
    return SteadySolution(
        grid=grid,
        boundary=conditions,
        values=u,
        fluxes=fluxes,
        side_values=side_values,
        conductivity=k.expand((*system.batch, *grid.shape)),
        source=s.expand((*system.batch, *grid.shape)),
        solver=solver,
    )


def _check_kinds(grid: CellGrid, solver: LinearSolver | None) -> None:
    if not isinstance(grid, CellGrid):
        raise InvalidArgumentError(f"grid must be a CellGrid, got {type(grid).__name__}; see node_values for nodes.")
    if solver is not None and (isinstance(solver, type) or not callable(solver)):
        raise InvalidArgumentError(
            "solver must be a function from a matrix and right-hand sides to the solutions, such as "
            f"ConjugateGradients() or scipy.sparse.linalg.spsolve, got {solver!r}; leave it out for the default."
        )


def _sum_space(values: Tensor, dimension: int) -> Tensor:
    return values if dimension == 0 else values.flatten(values.ndim - dimension).sum(-1)


def _face_area(grid: CellGrid, axis: int) -> float:
    return prod(h for other, h in enumerate(grid.spacing) if other != axis)


def node_values(solution: SteadySolution, boundary: Sequence[Any] | None = None) -> Tensor:
    """Values at the corners of the cells: ``NodeGrid(low, high, n + 1)`` of the same domain.

    Inside, the mean of the neighbouring cells weighted by k, which in one axis is the value of the face that has the
    continuous flux; on a side, its values interpolated along it. Second order for smooth k, and between the
    neighbours' values inside. Where Dirichlet sides meet, the one of the later axis counts.

    Args:
        solution: A solution of ``solve_steady``.
        boundary: The same conditions with values at the nodes ``(*batch, *face)`` with ``n + 1`` per axis of the face:
            Dirichlet nodes are then exact. Without it Dirichlet data are interpolated from the faces, which is exact
            for data that are linear along the side.

    Returns:
        Values ``(*batch, *nodes)``, float64.

    Raises:
        InvalidArgumentError: If it is no solution of ``solve_steady``, ``boundary`` does not have the kinds of
            conditions of the solution, or a value of it does not fit the nodes of its side.
    """
    if not isinstance(solution, SteadySolution):
        raise InvalidArgumentError(
            f"node_values takes a solution of solve_steady, got {type(solution).__name__}; values of solve become "
            "nodes by restrict(solution.values, conditions, intervals) of solvers.problems.operator_problems."
        )
    grid, d = solution.grid, solution.grid.dimension
    exact = solution.boundary if boundary is None else per_axis(boundary, d)
    _check_same_kinds(exact, solution.boundary)
    u = _inner_nodes(solution)
    dirichlet = [isinstance(side, Dirichlet) for pair in solution.boundary for side in pair]
    for place in sorted(range(2 * d), key=lambda place: dirichlet[place]):  # Dirichlet sides last, so that they count
        axis, last = divmod(place, 2)
        if isinstance(solution.boundary[axis][last], Periodic):
            continue
        values = _along_side(solution, axis, last)
        if dirichlet[place] and boundary is not None:
            name = f"{side_name(axis, last)}, at the nodes"
            condition = exact[axis][last]
            assert isinstance(condition, Dirichlet)
            values = side_value(condition.value, axis, name, grid, extra=1).squeeze(axis - d)
        u.select(axis - d, grid.count[axis] if last else 0).copy_(values)
    return u


def _inner_nodes(solution: SteadySolution) -> Tensor:
    """Σ k u / Σ k over the cells around every node; sides that are not periodic are to be overwritten."""
    grid, k = solution.grid, solution.conductivity
    sums = [k * solution.values, k]
    for axis in range(grid.dimension):
        periodic = isinstance(solution.boundary[axis][0], Periodic)
        sums = [_pair_sums(values, axis - grid.dimension, "cyclic" if periodic else "repeat") for values in sums]
    return sums[0] / sums[1]


def _along_side(solution: SteadySolution, axis: int, last: int) -> Tensor:
    """Values of a side at its nodes, from those at its faces ``(*batch, *face)``."""
    d = solution.grid.dimension
    face = (n for other, n in enumerate(solution.grid.count) if other != axis)
    values = solution.side_values[axis][last].expand((*solution.values.shape[:-d], *face))
    for position, other in enumerate(i for i in range(d) if i != axis):
        periodic = isinstance(solution.boundary[other][0], Periodic)
        values = 0.5 * _pair_sums(values, position - (d - 1), "cyclic" if periodic else "linear")
    return values


def _pair_sums(values: Tensor, axis: int, ends: Literal["cyclic", "repeat", "linear"]) -> Tensor:
    """Sums of neighbours along an axis, n + 1 from n; at the ends cyclic, twice the end or its continuation."""
    n = values.shape[axis]
    first, last = values.narrow(axis, 0, 1), values.narrow(axis, n - 1, 1)
    inner = values.narrow(axis, 0, n - 1) + values.narrow(axis, 1, n - 1)
    if ends == "cyclic":
        outer = first + last, first + last
    elif ends == "repeat" or n == 1:
        outer = 2 * first, 2 * last
    else:
        outer = 3 * first - values.narrow(axis, 1, 1), 3 * last - values.narrow(axis, n - 2, 1)
    return torch.cat([outer[0], inner, outer[1]], dim=axis)


def _check_same_kinds(given: tuple[AxisConditions, ...], solved: tuple[AxisConditions, ...]) -> None:
    for axis, (pair, expected) in enumerate(zip(given, solved, strict=True)):
        for side, other in zip(pair, expected, strict=True):
            if type(side) is not type(other):
                raise InvalidArgumentError(
                    f"boundary of axis {axis} must be of the kind that was solved with, {type(other).__name__}, "
                    f"got {type(side).__name__}."
                )
