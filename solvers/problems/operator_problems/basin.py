"""Waves in a closed basin."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from solvers.conditions import Dirichlet, Neumann
from solvers.data_files.field_set import FieldSet
from solvers.grids import Grid
from solvers.problems.operator_problems.problem import Draws, OperatorProblem, Recipe, restrict
from solvers.problems.operator_problems.random_data import draw_uniform
from solvers.systems.boundary import Reflecting
from solvers.systems.laws import ShallowWater
from solvers.systems.solve import solve_system

_BUMPS = 3
_WALLS = ((Reflecting(), Reflecting()),) * 2
_LEVEL, _STILL = (Neumann(gradient=0.0),) * 2, (Dirichlet(0.0),) * 2
_RECIPE = Recipe(intervals=32, refinement=3, times=tuple(n / 10 for n in range(1, 11)), error=0.03)


@dataclass(frozen=True, kw_only=True)
class Basin(OperatorProblem):
    """Shallow water between four reflecting walls, at rest with three bumps of the surface at the start.

    The depth is 1 plus Gaussian bumps a exp(−|x − c|²/(2 r²)) with a in [−0.1, 0.2], r in [0.12, 0.18] and c in
    [0.1, 0.9]². The walls have no data: the momentum across them is 0 at their nodes, the total depth is constant.

    Args:
        gravity: g; long waves have speed √g.
        recipe: Resolution and sizes.
    """

    gravity: float = 1.0
    recipe: Recipe = _RECIPE

    name: ClassVar[str] = "basin"
    inputs: ClassVar[tuple[str, ...]] = ("h",)
    conditions: ClassVar[tuple[tuple[str, str], ...]] = (("Reflecting", "Reflecting"),) * 2
    data: ClassVar[str] = "three bumps of the surface"

    @property
    def equation(self) -> str:
        return f"h_t + div(h v) = 0, (h v)_t + div(h v v) + grad(g h^2/2) = 0, g = {self.gravity:g}"

    def draw(self, random: np.random.Generator) -> dict[str, Tensor]:
        return {
            "centre": draw_uniform(0.1, 0.9, random, _BUMPS, 2),
            "height": draw_uniform(-0.1, 0.2, random, _BUMPS),
            "radius": draw_uniform(0.12, 0.18, random, _BUMPS),
        }

    def evaluate(self, draws: Draws, refinement: int | None = None) -> FieldSet:
        cells, n = self.cells(refinement), self.recipe.intervals
        depth = initial_depth(draws, cells)
        still = torch.zeros_like(depth)
        initial = torch.stack([depth, still, still], dim=1)
        solution = solve_system(ShallowWater(self.gravity), cells, _WALLS, initial, self.recipe.times)
        mirrored = {"h": (_LEVEL, _LEVEL), "hu": (_STILL, _LEVEL), "hv": (_LEVEL, _STILL)}
        fields = {
            name: torch.cat([start[:, None], restrict(solution.values[:, :, i], sides, n)], dim=1)
            for (i, (name, sides)), start in zip(
                enumerate(mirrored.items()), _at_start(initial_depth(draws, self.nodes)), strict=True
            )
        }
        return self.field_set(fields, {})


def _at_start(depth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return depth, torch.zeros_like(depth), torch.zeros_like(depth)


def initial_depth(draws: Draws, grid: Grid) -> Tensor:
    """Depth at the start ``(b, *space)``."""
    centre, height, radius = (draws[name][:, None, None] for name in ("centre", "height", "radius"))
    squares = ((grid.points[..., None, :] - centre) ** 2).sum(-1)
    return 1 + (height * torch.exp(-squares / (2 * radius**2))).sum(-1)
