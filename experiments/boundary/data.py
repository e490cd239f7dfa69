"""Samples of the boundary-condition problems: files made once, and the tensors that operators take and give."""

import json
from collections.abc import Callable
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

    The output times are the channels of output and values, or the last axis of ``space`` and ``face``, along which the
    input is repeated. Values are per axis those on its (first, last) side, ``(batch, channels, *face)`` each; None for
    periodic axes and for time.
    """

    input: Float[Tensor, "batch 1 *space"]
    output: Float[Tensor, "batch channels *space"]
    values: Values

    def __len__(self) -> int:
        return len(self.input)

    def each(self, change: Callable[[Tensor], Tensor]) -> "Fields":
        """Every tensor changed."""
        values = tuple(pair and (change(pair[0]), change(pair[1])) for pair in self.values)
        return Fields(input=change(self.input), output=change(self.output), values=values)

    def take(self, indices: Tensor | slice) -> "Fields":
        """Some of the samples."""
        return self.each(lambda tensor: tensor[indices])


def load_fields(case: BoundaryCase, config: BoundaryDataConfig, folder: Path, version: int) -> Fields:
    """The fields of a case on these samples, which are made once and read afterwards."""
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

    The file ``<problem>-<hash>.safetensors`` has metadata that say where values are, in which order axes come, units,
    conditions per side, and how the samples were made. The hash covers config, constants, distributions and version.
    Fields and boundary values are rounded to float32, so that Dirichlet values stay equal to their nodes.
    """
    content = {"samples": describe_samples(problem, config), "data_version": version}
    notes = {
        "location": problem.grid(config.nodes).location,
        "axes": "sample, t, " + ", ".join("xyz"[: len(problem.conditions)]),
        "units": "dimensionless",
        "config_hash": config_hash(content),
        "config": json.dumps(content, ensure_ascii=False),
        "reconstructed": problem.reconstructed,
    }
    for axis, pair in enumerate(problem.conditions):
        notes |= {name: type(condition).__name__ for name, condition in zip(_sides(axis), pair, strict=True)}
    path = writable_folder(folder) / f"{problem.name}-{config_hash(content)}.safetensors"
    arrays = cached_arrays(path, lambda: _build(problem, config), notes)
    _check(problem, config, arrays, path)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    sides = [_sides(axis) for axis in range(len(problem.conditions))]
    return BoundarySamples(
        grid=problem.grid(config.nodes),
        times=tensors["times"],
        input=tensors["input"],
        output=tensors["output"],
        boundary=tuple((tensors[first], tensors[last]) if first in tensors else None for first, last in sides),
        parameters={parameter.name: tensors[f"parameter_{parameter.name}"] for parameter in problem.parameters},
    )


def _sides(axis: int) -> tuple[str, str]:
    """Names of the values on both sides of an axis."""
    return f"boundary_{axis}_first", f"boundary_{axis}_last"


def _build(problem: BoundaryProblem, config: BoundaryDataConfig) -> Arrays:
    """Samples as they are stored, evaluated group by group."""
    times = config.output_times(problem)
    drawn = problem.draw(config.samples, Generator().manual_seed(config.seed))
    groups: list[Arrays] = []
    for start in range(0, config.samples, _GROUP):
        some = {name: values[start : start + _GROUP] for name, values in drawn.items()}
        with one_thread():
            samples = problem.evaluate(some, config.nodes, times)
        tensors = {"input": samples.input, "output": samples.output}
        for axis, pair in enumerate(samples.boundary):
            tensors |= dict(zip(_sides(axis), pair or (), strict=False))
        groups.append({name: tensor.numpy().astype(np.float32) for name, tensor in tensors.items()})
    arrays = {name: np.concatenate([group[name] for group in groups]) for name in groups[0]}
    arrays |= {f"parameter_{name}": values.numpy() for name, values in drawn.items()}
    return arrays | {"times": times.numpy()}


def _check(problem: BoundaryProblem, config: BoundaryDataConfig, arrays: Arrays, path: Path) -> None:
    """Raises DataFileError unless the arrays are those of the problem's samples."""
    space, lead = problem.grid(config.nodes).shape, (config.samples, config.times)
    shapes = {"times": lead[1:], "input": (lead[0], *space), "output": (*lead, *space)}
    shapes |= {f"parameter_{parameter.name}": (lead[0], *parameter.shape) for parameter in problem.parameters}
    for axis, pair in enumerate(problem.conditions):
        if not isinstance(pair[0], Periodic):
            shapes |= dict.fromkeys(_sides(axis), (*lead, *space[:axis], *space[axis + 1 :]))
    floats = {name for name, array in arrays.items() if array.dtype in (np.float32, np.float64)}
    wrong = [name for name in {**shapes, **arrays} if name not in floats or arrays[name].shape != shapes.get(name)]
    if wrong:
        raise DataFileError(
            f"'{path}' does not hold samples of {problem.name}: '{wrong[0]}' is missing or of another shape or type; "
            "delete it and run again."
        )
