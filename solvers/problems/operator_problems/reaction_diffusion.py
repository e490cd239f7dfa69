"""A population that spreads through a varying medium and grows."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from solvers.conditions import Dirichlet, Neumann
from solvers.data_files.field_set import FieldSet
from solvers.finite_volume.laws.balance import Logistic
from solvers.finite_volume.laws.coefficients import Field
from solvers.finite_volume.laws.laws import Diffusion
from solvers.finite_volume.solve import solve
from solvers.grids import Grid
from solvers.problems.operator_problems.problem import Draws, OperatorProblem, Recipe, restrict
from solvers.problems.operator_problems.random_data import (
    LEVEL,
    Beyond,
    check_beyond,
    draw_field,
    draw_uniform,
    field_values,
    random_field,
    uniform_beyond,
)
from solvers.random_fields import log_normal

_MEDIUM = random_field(0.7, 10.0, 12, LEVEL)
_INITIAL = random_field(1.5, 15.0, 20, LEVEL)
_RECIPE = Recipe(intervals=128, refinement=4, times=tuple(n / 10 for n in range(1, 11)), error=0.002)


@dataclass(frozen=True, kw_only=True)
class ReactionDiffusion(OperatorProblem):
    """u_t = (k(x) u_x)_x + r u (1 − u) (Fisher; Kolmogorov, Petrovsky, Piskunov): u at the left end, u_x at the right.

    k is log-normal with a given median. The initial field is Φ(v − 1) with the normal distribution function Φ and a
    Gaussian field v, so that it lies between 0 and 1 and is near 0 in places. The left value is in [0, 1] and the right
    gradient in [0, 2], an inflow: u stays positive.

    Args:
        median: Median of k.
        rate: r.
        beyond: Sizes of the data of the sides in units of the largest in training, for tests out of range; None for
            those of training.
        recipe: Resolution and sizes.
    """

    median: float = 0.01
    rate: float = 5.0
    beyond: Beyond = None
    recipe: Recipe = _RECIPE

    def __post_init__(self) -> None:
        check_beyond(self.beyond)

    name: ClassVar[str] = "reaction_diffusion"
    inputs: ClassVar[tuple[str, ...]] = ("conductivity", "u")
    conditions: ClassVar[tuple[tuple[str, str], ...]] = (("Dirichlet", "Neumann"),)
    data: ClassVar[str] = "k(x), u at the start, u on the left, ∂u/∂x on the right"

    @property
    def equation(self) -> str:
        return f"u_t = (k u_x)_x + {self.rate:g} u (1 - u)"

    def draw(self, random: np.random.Generator) -> dict[str, Tensor]:
        return {
            "medium": draw_field(_MEDIUM, random),
            "initial": draw_field(_INITIAL, random),
            "left": uniform_beyond(draw_uniform(0.0, 1.0, random), 1.0, self.beyond),
            "right": uniform_beyond(draw_uniform(0.0, 2.0, random), 2.0, self.beyond),
        }

    def evaluate(self, draws: Draws, refinement: int | None = None) -> FieldSet:
        cells, left, right = self.cells(refinement), draws["left"], draws["right"]
        solution = solve(
            Diffusion(Field(self._conductivity(draws, cells))),
            cells,
            (Dirichlet(left), Neumann(gradient=right)),
            _initial(draws, cells),
            self.recipe.times,
            source=Logistic(self.rate),
        )
        ends = (Dirichlet(left[:, None]), Neumann(gradient=right[:, None]))
        later = restrict(solution.values, (ends,), self.recipe.intervals)
        start = _initial(draws, self.nodes)[:, None]
        return self.field_set(
            {"u": torch.cat([start, later], dim=1)},
            {"conductivity": self._conductivity(draws, self.nodes)},
            ((left, right),),
        )

    def _conductivity(self, draws: Draws, grid: Grid) -> Tensor:
        return log_normal(field_values(_MEDIUM, draws["medium"], grid), self.median)


def _initial(draws: Draws, grid: Grid) -> Tensor:
    return torch.special.ndtr(field_values(_INITIAL, draws["initial"], grid) - 1)
