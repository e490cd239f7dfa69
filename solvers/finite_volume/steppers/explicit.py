"""Explicit steppers: strong-stability-preserving Runge–Kutta, and Runge–Kutta–Legendre for diffusion."""

from dataclasses import dataclass
from math import inf
from numbers import Real
from typing import NamedTuple

import numpy as np

from solvers.errors import InvalidArgumentError
from solvers.finite_volume._operator import Array, Operator, Rate
from solvers.finite_volume.diffusion._diffusion_kernels import legendre
from solvers.finite_volume.steppers import _row_kernels as kernels
from solvers.finite_volume.steppers._rkl2_kernels import (
    MOST_STAGES,
    SAFETY,
    euler_steps,
    first_fraction,
    fraction_at,
    middle_stage,
    stages_for,
)
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

    def step(self, operator: Operator, rows: Rows, length: Array) -> Step:
        """A trial step of every row, of proposed lengths ``(rows,)``, without changing the state."""
        start = operator.sides.at(rows.time[None])[0]
        first = operator.rate(rows.u, start, rows.time)
        length = courant_limited(length, first.speed + operator.euler_rate(rows.u, start, rows.time), self.courant)
        times = rows.time + length * np.array([[0.0], [1.0], [0.5]])
        data = operator.sides.at(times, rows.time)
        stages = _compiled_stages if operator.only_compiled_convection else self._stages
        u, account, speed, ratio = stages(operator, rows, first, length, (times, data))
        crossed = length * speed
        weights = (1 / 6, 1 / 6, 2 / 3)
        return Step(
            u=u,
            account=account,
            length=length,
            ratio=np.where(crossed <= 1.0, ratio, np.inf),
            residual=crossed,
            bow=lambda: (combined(rows.u - u, length, (1.0,), (first,)), length[:, None] * first.flow - account, None),
            rates=None,
            sampled=None if operator.sides.constant else length[:, None] * np.einsum("k,krs->rs", weights, data),
            evaluations=np.full(len(length), 3),
        )

    def march(self, operator: Operator, rows: Rows, stop: Array) -> tuple[Rows, Array, Array] | None:
        """All steps that end before a stop, in one call, where that is possible: compiled convection, constant sides.

        Args:
            operator: The operator.
            rows: Present states.
            stop: Times ``(rows,)``.

        Returns:
            The states before the step that would reach the stop, the account of the steps and their number.
        """
        if operator.convection is None or not (operator.only_compiled_convection and operator.sides.steady):
            return None
        control = self.courant, self.largest_step
        u, elapsed, sides, steps = operator.convection.march(
            rows.u, stop - rows.time, control, operator.sides.at(rows.time[None])[0]
        )
        return Rows(u, rows.time + elapsed, None), operator.with_source(sides), steps

    def _stages(
        self, operator: Operator, rows: Rows, first: Rate, length: Array, sampled: tuple[Array, Array]
    ) -> tuple[Array, Array, Array, Array]:
        """State and account at the end, the largest speed of the later stages, and the error ratio of the source."""
        times, data = sampled
        second = operator.rate(combined(rows.u, length, (1.0,), (first,)), data[1 % len(data)], times[1])
        middle = combined(rows.u, length, (0.25, 0.25), (first, second))
        third = operator.rate(middle, data[2 % len(data)], times[2])
        stages, weights = (first, second, third), (1 / 6, 1 / 6, 2 / 3)
        u, account = combined(rows.u, length, weights, stages), accounted(length, weights, stages)
        speed = np.maximum(second.speed, third.speed) + operator.euler_rate(middle, data[-1], times[2])
        return u, account, speed, self._source_error(operator, rows, (u, data), length, stages)

    def _source_error(
        self, operator: Operator, rows: Rows, end: tuple[Array, Array], length: Array, stages: tuple[Rate, ...]
    ) -> Array:
        u, data = end
        if operator.source is None:
            return _finite(u)
        sources = tuple(stage.source for stage in stages)
        error = kernels.weighted(length, (-1 / 3, -1 / 3, 2 / 3), sources)
        return error_ratio(self, operator, error, (rows.u, u), data)


def _compiled_stages(
    operator: Operator, rows: Rows, first: Rate, length: Array, sampled: tuple[Array, Array]
) -> tuple[Array, Array, Array, Array]:
    """As ``SSPRK3._stages`` for convection alone under a law with kernels."""
    rate = first.u, np.ascontiguousarray(first.flow[:, :-1])
    assert operator.convection is not None
    u, sides, speed = operator.convection.ssprk3(rows.u, rate, length, sampled[1])
    return u, operator.with_source(sides), speed, _finite(u)


