"""Numerical fluxes of systems from the states on the two sides of a face."""

from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.finite_volume.convection.numerical_fluxes import Rusanov
from solvers.systems.laws import SystemLaw


@dataclass(frozen=True)
class HLL:
    """Flux of Harten, Lax and van Leer (SIAM Review 25, 1983): one mean state between the slowest and fastest wave.

    Speeds are the extreme eigenvalues at both states (Davis 1988); for ``ShallowWater`` those of Einfeldt (1988),
    with the speed of the front where one side is dry, so that no depth becomes negative.
    """


@dataclass(frozen=True)
class HLLC:
    """HLL that keeps contacts: what moves along the face is carried by the side from which the water flows.

    For ``ShallowWater`` with two axes; with one axis it is HLL. Sources: Toro, Spruce and Speares, Shock Waves 4, 1994;
    Bouchut, Nonlinear Stability of Finite Volume Methods, 2004.
    """


SystemFlux = HLL | HLLC | Rusanov


def tensor_flux(flux: SystemFlux, law: SystemLaw, left: Tensor, right: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Fluxes along +axis and the largest |speed| that they assume, of a law written in tensors.

    From states on the low and the high side of the faces ``(entries, c, *faces)``: fluxes of this shape, and speeds
    ``(entries, *faces)``.
    """
    speeds = torch.cat([law.eigenvalues(left, axis), law.eigenvalues(right, axis)], dim=1)
    before, after = law.flux(left, axis), law.flux(right, axis)
    fastest = speeds.abs().amax(1)
    if isinstance(flux, Rusanov):
        return 0.5 * (before + after - fastest[:, None] * (right - left)), fastest
    low, high = speeds.amin(1, keepdim=True).clamp(max=0.0), speeds.amax(1, keepdim=True).clamp(min=0.0)
    width = high - low
    inside = high * before - low * after + low * high * (right - left)
    return torch.where(width > 0, inside / torch.where(width > 0, width, 1.0), before), fastest
