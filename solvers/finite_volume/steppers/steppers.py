"""Time steppers: explicit ones, and implicit ones for diffusion and stiff sources, which take all else explicitly.

A step changes cells and budget by the same combination of rates, so the total balances to round-off with every
stepper, whatever the tolerance of its Newton iteration. Every row has a separate time and step.
"""

from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass, replace
from math import inf
from numbers import Real
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from solvers.errors import InvalidArgumentError

Array = np.ndarray
BY_RATES = -1

_WEIGHTS = (82889 / 524892, 0.0, 15625 / 83664, 69875 / 102672, -2260 / 8211, 1 / 4)
_GAMMA = 2.0 - 2.0**0.5
_D, _W, _A32 = 0.5 * _GAMMA, 2.0**0.5 / 4.0, (3.0 + 2.0 * 2.0**0.5) / 6.0


class Control(Protocol):
    """Error control of a stepper."""

    @property
    def tolerance(self) -> float: ...
    @property
    def atol(self) -> float: ...
    @property
    def largest_step(self) -> float: ...


class Stepper(ABC):
    """A time-stepping method.

    Attributes:
        order: Order of the error of one step, for the choice of the next.
        first_fraction: First proposed step over the span.
        largest_step: Upper bound of the step.
    """

    order: ClassVar[int]
    first_fraction: ClassVar[float]
    largest_step: float

    @abstractmethod
    def suits(self, convects: bool, diffuses: bool) -> bool:
        """Whether it can integrate laws with these parts."""

    def tightened(self) -> "Stepper":
        """The same method at a tenth of the tolerance, with half of the limits on its steps."""
        given: Any = self
        changes = {"tolerance": 0.1 * given.tolerance, "largest_step": 0.5 * given.largest_step}
        if isinstance(given, SSPRK3):
            changes["courant"] = 0.5 * given.courant
        return replace(given, **changes)


def check_control(control: Control) -> None:
    """Raises an error if a tolerance or the largest step is out of range."""
    numbers = all(isinstance(each, Real) for each in (control.tolerance, control.largest_step, control.atol))
    if not (numbers and control.tolerance > 0 and control.largest_step > 0 and control.atol >= 0):
        raise InvalidArgumentError(
            f"{type(control).__name__} needs numbers tolerance > 0, largest_step > 0 and atol ≥ 0, got "
            f"{control.tolerance!r}, {control.largest_step!r} and {control.atol!r}."
        )


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
    Arguments and errors are those of ``TRBDF2``.
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


class Tableau(NamedTuple):
    """Coefficients of a scheme, as in ``Scheme`` of the compiled steps."""

    implicit: Array
    explicit: Array
    weights: Array
    nodes: Array
    error: Array
    middle: int


def _rows(*rows: tuple[float, ...]) -> Array:
    """A square array of coefficients from its rows after the first, which is zero."""
    array = np.zeros((len(rows) + 1, len(rows) + 1))
    for number, row in enumerate(rows, start=1):
        array[number, : len(row)] = row
    return array


class ImplicitStepper(Stepper):
    """A diagonally implicit Runge–Kutta method, whose first stage is the start of the step and whose last one its end.

    Attributes:
        tableau: Its coefficients.
        tolerance: Allowed error of a step.
    """

    tableau: ClassVar[Tableau]
    tolerance: float
    first_fraction = 1e-4

    def __post_init__(self) -> None:
        check_control(self)  # type: ignore[arg-type]

    def suits(self, convects: bool, diffuses: bool) -> bool:  # noqa: ARG002 - one signature for all steppers
        return diffuses


