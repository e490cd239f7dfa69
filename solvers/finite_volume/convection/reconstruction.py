"""Reconstructions: states on both sides of every face from cell averages."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from numba.core.dispatcher import Dispatcher

from solvers.errors import InvalidArgumentError
from solvers.finite_volume.convection import reconstruction_kernels as kernels


class Reconstruction(ABC):
    """States on both sides of every face from cell averages.

    Attributes:
        ghosts: Number of ghost cells that the reconstruction needs at each end.
    """

    ghosts: int

    @property
    @abstractmethod
    def address(self) -> int:
        """Where the kernel is that compiled loops call, or 0 for none."""


@dataclass(frozen=True)
class Constant(Reconstruction):
    """Piecewise constant: first order, stays within the range of its neighbours."""

    ghosts = 1

    @property
    def address(self) -> int:
        return 0


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
    def address(self) -> int:
        return kernels.slopes_kernel(self.limiter).address


@dataclass(frozen=True)
class WENO(Reconstruction):
    """Weighted essentially non-oscillatory of fifth order (Jiang and Shu, J. Comput. Phys. 126, 1996).

    Their ε is 1e-6 times the squared range of the line of cells with its ghost cells, so that a factor or a constant
    added to the field changes its result by no more than round-off, and smooth extrema keep the fifth order once their
    second differences fall below 1e-3 of that range.
    """

    ghosts = 3

    @property
    def address(self) -> int:
        return kernels.weno.address
