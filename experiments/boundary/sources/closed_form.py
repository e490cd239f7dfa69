"""Samples of the boundary-condition problems of Saad et al., one file for each config."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from experiments.boundary.sources.source import Conditions, DataStore, SampleConfig, Samples, Source
from experiments.records.store import as_json, config_hash
from experiments.stages import one_thread
from experiments.storage import Arrays, cached_arrays, writable_folder
from solvers.problems.boundary_samples import BoundaryProblem, BoundarySamples

_GROUP = 50  # samples evaluated together: memory


@dataclass(frozen=True)
class ClosedFormSource(Source):
    """Samples of a problem with a closed form or a reference solution on any grid.

    The file ``<problem>-<hash>.safetensors`` has metadata that say where values are, in which order axes come, units,
    conditions per side, and how the samples were made. The hash covers config, constants, distributions and version.
    Fields and boundary values are rounded to float32, so that Dirichlet values stay equal to their nodes.
    """

    problem: BoundaryProblem

    @property
    def reconstructed(self) -> str:
        return self.problem.reconstructed

    @property
    def conditions(self) -> tuple[Conditions, ...]:
        return (self.problem.conditions,)

    def times(self, config: SampleConfig) -> Tensor:
        single = config.times == 1 and config.final_time is None
        return self.problem.single_step() if single else self.problem.multi_step(config.times, config.final_time)

    def describe(self, config: SampleConfig) -> dict[str, Any]:
        numbers = {name: getattr(config, name) for name in ("samples", "skipped", "nodes", "seed", "split")}
        return {
            "problem": self.problem.name,
            "equation": self.problem.equation,
            "start": self.problem.start,
            "times": self.times(config).tolist(),
            "constants": dict(self.problem.constants),
            "parameters": as_json(self.problem.parameters),
            "config": numbers,
        }

    def samples(self, config: SampleConfig, store: DataStore) -> Samples:
        return as_samples(self.stored(config, store))

    def stored(self, config: SampleConfig, store: DataStore) -> BoundarySamples:
        """The samples with their parameters; a damaged file is made again."""
        problem, content = self.problem, {"samples": self.describe(config), "data_version": store.version}
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
        path = writable_folder(store.folder) / f"{problem.name}-{config_hash(content)}.safetensors"
        arrays = cached_arrays(path, lambda: self._build(config), notes)
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

    def _build(self, config: SampleConfig) -> Arrays:
        """Samples as they are stored, evaluated group by group; test samples are from odd seeds."""
        problem, times = self.problem, self.times(config)
        seed = 2 * config.seed + (config.split == "test")
        drawn = problem.draw(config.skipped + config.samples, Generator().manual_seed(seed))
        drawn = {name: values[config.skipped :] for name, values in drawn.items()}
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


def as_samples(drawn: BoundarySamples) -> Samples:
    """Samples of a problem with one input field and one unknown."""
    return Samples(
        times=drawn.times,
        input=drawn.input.unsqueeze(1),
        output=drawn.output.unsqueeze(2),
        values=tuple(pair and (pair[0].unsqueeze(2), pair[1].unsqueeze(2)) for pair in drawn.boundary),
    )


def _sides(axis: int) -> tuple[str, str]:
    """Names of the values on both sides of an axis."""
    return f"boundary_{axis}_first", f"boundary_{axis}_last"
