"""Implicit steppers for diffusion, which take convection and sources explicitly."""

from dataclasses import KW_ONLY, dataclass, field
from math import inf
from typing import NamedTuple

import numpy as np

from solvers.finite_volume._operator import Array, Operator, Rate
from solvers.finite_volume.diffusion._diffusion import Stage, StageSolution
from solvers.finite_volume.diffusion.newton import Newton
from solvers.finite_volume.steppers import _row_kernels as kernels
from solvers.finite_volume.steppers._trbdf2_kernels import ERROR, GAMMA, D, W
from solvers.finite_volume.steppers.stepper import (
    Rows,
    Step,
    Stepper,
    accounted,
    check_control,
    combined,
    courant_limited,
    error_ratio,
    parabola,
    rate_at_start,
)

_COURANT = 0.5
UNCONTROLLED = 1e-4
_A31, _A32 = 1.0 - (3.0 + 2.0 * 2.0**0.5) / 6.0, (3.0 + 2.0 * 2.0**0.5) / 6.0


@dataclass(frozen=True)
class BackwardEuler(Stepper):
    """Implicit Euler, first order; monotone, so diffusion creates no new extrema with the integral mean.

    Convection and sources are taken at the start of the step, under a Courant number of 0.5.

    Args:
        tolerance: Allowed error of a step: mean |error| over the present spread of the solution, max − min over cells
            and Dirichlet values; ``inf`` for no control.
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

    order = 2
    first_fraction = 1e-4

    def __post_init__(self) -> None:
        check_control(self)

    def suits(self, convects: bool, diffuses: bool) -> bool:  # noqa: ARG002 - one signature for all steppers
        return diffuses

    def step(self, operator: Operator, rows: Rows, length: Array) -> Step:
        start = _begin(operator, rows, length, (0.0, 1.0))
        length, (_, end), data = start.length, start.times, start.data
        beside = () if start.explicit is None else (start.explicit,)
        right = combined(rows.u, length, (1.0,) * len(beside), beside)
        stage = Stage(
            right, length, data[-1], end, _extrapolated(rows, length), _allowed_by_newton(self, operator, rows, start)
        )
        assert operator.diffusion is not None
        solution = operator.diffusion.solve(stage)
        last = _rate_of(solution, operator)
        account = accounted(length, (1.0,) * (1 + len(beside)), (last, *beside))
        error = kernels.weighted(length, (-0.5, 0.5), (start.implicit.u, last.u))
        ratio = error_ratio(self, operator, error, (rows.u, solution.u), data)
        return Step(
            u=solution.u,
            account=account,
            length=length,
            ratio=np.where(solution.converged, ratio, np.inf),
            residual=solution.residual,
            bow=lambda: (np.zeros_like(rows.u), np.zeros_like(account), None),
            rates=(start.implicit, last) if start.explicit is None else None,
            sampled=None if operator.sides.constant else length[:, None] * data[-1],
            evaluations=solution.iterations,
        )


@dataclass(frozen=True)
class TRBDF2(Stepper):
    """Trapezoid then BDF2 in one step (Bank et al. 1985): second order, L-stable, error by an embedded third order.

    With γ = 2 − √2, d = γ/2, w = √2/4: u₂ = u + Δt d (f₁ + f₂), u₃ = u + Δt (w f₁ + w f₂ + d f₃), as in Hosea and
    Shampine, Appl. Numer. Math. 20, 1996. Convection and sources are explicit, by the additive scheme of Giraldo,
    Kelly and Constantinescu, SIAM J. Sci. Comput. 35, 2013, under a Courant number of 0.5.

    Args:
        tolerance: Allowed error of a step: mean |error| over the present spread of the solution, max − min over cells
            and Dirichlet values; ``inf`` for no control.
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

    def __post_init__(self) -> None:
        check_control(self)

    def suits(self, convects: bool, diffuses: bool) -> bool:  # noqa: ARG002 - one signature for all steppers
        return diffuses

    def step(self, operator: Operator, rows: Rows, length: Array) -> Step:
        start = _begin(operator, rows, length, (0.0, GAMMA, 1.0))
        length, data = start.length, start.data
        allowed = _allowed_by_newton(self, operator, rows, start)

        def solve(right: Array, stage: int, guess: Array) -> tuple[StageSolution, Rate, tuple[Rate, ...]]:
            at = start.times[stage], data[stage % len(data)]
            assert operator.diffusion is not None
            solution = operator.diffusion.solve(Stage(right, D * length, at[1], at[0], guess, allowed))
            beside = (operator.explicit_rate(solution.u, at[1], at[0]),) if operator.has_explicit_part else ()
            return solution, _rate_of(solution, operator), beside

        first, first_beside = start.implicit, () if start.explicit is None else (start.explicit,)
        terms = 1 + len(first_beside)
        right = combined(rows.u, length, (D, GAMMA)[:terms], (first, *first_beside))
        middle, second, beside = solve(right, 1, _extrapolated(rows, GAMMA * length))
        known = (first, second, *first_beside, *beside)
        right = combined(rows.u, length, (W, W, _A31, _A32)[: 2 * terms], known)
        guess = kernels.extrapolate(rows.u, middle.u, np.full(len(length), 1.0 / GAMMA - 1.0))
        end, third, last = solve(right, 2, guess)
        explicit = (*first_beside, *beside, *last)
        middle_account = accounted(length, (D, D, GAMMA)[: 1 + terms], (first, second, *first_beside))
        u = combined(end.u, length, (W - _A31, W - _A32, D), explicit) if explicit else end.u
        stages = (first, second, third, *explicit)
        account = accounted(length, ((W, W, D) * 2)[: len(stages)], stages)
        error = kernels.weighted(length, (ERROR * 2)[: len(stages)], tuple(stage.u for stage in stages))
        ratio = error_ratio(self, operator, error, (rows.u, u), data)
        states = (rows.u, np.zeros_like(account)), (middle.u, middle_account), (u, account)
        return Step(
            u=u,
            account=account,
            length=length,
            ratio=np.where(middle.converged & end.converged, ratio, np.inf),
            residual=np.maximum(middle.residual, end.residual),
            bow=lambda: parabola(*states, np.full(len(length), GAMMA)),
            rates=None if explicit else (first, third),
            sampled=None if operator.sides.constant else length[:, None] * (W * (data[0] + data[1]) + D * data[2]),
            evaluations=middle.iterations + end.iterations,
        )