@dataclass(frozen=True)
class TRBDF2(ImplicitStepper):
    """Trapezoid then BDF2 in one step (Bank et al. 1985): second order, L-stable, error by an embedded third order.

    With γ = 2 − √2, d = γ/2, w = √2/4: u₂ = u + Δt d (f₁ + f₂), u₃ = u + Δt (w f₁ + w f₂ + d f₃), as in Hosea and
    Shampine, Appl. Numer. Math. 20, 1996. Convection is explicit, by the additive scheme of Giraldo, Kelly and
    Constantinescu, SIAM J. Sci. Comput. 35, 2013, under a Courant number of 0.5. So are sources, except where ∂s/∂u at
    the start exceeds 50 over the span.

    Args:
        tolerance: Allowed error of a step: mean |error| over the present spread of the solution, max − min over cells
            and Dirichlet values, but at least 1e-6 of the range of all states so far; ``inf`` for no control.
        atol: Further allowed mean |error|.
        largest_step: Upper bound of the step.

    Raises:
        InvalidArgumentError: If the tolerance or the largest step is not positive, or atol is negative.
    """

    tolerance: float = 1e-4
    _: KW_ONLY
    atol: float = 0.0
    largest_step: float = inf

    order = 3
    tableau = Tableau(
        implicit=np.array([[0.0, 0.0, 0.0], [_D, _D, 0.0], [_W, _W, _D]]),
        explicit=np.array([[0.0, 0.0, 0.0], [_GAMMA, 0.0, 0.0], [1.0 - _A32, _A32, 0.0]]),
        weights=np.array([_W, _W, _D]),
        nodes=np.array([0.0, _GAMMA, 1.0]),
        error=np.array([_W - (1.0 - _W) / 3.0, _W - (3.0 * _W + 1.0) / 3.0, _D - _D / 3.0]),
        middle=1,
    )


@dataclass(frozen=True)
class ESDIRK4(ImplicitStepper):
    """Six stages, fourth order, L-stable, error by an embedded third order; for linear or smooth laws.

    On linear diffusion ``ESDIRK4(1e-5)`` has a hundredth of the error of ``TRBDF2(1e-4)`` in about the same time. Take
    ``TRBDF2`` for fronts of degenerate laws: there this method lets states fall below zero, by 1e-2 of their range at
    1e-4 and 1e-3 at 1e-5, and Stefan's front is less accurate at equal tolerance. Outputs within a step are of third
    order. Convection and sources enter as with ``TRBDF2``, by ARK4(3)6L[2]SA (Kennedy and Carpenter, Appl. Numer. Math.
    44, 2003), whose implicit part this is. Arguments and errors are those of ``TRBDF2``.
    """

    tolerance: float = 1e-4
    _: KW_ONLY
    atol: float = 0.0
    largest_step: float = inf

    order = 4
    tableau = Tableau(
        implicit=_rows(
            (1 / 4, 1 / 4),
            (8611 / 62500, -1743 / 31250, 1 / 4),
            (5012029 / 34652500, -654441 / 2922500, 174375 / 388108, 1 / 4),
            (15267082809 / 155376265600, -71443401 / 120774400, 730878875 / 902184768, 2285395 / 8070912, 1 / 4),
            _WEIGHTS,
        ),
        explicit=_rows(
            (1 / 2,),
            (13861 / 62500, 6889 / 62500),
            (-116923316275 / 2393684061468, -2731218467317 / 15368042101831, 9408046702089 / 11113171139209),
            (
                -451086348788 / 2902428689909,
                -2682348792572 / 7519795681897,
                12662868775082 / 11960479115383,
                3355817975965 / 11060851509271,
            ),
            (
                647845179188 / 3216320057751,
                73281519250 / 8382639484533,
                552539513391 / 3454668386233,
                3354512671639 / 8306763924573,
                4040 / 17871,
            ),
        ),
        weights=np.array(_WEIGHTS),
        nodes=np.array([0.0, 0.5, 0.332, 0.62, 0.85, 1.0]),
        error=np.subtract(
            _WEIGHTS,
            (
                4586570599 / 29645900160,
                0.0,
                178811875 / 945068544,
                814220225 / 1159782912,
                -3700637 / 11593932,
                61727 / 225920,
            ),
        ),
        middle=BY_RATES,
    )


@dataclass(frozen=True)
class LeastCost:
    """For every batch entry, the stepper of least estimated cost among those that suit the law.

    These are ``TRBDF2(1e-4)`` and ``RKL2(1e-4)`` for diffusion, ``SSPRK3()`` for convection, ``TRBDF2(1e-4)`` and
    ``SSPRK3()`` for both together.
    """
