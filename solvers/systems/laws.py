"""Shallow water, whose steps over a bottom are compiled in ``_shallow``, and numerical fluxes of systems."""

from dataclasses import dataclass

import torch
from torch import Tensor

from solvers._arguments import check_positive_number
from solvers.errors import InvalidArgumentError
from solvers.finite_volume.convection.schemes import Rusanov


@dataclass(frozen=True)
class ShallowWater:
    """Shallow water over a bottom z: depth h and momentum h·v, one momentum for each space axis.

    h_t + ∇·(h v) = 0,  (h v)_t + ∇·(h v⊗v + ½ g h² I) = −g h ∇z. ``solve_system`` takes z as ``bottom``. The momentum
    is 0 where h = 0.

    Args:
        gravity: g > 0, one number in the units of the problem.

    Raises:
        InvalidArgumentError: If gravity is not one finite positive number.
    """

    gravity: float = 9.81

    def __post_init__(self) -> None:
        check_positive_number(self.gravity, "ShallowWater: gravity")

    def components(self, dimension: int) -> tuple[str, ...]:
        """Names of the unknowns, in order, for ``dimension`` space axes."""
        if dimension > 2:
            raise InvalidArgumentError(f"ShallowWater has one or two space axes, got {dimension}.")
        return ("h", "hu", "hv")[: dimension + 1]

    def admissible(self, u: Tensor) -> Tensor:
        """Whether states ``(entries, c, *points)`` are finite and wet, or dry and at rest ``(entries, *points)``."""
        dry = (u == 0).all(1)
        return torch.isfinite(u).all(1) & ((u[:, 0] > 0) | dry)


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
