"""Porous media of random conductivity with random profiles, from random numbers that a family draws in its own way."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from solvers import CellGrid, DiffusiveLaw, Field, LeastCost, Neumann, solve
from solvers.finite_volume.laws.coefficients import FaceValue, align
from solvers.random_fields import log_normal


@dataclass(frozen=True)
class PorousMedium(DiffusiveLaw):
    """u_t = (k(x) uᵐ u_x)_x, m one per function, k harmonic at faces."""

    varying: ClassVar = {"diffusivity": FaceValue.HARMONIC}

    exponent: Tensor
    diffusivity: Any

    def potential(self, u: Any) -> Any:
        power = align(self.exponent, u) + 1
        return align(self.diffusivity, u) * u.clip(min=0.0) ** power / power

    def conductivity(self, u: Any) -> Any:
        return align(self.diffusivity, u) * u.clip(min=0.0) ** align(self.exponent, u)


def profiles(
    points: Float[Tensor, " x"], number: Tensor, centre: Tensor, width: Tensor, height: Tensor
) -> Float[Tensor, "s x"]:
    """Sums of the first ``number`` ``(s, 1, 1)`` parabolas a (1 − ((x − c)/w)²)₊; c, w and a from ``(s, b, 1)`` in
    [0, 1].
    """
    width = 0.03 + 0.09 * width
    height = height**1.5 * (torch.arange(height.shape[1])[:, None] < number)
    return (height * (1 - ((points - centre) / width).square()).clamp_min(0.0)).sum(dim=1)


def conductivities(normals: Float[Tensor, "s x"], points: Tensor, roughness: float, length: float) -> Tensor:
    """k = exp(σ z) with z of Matérn 3/2 covariance; σ is the roughness."""
    apart = 3**0.5 * (points[:, None] - points).abs() / length
    covariance = (1 + apart) * torch.exp(-apart) + 1e-8 * torch.eye(len(points), dtype=points.dtype)
    return log_normal(roughness * normals @ torch.linalg.cholesky(covariance).mT)


def flows_through(
    grid: CellGrid, times: Tensor, start: Tensor, exponent: Tensor, conductivity: Tensor, flux: Float[Tensor, "2 s"]
) -> Float[Tensor, "s t x"]:
    """Solutions with a constant inflow at each side."""
    sides = (Neumann(flux=flux[0]), Neumann(flux=-flux[1]))
    law = PorousMedium(exponent, Field(conductivity))
    return solve(law, grid, sides, start, times=times, stepper=LeastCost()).values
