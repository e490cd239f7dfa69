"""Problems on an interval that the solvers are compared on, and our own settings."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from experiments.benchmarks.equal_error.attempts import Attempt, Ladder
from experiments.stages import one_thread
from solvers import RKL2, SSPRK3, TRBDF2, CellGrid, DiffusiveLaw, Solution, solve
from solvers.finite_volume.steppers.stepper import Stepper
from solvers.problems import BURGERS, DIFFUSION, POROUS_MEDIUM, STEFAN, Problem

CELLS = 200
TOLERANCES = (1e-2, 3e-3, 2e-3, 1e-3, 5e-4, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6)
DIFFUSIVE: list[list[Stepper]] = [[method(tolerance) for tolerance in TOLERANCES] for method in (TRBDF2, RKL2)]
CONVECTIVE: list[list[Stepper]] = [[SSPRK3(courant) for courant in (1.0, 0.8, 0.5, 0.25)]]
"""Steppers for either kind of law, each with growing accuracy."""
SPREAD = 0.05


@dataclass(frozen=True, kw_only=True)
class Case:
    """Functions of one problem with neighbouring parameters; the L1 error is a mean over them, times and cells."""

    name: str
    problem: Problem
    parameters: tuple[float, ...]
    times: tuple[float, ...]

    def grid(self, cells: int = CELLS) -> CellGrid:
        """Cells of the problem's interval."""
        return CellGrid(*self.problem.domain, cells)

    def initial(self, parameter: float, cells: int = CELLS) -> np.ndarray:
        """Exact initial cell averages ``(cells,)``, new memory."""
        return self.problem.initial(self.grid(cells), parameter).numpy().copy()

    def every(self, stride: int) -> "Case":
        """Every ``stride``-th of these functions."""
        return replace(self, parameters=self.parameters[::stride])

    def error(self, values: np.ndarray) -> float:
        """L1 error of values ``(functions, t, cells)`` on any number of cells; of more functions than the case has,
        evenly spaced ones count."""
        parameters, times = (torch.tensor(each, dtype=torch.float64) for each in (self.parameters, self.times))
        exact = self.problem.averages(times, self.grid(values.shape[-1]), parameters[:, None])
        return float(np.abs(values[:: -(-len(values) // len(parameters))] - exact.numpy()).mean())

    def spread(self, functions: int) -> "Case":
        """The same with parameters up to 5 % below and above."""
        (centre,) = self.parameters
        parameters = centre * np.linspace(1.0 - SPREAD, 1.0 + SPREAD, functions)
        return replace(self, parameters=tuple(parameters.tolist()))


def cases() -> list[Case]:
    """The six problems, one function each."""
    stefan_times = tuple(np.arange(1, 21) / 200)
    return [
        *(
            Case(name=f"PME m = {m:g}", problem=POROUS_MEDIUM, parameters=(m,), times=(POROUS_MEDIUM.test_time,))
            for m in POROUS_MEDIUM.test_parameters
        ),
        Case(name="Stefan u* = 0.6", problem=STEFAN, parameters=(0.6,), times=stefan_times),
        Case(name="diffusion k = 1", problem=DIFFUSION, parameters=(1.0,), times=(DIFFUSION.test_time,)),
        Case(name="Burgers a = 3", problem=BURGERS, parameters=(3.0,), times=(BURGERS.test_time,)),
    ]


def solution(case: Case, **options: Any) -> Callable[[], Solution]:
    """What solves all functions of a case in one call, on one thread."""
    parameters = torch.tensor(case.parameters, dtype=torch.float64)
    problem, grid = case.problem, case.grid()
    law, boundary, initial = problem.law(parameters), problem.boundary(parameters), problem.initial(grid, parameters)

    def run() -> Solution:
        with one_thread():
            return solve(law, grid, boundary, initial, case.times, **options)

    return run


def ours(case: Case) -> list[Ladder]:
    """The default, then every stepper that suits the law."""
    diffusive = isinstance(case.problem.law(case.parameters[0]), DiffusiveLaw)
    return own_ladders(lambda **options: solution(case, **options), DIFFUSIVE if diffusive else CONVECTIVE)


def own_ladders(prepare: Callable[..., Callable[[], Solution]], steppers: list[list[Stepper]]) -> list[Ladder]:
    """The default, called by the stepper that it chose, then the steppers given; ``prepare`` takes options of solve."""
    chosen = prepare()().work
    names = [type(stepper).__name__ for stepper in chosen.steppers]
    default = _attempt(f"default, {' and '.join(names)}", prepare())
    return [[default], *([_attempt(_name(each), prepare(stepper=each)) for each in ladder] for ladder in steppers)]


def _name(stepper: Stepper) -> str:
    accuracy = getattr(stepper, "courant" if isinstance(stepper, SSPRK3) else "tolerance")
    return f"{type(stepper).__name__}({accuracy:g})"


def _attempt(setting: str, run: Callable[[], Solution]) -> Attempt:
    return Attempt(setting, lambda: run().values.numpy())
