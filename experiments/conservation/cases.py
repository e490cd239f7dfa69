"""A test of a conservation experiment: a problem at one parameter, in the sizes of a preset.

Source of the protocol: Hansen et al. 2023, sec. 4.
"""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.errors import InvalidArgumentError, require_at_least
from experiments.experiment import Data, Preset
from probconserv import LinearConstraint, integral
from probconserv.surrogates.gp import GPConfig
from solvers import CellGrid, NodeGrid
from solvers.problems import Problem

VOLUMES = 20
"""Control volumes of the local laws."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is predicted and scored.

    Per parameter ``functions`` at ``points`` with ``samples`` of each posterior, of them ``curve_functions`` at
    ``curve_times``; context from finite-volume solutions on ``cells`` at ``output_times``.
    """

    functions: int = 50
    points: int = 201
    samples: int = 500
    curve_functions: int = 5
    curve_times: int = 21
    cells: int = 800
    output_times: int = 400

    def __post_init__(self) -> None:
        least = {"functions": 2, "points": 3, "samples": 2, "curve_functions": 1, "curve_times": 2}
        require_at_least(self, **least, cells=8, output_times=10)
        if (self.points - 1) % VOLUMES:
            raise InvalidArgumentError(f"points must be 1 more than a multiple of {VOLUMES}, got {self.points}.")
        if self.curve_functions > self.functions:
            text = f"curve_functions must not exceed functions = {self.functions}, got {self.curve_functions}."
            raise InvalidArgumentError(text)


SIZES: Mapping[Preset, Sizes] = {
    "smoke": Sizes(samples=200, cells=200, output_times=200, curve_times=11),
    "laptop": Sizes(),
    "paper": Sizes(cells=1600, output_times=1000),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A problem at one test parameter, with context from ``data``; the seed is that of test functions and samples."""

    problem: Problem
    parameter: float
    data: Data
    sizes: Sizes
    seed: int
    gp: GPConfig
    data_version: int
    data_folder: Path
    device: str = "cpu"

    @property
    def key(self) -> str:
        """Symbol in ASCII and parameter: ``u=0.6`` for u*, ``beta=1`` for β."""
        letters = (letter for letter in self.problem.symbol if letter.isalnum())
        names = (letter if letter.isascii() else unicodedata.name(letter).split()[-1].lower() for letter in letters)
        return f"{''.join(names) or 'parameter'}={self.parameter:g}"

    @property
    def label(self) -> str:
        return f"{self.problem.symbol}={self.parameter:g}"

    @property
    def heading(self) -> str:
        """Title of figures."""
        return f"{self.problem.name.replace('_', ' ').capitalize()}, {self.label}"

    @property
    def config(self) -> dict[str, Any]:
        parts = {name: getattr(self, name) for name in ("parameter", "data", "sizes", "seed", "gp")}
        return {"problem": problem_numbers(self.problem), **parts}


@dataclass(frozen=True)
class Target:
    """The values of a case's field that are predicted: of all functions at the test time, or of the first over time.

    They lie at nodes, under the trapezoid rule, or are averages over cells, whose sum meets the law exactly. There are
    as many ``nodes`` as the sizes of the case say, unless another number is given.
    """

    case: Case
    on_cells: bool = False
    over_time: bool = False
    nodes: int | None = None

    @property
    def grid(self) -> NodeGrid | CellGrid:
        domain, points = self.case.problem.domain, self.nodes or self.case.sizes.points
        return CellGrid(*domain, points - 1) if self.on_cells else NodeGrid(*domain, points)

    @property
    def times(self) -> Tensor:
        problem = self.case.problem
        if not self.over_time:
            return torch.tensor([problem.test_time], dtype=torch.float64)
        return torch.linspace(0.0, problem.final_time, self.case.sizes.curve_times + 1, dtype=torch.float64)[1:]

    def truth(self) -> Tensor:
        """The field ``(t, 1, points)``, the same for all functions."""
        return self.field(torch.tensor(self.case.parameter, dtype=torch.float64))

    def field(self, parameter: Tensor) -> Tensor:
        """The field ``(*batch, t, 1, points)`` at parameters ``(*batch, 1, 1)`` or one."""
        problem, grid, times = self.case.problem, self.grid, self.times[:, None]
        if isinstance(grid, CellGrid):
            return problem.averages(times, grid, parameter)
        return problem.solution(times[..., None], grid.points, parameter[..., None])


@dataclass(frozen=True)
class Laws:
    """The conservation law of a target, batch shape ``(t, 1)``, for values at ``points`` ``(points,)``.

    ``loose`` has an error with the mean square of the truth's quadrature error over the training parameters. Outside
    their range fronts have a standard deviation (``displacement``), and variances a factor; inside 0 and 1.
    """

    exact: LinearConstraint
    loose: LinearConstraint
    points: Tensor
    displacement: float = 0.0
    factor: float = 1.0

    @property
    def total(self) -> Tensor:
        """Its total ``(t,)``."""
        return self.exact.b[:, 0, 0]


@lru_cache(maxsize=8)
def laws_of(target: Target) -> Laws:
    """Both forms of a target's law; the loose one from 101 training parameters."""
    problem, grid, times = target.case.problem, target.grid, target.times[:, None]
    exact = integral(grid, problem.total(times, target.case.parameter))
    training = torch.linspace(*problem.training_range, 101, dtype=torch.float64)[:, None, None]
    error = integral(grid, problem.total(times, training)).residual(target.field(training))
    return Laws(exact, LinearConstraint(exact.G, exact.b, noise_variance=error.square().mean(dim=0)), grid.points)


def problem_numbers(problem: Problem) -> dict[str, Any]:
    """The part of a problem in config hashes: its name and numbers, not its functions."""
    names = ("name", "domain", "final_time", "test_time", "training_range", "test_parameters")
    return {name: getattr(problem, name) for name in names}


def tested_outside(problem: Problem) -> bool:
    low, high = problem.training_range
    return any(not low <= parameter <= high for parameter in problem.test_parameters)
