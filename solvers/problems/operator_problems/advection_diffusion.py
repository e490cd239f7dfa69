"""Heat in a closed box, stirred by a random flow."""

from dataclasses import dataclass
from math import pi
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from solvers.conditions import Dirichlet, Neumann
from solvers.data_files.field_set import FieldSet
from solvers.finite_volume.laws.balance import ConvectionDiffusion
from solvers.finite_volume.laws.coefficients import FaceVelocity
from solvers.finite_volume.laws.laws import Diffusion, Transport
from solvers.finite_volume.solve import solve
from solvers.grids import Grid, NodeGrid
from solvers.problems.operator_problems.problem import Draws, OperatorProblem, Recipe, restrict
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

_MODES = 4
_STREAM = random_field(0.1, 5.0, _MODES, ZERO, ZERO)
_ALONG = tuple(
    random_field(1.0, 5.0, _MODES, *(LEVEL if other == axis else ZERO for other in range(2))) for axis in range(2)
)  # only their eigenfunctions count: cosines along the axis of a derivative of the stream function
_INITIAL = random_field(0.5, 6.0, 8, LEVEL, LEVEL)
WALL = random_field(0.5, 3.0, 6, LEVEL)
_RECIPE = Recipe(intervals=32, refinement=2, times=tuple(n / 10 for n in range(1, 11)), error=0.02)


@dataclass(frozen=True, kw_only=True)
class AdvectionDiffusion(OperatorProblem):
    """u_t + ∇·(v u) = κ ∇²u in a box: u is given on the walls of axis 0, those of axis 1 are insulated.

    v = (∂ψ/∂y, −∂ψ/∂x) with a random stream function ψ that is 0 on all walls: v is free of divergence, on faces to
    round-off, and does not cross the walls.

    Args:
        diffusivity: κ.
        beyond: Sizes of the data of the sides in units of the largest in training, for tests out of range; None for
            those of training.
        recipe: Resolution and sizes.
    """

    diffusivity: float = 0.01
    beyond: Beyond = None
    recipe: Recipe = _RECIPE

    def __post_init__(self) -> None:
        check_beyond(self.beyond)

    name: ClassVar[str] = "advection_diffusion"
    inputs: ClassVar[tuple[str, ...]] = ("velocity_x", "velocity_y", "u")
    conditions: ClassVar[tuple[tuple[str, str], ...]] = (("Dirichlet", "Dirichlet"), ("Neumann", "Neumann"))
    data: ClassVar[str] = "v(x, y) without divergence, u at the start, u on two walls"

    @property
    def equation(self) -> str:
        return f"u_t + div(v u) = {self.diffusivity:g} laplace(u), div v = 0"

    def draw(self, random: np.random.Generator) -> dict[str, Tensor]:
        draws = {
            "stream": draw_field(_STREAM, random),
            "initial": draw_field(_INITIAL, random),
            **{name: draw_field(WALL, random) for name in ("left", "right")},
        }
        walls = ("left", "right")
        return draws | {name: field_beyond(WALL, draws[name], self.beyond, random) for name in walls}

    def evaluate(self, draws: Draws, refinement: int | None = None) -> FieldSet:
        cells, n = self.cells(refinement), self.recipe.intervals
        corners = NodeGrid(cells.low, cells.high, tuple(count + 1 for count in cells.count))
        velocity = FaceVelocity.from_stream_function(field_values(_STREAM, draws["stream"], corners), cells)
        insulated = (Neumann(gradient=0.0), Neumann(gradient=0.0))
        left, right = (_wall(draws[name], cells) for name in ("left", "right"))
        solution = solve(
            ConvectionDiffusion(Transport(velocity), Diffusion(self.diffusivity)),
            cells,
            ((Dirichlet(left), Dirichlet(right)), insulated),
            field_values(_INITIAL, draws["initial"], cells),
            self.recipe.times,
        )
        left, right = (_wall(draws[name], self.nodes) for name in ("left", "right"))
        walls = (Dirichlet(left[:, None]), Dirichlet(right[:, None]))
        later = restrict(solution.values, (walls, insulated), n)
        start = field_values(_INITIAL, draws["initial"], self.nodes)[:, None]
        along_x, along_y = (_derivative(draws["stream"], axis, self.nodes) for axis in range(2))
        level = torch.zeros_like(left)
        return self.field_set(
            {"u": torch.cat([start, later], dim=1)},
            {"velocity_x": along_y, "velocity_y": -along_x},
            ((left, right), (level, level)),
        )


def _derivative(stream: Tensor, axis: int, grid: Grid) -> Tensor:
    """∂ψ/∂x along an axis at the points of a grid: d/dx sin kπx = kπ cos kπx."""
    waves = pi * torch.arange(_MODES + 1, dtype=torch.float64)
    coefficients = torch.nn.functional.pad(stream.movedim(axis - 2, -1), (1, 0)) * waves
    return field_values(_ALONG[axis], coefficients.movedim(-1, axis - 2), grid)


def _wall(coefficients: Tensor, grid: Grid) -> Tensor:
    """Values along a wall ``(b, n)``."""
    line = type(grid)(grid.low[1], grid.high[1], grid.count[1])  # pyright: ignore[reportCallIssue]
    return field_values(WALL, coefficients, line)
