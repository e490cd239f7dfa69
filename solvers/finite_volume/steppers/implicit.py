"""Implicit steppers for diffusion and, along one axis, stiff sources; all else they take explicitly."""

from dataclasses import KW_ONLY, dataclass, field
from math import inf
from typing import NamedTuple

import numpy as np

from solvers.finite_volume._operator import Array
from solvers.finite_volume.diffusion.newton import Newton
from solvers.finite_volume.steppers.stepper import Stepper, check_control

_GAMMA = 2.0 - 2.0**0.5
_D, _W, _A32 = 0.5 * _GAMMA, 2.0**0.5 / 4.0, (3.0 + 2.0 * 2.0**0.5) / 6.0


class Tableau(NamedTuple):
    """Coefficients of a scheme, as in ``Scheme`` of the compiled steps."""

    implicit: Array
    explicit: Array
    weights: Array
    nodes: Array
    error: Array
    middle: int


@dataclass(frozen=True)
class BackwardEuler(Stepper):
    """Implicit Euler, first order; monotone, so diffusion creates no new extrema with the integral mean.

    Convection, and sources unless they are stiff as for ``TRBDF2``, are taken at the start of the step, under a Courant
    number of 0.5. Arguments and errors are those of ``TRBDF2``.
    """

    tolerance: float = 1e-4
    _: KW_ONLY
    atol: float = 0.0
    largest_step: float = inf
    newton: Newton = field(default_factory=Newton)

    order = 2
    first_fraction = 1e-4
    tableau = Tableau(
        implicit=np.array([[0.0, 0.0], [0.0, 1.0]]),
        explicit=np.array([[0.0, 0.0], [1.0, 0.0]]),
        weights=np.array([1.0, 0.0]),
        nodes=np.array([0.0, 1.0]),
        error=np.array([-0.5, 0.5]),
        middle=0,
    )

    def __post_init__(self) -> None:
        check_control(self)

    def suits(self, convects: bool, diffuses: bool) -> bool:  # noqa: ARG002 - one signature for all steppers
        return diffuses


@dataclass(frozen=True)
class TRBDF2(Stepper):
    """Trapezoid then BDF2 in one step (Bank et al. 1985): second order, L-stable, error by an embedded third order.

    With γ = 2 − √2, d = γ/2, w = √2/4: u₂ = u + Δt d (f₁ + f₂), u₃ = u + Δt (w f₁ + w f₂ + d f₃), as in Hosea and
    Shampine, Appl. Numer. Math. 20, 1996. Convection is explicit, by the additive scheme of Giraldo, Kelly and
    Constantinescu, SIAM J. Sci. Comput. 35, 2013, under a Courant number of 0.5. So are sources, except along one axis
    where ∂s/∂u at the start exceeds 50 over the span.

    Args:
        tolerance: Allowed error of a step: mean |error| over the present spread of the solution, max − min over cells
            and Dirichlet values, but at least 1e-6 of the range of all states so far; ``inf`` for no control.
        atol: Further allowed mean |error|.
        largest_step: Upper bound of the step.
        newton: Stopping criterion of Newton's iteration.

    Raises:
        InvalidArgumentError: If the tolerance or the largest step is not positive, or atol is negative.
    """

    tolerance: float = 1e-4
    _: KW_ONLY
    atol: float = 0.0
    largest_step: float = inf
    newton: Newton = field(default_factory=Newton)

    order = 3
    first_fraction = 1e-4
    tableau = Tableau(
        implicit=np.array([[0.0, 0.0, 0.0], [_D, _D, 0.0], [_W, _W, _D]]),
        explicit=np.array([[0.0, 0.0, 0.0], [_GAMMA, 0.0, 0.0], [1.0 - _A32, _A32, 0.0]]),
        weights=np.array([_W, _W, _D]),
        nodes=np.array([0.0, _GAMMA, 1.0]),
        error=np.array([_W - (1.0 - _W) / 3.0, _W - (3.0 * _W + 1.0) / 3.0, _D - _D / 3.0]),
        middle=1,
    )

    def __post_init__(self) -> None:
        check_control(self)

    def suits(self, convects: bool, diffuses: bool) -> bool:  # noqa: ARG002 - one signature for all steppers
        return diffuses
