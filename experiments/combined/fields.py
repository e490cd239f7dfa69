"""Conservation problems as operators see them: from one parameter to the field at many times, on nodes.

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
from solvers import CellGrid, Dirichlet, NodeGrid, Periodic, Problem
from solvers.problems import ADVECTION, DIFFUSION, POROUS_MEDIUM, STEFAN

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class FieldProblem:
    """A problem whose parameter is trained on one interval and tested on that and on others.

    Output times are the midpoints of equal intervals of (0, final_time).

    Args:
        problem: The problem.
        training_range: Interval of the parameter in training.
        shifts: Intervals outside it that are tested, the nearest first.
        final_time: End of the times.
        nodes: Equally spaced nodes of the domain, both ends included.
        times: Number T of output times.
        refinement: Finite-volume cells per interval between nodes, an even number.

    Raises:
        InvalidArgumentError: If a number is too small or the refinement odd.
    """

    problem: Problem
    training_range: Interval
    shifts: tuple[Interval, ...]
    final_time: float
    nodes: int = 101
    times: int = 25
    refinement: int = 4

    def __post_init__(self) -> None:
        if self.nodes < 3 or self.times < 1 or self.refinement < 2 or self.refinement % 2:
            raise InvalidArgumentError(
                "A field problem needs at least 3 nodes, one time and an even refinement, got "
                f"{self.nodes}, {self.times} and {self.refinement}."
            )

    @property
    def name(self) -> str:
        """Name of the problem."""
        return self.problem.name

    @property
    def label(self) -> str:
        """Name in tables and figures."""
        return self.name.replace("_", " ").capitalize()

    @property
    def description(self) -> dict[str, Any]:
        """What decides its training data, as JSON can hold it."""
        numbers = {key: getattr(self, key) for key in ("final_time", "nodes", "times", "refinement")}
        return {"problem": self.name, "training_range": list(self.training_range), **numbers}

    @property
    def intervals(self) -> tuple[Interval, ...]:
        """All intervals that are tested, the training range first."""
        return (self.training_range, *self.shifts)

    @cached_property
    def output_times(self) -> Float[Tensor, " t"]:
        """Times ``(T,)``."""
        return self.final_time * (torch.arange(self.times, dtype=torch.float64) + 0.5) / self.times

    @property
    def spacing(self) -> float:
        """Distance h between nodes."""
        low, high = self.problem.domain
        return (high - low) / (self.nodes - 1)

    @property
    def periodic(self) -> bool:
        """Whether the domain is a circle, whose last node is the first one again."""
        return isinstance(self._conditions[0], Periodic)

    @property
    def given(self) -> tuple[bool, bool]:
        """Whether the value at the first and at the last end is given."""
        first, last = self._conditions
        return isinstance(first, Dirichlet), isinstance(last, Dirichlet)

    @property
    def grid(self) -> NodeGrid | CellGrid:
        """The n points with their weights: nodes, or on a circle the cells around them."""
        low, high = self.problem.domain
        if self.periodic:
            return CellGrid(low - 0.5 * self.spacing, high - 0.5 * self.spacing, self.nodes - 1)
        return NodeGrid(low, high, self.nodes)

    @property
    def free(self) -> slice:
        """The points whose value is not given."""
        first, last = self.given
        return slice(int(first), -1 if last else None)

    def parameters(self, interval: Interval, count: int, seed: int) -> Float[Tensor, " count"]:
        """Random parameters of an interval ``(count,)``."""
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

    def restricted(
        self, cells: Float[Tensor, "batch t cells"], parameter: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch t n"]:
        """Averages over fine cells as values at the points; keeps the total up to the half cells of given ends.

        Args:
            cells: Averages over ``refinement·(nodes − 1)`` cells of the domain.
            parameter: The parameters, for the values at given ends.
        """
        half = self.refinement // 2
        if self.periodic:
            return cells.roll(half, dims=-1).unflatten(-1, (-1, self.refinement)).mean(dim=-1)
        inner = cells[..., half:-half].unflatten(-1, (-1, self.refinement)).mean(dim=-1)
        first, last = (part.mean(dim=-1, keepdim=True) for part in (cells[..., :half], cells[..., -half:]))
        return self._with_given_ends(torch.cat([first, inner, last], dim=-1), parameter)

    @property
    def _conditions(self) -> tuple[object, object]:
        first, last = self.problem.boundary(torch.tensor([self.training_range[0]], dtype=torch.float64))
        return first, last

    def _with_given_ends(self, values: Tensor, parameter: Tensor) -> Tensor:
        for index, given, end in zip((0, -1), self.given, self.ends(parameter), strict=True):
            if given:
                values[..., index] = end
        return values


DIFFUSION_FIELDS = FieldProblem(
    problem=DIFFUSION, training_range=(1.0, 5.0), shifts=((5.0, 6.0), (6.0, 7.0), (7.0, 8.0)), final_time=1.0
)
POROUS_FIELDS = FieldProblem(
    problem=POROUS_MEDIUM, training_range=(2.0, 3.0), shifts=((3.0, 4.0), (4.0, 5.0), (5.0, 6.0)), final_time=1.0
)
STEFAN_FIELDS = FieldProblem(
    problem=STEFAN, training_range=(0.6, 0.65), shifts=((0.55, 0.6), (0.5, 0.55), (0.45, 0.5)), final_time=0.1
)
ADVECTION_FIELDS = FieldProblem(
    problem=ADVECTION, training_range=(1.0, 3.0), shifts=((3.0, 3.5), (3.5, 4.0), (4.0, 4.5)), final_time=0.1
)
"""Diffusion (heat) as in Mouli et al. 2024; the others adjoin a part of the range of Hansen et al. 2023 likewise,
towards steeper fields. Advection ends before its front leaves the domain."""
