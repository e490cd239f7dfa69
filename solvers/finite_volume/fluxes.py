"""Numerical fluxes through cell faces: means of the conductivity, upwind fluxes, and reconstructions.

``FaceMean`` is for diffusive laws, ``NumericalFlux`` with a ``Reconstruction`` for convective laws.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.errors import InvalidArgumentError
from solvers.finite_volume import _kernels as kernels
from solvers.finite_volume.laws import ConvectiveLaw, DiffusiveLaw


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


class NumericalFlux(ABC):
    """Flux through a face from the reconstructed states on its two sides."""

    @abstractmethod
    def flux(self, law: ConvectiveLaw, left: Tensor, right: Tensor) -> Tensor:
        """Flux along +x.

        Args:
            law: The law.
            left: States on the low side of the faces ``(*batch, *faces)``.
            right: States on the high side, same shape.

        Returns:
            Fluxes, same shape.
        """


@dataclass(frozen=True)
class Godunov(NumericalFlux):
    """Flux of the exact Riemann solution: min f over [u_L, u_R] if u_L ≤ u_R, else max f over [u_R, u_L]."""

    def flux(self, law: ConvectiveLaw, left: Tensor, right: Tensor) -> Tensor:
        stationary = law.stationary_points()
        if stationary is None:
            raise InvalidArgumentError(
                f"Godunov's flux needs {type(law).__name__}.stationary_points(), the states where f′ changes sign, but "
                "the law does not specify them; define the method or pass flux=Rusanov()."
            )
        at_left, at_right = law.convective_flux(left), law.convective_flux(right)
        smallest, largest = torch.minimum(at_left, at_right), torch.maximum(at_left, at_right)
        for state in stationary:
            between = torch.minimum(torch.maximum(left, right), torch.minimum(left, right).clamp_min(state))
            inside = law.convective_flux(between)
            smallest, largest = torch.minimum(smallest, inside), torch.maximum(largest, inside)
        return torch.where(left <= right, smallest, largest)


@dataclass(frozen=True)
class Rusanov(NumericalFlux):
    """Flux (f_L + f_R)/2 − max(|f′_L|, |f′_R|)/2 · (u_R − u_L); for any law, more diffusive than Godunov's.

    The speed bound uses the two states only, which suffices for convex f.
    """

    def flux(self, law: ConvectiveLaw, left: Tensor, right: Tensor) -> Tensor:
        speed = torch.maximum(law.characteristic_speed(left).abs(), law.characteristic_speed(right).abs())
        return 0.5 * (law.convective_flux(left) + law.convective_flux(right) - speed * (right - left))


class Reconstruction(ABC):
    """States on both sides of every face from cell averages."""

    ghosts: int

    @abstractmethod
    def states(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstructs along the last axis.

        Args:
            cells: Averages with ``ghosts`` ghost cells at each end ``(*batch, n + 2 ghosts)``, float64.

        Returns:
            States left and right of the n + 1 faces, ``(*batch, n + 1)`` each.
        """


@dataclass(frozen=True)
class Constant(Reconstruction):
    """Piecewise constant: first order, stays within the range of its neighbours."""

    ghosts = 1

    def states(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        return cells[..., :-1], cells[..., 1:]


Limiter = Callable[[float, float], float]


@dataclass(frozen=True)
class MUSCL(Reconstruction):
    """Piecewise linear with limited slopes (van Leer 1979): second order where smooth.

    Args:
        limiter: Numba-compiled function of the two one-sided slopes: ``minmod``, ``van_leer``,
            ``monotonized_central``, or another.
    """

    limiter: Limiter = kernels.van_leer

    ghosts = 2

    def states(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        return _by_kernel(lambda rows: kernels.reconstruct_muscl(rows, self.limiter), cells)


@dataclass(frozen=True)
class WENO(Reconstruction):
    """Weighted essentially non-oscillatory of fifth order (Jiang and Shu, J. Comput. Phys. 126, 1996)."""

    ghosts = 3

    def states(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        return _by_kernel(kernels.reconstruct_weno, cells)


def _by_kernel(kernel: Callable[..., tuple], cells: Tensor) -> tuple[Tensor, Tensor]:
    rows = cells.contiguous().reshape(-1, cells.shape[-1]).numpy()
    left, right = (torch.from_numpy(states) for states in kernel(rows))
    return left.reshape(*cells.shape[:-1], -1), right.reshape(*cells.shape[:-1], -1)
