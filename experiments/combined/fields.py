"""Conservation problems as operators see them, from one parameter to the field at many times, on nodes; their cases.

A value at an inner node is the average over the cell around it, half-way to its neighbours; an end node holds the
boundary value where it is given, else the average over its half cell. So the trapezoid rule gives the total of the true
field even where it jumps: up to O(h² u_x) of the half cells whose end is given, where point values miss O(h).
"""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from experiments.errors import InvalidArgumentError, require_at_least
from experiments.experiment import Preset
from experiments.records.release import data_version
from probconserv import LinearConstraint, integral
from probconserv.training import TrainingConfig
from solvers import CellGrid, Dirichlet, NodeGrid, Periodic, Problem
from solvers.problems import ADVECTION, DIFFUSION, POROUS_MEDIUM, STEFAN

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class FieldProblem:
    """A problem whose parameter is trained on the first of the intervals and tested on all, the nearest first.

    Output times are the midpoints of equal intervals of (0, final_time). The nodes are equally spaced and include both
    ends of the domain; between two of them are ``refinement`` finite-volume cells, an even number. ``tolerance`` is
    that of the time steps of training data, None for the usual one; where fields are smooth their error is the largest.
    """

    problem: Problem
    intervals: tuple[Interval, ...]
    final_time: float
    nodes: int = 101
    times: int = 25
    refinement: int = 4
    tolerance: float | None = None

    def __post_init__(self) -> None:
        if self.nodes < 3 or self.times < 1 or self.refinement < 2 or self.refinement % 2:
            needed, got = "at least 3 nodes, one time and an even refinement", (self.nodes, self.times, self.refinement)
            raise InvalidArgumentError(f"A field problem needs {needed}, got {got}.")

    @property
    def name(self) -> str:
        return self.problem.name

    @property
    def label(self) -> str:
        return self.name.replace("_", " ").capitalize()

    @property
    def description(self) -> dict[str, Any]:
        """What decides its training data, as JSON can hold it."""
        numbers = {key: getattr(self, key) for key in ("final_time", "nodes", "times", "refinement")}
        numbers |= {} if self.tolerance is None else {"tolerance": self.tolerance}
        return {"problem": self.name, "training_range": list(self.training_range), **numbers}

    @property
    def training_range(self) -> Interval:
        return self.intervals[0]

    @cached_property
    def output_times(self) -> Float[Tensor, " t"]:
        return self.final_time * (torch.arange(self.times, dtype=torch.float64) + 0.5) / self.times

    @property
    def periodic(self) -> bool:
        """Whether the domain is a circle, whose last node is the first one again."""
        return self._has(Periodic)[0]

    @property
    def given(self) -> tuple[bool, bool]:
        """Whether the value at the first and at the last end is given."""
        return self._has(Dirichlet)

    @property
    def grid(self) -> NodeGrid | CellGrid:
        """The n points with their weights: nodes, or on a circle the cells around them."""
        low, high = self.problem.domain
        if self.periodic:
            half = 0.5 * ((high - low) / (self.nodes - 1))
            return CellGrid(low - half, high - half, self.nodes - 1)
        return NodeGrid(low, high, self.nodes)

    @property
    def free(self) -> slice:
        """The points whose value is not given."""
        return slice(int(self.given[0]), -1 if self.given[1] else None)

    def parameters(self, interval: Interval, count: int, seed: int) -> Float[Tensor, " count"]:
        """Random parameters of an interval."""
        low, high = interval
        return low + (high - low) * torch.rand(count, generator=Generator().manual_seed(seed), dtype=torch.float64)

    def ends(self, parameter: Float[Tensor, " batch"]) -> tuple[Tensor, Tensor]:
        """Values at the first and at the last end ``(batch, T)``; data of the problem where they are ``given``."""
        first, last = (self.problem.solution(self.output_times, end, parameter[:, None]) for end in self.problem.domain)
        return first, last

    def total(self, parameter: Float[Tensor, " batch"]) -> Float[Tensor, "batch t"]:
        """Conserved total at every time."""
        return self.problem.total(self.output_times, parameter[:, None])

    def law(self, parameter: Float[Tensor, " batch"]) -> LinearConstraint:
        """The conservation law at every time, batch axes ``(batch, T)``."""
        return integral(self.grid, self.total(parameter))

    def truth(self, parameter: Float[Tensor, " batch"]) -> Float[Tensor, "batch t n"]:
        """The closed form at all points and times."""
        if isinstance(self.grid, CellGrid):
            return self.problem.averages(self.output_times, self.grid, parameter[:, None])
        points = self.grid.points
        faces = torch.cat([points[:1], 0.5 * (points[1:] + points[:-1]), points[-1:]])
        integrals = self.problem.antiderivative(self.output_times[:, None], faces, parameter[:, None, None])
        return self._with_given_ends(integrals.diff(dim=-1) / faces.diff(), parameter)

    def restricted(self, cells: Tensor, parameter: Tensor) -> Float[Tensor, "batch t n"]:
        """Averages over fine cells as values at the points; keeps the total up to the half cells of given ends."""
        half = self.refinement // 2
        if self.periodic:
            return cells.roll(half, dims=-1).unflatten(-1, (-1, self.refinement)).mean(dim=-1)
        inner = cells[..., half:-half].unflatten(-1, (-1, self.refinement)).mean(dim=-1)
        first, last = (part.mean(dim=-1, keepdim=True) for part in (cells[..., :half], cells[..., -half:]))
        return self._with_given_ends(torch.cat([first, inner, last], dim=-1), parameter)

    def _has(self, condition: type) -> tuple[bool, bool]:
        first, last = self.problem.boundary(torch.tensor(self.training_range[:1], dtype=torch.float64))
        return isinstance(first, condition), isinstance(last, condition)

    def _with_given_ends(self, values: Tensor, parameter: Tensor) -> Tensor:
        for index, given, end in zip((0, -1), self.given, self.ends(parameter), strict=True):
            if given:
                values[..., index] = end
        return values


