"""Explicit steppers: strong-stability-preserving Runge–Kutta, and Runge–Kutta–Legendre for diffusion."""

from dataclasses import dataclass
from math import inf
from numbers import Real

from solvers.errors import InvalidArgumentError
from solvers.finite_volume.steppers.stepper import Stepper, check_control


@dataclass(frozen=True)
class SSPRK3(Stepper):
    """Third-order strong-stability-preserving Runge–Kutta method (Shu and Osher 1988), explicit.

    Its steps follow from the Courant number. The error of a source is controlled by the embedded second-order method.

    Args:
        courant: Fraction of a cell that the fastest signal may cross in a step, in (0, 1]; diffusion counts by its
            largest stable Euler step.
        tolerance: Allowed error of a source in a step: mean |error| over the present spread of the solution.
        atol: Further allowed mean |error|.
        largest_step: Upper bound of the step.

    Raises:
        InvalidArgumentError: If the Courant number is outside (0, 1], or another value is out of range.
    """

    courant: float = 0.5
    tolerance: float = 1e-4
    atol: float = 0.0
    largest_step: float = inf

    order = 3
    first_fraction = 1.0

    def __post_init__(self) -> None:
        if not (isinstance(self.courant, Real) and 0 < self.courant <= 1):
            raise InvalidArgumentError(f"courant must be in (0, 1], got {self.courant!r}.")
        check_control(self)

    def suits(self, convects: bool, diffuses: bool) -> bool:  # noqa: ARG002 - one signature for all steppers
        return True


@dataclass(frozen=True)
class RKL2(Stepper):
    """Runge–Kutta–Legendre method of second order (Meyer, Balsara, Aslam, J. Comput. Phys. 257, 2014).

    Explicit with as many stages as stability needs: s stages allow a step of (s² + s − 2)/4 stable Euler steps. For
    diffusion, and for sources that are not stiff, in any number of axes. The error is estimated as in Sommeijer,
    Shampine and Verwer, J. Comput. Appl. Math. 88, 1998.
    Arguments and errors are those of ``TRBDF2``, without ``newton``.
    """

    tolerance: float = 1e-4
    atol: float = 0.0
    largest_step: float = inf

    order = 3
    first_fraction = 1e-4
    courant = 0.0

    def __post_init__(self) -> None:
        check_control(self)

    def suits(self, convects: bool, diffuses: bool) -> bool:
        return diffuses and not convects
