"""Samples of the problems: a config in, tensors out; closed forms, and random problems with reference solutions."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from joblib import Parallel, delayed
from torch import Generator, Tensor

from experiments.boundary.equations.problem import BoundaryProblem
from experiments.errors import InvalidArgumentError, require_at_least
from experiments.records.storage import Arrays, cached_arrays, writable_folder
from experiments.records.store import as_json, config_hash
from experiments.stages import one_thread
from solvers import Dirichlet, Neumann
from solvers.conditions import AxisConditions
from solvers.problems.operator_problems.problem import OperatorProblem, Split
from solvers.problems.operator_problems.samples import operator_samples

_GROUP = 50  # closed forms evaluated together: memory
_PART = 20  # solved samples of a file
_KINDS = {"Dirichlet": Dirichlet(), "Neumann": Neumann()}

Conditions = tuple[AxisConditions, ...]
"""One (first, last) pair per axis of space."""
SideValues = tuple[tuple[Tensor | None, Tensor | None] | None, ...]
"""Per axis the values of its (first, last) side; None for a side or an axis without data."""


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Selection of samples of a source.

    Args:
        validation: How many of them, the last, are the validation set; of test samples none.
        times: Output times: 1 for the single-step version, more for equally spaced ones up to the final time.
        final_time: Last output time; None for the usual one of the source.
        split: Training samples, or test samples, which are none of the training samples of any seed.
    """

    samples: int = 500
    validation: int = 0
    nodes: int = 128
    times: int = 25
    final_time: float | None = None
    seed: int = 0
    split: Literal["train", "test"] = "train"

    def __post_init__(self) -> None:
        require_at_least(self, samples=1, validation=0, nodes=5, times=1, seed=0)
        if self.validation > self.samples:
            raise InvalidArgumentError(
                f"validation must not exceed the number of samples, {self.samples}, got {self.validation}."
            )


@dataclass(frozen=True, kw_only=True)
class DataStore:
    """Storage and making of samples.

    ``version`` is that of the data, part of their names.
    """

    folder: Path
    version: int
    jobs: int = 1


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Samples of a source, in float32 unless they were just drawn.

    Args:
        times: Output times ``(t,)``; 0 for a steady problem.
        values: Values of the conditions on the sides, ``(batch, t, unknowns, *face)`` each: of the field for Dirichlet,
            of ∂/∂x along the axis for Neumann.
    """

    times: Float[Tensor, " t"]
    input: Float[Tensor, "batch inputs *space"]
    output: Float[Tensor, "batch t unknowns *space"]
    values: SideValues


class Source(ABC):
    """Samples of one problem on the unit interval or square, on nodes that include both ends of every axis."""

    problem: Any
    reconstructed = ""
    """Settings that a paper does not give, for tables; may be empty."""

    @property
    def name(self) -> str:
        """Name in files."""
        return self.problem.name

    @property
    def equation(self) -> str:
        """Equation, for tables."""
        return self.problem.equation

    @property
    @abstractmethod
    def conditions(self) -> tuple[Conditions, ...]:
        """Conditions of every unknown; where unknowns differ in them they have their values built in."""

    @abstractmethod
    def times(self, config: SampleConfig) -> Float[Tensor, " t"]:
        """Output times of a config."""

    @abstractmethod
    def describe(self, config: SampleConfig) -> dict[str, Any]:
        """Everything that decides samples but the version of the data, as JSON can hold it."""

    @abstractmethod
    def samples(self, config: SampleConfig, store: DataStore) -> Samples:
        """The samples, made once and read afterwards."""


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


@dataclass(frozen=True, kw_only=True)
class CellSource(Source):
    """Averages over cells of the samples of another source, by Simpson's rule on both ends and the middle of each cell.

    ``nodes`` of a config is the number of cells along an axis.
    """

    nodes: Source

    @property
    def problem(self) -> Any:
        return self.nodes.problem

    @property
    def conditions(self) -> tuple[Conditions, ...]:
        return self.nodes.conditions

    def times(self, config: SampleConfig) -> Tensor:
        return self.nodes.times(config)

    def describe(self, config: SampleConfig) -> dict[str, Any]:
        return {**self.nodes.describe(_halved(config)), "cells": config.nodes}

    def samples(self, config: SampleConfig, store: DataStore) -> Samples:
        fine, axes = self.nodes.samples(_halved(config), store), len(self.conditions[0])
        return Samples(
            times=fine.times,
            input=averages(fine.input, axes),
            output=averages(fine.output, axes),
            values=tuple(
                pair and tuple(None if side is None else averages(side, axes - 1) for side in pair)  # pyright: ignore
                for pair in fine.values
            ),
        )


def averages(u: Float[Tensor, "..."], axes: int) -> Float[Tensor, "..."]:
    """Averages over n cells along each of the last axes, by Simpson's rule on 2n + 1 nodes."""
    for axis in range(-axes, 0):
        first, middle, last = (u.unfold(axis, 3, 2)[..., node] for node in range(3))
        u = (first + 4 * middle + last) / 6
    return u


def _halved(config: SampleConfig) -> SampleConfig:
    """The nodes at both ends and in the middle of the cells of a config."""
    return replace(config, nodes=2 * config.nodes + 1)


def _parts(config: SampleConfig) -> Iterator[tuple[Split, int, int]]:
    """Splits, first samples and numbers of what is stored together, the validation set last."""
    counts: dict[Split, int] = {config.split: config.samples - config.validation, "validation": config.validation}
    for split, count in counts.items():
        for first in range(0, count, _PART):
            yield split, first, min(_PART, count - first)


def _expand(values: Tensor | None, output: Tensor) -> Tensor | None:
    """Data of a side at all times and for all unknowns."""
    return None if values is None else values[:, None, None].expand(*output.shape[:3], *values.shape[1:])
