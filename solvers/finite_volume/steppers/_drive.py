"""Integrates a group of rows through time, each with its own steps, error control and output, by the compiled loops."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from solvers.errors import SolverDivergedError
from solvers.finite_volume._kernels import Array, Shared
from solvers.finite_volume._operator import Operator
from solvers.finite_volume.steppers import _explicit_kernels as explicit
from solvers.finite_volume.steppers import _implicit_kernels as implicit
from solvers.finite_volume.steppers import _march_kernels as march
from solvers.finite_volume.steppers._calls import OperatorKernels, has_stiff_source
from solvers.finite_volume.steppers._march_kernels import Limits, March, Output
from solvers.finite_volume.steppers.steppers import RKL2, SSPRK3, ImplicitStepper, Stepper

_UNCONTROLLED = 1e-4
_BUDGET = 2000
_WORK = (("steps", march.STEPS), ("rejected", march.REJECTED), ("evaluations", march.EVALUATIONS))

Report = Callable[[float], None] | None


@dataclass(frozen=True, kw_only=True)
class Course:
    """What the integration of a group of rows results in.

    Attributes:
        values: Cell averages at the output times ``(rows, t, cells)``.
        account: Time-integrated flow since the start ``(rows, t, 2d + 1)``.
        steps: Accepted steps ``(rows,)``.
        rejected: Rejected steps ``(rows,)``.
        evaluations: Evaluations of the rates, Newton iterations included ``(rows,)``.
    """

    values: Array
    account: Array
    steps: Array
    rejected: Array
    evaluations: Array

    @classmethod
    def joined(cls, parts: Sequence["Course"], rows: Array) -> "Course":
        """One course from those of groups; ``rows`` are the rows of the groups, one after the other."""
        order = np.argsort(rows)
        names = [field.name for field in fields(cls)]
        if len(parts) == 1 and (np.diff(rows) > 0).all():
            return parts[0]
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts])[order] for name in names})


def drive(
    operator: Operator, stepper: Stepper, initial: Array, times: Array, start: float, report: Report = None
) -> Course:
    """Integrates rows ``(rows, cells)`` from ``start`` to the last of the increasing output times ``(t,)``.

    A source is implicit with implicit steppers in the rows where it is stiff. ``report`` is called with the time
    advanced, summed over rows.

    Raises:
        SolverDivergedError: If a step fails at the smallest step, 10⁻¹² of the span.
        BoundarySamplingError: If the steps of a row have missed an event in the boundary data.
    """
    count = len(initial)
    stiff = np.zeros(count, dtype=bool)
    if isinstance(stepper, ImplicitStepper):
        stiff = has_stiff_source(operator, initial, np.full(count, start))
    if stiff.any() and not stiff.all():
        groups = np.flatnonzero(stiff), np.flatnonzero(~stiff)
        parts = [drive(operator.take(rows), stepper, initial[rows], times, start, report) for rows in groups]
        return Course.joined(parts, np.concatenate(groups))
    flows, kernels = 2 * operator.grid.dimension + 1, OperatorKernels(operator, bool(stiff.any()))
    values, account = np.full((count, len(times), initial.shape[1]), np.nan), np.zeros((count, len(times), flows))
    output = Output(times, values, account)
    proposal = (times[-1] - start) * stepper.first_fraction
    rows = _rows_at_start(operator, initial, start, proposal)
    if times[0] == start:
        values[:, 0], rows.state[:, march.CURSOR] = initial, 1
    take = _explicit_steps if isinstance(stepper, SSPRK3 | RKL2) else _implicit_steps
    largest = min(float(stepper.largest_step), operator.largest_step)
    limits = Limits(float(stepper.tolerance), float(stepper.atol), largest)  # type: ignore[attr-defined]
    advance = take(stepper, limits, kernels, rows, output)  # type: ignore[arg-type]
    now, before = rows.state[:, march.TIME], start * count
    while (now < times[-1]).any():
        advance()
        if kernels.error:
            raise kernels.error[0]
        if report is not None:
            report(float(now.sum() - before))
        before = now.sum()
        stuck = rows.state[:, march.VERDICT] == march.STUCK
        if stuck.any() and kernels.leave_series():
            rows.data[:] = operator.sides.at(now[None])[0]
            numbers = march.VERDICT, march.PROPOSAL, march.FAILED, march.FRESH
            rows.state[np.ix_(stuck, numbers)] = 0.0, proposal, 0.0, 1.0
            continue
        _raise_if_failed(rows, times[-1])
    operator.sides.check(rows.sampled, operator.sides.start, times[-1])
    work = {name: rows.state[:, place].astype(np.int64) for name, place in _WORK}
    return Course(values=values, account=account, **work)


def diffusion_steps(operator: Operator) -> tuple[Array, Callable[[float, float], tuple[Array, Array]]]:
    """States ``(rows, cells)`` and a function of a time and a length that takes them through steps of RKL2.

    It has no error control, and returns fluxes through the sides ``(2d, rows)`` and time integrals of side data. States
    that are not finite become NaN.
    """
    count, cells = operator.sides.fixed.shape[0], math.prod(operator.grid.shape)
    kernels, rows = OperatorKernels(operator, False), _rows_at_start(operator, np.zeros((count, cells)), 0.0, 1.0)
    output = Output(np.ones(1), np.zeros((count, 1, cells)), np.zeros((count, 1, rows.account.shape[1])))
    advance = _explicit_steps(RKL2(), Limits(math.inf, 0.0, math.inf), kernels, rows, output)
    numbers = [march.TIME, march.PROPOSAL, march.CURSOR, march.FAILED, march.VERDICT]

    def diffuse(time: float, length: float) -> tuple[Array, Array]:
        rows.account[:], rows.sampled[:], output.times[:] = 0.0, 0.0, time + length
        rows.state[:, numbers] = time, length, 1.0, 0.0, march.RUNNING
        if not operator.sides.constant:
            rows.data[:] = operator.sides.at(np.full((1, count), time))[0]
        while (under_way := rows.state[:, march.TIME] < time + length).any():
            advance()
            if rows.state[:, march.VERDICT].any():
                rows.u[under_way] = math.nan
                break
        return rows.account[:, :-1].T, rows.sampled

    return rows.u, diffuse


def _explicit_steps(
    stepper: SSPRK3 | RKL2, limits: Limits, kernels: OperatorKernels, rows: March, output: Output
) -> Callable[[], None]:
    """A function that takes many explicit steps of the rows."""
    rates, record, width = kernels.rates
    looks_ahead = stepper.courant == 0.0 and kernels.sides.kernel != 0
    keeps = stepper.courant == 0.0 and (limits.tolerance < math.inf or looks_ahead)
    sourced, parts = kernels.operator.source is not None, explicit.parts(looks_ahead)
    scheme = explicit.Scheme(float(stepper.courant), stepper.order, limits, rates, record, sourced, keeps)
    room = explicit.empty_room(rows, width)
    steps = Shared(explicit.Steps(rows, scheme, kernels.sides, output, room, parts), owner=kernels)

    def advance() -> None:
        rows.state[:, march.FRESH] = 1.0
        for first in range(0, len(rows.u), width):
            steps.run(explicit.take_steps, first, _BUDGET, 0)

    return advance


def _implicit_steps(
    stepper: ImplicitStepper, limits: Limits, kernels: OperatorKernels, rows: March, output: Output
) -> Callable[[], None]:
    """A function that takes many implicit steps of the rows."""
    newton = min(stepper.tolerance, _UNCONTROLLED), stepper.newton.tolerance, stepper.newton.iterations
    scheme = implicit.Scheme(*stepper.tableau, stepper.order, limits, *newton)
    return lambda: implicit.take_steps(rows, kernels.medium, scheme, kernels.calls, kernels.sides, output, _BUDGET)


def _raise_if_failed(rows: March, last: float) -> None:
    """Raises an error for a row that cannot go on."""
    for row in np.flatnonzero(rows.state[:, march.VERDICT])[:1]:
        time, length, residual = (float(rows.state[row, place]) for place in (march.TIME, march.LENGTH, march.RESIDUAL))
        low, high = rows.u[row].min(), rows.u[row].max()
        if rows.state[row, march.VERDICT] == march.STUCK:
            raise SolverDivergedError(
                f"The step of row {row} failed at time {time:.6g} with length {length:.3g} (smallest allowed "
                f"{march.smallest_step(time, last):.3g}), residual {residual:.3g}. Use more cells or smoother data; "
                "for a discontinuous conductivity take IntegralMean() or RKL2(). Law and source must be finite a "
                f"little beyond the states there, {low:.6g} to {high:.6g}."
            )
        raise SolverDivergedError(
            f"Row {row} cannot be continued past time {time:.6g}: the steps have shrunk to {length:.3g}, and max |u| "
            f"is {max(high, -low):.3g}. A source such as u² makes solutions infinite in finite time; end before."
        )


def _rows_at_start(operator: Operator, initial: Array, start: float, proposal: float) -> March:
    """The rows under way, before their first steps."""
    count, flows, state = len(initial), 2 * operator.grid.dimension + 1, np.zeros((len(initial), 14))
    state[:, [march.TIME, march.PROPOSAL, march.FRESH, march.EARLIER]] = start, proposal, 1.0, 1.0
    state[:, [march.LOWEST, march.HIGHEST]] = np.inf, -np.inf
    return March(
        u=initial.copy(),
        earlier=initial.copy(),
        rate=np.zeros_like(initial),
        flow=np.zeros((count, flows)),
        data=operator.sides.at(np.full((1, count), start))[0].copy(),
        account=np.zeros((count, flows)),
        sampled=np.zeros((count, operator.sides.offsets[-1])),
        state=state,
    )
