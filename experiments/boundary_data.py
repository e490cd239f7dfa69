"""Stored samples of the boundary-condition problems: HDF5 files with everything a reader needs to use them."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

import solvers
from experiments.checks import require_at_least
from experiments.errors import DataFileError, InvalidArgumentError
from experiments.runs import as_json, digest, source_digest
from experiments.storage import Arrays, cached_arrays, writable_folder
from experiments.workers import map_parts
from solvers import Periodic
from solvers.problems.boundary_samples import BoundaryProblem, BoundarySamples

_GROUP = 50  # samples evaluated together: memory


@dataclass(frozen=True, kw_only=True)
class BoundaryDataConfig:
    """Which samples of a problem.

    Args:
        samples: Number of samples.
        nodes: Nodes along every axis, ends included.
        times: Output times: 1 for the single-step version, more for equally spaced ones up to the final time.
        final_time: Last output time; None for the problem's own.
        seed: Seed of the random parameters; training, validation and test samples take different ones.

    Raises:
        InvalidArgumentError: If a number is too small.
    """

    samples: int = 500
    nodes: int = 128
    times: int = 25
    final_time: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require_at_least(self, samples=1, nodes=5, times=1, seed=0)
        if self.final_time is not None and not self.final_time > 0:
            raise InvalidArgumentError(f"final_time must be positive, got {self.final_time}.")

    def output_times(self, problem: BoundaryProblem) -> Tensor:
        """Output times of the version ``(t,)``."""
        if self.times == 1 and self.final_time is None:
            return problem.single_step()
        return problem.multi_step(self.times, self.final_time)


def boundary_samples(
    problem: BoundaryProblem, config: BoundaryDataConfig, folder: Path, processes: int | None = None
) -> BoundarySamples:
    """Samples of a problem, made once and read afterwards; a damaged file is made again.

    The file ``<problem>-<hash>.h5`` holds ``input``, ``output``, ``times``, ``boundary_<axis>_first``,
    ``boundary_<axis>_last`` and ``parameter_<name>``; its attributes say where values live, in which order axes come,
    units, conditions per side, and how the samples were made. The hash covers the config, the problem's constants and
    distributions, the code of the solvers, and the version of this package.

    Args:
        problem: The problem.
        config: Which samples.
        folder: Where the file lives.
        processes: Worker processes that evaluate samples, see ``map_parts``; the numbers do not depend on it.

    Returns:
        The samples, their fields and boundary values rounded to float32 (Dirichlet values stay equal to their nodes),
        parameters and times in float64.

    Raises:
        DataFileError: If the file is whole but holds something else.
        OutputFolderError: If the folder cannot be written.
    """
    times = config.output_times(problem)
    description = describe_samples(problem, config)
    identity = digest([description, source_digest(solvers)])
    attributes = {
        "location": problem.grid(config.nodes).location,
        "axes": "sample, t, " + ", ".join("xyz"[: len(problem.conditions)]),
        "units": "dimensionless",
        "config_hash": identity,
        "config": json.dumps(description, ensure_ascii=False),
        "reconstructed": problem.reconstructed,
        **_condition_names(problem),
    }
    path = writable_folder(folder) / f"{problem.name}-{identity}.h5"
    arrays = cached_arrays(path, lambda: _build(problem, config, times, processes), attributes)
    _check(problem, config, arrays, path)
    return _from_arrays(problem, config, arrays)


def describe_samples(problem: BoundaryProblem, config: BoundaryDataConfig) -> dict[str, object]:
    """Everything that decides the samples, ready for JSON."""
    return {
        "problem": problem.name,
        "equation": problem.equation,
        "start": problem.start,
        "times": config.output_times(problem).tolist(),
        "constants": dict(problem.constants),
        "parameters": [as_json(parameter) for parameter in problem.parameters],
        "config": as_json(config),
    }


def _condition_names(problem: BoundaryProblem) -> dict[str, str]:
    """Kind of condition by side, named like the data sets of its values."""
    return {
        f"boundary_{axis}_{side}": type(condition).__name__
        for axis, pair in enumerate(problem.conditions)
        for side, condition in zip(("first", "last"), pair, strict=True)
    }


def _build(problem: BoundaryProblem, config: BoundaryDataConfig, times: Tensor, processes: int | None) -> Arrays:
    drawn = problem.draw(config.samples, Generator().manual_seed(config.seed))
    starts = range(0, config.samples, _GROUP)
    parts = [{name: values[start : start + _GROUP] for name, values in drawn.items()} for start in starts]
    groups = map_parts(lambda part: _as_arrays(problem.evaluate(part, config.nodes, times)), parts, processes)
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
