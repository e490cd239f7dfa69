"""Schemes of convective laws: states on both sides of every face, fluxes through it, bounds of the speed of signals."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from numba.core.dispatcher import Dispatcher
from torch import Tensor

from solvers.errors import InvalidArgumentError
from solvers.finite_volume.convection import reconstruction_kernels as kernels
from solvers.finite_volume.laws._rows import name_of
from solvers.finite_volume.laws.laws import ConvectiveLaw

_SAMPLES = 8
_MARGIN = 1.1


class NumericalFlux(ABC):
    """Flux through a face from the reconstructed states on its two sides."""

    @abstractmethod
    def flux(self, law: ConvectiveLaw, left: Tensor, right: Tensor) -> Tensor:
        """Flux along +x from the states on the low and on the high side of the faces, all ``(*batch, *faces)``."""


@dataclass(frozen=True)
class Godunov(NumericalFlux):
    """Flux of the exact Riemann solution: min f over [u_L, u_R] if u_L ≤ u_R, else max f over [u_R, u_L]."""

    def flux(self, law: ConvectiveLaw, left: Tensor, right: Tensor) -> Tensor:
        stationary = law.stationary_points()
        if stationary is None:
            raise InvalidArgumentError(
                f"Godunov's flux needs {name_of(getattr(law, 'law', law))}.stationary_points, the states where f′ "
                "changes sign, but the law does not specify them; define them or pass flux=Rusanov()."
            )
        at_left, at_right = law.convective_flux(left), law.convective_flux(right)
        smallest, largest = torch.minimum(at_left, at_right), torch.maximum(at_left, at_right)
        low, high = torch.minimum(left, right), torch.maximum(left, right)
        for state in stationary:
            inside = law.convective_flux(torch.minimum(high, low.clamp_min(state)))
            smallest, largest = torch.minimum(smallest, inside), torch.maximum(largest, inside)
        return torch.where(left <= right, smallest, largest)


@dataclass(frozen=True)
class Rusanov(NumericalFlux):
    """Flux (f_L + f_R)/2 − s/2 · (u_R − u_L), s = max |f′| over [u_L, u_R]; for any law, more diffusive than Godunov's.

    ``fastest`` says how s is found.
    """

    def flux(self, law: ConvectiveLaw, left: Tensor, right: Tensor) -> Tensor:
        speed = fastest(law, torch.minimum(left, right), torch.maximum(left, right))
        return 0.5 * (law.convective_flux(left) + law.convective_flux(right) - speed * (right - left))


def fastest(law: Any, low: Tensor, high: Tensor) -> Tensor:
    """max |f′| ``(*batch, *faces)`` over the states between ``low`` and ``high`` of this shape.

    It is exact if the law states its inflection points, where f′ is largest or smallest. If it does not, f′ is sampled
    at the ends and at eight states between, and the result is the largest sample times 1.1.
    """
    points = law.inflection_points()
    ends = torch.maximum(law.characteristic_speed(low).abs(), law.characteristic_speed(high).abs())
    if points is None:
        states = [torch.lerp(low, high, (i + 1.0) / (_SAMPLES + 1.0)) for i in range(_SAMPLES)]
    else:
        states = [torch.minimum(high, low.clamp_min(state)) for state in points]
    for state in states:
        ends = torch.maximum(ends, law.characteristic_speed(state).abs())
    return ends * _MARGIN if points is None else ends


class Reconstruction(ABC):
    """States on both sides of every face from cell averages.

    Attributes:
        ghosts: Number of ghost cells that the reconstruction needs at each end.
    """

    ghosts: int

    @property
    @abstractmethod
    def kernel(self) -> Any:
        """The kernel of half slopes that compiled steps call, or None."""


@dataclass(frozen=True)
class Constant(Reconstruction):
    """Piecewise constant: first order, stays within the range of its neighbours."""

    ghosts = 1

    @property
    def kernel(self) -> Any:
        return None


Limiter = Callable[[float, float], float]


@dataclass(frozen=True)
class MUSCL(Reconstruction):
    """Piecewise linear with limited slopes (van Leer 1979): second order where smooth.

    Args:
        limiter: Numba-compiled function of the two one-sided slopes: ``minmod``, ``van_leer``,
            ``monotonized_central``, or another.

    Raises:
        InvalidArgumentError: If the limiter is not compiled.
    """

    limiter: Limiter = kernels.van_leer

    ghosts = 2

    def __post_init__(self) -> None:
        if not isinstance(self.limiter, Dispatcher):
            raise InvalidArgumentError(
                "MUSCL: limiter must be a function of two slopes compiled by numba.njit, got "
                f"{self.limiter!r}; decorate it with @numba.njit."
            )

    def __repr__(self) -> str:
        return f"MUSCL(limiter={getattr(self.limiter, '__name__', self.limiter)})"

    @property
    def kernel(self) -> Any:
        return kernels.slopes(self.limiter)
