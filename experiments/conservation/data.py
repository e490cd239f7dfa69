"""Functions to train and to test on: from closed forms, or from stored finite-volume solutions."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from joblib import Parallel, delayed
from torch import Generator, Tensor

from experiments.conservation.cases import Case, Target, problem_numbers
from experiments.errors import require_at_least
from experiments.records.storage import cached_arrays, writable_folder
from experiments.records.store import as_json, config_hash
from experiments.stages import one_thread
from probconserv.surrogates.surrogate import Context
from solvers import CellGrid, LeastCost
from solvers.problems import Problem, sampling

Stream = Callable[[Generator, int], sampling.FunctionBatch]
GROUP = 8
"""Parameters that are solved in one batch."""


@dataclass(frozen=True, kw_only=True)
class BankConfig:
    """Finite-volume solutions that training functions are sampled from, for ``members`` parameters.

    One of ``keep_every`` cells is kept to sample from: memory, not accuracy.
    """

    members: int = 256
    cells: int = 1600
    keep_every: int = 4
    times: int = 200

    def __post_init__(self) -> None:
        require_at_least(self, members=2, cells=8, keep_every=1, times=10)


def exact_stream(problem: Problem, protocol: sampling.Protocol, end_weighted: bool = False) -> Stream:
    """Functions with fresh parameters from the closed form: (generator, batch) → batch of functions."""
    draw = sampling.end_weighted_parameters if end_weighted else sampling.random_parameters
    return lambda generator, batch: sampling.sample_exact(problem, draw(problem, batch, generator), protocol, generator)


def training_bank(problem: Problem, config: BankConfig, folder: Path, data_version: int = 0) -> sampling.SolutionBank:
    """Solutions in float32 at the midpoints of equal intervals of the training range, and the ends of those of time.

    Many groups are solved on as many processes as torch has threads, which changes no number.
    """
    parameter = sampling.even_parameters(problem.training_range, config.members)
    grid = CellGrid(*problem.domain, config.cells)
    times = problem.final_time * torch.arange(1, config.times + 1, dtype=torch.float64) / config.times
    kept = slice(config.keep_every // 2, None, config.keep_every)

    def solve_group(part: Tensor) -> Tensor:
        with one_thread():
            return sampling.solve_problem(problem, grid, part, times, stepper=LeastCost())[..., kept].float()

    def build() -> Tensor:
        groups = parameter.split(GROUP)
        processes = torch.get_num_threads() if len(groups) > GROUP else 1
        solved = Parallel(n_jobs=processes)(delayed(solve_group)(part) for part in groups)
        return torch.cat(cast(list[Tensor], solved))

    values = _stored(problem, {"bank": as_json(config)}, folder, data_version, build)
    return sampling.SolutionBank(parameter, times, grid.points[kept], values)


def case_bank(case: Case) -> sampling.SolutionBank:
    """The solution of a case; all test parameters of its problem are solved in one batch."""
    problem, cells, steps = case.problem, case.sizes.cells, case.sizes.output_times
    parameters = torch.tensor(problem.test_parameters, dtype=torch.float64)
    times = torch.linspace(0.0, problem.final_time, steps + 1, dtype=torch.float64)[1:]
    grid, config = CellGrid(*problem.domain, cells), {"cells": cells, "output_times": steps}
    solve = partial(sampling.solve_problem, problem, grid, parameters, times, stepper=LeastCost())
    values = _stored(problem, config, case.data_folder, case.data_version, solve)
    chosen = parameters == case.parameter
    return sampling.SolutionBank(parameters[chosen], times, grid.points, values[chosen])


def context_of(target: Target) -> Context:
    """Context ``(functions, n, 2)`` of a target, drawn anew for each function."""
    case, problem, functions = target.case, target.case.problem, target.case.sizes.functions
    generator = Generator().manual_seed(1000 * case.seed + round(100 * case.parameter))
    if case.data == "exact":
        parameters = torch.full((functions,), case.parameter, dtype=torch.float64)
        batch = sampling.sample_exact(problem, parameters, sampling.Protocol(), generator)
    else:
        batch = sampling.sample_bank(case_bank(case), functions, sampling.Protocol(), generator)
    first = slice(case.sizes.curve_functions if target.over_time else functions)
    return Context(batch.context_points[first], batch.context_values[first], problem.name)


def validation_functions(case: Case) -> tuple[Context, Tensor]:
    """Context and parameters ``(functions,)`` of the lower third of the range, which ``extrapolation`` has not seen."""
    low, high = case.problem.training_range
    unseen = replace(case.problem, training_range=(low, low + (high - low) / 3))
    generator = Generator().manual_seed(case.seed)
    parameter = sampling.random_parameters(unseen, case.sizes.functions, generator)
    batch = sampling.sample_exact(case.problem, parameter, sampling.Protocol(), generator)
    return Context(batch.context_points, batch.context_values, case.problem.name), parameter


def _stored(
    problem: Problem, config: dict[str, Any], folder: Path, data_version: int, solve: Callable[[], Tensor]
) -> Tensor:
    """Solutions ``(members, t, n)`` from the file of this config, solved if it is missing or damaged."""
    key = config_hash(as_json({"problem": problem_numbers(problem), "data_version": data_version, **config}))
    notes = {"location": "cell", "axes": "member, t, x", "units": "dimensionless"}
    path = writable_folder(folder) / f"{problem.name}-{key}.safetensors"
    return torch.from_numpy(cached_arrays(path, lambda: {"values": solve().numpy()}, notes)["values"])
