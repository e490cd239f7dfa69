"""Implicit steppers for diffusion, which take convection and sources explicitly."""

from dataclasses import dataclass, field, replace
from math import inf

import numpy as np

from solvers.finite_volume._diffusion import Stage, StageSolution
from solvers.finite_volume._operator import Array, Operator, Rate
from solvers.finite_volume.newton import Newton
from solvers.finite_volume.steppers import _row_kernels as kernels
from solvers.finite_volume.steppers.stepper import (
    Rows,
    Step,
    Stepper,
    accounted,
    allowed_error,
    bow,
    check_control,
    combined,
    courant_limited,
    rate_at_start,
)

_COURANT = 0.5
_UNCONTROLLED = 1e-3
_GAMMA = 2.0 - 2.0**0.5
_D, _W = 0.5 * _GAMMA, 2.0**0.5 / 4.0
_A31, _A32 = 1.0 - (3.0 + 2.0 * 2.0**0.5) / 6.0, (3.0 + 2.0 * 2.0**0.5) / 6.0
_ERROR = (_W - (1.0 - _W) / 3.0, _W - (3.0 * _W + 1.0) / 3.0, _D - _D / 3.0)


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

    tolerance: float = 1e-3
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
        implicit, explicit = _first_rates(operator, rows)
        length = courant_limited(length, explicit.speed, _COURANT) if explicit else length
        end = rows.time + length
        data = operator.sides.at(end[None], rows.time)[0]
        beside = () if explicit is None else (explicit,)
        right = combined(rows.u, length, (1.0,) * len(beside), beside)
        allowed = _allowed_by_newton(self, operator, rows, implicit, end)
        solution = operator.diffusion.solve(Stage(right, length, data, end, _extrapolated(rows, length), allowed))
        last = _rate_of(solution, operator)
        account = accounted(length, (1.0,) * (1 + len(beside)), (last, *beside))
        error = combined(np.zeros_like(rows.u), length, (-0.5, 0.5), (implicit, last))
        ratio = kernels.error_ratio(error, allowed_error(self, operator, (rows.u, solution.u), end))
        return Step(
            u=solution.u,
            account=account,
            length=length,
            ratio=np.where(solution.converged, ratio, np.inf),
            residual=solution.residual,
            bow=(np.zeros_like(rows.u), np.zeros_like(account)),
            rates=(implicit, last) if explicit is None else None,
            sampled=None if operator.sides.constant else length[:, None] * data,
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

    tolerance: float = 1e-3
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
        first, first_beside = _first_rates(operator, rows)
        length = courant_limited(length, first_beside.speed, _COURANT) if first_beside else length
        times = np.stack((rows.time + _GAMMA * length, rows.time + length))
        data = operator.sides.at(times, rows.time)
        allowed = _allowed_by_newton(self, operator, rows, first, times[1])

        def solve(right: Array, stage: int, guess: Array) -> tuple[StageSolution, Rate, tuple[Rate, ...]]:
            at = times[stage], data[stage % len(data)]
            solution = operator.diffusion.solve(Stage(right, _D * length, at[1], at[0], guess, allowed))
            beside = (operator.explicit_rate(solution.u, at[1], at[0]),) if operator.has_explicit_part else ()
            return solution, _rate_of(solution, operator), beside

        start = () if first_beside is None else (first_beside,)
        right = combined(rows.u, length, (_D, _GAMMA)[: 1 + len(start)], (first, *start))
        middle, second, beside = solve(right, 0, _extrapolated(rows, _GAMMA * length))
        middle_account = accounted(length, (_D, _D, _GAMMA)[: 2 + len(start)], (first, second, *start))
        right = combined(rows.u, length, (_W, _W, _A31, _A32)[: 2 + 2 * len(start)], (first, second, *start, *beside))
        end, third, last = solve(right, 1, rows.u + (middle.u - rows.u) / _GAMMA)
        implicit, explicit = (first, second, third), (*start, *beside, *last)
        weights = (_W, _W, _D)
        u = end.u if not start else combined(end.u, length, (_W - _A31, _W - _A32, _D), explicit)
        account = accounted(length, weights + weights[: len(explicit)], implicit + explicit)
        error = combined(np.zeros_like(u), length, _ERROR + _ERROR[: len(explicit)], implicit + explicit)
        ratio = kernels.error_ratio(error, allowed_error(self, operator, (rows.u, u), times[1]))
        fraction = np.full(len(length), _GAMMA)
        sampled = _W * (operator.sides.at(rows.time[None])[0] + data[0]) + _D * data[-1]
        return Step(
            u=u,
            account=account,
            length=length,
            ratio=np.where(middle.converged & end.converged, ratio, np.inf),
            residual=np.maximum(middle.residual, end.residual),
            bow=(bow(rows.u, middle.u, u, fraction), bow(0.0, middle_account, account, fraction)),
            rates=None if start else (first, third),
            sampled=None if operator.sides.constant else length[:, None] * sampled,
            evaluations=middle.iterations + end.iterations,
        )


def _first_rates(operator: Operator, rows: Rows) -> tuple[Rate, Rate | None]:
    """Rates at the start of the step: of diffusion, and of all else if there is anything else."""
    data = operator.sides.at(rows.time[None])[0]
    explicit = operator.explicit_rate(rows.u, data, rows.time) if operator.has_explicit_part else None
    return rate_at_start(operator, rows, data, operator.diffusive_rate), explicit


def _rate_of(solution: StageSolution, operator: Operator) -> Rate:
    return Rate(solution.du, operator.with_source(solution.sides), None, np.zeros(len(solution.u)))


def _extrapolated(rows: Rows, ahead: Array) -> Array:
    """Guess of u at a later time from the last step."""
    before, length = rows.earlier
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(length > 0, ahead / length, 0.0)
    return rows.u + ratio[:, None] * (rows.u - before)


def _allowed_by_newton(
    control: BackwardEuler | TRBDF2, operator: Operator, rows: Rows, rate: Rate, end: Array
) -> Array:
    """Allowed mean |change| of the last Newton iteration ``(rows,)``.

    A fraction of the allowed error; the change that the present rate makes counts as well, since from rest the spread
    is still 0.
    """
    tolerance = min(control.tolerance, _UNCONTROLLED)
    change = (end - rows.time) * np.abs(rate.u).mean(1)
    allowed = allowed_error(replace(control, tolerance=tolerance), operator, (rows.u,), end)
    return control.newton.tolerance * np.maximum(allowed, tolerance * change)
