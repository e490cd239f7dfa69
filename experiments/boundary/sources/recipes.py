"""Samples of the random problems of ``solvers.problems.operator_problems``."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from torch import Tensor

from experiments.boundary.sources.source import Conditions, DataStore, SampleConfig, Samples, Source
from experiments.errors import InvalidArgumentError
from experiments.records.store import as_json, config_hash
from experiments.stages import one_thread
from experiments.storage import Arrays, cached_arrays, writable_folder
from solvers import Dirichlet, Neumann
from solvers.problems.operator_problems import OperatorProblem, operator_samples
from solvers.problems.operator_problems.problem import Split

_PART = 20  # samples of a file
_KINDS = {"Dirichlet": Dirichlet(), "Neumann": Neumann()}


@dataclass(frozen=True, kw_only=True)
class RecipeSource(Source):
    """Samples of a problem of ``OPERATOR_PROBLEMS``, in files of 20 each that sets of any size have in common.

    On other grids the cells of the reference solution stay about as many, so that samples are the same up to its error.

    Args:
        walls: Conditions of every unknown where a side has no data (reflecting walls), with values.
        rest: State of rest that is subtracted from the unknowns, which then are deviations from it; one number each.
    """

    problem: OperatorProblem
    walls: tuple[Conditions, ...] = ()
    rest: tuple[float, ...] = ()

    @property
    def conditions(self) -> tuple[Conditions, ...]:
        given = tuple((_KINDS.get(first), _KINDS.get(last)) for first, last in self.problem.conditions)
        return self.walls or (given,)  # pyright: ignore[reportReturnType]

    def times(self, config: SampleConfig) -> Tensor:
        usual = self.problem.recipe.times
        if not usual:
            return torch.zeros(1, dtype=torch.float64)
        final = usual[-1] if config.final_time is None else config.final_time
        return final * torch.arange(1, config.times + 1, dtype=torch.float64) / config.times

    def describe(self, config: SampleConfig) -> dict[str, Any]:
        numbers = {name: getattr(config, name) for name in ("samples", "validation", "seed", "split")}
        return {**self._content(config), "config": numbers}

    def samples(self, config: SampleConfig, store: DataStore) -> Samples:
        content = {**self._content(config), "seed": config.seed, "data_version": store.version}
        folder = writable_folder(store.folder / f"{self.name}-{config_hash(content)}")
        make = delayed(self._part)
        parts: list[Arrays] = Parallel(n_jobs=store.jobs)(  # pyright: ignore[reportAssignmentType]
            make(config, folder, *part) for part in _parts(config)
        )
        whole = {name: torch.from_numpy(np.concatenate([part[name] for part in parts])) for name in parts[0]}
        output = whole["output"]
        return Samples(
            times=self.times(config),
            input=whole["input"],
            output=output,
            values=tuple(
                (_expand(whole.get(f"side_{axis}_first"), output), _expand(whole.get(f"side_{axis}_last"), output))
                for axis in range(self.problem.dimension)
            ),
        )

    def on_grid(self, config: SampleConfig) -> OperatorProblem:
        """The problem with the nodes and times of a config."""
        recipe, intervals = self.problem.recipe, config.nodes - 1
        if not recipe.times and config.times > 1:
            raise InvalidArgumentError(f"{self.name} is steady and has no {config.times} times; take 1.")
        refinement = max(1, round(recipe.intervals * recipe.refinement / intervals))
        times = tuple(self.times(config).tolist()) if recipe.times else ()
        changed = replace(recipe, intervals=intervals, refinement=refinement, times=times)
        return replace(self.problem, recipe=changed)  # pyright: ignore[reportArgumentType]

    def _content(self, config: SampleConfig) -> dict[str, Any]:
        return {"problem": as_json(self.on_grid(config)), "equation": self.equation, "rest": self.rest}

    def _part(self, config: SampleConfig, folder: Path, split: Split, first: int, count: int) -> Arrays:
        """Samples that are solved and stored together."""
        path = folder / f"{split}-{first:05d}-{count}.safetensors"
        return cached_arrays(path, lambda: self._build(config, split, first, count))

    def _build(self, config: SampleConfig, split: Split, first: int, count: int) -> Arrays:
        with one_thread():
            solved = self.on_grid(config).sample(count, first=first, split=split, seed=config.seed)
        drawn = operator_samples(solved, tuple(self.problem.inputs))
        tensors = {"input": drawn.inputs, "output": drawn.outputs}
        for unknown, level in zip(drawn.output_names, self.rest, strict=False):
            drawn.outputs[:, :, drawn.output_names.index(unknown)] -= level
            if unknown in drawn.input_names:
                drawn.inputs[:, drawn.input_names.index(unknown)] -= level
        for axis, pair in enumerate(drawn.boundary):
            for end, values in zip(("first", "last"), pair, strict=True):
                if values is not None:  # the same at all times and for all unknowns
                    tensors[f"side_{axis}_{end}"] = values[:, 0, 0]
        return {name: tensor.numpy().astype(np.float32) for name, tensor in tensors.items()}


def _parts(config: SampleConfig) -> Iterator[tuple[Split, int, int]]:
    """Splits, first samples and numbers of what is stored together, the validation set last."""
    counts: dict[Split, int] = {config.split: config.samples - config.validation, "validation": config.validation}
    for split, count in counts.items():
        for first in range(0, count, _PART):
            yield split, first, min(_PART, count - first)


def _expand(values: Tensor | None, output: Tensor) -> Tensor | None:
    """Data of a side at all times and for all unknowns."""
    return None if values is None else values[:, None, None].expand(*output.shape[:3], *values.shape[1:])