class _Start(NamedTuple):
    """Rates of diffusion and of all else at the start, length of the step, times of its stages and side data."""

    implicit: Rate
    explicit: Rate | None
    length: Array
    times: Array
    data: Array


def _begin(operator: Operator, rows: Rows, length: Array, fractions: tuple[float, ...]) -> _Start:
    """Rates at the start, and side data at some fractions of the step."""
    explicit = None
    if operator.has_explicit_part:
        explicit = operator.explicit_rate(rows.u, operator.sides.at(rows.time[None])[0], rows.time)
        length = courant_limited(length, explicit.speed, _COURANT)
    times = rows.time + np.array(fractions)[:, None] * length
    data = operator.sides.at(times, rows.time)
    implicit = rate_at_start(operator, rows, data[0], operator.diffusive_rate)
    return _Start(implicit, explicit, length, times, data)


def _rate_of(solution: StageSolution, operator: Operator) -> Rate:
    return Rate(solution.du, operator.with_source(solution.sides), None, np.zeros(len(solution.u)))


def _extrapolated(rows: Rows, ahead: Array) -> Array:
    """Guess of u at a later time from the last step."""
    before, length = rows.earlier
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(length > 0, ahead / length, 0.0)
    return kernels.extrapolate(before, rows.u, ratio)


def _allowed_by_newton(control: BackwardEuler | TRBDF2, operator: Operator, rows: Rows, start: _Start) -> Array:
    """Allowed mean |change| of the last Newton iteration ``(rows,)``.

    A fraction of the allowed error; the change that the present rate makes counts as well, since from rest the spread
    is still 0.
    """
    tolerance, ends = min(control.tolerance, UNCONTROLLED), kernels.range_of_rows(rows.u)
    limits = kernels.range_of_data(start.data, operator.sides.dirichlet)
    allowed = kernels.allowed_error(ends, ends, limits, tolerance, control.atol)
    return kernels.allowed_change(start.implicit.u, start.length, allowed, tolerance, control.newton.tolerance)
