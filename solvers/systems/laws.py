"""Systems of conservation laws u_t + Σ ∂f_axis(u)/∂x_axis = 0 with c unknowns: the base class, shallow water, fluxes.

The solver calls a law with states ``(entries, c, *points)``: one batch axis, then the components, then any points.
 ``u.unbind(1)`` therefore gives the components whatever the number of space axes. A law's parameters are
numbers that hold for the whole batch.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from solvers._arguments import check_positive_number
from solvers.errors import InvalidArgumentError
from solvers.finite_volume.convection.schemes import Rusanov


class SystemLaw(ABC):
    """A hyperbolic system; derive from it for ``solve_system``.

    Methods take states u ``(entries, c, *points)``, and an axis from 0.
    """

    @abstractmethod
    def components(self, dimension: int) -> tuple[str, ...]:
        """Names of the c unknowns, in order, for ``dimension`` space axes."""

    @abstractmethod
    def flux(self, u: Tensor, axis: int) -> Tensor:
        """Flux of every component along an axis, positive along +axis, in the shape of ``u``."""

    @abstractmethod
    def eigenvalues(self, u: Tensor, axis: int) -> Tensor:
        """Eigenvalues ``(entries, k ≥ 1, *points)`` of ∂f_axis/∂u, all or any with the smallest and the largest."""

    def admissible(self, u: Tensor) -> Tensor:
        """Whether states make sense ``(entries, *points)``, as a positive density does; by default if finite."""
        return torch.isfinite(u).all(1)

    def reflect(self, u: Tensor, axis: int) -> Tensor:  # noqa: ARG002 - one signature for all laws
        """States seen in a wall across an axis, as ``Reflecting`` needs: a new tensor of the shape of ``u``.

        For instance u with the sign of the normal momentum changed. By default an ``InvalidArgumentError``.
        """
        raise InvalidArgumentError(
            f"Reflecting() needs {type(self).__name__}.reflect(u, axis), a copy of u as a wall mirrors it; define it, "
            "or take another condition."
        )


@dataclass(frozen=True)
class ShallowWater(SystemLaw):
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
        if dimension > 2:
            raise InvalidArgumentError(f"ShallowWater has one or two space axes, got {dimension}.")
        return ("h", "hu", "hv")[: dimension + 1]

    def flux(self, u: Tensor, axis: int) -> Tensor:
        speed = self._speed(u, axis)
        flux = u * speed[:, None]
        flux[:, 1 + axis] += 0.5 * self.gravity * u[:, 0] ** 2
        return flux

    def eigenvalues(self, u: Tensor, axis: int) -> Tensor:
        speed, wave = self._speed(u, axis), (self.gravity * u[:, 0]).sqrt()
        return torch.stack([speed - wave, speed, speed + wave], dim=1)

    def admissible(self, u: Tensor) -> Tensor:
        dry = (u == 0).all(1)
        return torch.isfinite(u).all(1) & ((u[:, 0] > 0) | dry)

    def reflect(self, u: Tensor, axis: int) -> Tensor:
        mirrored = u.clone()
        mirrored[:, 1 + axis] *= -1.0
        return mirrored

    def _speed(self, u: Tensor, axis: int) -> Tensor:
        wet = u[:, 0] > 0
        return torch.where(wet, u[:, 1 + axis] / torch.where(wet, u[:, 0], 1.0), 0.0)


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
