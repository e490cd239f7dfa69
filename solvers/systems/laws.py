"""Systems of conservation laws u_t + Σ ∂f_axis(u)/∂x_axis = 0 with c unknowns: the base class and shallow water.

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


class SystemLaw(ABC):
    """A hyperbolic system; derive from it for ``solve_system``."""

    @abstractmethod
    def components(self, dimension: int) -> tuple[str, ...]:
        """Names of the c unknowns, in order.

        Args:
            dimension: Number of space axes.
        """

    @abstractmethod
    def flux(self, u: Tensor, axis: int) -> Tensor:
        """Flux of every component along an axis.

        Args:
            u: States ``(entries, c, *points)``.
            axis: Space axis, from 0.

        Returns:
            Fluxes ``(entries, c, *points)``, positive along +axis.
        """

    @abstractmethod
    def eigenvalues(self, u: Tensor, axis: int) -> Tensor:
        """Eigenvalues of ∂f_axis/∂u: all of them, or any that include the smallest and the largest.

        Args:
            u: States ``(entries, c, *points)``.
            axis: Space axis, from 0.

        Returns:
            Signed speeds ``(entries, k, *points)`` with k ≥ 1.
        """

    def admissible(self, u: Tensor) -> Tensor:
        """Whether states make sense, such as a positive density; all that are finite by default.

        Args:
            u: States ``(entries, c, *points)``.

        Returns:
            True or False, ``(entries, *points)``.
        """
        return torch.isfinite(u).all(1)

    def reflect(self, u: Tensor, axis: int) -> Tensor:  # noqa: ARG002 - one signature for all laws
        """States seen in a wall across an axis, as ``Reflecting`` needs; by default an error.

        Args:
            u: States ``(entries, c, *points)``.
            axis: Space axis, from 0.

        Returns:
            A new tensor of that shape, such as u with the sign of the normal momentum changed.

        Raises:
            InvalidArgumentError: If the law does not define it.
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
