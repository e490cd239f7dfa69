"""Functions to train and to test on: from closed forms, or from stored finite-volume solutions."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from joblib import Parallel, delayed
from torch import Generator, Tensor

from experiments.checks import require_at_least
from experiments.conservation.cases import ConservationCase, Target, problem_numbers
from experiments.records.store import as_json, config_hash
from experiments.stages import one_thread
from experiments.storage import Arrays, cached_arrays, writable_folder
from probconserv.surrogates.surrogate import Context
from solvers import CellGrid
from solvers.problems import Problem
from solvers.problems.sampling import (
    FunctionBatch,
    Protocol,
    SolutionBank,
    end_weighted_parameters,
    random_parameters,
    sample_bank,
    sample_exact,
    solve_problem,
)

Stream = Callable[[Generator, int], FunctionBatch]
GROUP = 8
"""Parameters that are solved in one batch."""


@dataclass(frozen=True, kw_only=True)
class BankConfig:
    """Finite-volume solutions that training functions are sampled from.

    Args:
        members: Number of parameters, spread evenly over the training range.
        cells: Cells of the grid.
        keep_every: Every how many cells one is kept to sample from: memory, not accuracy.
        times: Output times, evenly spread over the problem's duration.

    Raises:
        InvalidArgumentError: If a number is too small.
    """

    members: int = 256
    cells: int = 1600
    keep_every: int = 4
    times: int = 200

    def __post_init__(self) -> None:
        require_at_least(self, members=2, cells=8, keep_every=1, times=10)


def exact_stream(problem: Problem, protocol: Protocol, end_weighted: bool = False) -> Stream:
    """Functions with fresh parameters, from the closed form: (generator, batch) → batch of functions.

    Args:
        problem: The problem.
        protocol: How many points a function has.
        end_weighted: Whether parameters are drawn with ``end_weighted_parameters`` instead of uniformly.
    """
    draw = end_weighted_parameters if end_weighted else random_parameters
    return lambda generator, batch: sample_exact(problem, draw(problem, batch, generator), protocol, generator)


def training_bank(problem: Problem, config: BankConfig, folder: Path, data_version: int = 0) -> SolutionBank:
    """Solves a problem for many parameters, or reads what was solved before; a damaged file is solved again.

    Parameters are the midpoints of equal intervals of the training range; output times end the equal intervals of the
    duration. Many groups of them are solved on as many processes as torch has threads, which changes no number.

    Args:
        problem: The problem.
        config: How many solutions, on what grid.
        folder: Where the file lives.
        data_version: Version of the data.

    Returns:
        The solutions at the kept cells; values in float32.
    """
    low, high = problem.training_range
    parameter = low + (high - low) * (torch.arange(config.members, dtype=torch.float64) + 0.5) / config.members
    grid = CellGrid(*problem.domain, config.cells)
    times = problem.final_time * torch.arange(1, config.times + 1, dtype=torch.float64) / config.times
    kept = slice(config.keep_every // 2, None, config.keep_every)

    def solve_group(part: Tensor) -> np.ndarray:
        with one_thread():
            return solve_problem(problem, grid, part, times)[..., kept].numpy().astype(np.float32)

    def build() -> Arrays:
        groups = parameter.split(GROUP)
        processes = torch.get_num_threads() if len(groups) > GROUP else 1
        values = Parallel(n_jobs=processes)(delayed(solve_group)(part) for part in groups)
        return {"values": np.concatenate(cast(list[np.ndarray], values))}

    values = _stored(problem, {"bank": as_json(config)}, folder, data_version, build)
    return SolutionBank(parameter, times, grid.points[kept], values)


def case_bank(case: ConservationCase) -> SolutionBank:
    """The finite-volume solution of a case; all test parameters of its problem are solved in one batch, once."""
    problem, cells, steps = case.problem, case.sizes.cells, case.sizes.output_times
    parameters = torch.tensor(problem.test_parameters, dtype=torch.float64)
    times = torch.linspace(0.0, problem.final_time, steps + 1, dtype=torch.float64)[1:]
    grid = CellGrid(*problem.domain, cells)

    def build() -> Arrays:
        return {"values": solve_problem(problem, grid, parameters, times).numpy()}

    values = _stored(problem, {"cells": cells, "output_times": steps}, case.data_folder, case.data_version, build)
    chosen = parameters == case.parameter
    return SolutionBank(parameters[chosen], times, grid.points, values[chosen])


def context_of(target: Target) -> Context:
    """Context points of a target's functions ``(functions, n, 2)``, drawn anew for each function."""
    case = target.case
    generator = Generator().manual_seed(1000 * case.seed + round(100 * case.parameter))
    if case.data == "exact":
        parameters = torch.full((case.sizes.functions,), case.parameter, dtype=torch.float64)
        batch = sample_exact(case.problem, parameters, Protocol(), generator)
    else:
        batch = sample_bank(case_bank(case), case.sizes.functions, Protocol(), generator)
    first = slice(case.sizes.curve_functions if target.over_time else case.sizes.functions)
    return Context(batch.context_points[first], batch.context_values[first], case.problem.name)


def _stored(
    problem: Problem, config: dict[str, Any], folder: Path, data_version: int, build: Callable[[], Arrays]
) -> Tensor:
    """Solutions ``(members, t, n)`` from the file of this config, built if it is not there."""
    key = config_hash(as_json({"problem": problem_numbers(problem), "data_version": data_version, **config}))
    notes = {"location": "cell", "axes": "member, t, x", "units": "dimensionless"}
    path = writable_folder(folder) / f"{problem.name}-{key}.safetensors"
    return torch.from_numpy(cached_arrays(path, build, notes)["values"])
