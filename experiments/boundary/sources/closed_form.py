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
from solvers.problems.boundary_samples import BoundaryProblem

_GROUP = 50  # samples evaluated together: memory


@dataclass(frozen=True)
class ClosedFormSource(Source):
    """Samples of a problem with a closed form or a reference solution on any grid, with one input and one unknown.

    The hash in the name of their file covers config, constants, distributions and version. Fields and boundary values
    are rounded to float32, so that Dirichlet values stay equal to their nodes.
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
        numbers = {name: getattr(config, name) for name in ("samples", "nodes", "seed", "split")} | {"skipped": 0}
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
        problem, content = self.problem, {"samples": self.describe(config), "data_version": store.version}
        axes = len(problem.conditions)
        notes = {"location": "node", "axes": ", ".join(("sample", "t", *"xyz"[:axes])), "units": "dimensionless"}
        notes["config"] = json.dumps(content, ensure_ascii=False)
        path = writable_folder(store.folder) / f"{problem.name}-{config_hash(content)}.safetensors"
        arrays = cached_arrays(path, lambda: self._build(config), notes)
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        sides = (tuple(tensors[name].unsqueeze(2) for name in _sides(axis) if name in tensors) for axis in range(axes))
        return Samples(
            times=tensors["times"],
            input=tensors["input"].unsqueeze(1),
            output=tensors["output"].unsqueeze(2),
            values=tuple((pair[0], pair[1]) if pair else None for pair in sides),
        )

    def _build(self, config: SampleConfig) -> Arrays:
        """Samples as they are stored, evaluated group by group; test samples are from odd seeds."""
        problem, times = self.problem, self.times(config)
        seed = 2 * config.seed + (config.split == "test")
        drawn = problem.draw(config.samples, Generator().manual_seed(seed))
        groups: list[Arrays] = []
        for start in range(0, config.samples, _GROUP):
            some = {name: values[start : start + _GROUP] for name, values in drawn.items()}
            with one_thread():
                samples = problem.evaluate(some, config.nodes, times)
            tensors = {"input": samples.input, "output": samples.output}
            for axis, pair in enumerate(samples.boundary):
                tensors |= dict(zip(_sides(axis), pair or (), strict=False))
            groups.append({name: tensor.numpy().astype(np.float32) for name, tensor in tensors.items()})
        return {name: np.concatenate([group[name] for group in groups]) for name in groups[0]} | {
            "times": times.numpy()
        }


def _sides(axis: int) -> tuple[str, str]:
    """Names of the values on both sides of an axis."""
    return f"boundary_{axis}_first", f"boundary_{axis}_last"
