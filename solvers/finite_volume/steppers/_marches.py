"""Many steps of many rows in one compiled call, for the operators and steppers that have such loops."""

from collections.abc import Callable

import numpy as np

from solvers.errors import SolverDivergedError
from solvers.finite_volume._operator import Array, Operator, Rate
from solvers.finite_volume.steppers import _implicit_kernels as implicit
from solvers.finite_volume.steppers import _rkl2_kernels as rkl2
from solvers.finite_volume.steppers._calls import OperatorKernels, has_stiff_source
from solvers.finite_volume.steppers._march_kernels import STUCK, Limits, March, Output
from solvers.finite_volume.steppers._progress import Course, Progress
from solvers.finite_volume.steppers._row_kernels import smallest_step
from solvers.finite_volume.steppers.explicit import RKL2
from solvers.finite_volume.steppers.implicit import TRBDF2, BackwardEuler
from solvers.finite_volume.steppers.stepper import Rows, rate_at_start

_UNCONTROLLED = 1e-4
_BUDGET = 2000


def drive_implicitly(
    operator: Operator,
    stepper: BackwardEuler | TRBDF2,
    state: Progress,
    times: Array,
    course: Course,
    report: Callable[[float], None] | None,
) -> None:
    """Takes implicit steps until every row is at the end; a source is implicit in the rows where it is stiff.

    Args:
        operator: Law, grid and boundary conditions of the rows.
        stepper: The stepper.
        state: Rows at the start.
        times: Output times ``(t,)``.
        course: Results, written.
        report: Called with the time advanced, summed over rows.
    """
    stiff = has_stiff_source(operator, state.rows.u, state.rows.time)
    if stiff.any() and not stiff.all():
        for rows in (np.flatnonzero(stiff), np.flatnonzero(~stiff)):
            part = state.take(rows)
            drive_implicitly(part.operator, stepper, part, times, course, report)
        return
    march, kernels = _rows_under_way(state, None), OperatorKernels(operator, bool(stiff.any()))
    sampler = operator.sides.sampler(operator.largest_step, operator.grid.dimension == 1)
    limits = Limits(stepper.tolerance, stepper.atol, stepper.largest_step)
    newton = min(stepper.tolerance, _UNCONTROLLED), stepper.newton.tolerance, stepper.newton.iterations
    scheme = implicit.Scheme(*stepper.tableau, stepper.order, limits, *newton)
    output, time = Output(times, course.values, course.account, state.index), march.time.sum()
    while (march.time < times[-1]).any():
        implicit.march(march, kernels.medium, scheme, kernels.calls, sampler, output, _BUDGET)
        if kernels.error:
            raise kernels.error[0]
        if report is not None:
            report(float(march.time.sum() - time))
        time = march.time.sum()
        _raise_if_failed(march, times[-1])
    operator.sides.check(march.sampled, operator.sides.start, times[-1])
    _count(state, march, course)


def _raise_if_failed(march: March, last: float) -> None:
    """Raises an error for a row that cannot go on."""
    failed = np.flatnonzero(march.verdict)
    if not len(failed):
        return
    row = failed[0]
    raise divergence(
        int(row), march.u[row], float(march.time[row]), tuple(march.last[row]), last, stuck=march.verdict[row] == STUCK
    )


def divergence(
    row: int, u: Array, time: float, step: tuple[float, float], last: float, *, stuck: bool
) -> SolverDivergedError:
    """The error for a row that cannot go on.

    Args:
        row: Its number.
        u: Its state.
        time: Its time.
        step: Length and residual of its last step.
        last: Where it should get to.
        stuck: Whether its steps fail; else accepted ones have shrunk to nothing.
    """
    if stuck:
        return SolverDivergedError(
            f"The step of row {row} failed at time {time:.6g} with length {step[0]:.3g} (smallest allowed "
            f"{smallest_step(time, last):.3g}), residual {step[1]:.3g}. Use more cells or smoother data; for a "
            "discontinuous conductivity take IntegralMean() or RKL2()."
        )
    return SolverDivergedError(
        f"Row {row} cannot be continued past time {time:.6g}: the steps have shrunk to {step[0]:.3g}, and max |u| is "
        f"{np.abs(u).max():.3g}. A source such as u² makes solutions infinite in finite time; end before."
    )


def march_diffusion(stepper: RKL2, state: Progress, times: Array, course: Course) -> None:
    """Takes steps of compiled diffusion until every row is at the end or needs a step with more care.

    Nothing happens with other operators, nor where data change with time on sides of more than one face.

    Args:
        stepper: The stepper.
        state: Rows under way, changed.
        times: Output times ``(t,)``.
        course: Results, written.
    """
    operator = state.operator
    if not (operator.only_compiled_diffusion and (operator.grid.dimension == 1 or operator.sides.steady)):
        return
    assert operator.diffusion is not None
    data = operator.sides.at(state.rows.time[None])[0].copy()
    march = _rows_under_way(state, rate_at_start(operator, state.rows, data, operator.diffusive_rate))
    limits = Limits(stepper.tolerance, stepper.atol, stepper.largest_step)
    sampler = operator.sides.sampler(operator.largest_step)
    output = Output(times, course.values, course.account, state.index)
    rkl2.march(march, operator.diffusion.parts, limits, sampler, output)
    _write_back(state, march, course)


def _rows_under_way(state: Progress, rate: Rate | None) -> March:
    """Copies of what the march changes, with the rates at the present states if they are known."""
    operator, rows = state.operator, state.rows
    count, data = len(rows.u), operator.sides.at(rows.time[None])[0]
    return March(
        u=rows.u.copy(),
        earlier=rows.u.copy(),
        earlier_length=np.ones(count),
        rate=np.zeros_like(rows.u) if rate is None else rate.u.copy(),
        flow=np.zeros((count, 2 * operator.grid.dimension)) if rate is None else rate.flow[:, :-1].copy(),
        data=data.copy(),
        time=rows.time.copy(),
        proposal=state.proposal.copy(),
        failed=state.failed.copy(),
        cursor=state.cursor.copy(),
        account=state.account.copy(),
        sampled=state.sampled.copy(),
        work=np.zeros((count, 3), dtype=np.int64),
        produced=np.zeros(count),
        fresh=np.full(count, rate is None),
        verdict=np.zeros(count, dtype=np.int64),
        last=np.zeros((count, 2)),
        seen=np.array([[np.inf, -np.inf]] * count),
    )


def _write_back(state: Progress, march: March, course: Course) -> None:
    """Moves the rows to where the march has left them."""
    flow = Operator.with_source(march.flow)
    rate = Rate(march.rate, flow, None, np.zeros(len(march.u)))
    state.rows = Rows(march.u, march.time, rate)
    state.account, state.sampled, state.cursor = march.account, march.sampled, march.cursor
    state.proposal, state.failed = march.proposal, march.failed
    _count(state, march, course)


def _count(state: Progress, march: March, course: Course) -> None:
    for k, counts in enumerate((course.steps, course.rejected, course.evaluations)):
        counts[state.index] += march.work[:, k]
