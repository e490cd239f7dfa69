"""Darcy flow through two materials."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from solvers.conditions import Dirichlet, Neumann
from solvers.data_files.field_set import FieldSet
from solvers.grids import CellGrid, Grid, NodeGrid
from solvers.problems.operator_problems.problem import Draws, OperatorProblem, Recipe
from solvers.problems.operator_problems.random_data import (
    LEVEL,
    ZERO,
    Beyond,
    check_beyond,
    draw_field,
    field_beyond,
    field_values,
    random_field,
)
from solvers.random_fields import two_phase
from solvers.steady.linear import Direct
from solvers.steady.nodes import node_values
from solvers.steady.solve import solve_steady

_SUBDIVISIONS = 4
_MATERIAL = random_field(1.0, 6.0, 12, LEVEL, LEVEL)
_PRESSURE = random_field(0.3, 3.0, 8, LEVEL)
_GRADIENT = random_field(0.5, 3.0, 8, ZERO)
SIDES = {"left": _PRESSURE, "right": _PRESSURE, "bottom": _GRADIENT, "top": _GRADIENT}
_RECIPE = Recipe(intervals=32, refinement=4, error=0.01)


@dataclass(frozen=True, kw_only=True)
class Darcy(OperatorProblem):
    """−∇·(k ∇u) = f with k of two values; u is given on the sides of axis 0, ∂u/∂y on those of axis 1.

    The phases are the sets where a smooth random field, 12 half waves along each axis, is below and above 0. Their
    interface is a curve, and cells that it cuts have the geometric mean of k over 4 × 4 points: the solution
    converges at about first order. Phases drawn cell by cell would meet at points and converge far slower. Values on
    the sides of axis 0 have no slope at the corners and gradients on the others vanish there, so that they agree.

    Args:
        conductivities: k below and above.
        source: f.
        beyond: Sizes of the data of the sides in units of the largest in training, for tests out of range; None for
            those of training.
        recipe: Resolution and sizes.
    """

    conductivities: tuple[float, float] = (3.0, 12.0)
    source: float = 10.0
    beyond: Beyond = None
    recipe: Recipe = _RECIPE

    def __post_init__(self) -> None:
        check_beyond(self.beyond)

    name: ClassVar[str] = "darcy"
    inputs: ClassVar[tuple[str, ...]] = ("conductivity",)
    conditions: ClassVar[tuple[tuple[str, str], ...]] = (("Dirichlet", "Dirichlet"), ("Neumann", "Neumann"))
    data: ClassVar[str] = "two-phase k(x, y), u on two sides, ∂u/∂y on the others"

    @property
    def equation(self) -> str:
        low, high = self.conductivities
        return f"-div(k grad u) = {self.source:g}, k = {low:g} or {high:g}"

    def draw(self, random: np.random.Generator) -> dict[str, Tensor]:
        draws = {
            "material": draw_field(_MATERIAL, random),
            **{name: draw_field(field, random) for name, field in SIDES.items()},
        }
        return draws | {name: field_beyond(field, draws[name], self.beyond, random) for name, field in SIDES.items()}

    def evaluate(self, draws: Draws, refinement: int | None = None) -> FieldSet:
        cells, n = self.cells(refinement), self.recipe.intervals
        every = cells.count[0] // n
        solution = solve_steady(
            self._averages(draws, cells),
            cells,
            _conditions(*_sides(draws, cells)),
            self.source,
            source_adds=True,
            solver=Direct(),
        )
        corners = NodeGrid(cells.low, cells.high, tuple(count + 1 for count in cells.count))
        u = node_values(solution, _conditions(*_sides(draws, corners)))[:, None, ::every, ::every]
        left, right, bottom, top = _sides(draws, self.nodes)
        u[:, 0, 0], u[:, 0, -1] = left, right
        return self.field_set(
            {"u": u}, {"conductivity": self._conductivity(draws, self.nodes)}, ((left, right), (bottom, top))
        )

    def _averages(self, draws: Draws, cells: CellGrid) -> Tensor:
        """Geometric means of k over the cells."""
        shape = tuple(size for n in cells.count for size in (n, _SUBDIVISIONS))
        points = CellGrid(cells.low, cells.high, tuple(_SUBDIVISIONS * n for n in cells.count))
        return self._conductivity(draws, points).log().reshape(-1, *shape).mean((2, 4)).exp()

    def _conductivity(self, draws: Draws, grid: Grid) -> Tensor:
        return two_phase(field_values(_MATERIAL, draws["material"], grid), *self.conductivities)


def _sides(draws: Draws, grid: Grid) -> tuple[Tensor, ...]:
    """Data of the four sides at the points of a grid along them ``(b, n)``."""
    line = type(grid)(grid.low[0], grid.high[0], grid.count[0])  # pyright: ignore[reportCallIssue]
    return tuple(field_values(field, draws[name], line) for name, field in SIDES.items())


def _conditions(left: Tensor, right: Tensor, bottom: Tensor, top: Tensor) -> tuple:
    return (Dirichlet(left), Dirichlet(right)), (Neumann(gradient=bottom), Neumann(gradient=top))
