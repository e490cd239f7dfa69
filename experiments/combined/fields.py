"""Conservation problems as operators see them, from one parameter to the field at many times, on nodes.

A value at an inner node is the average over the cell around it, half-way to its neighbours; an end node holds the
boundary value where it is given, else the average over its half cell. So the trapezoid rule gives the total of the true
field even where it jumps: up to O(h² u_x) of the half cells whose end is given, where point values miss O(h).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from experiments.errors import InvalidArgumentError
from probconserv import LinearConstraint, integral
from solvers import CellGrid, Dirichlet, NodeGrid, Periodic
from solvers.problems import Problem

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
        """All settings that change its training data, as JSON can hold it."""
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