def _finite(u: Array) -> Array:
    """0 for rows without NaN and infinite values, NaN for the others."""
    return np.where(np.isfinite(kernels.range_of_rows(u)[0]), 0.0, np.nan)


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

    def __post_init__(self) -> None:
        check_control(self)

    def suits(self, convects: bool, diffuses: bool) -> bool:
        return diffuses and not convects

    def step(self, operator: Operator, rows: Rows, length: Array) -> Step:
        """A trial step of every row, of proposed lengths ``(rows,)``, without changing the state."""
        ends = operator.sides.at(np.stack((rows.time, rows.time + length)), rows.time)
        first = rate_at_start(operator, rows, ends[0], operator.rate)
        radius = 2.0 * SAFETY * np.max([operator.euler_rate(rows.u, data, rows.time) for data in ends], axis=0)
        radius = np.where(np.isfinite(radius), radius, 0.0)  # such a step fails by its error
        with np.errstate(divide="ignore"):
            length = np.minimum(length, 2.0 / radius * euler_steps(MOST_STAGES))
        stages = stages_for(0.5 * radius * length).astype(np.int64)
        times = rows.time + length * stage_times(stages)
        data = operator.sides.at(times, rows.time)
        superstep = _compiled_superstep if operator.only_compiled_diffusion else _superstep
        end, middle = superstep(operator, rows, first, (length, stages), (times, data))
        last = operator.rate(end.u, data[-1], times[-1])
        error = combined(0.8 * (rows.u - end.u), length, (0.4, 0.4), (first, last))
        return Step(
            u=end.u,
            account=end.account,
            length=length,
            ratio=error_ratio(self, operator, error, (rows.u, end.u), data),
            residual=np.zeros(len(length)),
            bow=lambda: parabola((rows.u, np.zeros_like(end.account)), middle[:2], end[:2], middle.fraction),
            rates=(first, last),
            sampled=None if operator.sides.constant else np.trapezoid(data, times[..., None], axis=0),
            evaluations=stages + 1,
        )


class _StageState(NamedTuple):
    """State after a stage: cells, account since the start of the step, and the fraction of the step ``(rows,)``."""

    u: Array
    account: Array
    fraction: Array


def _superstep(
    operator: Operator, rows: Rows, first: Rate, plan: tuple[Array, Array], sampled: tuple[Array, Array]
) -> tuple[_StageState, _StageState]:
    """Last and middle stage of a step, by evaluating the operator stage by stage; rows with fewer stages wait."""
    (length, stages), (times, data) = plan, sampled
    scale = 4.0 / (stages**2 + stages - 2.0)
    base = np.concatenate((rows.u, np.zeros_like(first.flow)), 1)
    slope = np.concatenate((first.u, first.flow), 1) * (scale * length)[:, None]
    cells, half = rows.u.shape[1], middle_stage(stages).astype(np.int64)
    before, now = base, base + slope / 3.0
    middle = now
    for j in range(2, int(stages.max()) + 1):
        mu, nu, gamma = legendre(j)
        rate = operator.rate(np.ascontiguousarray(now[:, :cells]), data[(j - 1) % len(data)], times[j - 1])
        change = np.concatenate((rate.u, rate.flow), 1) * (scale * length)[:, None]
        following = base + (mu * (now - base + change) + nu * (before - base) + gamma * slope)
        waiting = (j > stages)[:, None]
        before, now = np.where(waiting, before, now), np.where(waiting, now, following)
        middle = np.where((half == j)[:, None], now, middle)
    fraction = fraction_at(half, stages)
    end = _StageState(np.ascontiguousarray(now[:, :cells]), now[:, cells:], np.ones(len(stages)))
    return end, _StageState(np.ascontiguousarray(middle[:, :cells]), middle[:, cells:], fraction)


def _compiled_superstep(
    operator: Operator, rows: Rows, first: Rate, plan: tuple[Array, Array], sampled: tuple[Array, Array]
) -> tuple[_StageState, _StageState]:
    """As ``_superstep`` for diffusion alone under a law with kernels."""
    (length, stages), half = plan, middle_stage(plan[1]).astype(np.int64)
    rate = first.u, np.ascontiguousarray(first.flow[:, :-1])
    assert operator.diffusion is not None
    step = operator.diffusion.superstep(rows.u, rate, (length, stages, half), sampled[1])
    end = _StageState(step.u, operator.with_source(step.account), np.ones(len(stages)))
    middle = _StageState(step.middle, operator.with_source(step.middle_account), fraction_at(half, stages))
    return end, middle


def stage_times(stages: Array) -> Array:
    """Fractions of the step at stages 0, 1, …, the largest number of stages ``(stages + 1, rows)``."""
    every = np.arange(stages.max() + 1)[:, None]
    return np.where(every == 1, first_fraction(stages), np.where(every == 0, 0.0, fraction_at(every, stages)))
