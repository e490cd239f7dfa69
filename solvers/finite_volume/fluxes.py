"""Fluxes through cell faces: means of the conductivity for diffusive laws.

The numerical fluxes and reconstructions of convective laws can be imported from here as well.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.finite_volume.laws import DiffusiveLaw
from solvers.finite_volume.numerical_fluxes import Godunov, NumericalFlux, Rusanov
from solvers.finite_volume.reconstruction import MUSCL, WENO, Constant, Limiter, Reconstruction

__all__ = [
    "MUSCL",
    "WENO",
    "ArithmeticMean",
    "Constant",
    "FaceFlux",
    "FaceMean",
    "Godunov",
    "HarmonicMean",
    "IntegralMean",
    "Limiter",
    "NumericalFlux",
    "Reconstruction",
    "Rusanov",
    "conductivity_with_slope",
]


@dataclass(frozen=True)
class FaceFlux:
    """Fluxes through faces and their derivatives by the states on both sides, all ``(*batch, *faces)``."""

    value: Tensor
    by_left: Tensor
    by_right: Tensor


class FaceMean(ABC):
    """A mean of the conductivities of two neighbouring cells, for the flux −k u_x through their face."""

    @abstractmethod
    def flux(self, law: DiffusiveLaw, cells: Tensor, inverse_distance: Tensor) -> FaceFlux:
        """Fluxes between neighbours along the last axis.

        Args:
            law: The law.
            cells: States ``(*batch, n + 1)``, neighbours along the last axis.
            inverse_distance: 1/distance of neighbouring states ``(n,)``.

        Returns:
            Fluxes and derivatives, ``(*batch, n)`` each.
        """


@dataclass(frozen=True)
class IntegralMean(FaceMean):
    """Kirchhoff mean: flux (Φ(u_L) − Φ(u_R))/Δx with Φ(u) = ∫₀ᵘ k; exact for steady flow between the centres."""

    def flux(self, law: DiffusiveLaw, cells: Tensor, inverse_distance: Tensor) -> FaceFlux:
        potential, conductivity = law.potential(cells), law.conductivity(cells)
        value = (potential[..., :-1] - potential[..., 1:]).mul_(inverse_distance)
        by_right = conductivity[..., 1:] * -inverse_distance
        return FaceFlux(value, conductivity[..., :-1] * inverse_distance, by_right)


@dataclass(frozen=True)
class ArithmeticMean(FaceMean):
    """Flux (k_L + k_R)/2 · (u_L − u_R)/Δx."""

    def flux(self, law: DiffusiveLaw, cells: Tensor, inverse_distance: Tensor) -> FaceFlux:
        k, slope = conductivity_with_slope(law, cells)
        mean = 0.5 * (k[..., :-1] + k[..., 1:])
        return _mean_flux(cells, inverse_distance, mean, 0.5 * slope[..., :-1], 0.5 * slope[..., 1:])


@dataclass(frozen=True)
class HarmonicMean(FaceMean):
    """Flux 2 k_L k_R/(k_L + k_R) · (u_L − u_R)/Δx; no flux next to a cell with zero conductivity."""

    def flux(self, law: DiffusiveLaw, cells: Tensor, inverse_distance: Tensor) -> FaceFlux:
        k, slope = conductivity_with_slope(law, cells)
        left, right = k[..., :-1], k[..., 1:]
        total = (left + right).clamp_min(torch.finfo(k.dtype).tiny)
        by_left = 2.0 * (right / total) ** 2 * slope[..., :-1]
        by_right = 2.0 * (left / total) ** 2 * slope[..., 1:]
        return _mean_flux(cells, inverse_distance, 2.0 * left * (right / total), by_left, by_right)


def _mean_flux(cells: Tensor, inverse_distance: Tensor, mean: Tensor, by_left: Tensor, by_right: Tensor) -> FaceFlux:
    """Flux −mean·u_x and its derivatives from a mean conductivity and the derivatives of that mean."""
    gradient = cells.diff(dim=-1) * inverse_distance
    rate = mean * inverse_distance
    return FaceFlux(-mean * gradient, rate - by_left * gradient, -rate - by_right * gradient)


def conductivity_with_slope(law: DiffusiveLaw, u: Tensor) -> tuple[Tensor, Tensor]:
    """Conductivity k(u) and k′(u), the latter by automatic differentiation.

    Where k′ is infinite (degenerate laws such as uᵐ with m < 1 at u = 0) the slope is set to 0: Newton's iteration then
    freezes the conductivity of that cell, which affects its speed but not its limit.

    Args:
        law: The law.
        u: States of any shape.

    Returns:
        k and k′, each of the shape of ``u``.
    """
    with torch.enable_grad():
        variable = u.detach().requires_grad_()
        k = law.conductivity(variable)
        slope = torch.autograd.grad(k.sum(), variable)[0] if k.requires_grad else torch.zeros_like(u)
    return k.detach(), torch.where(torch.isfinite(slope), slope, 0.0)
