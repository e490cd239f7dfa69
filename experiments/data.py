"""Streams of training batches: fresh functions from closed forms, or samples of stored finite-volume solutions."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

import solvers
from experiments.checks import require_at_least
from experiments.runs import as_json, digest, source_digest
from experiments.storage import Arrays, cached_arrays, writable_folder
from experiments.workers import map_parts
from solvers import CellGrid, Problem
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


@dataclass(frozen=True, kw_only=True)
class BankConfig:
    """Finite-volume solutions that training functions are sampled from.

    Args:
        members: Number of parameters, spread evenly over the training range.
        cells: Cells of the grid.
        keep_every: Every how many cells one is kept as a place to sample: memory, not accuracy.
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
    """Functions with fresh parameters, from the closed form.

    Args:
        problem: The problem.
        protocol: How many points a function has.
        end_weighted: Whether parameters are drawn with ``end_weighted_parameters`` instead of uniformly.

    Returns:
        (generator, batch) → batch of functions.
    """
    draw = end_weighted_parameters if end_weighted else random_parameters
    return lambda generator, batch: sample_exact(problem, draw(problem, batch, generator), protocol, generator)


def bank_stream(bank: SolutionBank, protocol: Protocol) -> Stream:
    """Functions from stored solutions.

    Args:
        bank: The solutions.
        protocol: How many points a function has.

    Returns:
        (generator, batch) → batch of functions.
    """
    return lambda generator, batch: sample_bank(bank, batch, protocol, generator)


def solution_bank(
    problem: Problem, config: BankConfig, folder: Path, group: int = 8, processes: int | None = None
) -> SolutionBank:
    """Solves a problem for many parameters, or reads what was solved before; a damaged file is solved again.

    Parameters are the midpoints of equal intervals of the training range; output times end the equal intervals of the
    duration.

    Args:
        problem: The problem.
        config: How many solutions, on what grid.
        folder: Where the file lives.
        group: Parameters solved in one batch.
        processes: Worker processes that solve groups, see ``map_parts``; the numbers do not depend on it.

    Returns:
        The solutions at the kept cells; values in float32.
    """
    low, high = problem.training_range
    parameter = low + (high - low) * (torch.arange(config.members, dtype=torch.float64) + 0.5) / config.members
    grid = CellGrid(*problem.domain, config.cells)
    times = problem.final_time * torch.arange(1, config.times + 1, dtype=torch.float64) / config.times
    kept = slice(config.keep_every // 2, None, config.keep_every)

    def solve_group(part: Tensor) -> np.ndarray:
        return solve_problem(problem, grid, part, times)[..., kept].numpy().astype(np.float32)

    def build() -> Arrays:
        return {"values": np.concatenate(map_parts(solve_group, parameter.split(group), processes))}

    source = source_digest(solvers)
    key = digest([as_json(config), problem.domain, problem.training_range, problem.final_time, source])
    name = f"{problem.name}-bank-{key}.h5"
    attributes = {"location": grid.location, "axes": "member, t, x", "units": "dimensionless"}
    arrays = cached_arrays(writable_folder(folder) / name, build, attributes)
    return SolutionBank(parameter, times, grid.points[kept], torch.from_numpy(arrays["values"]))
