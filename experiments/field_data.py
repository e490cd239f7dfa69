"""Training fields of a case: finite-volume solutions brought to its nodes, made once and read afterwards."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

import solvers
from experiments.field_cases import FieldCase
from experiments.runs import digest, source_digest
from experiments.storage import Arrays, cached_arrays, writable_folder
from solvers import CellGrid
from solvers.problems.sampling import solve_problem

GROUP = 16
"""Parameters solved in one batch."""


@dataclass(frozen=True)
class FieldSamples:
    """Parameters and their fields.

    Args:
        parameter: ``(samples,)``.
        fields: Values at the places of the case ``(samples, T, n)``.
    """

    parameter: Float[Tensor, " samples"]
    fields: Float[Tensor, "samples t n"]

    def __len__(self) -> int:
        return len(self.parameter)


def field_samples(case: FieldCase, count: int, folder: Path) -> FieldSamples:
    """Finite-volume solutions for parameters spread evenly over the training range.

    Args:
        case: The case.
        count: Number of parameters, the midpoints of as many equal intervals.
        folder: Where the file lives; a damaged one is solved again.

    Returns:
        The samples, float64.
    """
    low, high = case.training_range
    parameter = low + (high - low) * (torch.arange(count, dtype=torch.float64) + 0.5) / count

    def build() -> Arrays:
        return {"fields": torch.cat([_solved(case, part) for part in parameter.split(GROUP)]).numpy()}

    source = source_digest(solvers, modules=("field_cases",))
    path = writable_folder(folder) / f"{case.name}-fields-{digest([case.description, count, source])}.h5"
    attributes = {"location": case.grid.location, "axes": "parameter, t, x", "units": "dimensionless"}
    return FieldSamples(parameter, torch.from_numpy(cached_arrays(path, build, attributes)["fields"]))


def _solved(case: FieldCase, parameter: Tensor) -> Tensor:
    cells = CellGrid(*case.problem.domain, case.refinement * (case.nodes - 1))
    return case.restricted(solve_problem(case.problem, cells, parameter, case.output_times), parameter)
