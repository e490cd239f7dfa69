"""Numerical fluxes of systems from the states on the two sides of a face."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.errors import InvalidArgumentError
from solvers.systems.laws import ShallowWater, SystemLaw


class SystemFlux(ABC):
    """Flux through a face from the reconstructed states on its two sides."""

    @abstractmethod
    def flux(self, law: SystemLaw, left: Tensor, right: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """Flux along +axis and the largest speed.

        Args:
            law: The law.
            left: States on the low side of the faces ``(entries, c, *faces)``.
            right: States on the high side, same shape.
            axis: Space axis, from 0.

        Returns:
            Fluxes ``(entries, c, *faces)`` and the largest |speed| that they assume ``(entries, *faces)``.
        """


@dataclass(frozen=True)
class HLL(SystemFlux):
    """Flux of Harten, Lax and van Leer (SIAM Review 25, 1983): one mean state between the slowest and fastest wave.

    Speeds are the extreme eigenvalues at both states and at their mean; for ``ShallowWater`` those of Einfeldt (1988),
    with the speed of the front where one side is dry, so that no depth becomes negative.
    """

    def flux(self, law: SystemLaw, left: Tensor, right: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        states = (left, right, 0.5 * (left + right))
        speeds = torch.cat([law.eigenvalues(state, axis) for state in states], dim=1)
        slowest, fastest = speeds.amin(1, keepdim=True), speeds.amax(1, keepdim=True)
        low, high = slowest.clamp(max=0.0), fastest.clamp(min=0.0)
        width = high - low
        inside = high * law.flux(left, axis) - low * law.flux(right, axis) + low * high * (right - left)
        flux = torch.where(width > 0, inside / torch.where(width > 0, width, 1.0), law.flux(left, axis))
        return flux, speeds.abs().amax(1)


@dataclass(frozen=True)
class HLLC(SystemFlux):
    """HLL that keeps contacts: what moves along the face is carried by the side from which the water flows.

    For ``ShallowWater`` with two axes; with one axis it is HLL. Sources: Toro, Spruce and Speares, Shock Waves 4, 1994;
    Bouchut, Nonlinear Stability of Finite Volume Methods, 2004.
    """

    def flux(self, law: SystemLaw, left: Tensor, right: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        if not isinstance(law, ShallowWater):
            raise InvalidArgumentError(f"HLLC() is for ShallowWater only, got {law!r}; use HLL().")
        flux, speed = HLL().flux(law, left, right, axis)
        along = [k for k in range(2, left.shape[1])] if axis == 0 else [1]
        for k in along:
            carried = torch.where(flux[:, 0] >= 0, _ratio(left, k), _ratio(right, k))
            flux[:, k] = flux[:, 0] * carried
        return flux, speed


def _ratio(u: Tensor, component: int) -> Tensor:
    return torch.where(u[:, 0] > 0, u[:, component] / u[:, 0], 0.0)
