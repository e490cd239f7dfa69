"""Viscous Burgers between two ends with given values."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from solvers.conditions import Dirichlet
from solvers.data_files.field_set import FieldSet
from solvers.finite_volume.laws.balance import ConvectionDiffusion
from solvers.finite_volume.laws.laws import Burgers, Diffusion
from solvers.finite_volume.solve import solve
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

_INITIAL = random_field(0.5, 15.0, 40, LEVEL, smoothness=1.5)
_RECIPE = Recipe(intervals=256, refinement=4, times=tuple(n / 10 for n in range(1, 11)), error=0.005)


@dataclass(frozen=True, kw_only=True)
class ViscousBurgers(OperatorProblem):
    """u_t + (u²/2)_x = ν u_xx with random values at both ends that are independent of the initial field.

    The initial field has 40 cosines and standard deviation 0.5; the values at the ends are constants in [−1, 1], which
    it does not meet: layers and shocks as thin as ν form at once.

    Args:
        viscosity: ν.
        beyond: Sizes of the data of the sides in units of the largest in training, for tests out of range; None for
            those of training.
        recipe: Resolution and sizes.
    """

    viscosity: float = 1e-3
    beyond: Beyond = None
    recipe: Recipe = _RECIPE

    def __post_init__(self) -> None:
        check_beyond(self.beyond)

    name: ClassVar[str] = "viscous_burgers"
    inputs: ClassVar[tuple[str, ...]] = ("u",)
    conditions: ClassVar[tuple[tuple[str, str], ...]] = (("Dirichlet", "Dirichlet"),)
    data: ClassVar[str] = "u at the start in 40 modes, u at both ends"

    @property
    def equation(self) -> str:
        return f"u_t + (u^2/2)_x = {self.viscosity:g} u_xx"

    def draw(self, random: np.random.Generator) -> dict[str, Tensor]:
        return {
            "initial": draw_field(_INITIAL, random),
            **{name: uniform_beyond(draw_uniform(-1.0, 1.0, random), 1.0, self.beyond) for name in ("left", "right")},
        }

    def evaluate(self, draws: Draws, refinement: int | None = None) -> FieldSet:
        cells, left, right = self.cells(refinement), draws["left"], draws["right"]
        law = ConvectionDiffusion(Burgers(), Diffusion(self.viscosity))
        initial = field_values(_INITIAL, draws["initial"], cells)
        solution = solve(law, cells, (Dirichlet(left), Dirichlet(right)), initial, self.recipe.times)
        ends = (Dirichlet(left[:, None]), Dirichlet(right[:, None]))
        later = restrict(solution.values, (ends,), self.recipe.intervals)
        start = field_values(_INITIAL, draws["initial"], self.nodes)
        return self.field_set({"u": torch.cat([start[:, None], later], dim=1)}, {}, ((left, right),))
