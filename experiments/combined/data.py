"""Training fields of a problem: finite-volume solutions brought to its nodes, made once and read afterwards."""

from pathlib import Path

import torch
from torch import Tensor

from experiments.combined.fields import FieldProblem
from experiments.records.release import data_version
from experiments.records.store import config_hash
from experiments.storage import Arrays, cached_arrays, writable_folder
from solvers import CellGrid
from solvers.problems.sampling import solve_problem

BATCH = 16
"""Parameters solved at once."""


def field_samples(problem: FieldProblem, count: int, folder: Path) -> tuple[Tensor, Tensor]:
    """Finite-volume solutions for parameters spread evenly over the training range.

    Args:
        problem: The problem.
        count: Number of parameters, the midpoints of as many equal intervals.
        folder: Where the file lives; a damaged one is solved again.

    Returns:
        Parameters ``(count,)`` and values at the points of the problem ``(count, T, n)``, float64.
    """
    low, high = problem.training_range
    parameter = low + (high - low) * (torch.arange(count, dtype=torch.float64) + 0.5) / count

    def build() -> Arrays:
        return {"fields": torch.cat([_solution(problem, part) for part in parameter.split(BATCH)]).numpy()}

    name = config_hash([problem.description, count, data_version(problem.name)])
    path = writable_folder(folder) / f"{problem.name}-fields-{name}.h5"
    attributes = {"location": problem.grid.location, "axes": "parameter, t, x", "units": "dimensionless"}
    return parameter, torch.from_numpy(cached_arrays(path, build, attributes)["fields"])


def _solution(problem: FieldProblem, parameter: Tensor) -> Tensor:
    cells = CellGrid(*problem.problem.domain, problem.refinement * (problem.nodes - 1))
    return problem.restricted(solve_problem(problem.problem, cells, parameter, problem.output_times), parameter)
