"""Node values of a steady solution, for operators whose grids include the boundary."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from solvers.conditions import AxisConditions, Dirichlet, Periodic, per_axis, side_name
from solvers.errors import InvalidArgumentError
from solvers.steady._system import side_value
from solvers.steady.solve import SteadySolution


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
