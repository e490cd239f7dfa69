"""Families of solutions of few random parameters, with exact moments under the laws that fix some of them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probconserv.training.loop import random_seed

_ORDER = 48  # nodes of Gauss and Legendre per parameter
_PART = 256  # fields made at a time

Fixed = tuple[float | None, ...]
"""A value for every parameter that is fixed, None for the others."""


@dataclass(frozen=True, kw_only=True)
class GenerationProblem:
    """Fields u(t, x) on nodes², of independent uniform parameters.

    Args:
        lengths: Last time and length of the domain.
        cells: Whether values are those at centres of cells, not at nodes with both ends.
        bounds: Lower and upper bound of all solutions, if they have any.
        modes: Karhunen–Loève modes of a flow at most: those that are well above round-off.
        times: Number of times after the start; by default there are as many as nodes, the start among them.
        solution: From t ``(t, 1)``, x ``(x,)`` and each parameter ``(s, 1, 1)`` to u ``(s, t, x)``.
    """

    name: str
    label: str
    ranges: tuple[tuple[float, float], ...]
    lengths: tuple[float, float] = (1.0, 1.0)
    cells: bool = False
    bounds: tuple[float, float] | None = None
    modes: int
    times: int | None = None
    solution: Callable[..., Tensor]

    @property
    def description(self) -> dict[str, Any]:
        """All settings that change the fields, as JSON can hold it."""
        ranges, times = [list(pair) for pair in self.ranges], {} if self.times is None else {"times": self.times}
        return {"problem": self.name, "ranges": ranges, "lengths": list(self.lengths), **times}

    def axes(self, nodes: int) -> tuple[Float[Tensor, " t"], Float[Tensor, " x"]]:
        """Times and points."""
        last, length = self.lengths
        if self.cells:
            points = (torch.arange(nodes, dtype=torch.float64) + 0.5) * (length / nodes)
        else:
            points = torch.linspace(0.0, length, nodes, dtype=torch.float64)
        times = torch.linspace(0.0, last, nodes if self.times is None else self.times + 1, dtype=torch.float64)
        return times if self.times is None else times[1:], points

    def fields(self, parameters: Float[Tensor, "s d"], nodes: int) -> Float[Tensor, "s t x"]:
        """The solutions of some parameters."""
        times, points = self.axes(nodes)
        return self.solution(times[:, None], points, *(column[:, None, None] for column in parameters.T))

    def draws(self, count: int, nodes: int, seed: int, fixed: Fixed = ()) -> Float[Tensor, "count t x"]:
        """Solutions of random parameters, some of which are fixed."""
        generator = torch.Generator().manual_seed(random_seed(seed, 0, 0))
        unit = torch.rand(count, len(self.ranges), dtype=torch.float64, generator=generator)
        low, high = torch.tensor(self.ranges, dtype=torch.float64).T
        parameters = low + (high - low) * unit
        for column, value in enumerate(fixed):
            if value is not None:
                parameters[:, column] = value
        return torch.cat([self.fields(part, nodes) for part in parameters.split(_PART)])

    def moments(self, nodes: int, fixed: Fixed) -> tuple[Float[Tensor, "t x"], Float[Tensor, "t x"]]:
        """Mean and standard deviation of the solutions by Gauss–Legendre quadrature over the free parameters."""
        return _moments(self, nodes, fixed)


@lru_cache(maxsize=8)
def _moments(problem: GenerationProblem, nodes: int, fixed: Fixed) -> tuple[Tensor, Tensor]:
    roots, gauss = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(_ORDER))
    values, weights = [], []
    for (low, high), value in zip(problem.ranges, fixed or [None] * len(problem.ranges), strict=True):
        free = value is None
        values.append(low + (high - low) * (roots + 1) / 2 if free else torch.tensor([value], dtype=torch.float64))
        weights.append(gauss / 2 if free else torch.ones(1, dtype=torch.float64))
    axes = len(problem.ranges)
    parameters, weight = (torch.cartesian_prod(*parts).reshape(-1, axes) for parts in (values, weights))
    return weighted_moments(problem, nodes, parameters, weight.prod(dim=-1))


def weighted_moments(
    problem: GenerationProblem, nodes: int, parameters: Float[Tensor, "m d"], weights: Float[Tensor, " m"]
) -> tuple[Float[Tensor, "t x"], Float[Tensor, "t x"]]:
    """Mean and standard deviation of the solutions of parameters with weights of sum 1."""
    mean, square = torch.zeros(2, nodes, nodes, dtype=torch.float64)
    for part, share in zip(parameters.split(_PART), weights.split(_PART), strict=True):
        u = problem.fields(part, nodes)
        mean += torch.einsum("s,stx->tx", share, u)
        square += torch.einsum("s,stx->tx", share, u.square())
    return mean, (square - mean.square()).clamp_min(0.0).sqrt()
