"""Families of solutions of two random parameters, with exact moments under the laws that fix one of them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probconserv import LinearConstraint
from probconserv.training import random_seed

_ORDER = 48  # nodes of Gauss and Legendre per parameter
_PART = 256  # fields made at a time

Fixed = tuple[float | None, ...]
"""A value for every parameter that is fixed, None for the others."""


@dataclass(frozen=True, kw_only=True)
class GenerationProblem:
    """Fields u(t, x) on nodes², of independent uniform parameters.

    Args:
        name: Name in files.
        label: Name for readers.
        ranges: Interval of every parameter.
        lengths: Last time and length of the domain.
        periodic: Whether the domain has no ends; its last node then lies one spacing before the length.
        modes: Karhunen–Loève modes of a flow at most: those whose variance is well above round-off.
        solution: From t ``(t, 1)``, x ``(x,)`` and each parameter ``(s, 1, 1)`` to u ``(s, t, x)``.
    """

    name: str
    label: str
    ranges: tuple[tuple[float, float], ...]
    lengths: tuple[float, float] = (1.0, 1.0)
    periodic: bool = False
    modes: int
    solution: Callable[..., Tensor]

    @property
    def description(self) -> dict[str, Any]:
        """What decides the fields, as JSON can hold it."""
        return {"problem": self.name, "ranges": [list(pair) for pair in self.ranges], "lengths": list(self.lengths)}

    def axes(self, nodes: int) -> tuple[Float[Tensor, " t"], Float[Tensor, " x"]]:
        """Times and points."""
        last, length = self.lengths
        points = torch.linspace(0.0, length, nodes + self.periodic, dtype=torch.float64)[:nodes]
        return torch.linspace(0.0, last, nodes, dtype=torch.float64), points

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
    parameters, weight = torch.cartesian_prod(*values), torch.cartesian_prod(*weights).prod(dim=-1)
    mean, square = torch.zeros(2, nodes, nodes, dtype=torch.float64)
    for part, share in zip(parameters.split(_PART), weight.split(_PART), strict=True):
        u = problem.fields(part, nodes)
        mean += torch.einsum("s,stx->tx", share, u)
        square += torch.einsum("s,stx->tx", share, u.square())
    return mean, (square - mean.square()).clamp_min(0.0).sqrt()


def value_rows(u: Float[Tensor, "t x"], where: tuple[slice | int, slice | int]) -> LinearConstraint:
    """The values of a field on part of its nodes."""
    index = torch.arange(u.numel()).reshape(u.shape)[where].flatten()
    place = torch.stack([torch.arange(len(index)), index])
    rows = torch.sparse_coo_tensor(
        place, torch.ones(len(index), dtype=u.dtype), (len(index), u.numel()), check_invariants=False
    )
    return LinearConstraint(rows, u[where].flatten())


def mean_rows(u: Float[Tensor, "t x"], first: int) -> LinearConstraint:
    """The mean of a periodic field over x at every time from the one with number ``first``."""
    times, points = u.shape
    rows = torch.kron(torch.eye(times, dtype=u.dtype), torch.full((1, points), 1 / points, dtype=u.dtype))[first:]
    return LinearConstraint(rows.to_sparse(), u.mean(dim=-1)[first:])


def _stokes(t: Tensor, y: Tensor, k: Tensor, omega: Tensor) -> Tensor:
    return 2 * torch.exp(-k * y) * torch.cos(k * y - omega * t)


def _heat(t: Tensor, x: Tensor, diffusivity: Tensor, phase: Tensor) -> Tensor:
    return torch.exp(-diffusivity * t) * torch.sin(x + phase)


STOKES = GenerationProblem(
    name="stokes", label="Stokes' second problem", ranges=((2.0, 20.0), (2.0, 8.0)), modes=24, solution=_stokes
)
"""u = 2 e^(−k y) cos(k y − ω t), k in [2, 20] and ω in [2, 8] (Cheng et al. 2025)."""
HEAT = GenerationProblem(
    name="heat",
    label="heat equation",
    ranges=((1.0, 5.0), (0.0, np.pi)),
    lengths=(1.0, 2 * np.pi),
    periodic=True,
    modes=8,
    solution=_heat,
)
"""u = e^(−α t) sin(x + φ) with period 2π, α in [1, 5] and φ in [0, π] (Utkarsh et al. 2025)."""
