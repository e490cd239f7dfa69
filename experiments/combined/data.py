"""Training fields of a problem: finite-volume solutions brought to its nodes, made once and read afterwards."""

from pathlib import Path

import torch
from torch import Tensor

from experiments.combined.fields import FieldProblem
from experiments.records.release import data_version
from experiments.records.store import config_hash
from experiments.storage import Arrays, cached_arrays, writable_folder
from solvers import TRBDF2, CellGrid
from solvers.problems.sampling import solve_problem


def field_samples(problem: FieldProblem, count: int, folder: Path) -> tuple[Tensor, Tensor]:
    """Midpoints of equal parts of the training range ``(count,)``, and their solutions ``(count, T, n)``, float64."""
    low, high = problem.training_range
    parameter = low + (high - low) * (torch.arange(count, dtype=torch.float64) + 0.5) / count

    def build() -> Arrays:
        cells = CellGrid(*problem.problem.domain, problem.refinement * (problem.nodes - 1))
        parts, steps = parameter.split(16), None if problem.tolerance is None else TRBDF2(problem.tolerance)
        solutions = [solve_problem(problem.problem, cells, part, problem.output_times, stepper=steps) for part in parts]
        fields = [problem.restricted(values, part) for values, part in zip(solutions, parts, strict=True)]
        return {"fields": torch.cat(fields).numpy()}

    name = config_hash([problem.description, count, data_version(problem.name)])
    path = writable_folder(folder) / f"{problem.name}-fields-{name}.safetensors"
    notes = {"location": problem.grid.location, "axes": "parameter, t, x", "units": "dimensionless"}
    return parameter, torch.from_numpy(cached_arrays(path, build, notes)["fields"])