def _fields(problem: Problem, final_time: float, *ends: float, tolerance: float | None = None) -> FieldProblem:
    """A problem by the ends of its intervals, each of which adjoins the one before."""
    intervals = tuple((min(pair), max(pair)) for pair in pairwise(ends))
    return FieldProblem(problem=problem, intervals=intervals, final_time=final_time, tolerance=tolerance)


DIFFUSION_FIELDS = _fields(DIFFUSION, 1.0, 1.0, 5.0, 6.0, 7.0, 8.0, tolerance=1e-6)
POROUS_FIELDS = _fields(POROUS_MEDIUM, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
STEFAN_FIELDS = _fields(STEFAN, 0.1, 0.65, 0.6, 0.55, 0.5, 0.45)
ADVECTION_FIELDS = _fields(ADVECTION, 0.1, 1.0, 3.0, 3.5, 4.0, 4.5)
"""Diffusion (heat) as in Mouli et al. 2024; the others adjoin a part of the range of Hansen et al. 2023 likewise,
towards steeper fields. Advection ends before its front leaves the domain."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of a run.

    Of training, validation and random test parameters (the latter for every interval), the grid, finite-volume cells
    per interval between nodes (``refinement``), the operators and their training (its seed is set for each) with
    ``batch`` fields a step; trainings that an ensemble joins, and independent groups of trainings, over which standard
    errors of the tables are.
    """

    samples: int = 256
    validation: int = 32
    test: int = 100
    nodes: int = 101
    times: int = 25
    refinement: int = 4
    width: int = 32
    modes: int = 32
    depth: int = 4
    training: TrainingConfig
    batch: int = 20
    members: int = 4
    groups: int = 3

    def __post_init__(self) -> None:
        require_at_least(self, samples=1, validation=1, test=2, batch=1, width=1, members=2, groups=1)
        if self.batch > self.samples:
            raise InvalidArgumentError(f"batch must not exceed the {self.samples} samples, got {self.batch}.")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A problem tested on one interval of its parameter, by number; 0 is the training range."""

    problem: FieldProblem
    number: int
    sizes: Sizes

    @property
    def key(self) -> str:
        return f"{self.problem.name}-{self.number}"

    @property
    def interval(self) -> Interval:
        return self.problem.intervals[self.number]

    @property
    def label(self) -> str:
        low, high = self.interval
        trained = "" if self.number else ", trained on"
        return f"{self.problem.label}, {self.problem.problem.symbol} in [{low:g}, {high:g}]{trained}"

    @property
    def config(self) -> dict[str, Any]:
        version, test = data_version(self.problem.name), self.sizes.test
        return {**self.problem.description, "data_version": version, "interval": self.interval, "test": test}

    def parameters(self, seed: int) -> Float[Tensor, " test"]:
        """Random test parameters by the seed of the run, the same for all methods and groups."""
        return self.problem.parameters(self.interval, self.sizes.test, seed=1000 * seed + self.number)


def cases_of(problem: FieldProblem, sizes: Sizes) -> list[Case]:
    """The cases of a problem in these sizes, one per interval."""
    sized = replace(problem, nodes=sizes.nodes, times=sizes.times, refinement=sizes.refinement)
    return [Case(problem=sized, number=number, sizes=sizes) for number in range(len(sized.intervals))]


def _training(steps: int, peak_rate: float) -> TrainingConfig:
    validate, store = max(1, steps // 10), max(1, steps // 4)
    every = TrainingConfig(steps=steps, validate_every=validate, checkpoint_every=store, precision="32-true")
    return replace(every, peak_rate=peak_rate, weight_decay=1e-4)


_SMALL_GRID = {"nodes": 33, "times": 5, "refinement": 2, "width": 12, "modes": 6, "depth": 2}
_SMALL_NUMBERS = {"samples": 32, "validation": 8, "test": 8, "batch": 8, "members": 2, "groups": 1}
_LARGE = {"samples": 512, "validation": 64, "test": 200, "nodes": 201, "width": 64, "modes": 64, "members": 10}
SIZES: dict[Preset, Sizes] = {
    "smoke": Sizes(training=_training(150, 4e-3), **_SMALL_GRID, **_SMALL_NUMBERS),
    "laptop": Sizes(training=_training(3000, 4e-3)),
    "paper": Sizes(training=_training(20_000, 2e-3), groups=5, **_LARGE),
}
