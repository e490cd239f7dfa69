"""What a time stepper is: it turns present states of rows into trial steps with their error estimates.

A step changes cells and account by the same combination of rates, so the total balances to round-off with every
stepper, whatever the tolerance of its Newton iteration. Every row has a separate time and step.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar, NamedTuple, Protocol

import numpy as np

from solvers.errors import InvalidArgumentError
from solvers.finite_volume._operator import Array, Operator, Rate
from solvers.finite_volume.diffusion.newton import Newton
from solvers.finite_volume.steppers import _row_kernels as kernels

Evaluate = Callable[[Array, Array, Array], Rate]


@dataclass
class Rows:
    """Present states of the rows that are still being integrated.

    Attributes:
        u: Cell averages ``(rows, cells)``.
        time: Times ``(rows,)``.
        rate: Rates at the present state that the last step computed already, or None.
    """

    u: Array
    time: Array
    rate: Rate | None


class Control(Protocol):
    """Error control of a stepper."""

    @property
    def tolerance(self) -> float: ...
    @property
    def atol(self) -> float: ...
    @property
    def largest_step(self) -> float: ...


class Step(NamedTuple):
    """Result of a trial step of every row.

    Attributes:
        u: Cell averages at the end ``(rows, cells)``.
        account: Time-integrated flow ``(rows, 2d + 1)``.
        length: Lengths of the steps, at most the proposed ones ``(rows,)``.
        ratio: Estimated over allowed error ``(rows,)``; NaN or infinite where the step failed.
        residual: Of Newton's iteration, for messages ``(rows,)``.
        bow: Gives the deviations of cells and account from the straight line, for output within the step:
            value(θ) = line + θ (1 − θ) bow. Also the range of the states in the step, to which outputs keep, or None
            where they do so by themselves.
        rates: Rates at the start and at the end if both were computed, else None.
        sampled: Time integrals of the side data as the step sampled them ``(rows, S)``, or None if they are constant.
        evaluations: Evaluations of the rates, Newton iterations included ``(rows,)``.
    """

    u: Array
    account: Array
    length: Array
    ratio: Array
    residual: Array
    bow: Callable[[], tuple[Array, Array, Array | None]]
    rates: tuple[Rate, Rate] | None
    sampled: Array | None
    evaluations: Array


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


def rate_at_start(operator: Operator, rows: Rows, data: Array, evaluate: Evaluate) -> Rate:
    """Rates at the present states: those of the last step, unless a datum jumps at the present time.

    Args:
        operator: The operator.
        rows: Present states.
        data: Side data at the present times ``(rows, S)``.
        evaluate: Method of the operator that gives the rates.

    Returns:
        The rates.
    """
    if rows.rate is None:
        return evaluate(rows.u, data, rows.time)
    jumps = operator.sides.at_break(rows.time)[:, None]
    if not jumps.any():
        return rows.rate
    fresh = evaluate(rows.u, data, rows.time)
    u, flow = (np.where(jumps, new, old) for new, old in zip(fresh[:2], rows.rate[:2], strict=True))
    return rows.rate._replace(u=u, flow=flow)


def combined(base: Array, length: Array, weights: tuple[float, ...], rates: Sequence[Rate]) -> Array:
    """base + Δt Σ wₖ fₖ of cells, ``(rows, cells)``; the base itself without rates."""
    return kernels.combine(base, length, weights, tuple(rate.u for rate in rates)) if rates else base


def accounted(length: Array, weights: tuple[float, ...], rates: Sequence[Rate]) -> Array:
    """Δt Σ wₖ fₖ of the flow, ``(rows, 2d + 1)``."""
    flow = sum(weight * rate.flow for weight, rate in zip(weights, rates, strict=True))
    return length[:, None] * flow


def error_ratio(control: Control, operator: Operator, error: Array, states: tuple[Array, Array], data: Array) -> Array:
    """Estimated over allowed error ``(rows,)``; the latter relative to the spread of cells and Dirichlet values.

    Args:
        control: Tolerances.
        operator: The operator.
        error: Estimated error of the cells ``(rows, cells)``.
        states: Cells at the start and at the end of the step.
        data: Side data during the step ``(k, rows, S)``.

    Returns:
        Ratios; NaN where the state at the end is not finite.
    """
    before, after = (kernels.range_of_rows(u) for u in states)
    limits = kernels.range_of_data(data, operator.sides.dirichlet)
    allowed = kernels.allowed_error(before, after, limits, control.tolerance, control.atol)
    return kernels.error_ratio(error, allowed)


def courant_limited(length: Array, speed: Array, courant: float) -> Array:
    """Steps in which a signal that crosses ``speed`` cells per time crosses at most a fraction of a cell."""
    with np.errstate(divide="ignore"):
        return np.minimum(length, courant / speed)


def parabola(
    before: tuple[Array, Array], middle: tuple[Array, Array], after: tuple[Array, Array], fraction: Array
) -> tuple[Array, Array, Array]:
    """Deviations from the straight line of parabolas through three states, the middle one at a fraction of the step.

    Args:
        before: Cells and account at the start.
        middle: At the fraction.
        after: At the end.
        fraction: ``(rows,)``.

    Returns:
        Deviations of cells and account, and the range of the three states ``(2, rows)``.
    """
    part = fraction[:, None]
    u, account = (
        (m - b - part * (a - b)) / (part * (1.0 - part)) for b, m, a in zip(before, middle, after, strict=True)
    )
    ranges = np.array([kernels.range_of_rows(state) for state, _ in (before, middle, after)])
    return u, account, np.array([ranges[:, 0].min(0), ranges[:, 1].max(0)])


def check_control(control: Control) -> None:
    """Raises an error if a tolerance or the largest step is out of range, or ``newton`` is something else."""
    numbers = all(isinstance(each, Real) for each in (control.tolerance, control.largest_step, control.atol))
    newton = getattr(control, "newton", None)
    if not isinstance(newton, Newton | None):
        raise InvalidArgumentError(f"{type(control).__name__}: newton must be a Newton, got {newton!r}.")
    if not (numbers and control.tolerance > 0 and control.largest_step > 0 and control.atol >= 0):
        raise InvalidArgumentError(
            f"{type(control).__name__} needs numbers tolerance > 0, largest_step > 0 and atol ≥ 0, got "
            f"{control.tolerance!r}, {control.largest_step!r} and {control.atol!r}."
        )
