"""Samples of the boundary-condition problems: files made once, and the tensors that operators take and give."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from experiments.boundary.cases import BoundaryCase, BoundaryDataConfig, describe_samples
from experiments.errors import DataFileError
from experiments.records.store import config_hash
from experiments.stages import one_thread
from experiments.storage import Arrays, cached_arrays, writable_folder
from solvers import Periodic
from solvers.problems.boundary_samples import BoundaryProblem, BoundarySamples

_GROUP = 50  # samples evaluated together: memory
Values = tuple[tuple[Tensor, Tensor] | None, ...]


@dataclass(frozen=True, kw_only=True)
class Fields:
    """Input, output and boundary values, divided by the unit of the case.

    The output times are the channels of output and values, or the last axis of ``space`` and ``face``.

    Args:
        input: Fields at the start, repeated along the time axis if there is one, ``(batch, 1, *space)``.
        output: ``(batch, channels, *space)``.
        values: Per axis the values on its (first, last) side, ``(batch, channels, *face)`` each; None for periodic
            axes and for time.
    """

    input: Float[Tensor, "batch 1 *space"]
    output: Float[Tensor, "batch channels *space"]
    values: Values

    def __len__(self) -> int:
        return len(self.input)

    def take(self, indices: Tensor | slice) -> "Fields":
        """Some of the samples."""
        return Fields(
            input=self.input[indices],
            output=self.output[indices],
            values=tuple(pair and (pair[0][indices], pair[1][indices]) for pair in self.values),
        )

    def to(self, device: torch.device) -> "Fields":
        """The same on a device."""
        return Fields(
            input=self.input.to(device),
            output=self.output.to(device),
            values=tuple(pair and (pair[0].to(device), pair[1].to(device)) for pair in self.values),
        )


def load_fields(case: BoundaryCase, config: BoundaryDataConfig, folder: Path, version: int) -> Fields:
    """The fields of a case, made once and read afterwards.

    Args:
        case: Problem, unit, and whether time is an axis.
        config: Which samples.
        folder: Where the samples are kept.
        version: Version of the data.
    """
    return as_fields(boundary_samples(case.problem, config, folder, version), case)


def as_fields(samples: BoundarySamples, case: BoundaryCase) -> Fields:
    """Samples in the unit of a case, with time where its operators expect it."""
    unit, along_time = case.sizes.network.unit, case.sizes.network.time_modes > 0
    first = samples.input.unsqueeze(1) / unit

    def later(field: Tensor) -> Tensor:
        return (field.movedim(1, -1).unsqueeze(1) if along_time else field) / unit

    values = tuple(pair and (later(pair[0]), later(pair[1])) for pair in samples.boundary)
    if along_time:
        first = first.unsqueeze(-1).expand(*first.shape, len(samples.times))
    return Fields(input=first, output=later(samples.output), values=(*values, None) if along_time else values)


def by_time(u: Float[Tensor, "batch channels *space"], case: BoundaryCase) -> Float[Tensor, "batch t *nodes"]:
    """A field of a case with the output times before the axes of space, in the units of the problem."""
    later = u.squeeze(1).movedim(-1, 1) if case.sizes.network.time_modes > 0 else u
    return later * case.sizes.network.unit


def boundary_samples(
    problem: BoundaryProblem, config: BoundaryDataConfig, folder: Path, version: int
) -> BoundarySamples:
    """Samples of a problem, made once and read afterwards; a damaged file is made again.

    The file ``<problem>-<hash>.safetensors`` holds ``input``, ``output``, ``times``, ``boundary_<axis>_first``,
    ``boundary_<axis>_last`` and ``parameter_<name>``; its metadata say where values are, in which order axes come,
    units, conditions per side, and how the samples were made. The hash covers the config, the problem's constants and
    distributions, and the version of the data.

    Args:
        problem: The problem.
        config: Which samples.
        folder: Where the file is kept.
        version: Version of the data.

    Returns:
        The samples, their fields and boundary values rounded to float32 (Dirichlet values stay equal to their nodes),
        parameters and times in float64.

    Raises:
        DataFileError: If the file is whole but holds something else.
        OutputFolderError: If the folder cannot be written.
    """
    content = {"samples": describe_samples(problem, config), "data_version": version}
    notes = {
        "location": problem.grid(config.nodes).location,
        "axes": "sample, t, " + ", ".join("xyz"[: len(problem.conditions)]),
        "units": "dimensionless",
        "config_hash": config_hash(content),
        "config": json.dumps(content, ensure_ascii=False),
        "reconstructed": problem.reconstructed,
        **_condition_names(problem),
    }
    path = writable_folder(folder) / f"{problem.name}-{config_hash(content)}.safetensors"
    arrays = cached_arrays(path, lambda: _build(problem, config), notes)
    _check(problem, config, arrays, path)
    return _from_arrays(problem, config, arrays)


def _condition_names(problem: BoundaryProblem) -> dict[str, str]:
    """Kind of condition by side, named like the data sets of its values."""
    return {
        f"boundary_{axis}_{side}": type(condition).__name__
        for axis, pair in enumerate(problem.conditions)
        for side, condition in zip(("first", "last"), pair, strict=True)
    }


def _build(problem: BoundaryProblem, config: BoundaryDataConfig) -> Arrays:
    times = config.output_times(problem)
    drawn = problem.draw(config.samples, Generator().manual_seed(config.seed))
    starts = range(0, config.samples, _GROUP)
    parts = [{name: values[start : start + _GROUP] for name, values in drawn.items()} for start in starts]
    with one_thread():
        groups = [_as_arrays(problem.evaluate(part, config.nodes, times)) for part in parts]
    arrays = {name: np.concatenate([group[name] for group in groups]) for name in groups[0]}
    arrays |= {f"parameter_{name}": values.numpy() for name, values in drawn.items()}
    return arrays | {"times": times.numpy()}


def _as_arrays(samples: BoundarySamples) -> Arrays:
    """Fields and boundary values of some samples in float32."""
    tensors = {"input": samples.input, "output": samples.output}
    for axis, pair in enumerate(samples.boundary):
        if pair is not None:
            tensors |= {f"boundary_{axis}_first": pair[0], f"boundary_{axis}_last": pair[1]}
    return {name: tensor.numpy().astype(np.float32) for name, tensor in tensors.items()}


def _check(problem: BoundaryProblem, config: BoundaryDataConfig, arrays: Arrays, path: Path) -> None:
    """Raises DataFileError unless the arrays are those of the problem's samples."""
    space, lead = problem.grid(config.nodes).shape, (config.samples, config.times)
    shapes = {"times": lead[1:], "input": (lead[0], *space), "output": (*lead, *space)}
    for axis, pair in enumerate(problem.conditions):
        if not isinstance(pair[0], Periodic):
            face = (*lead, *space[:axis], *space[axis + 1 :])
            shapes |= {f"boundary_{axis}_{side}": face for side in ("first", "last")}
    wrong = [name for name, shape in shapes.items() if name not in arrays or arrays[name].shape != shape]
    parameters = [f"parameter_{parameter.name}" for parameter in problem.parameters]
    wrong += [name for name in parameters if name not in arrays or arrays[name].shape[:1] != lead[:1]]
    wrong += [name for name, array in arrays.items() if array.dtype not in (np.float32, np.float64)]
    if wrong:
        raise DataFileError(
            f"'{path}' does not hold samples of {problem.name}: '{wrong[0]}' is missing or of another shape or type; "
            "delete it and run again."
        )


def _from_arrays(problem: BoundaryProblem, config: BoundaryDataConfig, arrays: Arrays) -> BoundarySamples:
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    sides = [(f"boundary_{axis}_first", f"boundary_{axis}_last") for axis in range(len(problem.conditions))]
    return BoundarySamples(
        grid=problem.grid(config.nodes),
        times=tensors["times"],
        input=tensors["input"],
        output=tensors["output"],
        boundary=tuple((tensors[first], tensors[last]) if first in tensors else None for first, last in sides),
        parameters={parameter.name: tensors[f"parameter_{parameter.name}"] for parameter in problem.parameters},
    )
