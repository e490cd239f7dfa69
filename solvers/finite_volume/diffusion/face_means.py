"""Means of the conductivity of neighbouring cells, for the diffusive flux through their face."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.finite_volume.laws.laws import DiffusiveLaw


@dataclass(frozen=True)
class FaceFlux:
    """Fluxes through faces and their derivatives by the states on both sides, all ``(*batch, *faces)``."""

    value: Tensor
    by_left: Tensor
    by_right: Tensor


class FaceMean(ABC):
    """A mean of the conductivities of two neighbouring cells, for the flux −k u_x through their face."""

    @abstractmethod
    def flux(self, law: DiffusiveLaw, left: Tensor, right: Tensor, inverse_distance: Tensor) -> FaceFlux:
        """Fluxes between neighbours along +axis.

        Args:
            law: The law at the faces.
            left: States before the faces ``(*batch, *faces)``.
            right: States behind the faces, same shape.
            inverse_distance: 1/distance of the two states, broadcasting to the faces.

        Returns:
            Fluxes and derivatives ``(*batch, *faces)``.
        """


@dataclass(frozen=True)
class IntegralMean(FaceMean):
    """Kirchhoff mean: flux (Φ(u_L) − Φ(u_R))/Δx with Φ(u) = ∫₀ᵘ k; exact for steady flow between the centres."""

    def flux(self, law: DiffusiveLaw, left: Tensor, right: Tensor, inverse_distance: Tensor) -> FaceFlux:
        value = law.potential_difference(left, right) * inverse_distance
        return FaceFlux(value, law.conductivity(left) * inverse_distance, law.conductivity(right) * -inverse_distance)


@dataclass(frozen=True)
class ArithmeticMean(FaceMean):
    """Flux (k_L + k_R)/2 · (u_L − u_R)/Δx."""

    def flux(self, law: DiffusiveLaw, left: Tensor, right: Tensor, inverse_distance: Tensor) -> FaceFlux:
        (k_left, left_slope), (k_right, right_slope) = (conductivity_with_slope(law, u) for u in (left, right))
        slopes = 0.5 * left_slope, 0.5 * right_slope
        return _mean_flux(right - left, inverse_distance, 0.5 * (k_left + k_right), slopes)


@dataclass(frozen=True)
class HarmonicMean(FaceMean):
    """Flux 2 k_L k_R/(k_L + k_R) · (u_L − u_R)/Δx; no flux next to a cell with zero conductivity."""

    def flux(self, law: DiffusiveLaw, left: Tensor, right: Tensor, inverse_distance: Tensor) -> FaceFlux:
        (k_left, left_slope), (k_right, right_slope) = (conductivity_with_slope(law, u) for u in (left, right))
        total = (k_left + k_right).clamp_min(torch.finfo(left.dtype).tiny)
        slopes = 2.0 * (k_right / total) ** 2 * left_slope, 2.0 * (k_left / total) ** 2 * right_slope
        return _mean_flux(right - left, inverse_distance, 2.0 * k_left * (k_right / total), slopes)


def _mean_flux(jump: Tensor, inverse_distance: Tensor, mean: Tensor, slopes: tuple[Tensor, Tensor]) -> FaceFlux:
    """Flux −mean·u_x and its derivatives from a mean conductivity and the derivatives of that mean."""
    gradient, rate = jump * inverse_distance, mean * inverse_distance
    return FaceFlux(-mean * gradient, rate - slopes[0] * gradient, -rate - slopes[1] * gradient)


def conductivity_with_slope(law: DiffusiveLaw, u: Tensor) -> tuple[Tensor, Tensor]:
    """Conductivity k(u) and k′(u), the latter by automatic differentiation, each of the shape of ``u``.

    Where k′ is infinite (degenerate laws such as uᵐ with m < 1 at u = 0) the slope is set to 0: Newton's iteration then
    freezes the conductivity of that cell, which affects its speed but not its limit.
    """
    with torch.enable_grad():
        variable = u.detach().requires_grad_()
        k = law.conductivity(variable)
        slope = torch.autograd.grad(k.sum(), variable)[0] if k.requires_grad else torch.zeros_like(u)
    return k.detach(), torch.where(torch.isfinite(slope), slope, 0.0)
