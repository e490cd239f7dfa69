"""Integrates rows through time: every row with its own step, error control and output.

``drive`` holds one group of rows. It proposes steps, accepts or rejects them row by row, writes the output times that
an accepted step has passed, and drops finished rows.
"""

from collections.abc import Callable

import numpy as np

from solvers.finite_volume._operator import Array, Operator
from solvers.finite_volume.steppers import _row_kernels as kernels
from solvers.finite_volume.steppers._marches import divergence, drive_implicitly, march_diffusion
from solvers.finite_volume.steppers._output_kernels import keep_to_range
from solvers.finite_volume.steppers._progress import Course, Progress
from solvers.finite_volume.steppers.explicit import RKL2, SSPRK3
from solvers.finite_volume.steppers.implicit import TRBDF2, BackwardEuler
from solvers.finite_volume.steppers.stepper import Rows, Step, Stepper


def drive(
    operator: Operator,
    stepper: Stepper,
    initial: Array,
    times: Array,
    start: float,
    report: Callable[[float], None] | None = None,
) -> Course:
    """Integrates a group of rows from ``start`` to the last of the output times.

    Args:
        operator: Law, grid and boundary conditions of the rows.
        stepper: Time-stepping method.
        initial: Initial cell averages ``(rows, cells)``.
        times: Output times ``(t,)``, increasing.
        start: Time of the initial field.
        report: Called with the time advanced, summed over rows.

    Returns:
        Values and account at the output times, and counts of the work.

    Raises:
        SolverDivergedError: If a step fails at the smallest step, 10⁻¹² of the span.
        BoundarySamplingError: If the steps of a row have missed an event in the boundary data.
    """
    count, flows, span = initial.shape[0], 2 * operator.grid.dimension + 1, times[-1] - start
    course = Course(
        values=np.full((count, len(times), initial.shape[1]), np.nan),
        account=np.zeros((count, len(times), flows)),
        **{name: np.zeros(count, dtype=np.int64) for name in ("steps", "rejected", "evaluations")},
    )
    state = Progress(
        rows=Rows(initial.copy(), np.full(count, start), None),
        operator=operator,
        index=np.arange(count),
        account=np.zeros((count, flows)),
        proposal=np.full(count, span * stepper.first_fraction),
        failed=np.zeros(count, dtype=bool),
        cursor=np.zeros(count, dtype=np.int64),
        sampled=np.zeros((count, operator.sides.offsets[-1])),
    )
    if times[0] == start:
        course.values[:, 0], state.cursor[:] = initial, 1
    if isinstance(stepper, BackwardEuler | TRBDF2):
        drive_implicitly(operator, stepper, state, times, course, report)
        return course
    assert isinstance(stepper, SSPRK3 | RKL2)
    while True:
        running = state.rows.time < times[-1]
        if running.mean() < 0.75 and not state.operator.sides.constant:
            state.operator.sides.take(np.flatnonzero(~running)).check(state.sampled[~running], start, times[-1])
        if not running.any():
            assert np.isfinite(course.values).all(), "an output time was passed without being written"
            return course
        if running.mean() < 0.75:
            state = state.take(np.flatnonzero(running))
        _march(state, stepper, times, course, report)
        if not (state.rows.time < times[-1]).any():
            continue
        _advance(state, stepper, times, course, report)


def _march(
    state: Progress, stepper: SSPRK3 | RKL2, times: Array, course: Course, report: Callable[[float], None] | None
) -> None:
    """Takes many steps in one call, if the stepper can: of SSPRK3 those before the next output, else all."""
    before = float(state.rows.time.sum())
    if not isinstance(stepper, SSPRK3):
        march_diffusion(stepper, state, times, course)
        if report is not None:
            report(float(state.rows.time.sum()) - before)
        return
    marched = stepper.march(state.operator, state.rows, times[np.minimum(state.cursor, len(times) - 1)])
    if marched is None:
        return
    rows, account, steps = marched
    if report is not None:
        report(float((rows.time - state.rows.time).sum()))
    state.rows, state.account = rows, state.account + account
    course.steps[state.index] += steps
    course.evaluations[state.index] += 3 * steps


def _advance(
    state: Progress, stepper: SSPRK3 | RKL2, times: Array, course: Course, report: Callable[[float], None] | None
) -> None:
    """One trial step of every row; steps of finished rows have length 0 and change nothing."""
    rows, remaining = state.rows, times[-1] - state.rows.time
    running = remaining > 0
    largest = min(stepper.largest_step, state.operator.largest_step)
    proposal = np.minimum(np.minimum(state.proposal, largest), state.operator.sides.largest_step(rows.time))
    step = stepper.step(state.operator, rows, kernels.landings(proposal, remaining))
    accepted, factor = kernels.control(step.ratio, stepper.order, state.failed)
    failed = running & ~accepted
    accepted &= running
    _count(course, state.index, step, accepted, failed)
    _raise_if_stuck(state, step, factor * step.length, failed, times)
    end = kernels.ends_of_steps(rows.time, step.length, times[-1])
    _record(course, state, step, accepted, end, times)
    state.account[accepted] += step.account[accepted]
    if step.sampled is not None:
        state.sampled[accepted] += step.sampled[accepted]
    state.proposal = kernels.next_proposals(accepted, factor, step.length, state.proposal)
    state.failed = failed
    state.rows = _next(rows, step, accepted, end)
    _raise_if_unbounded(state, accepted & (state.proposal < step.length), times[-1])
    if report is not None:
        report(float((end - rows.time)[accepted].sum()))


def _record(course: Course, state: Progress, step: Step, accepted: Array, end: Array, times: Array) -> None:
    """Writes cells and account at the output times that accepted steps have passed."""
    passed = kernels.passed(times, state.cursor, end)
    if not (accepted & (passed > state.cursor)).any():
        return
    cells, account, ends = step.bow()
    interval = (state.rows.time, end - state.rows.time)
    plan = (state.index, state.cursor, accepted, times)
    kernels.record(course.values, state.rows.u, step.u, cells, interval, plan)
    kernels.record(course.account, state.account, state.account + step.account, account, interval, plan)
    if ends is not None:
        keep_to_range(course.values, ends, end, plan)
    state.cursor = np.where(accepted, passed, state.cursor)


def _count(course: Course, index: Array, step: Step, accepted: Array, failed: Array) -> None:
    course.steps[index] += accepted
    course.rejected[index] += failed
    course.evaluations[index] += np.where(accepted | failed, step.evaluations, 0)


def _next(rows: Rows, step: Step, accepted: Array, end: Array) -> Rows:
    """States after the step: accepted rows move on, the others stay."""

    def chosen(after: Array, before: Array) -> Array:
        return after if accepted.all() else np.where(accepted.reshape(-1, *[1] * (after.ndim - 1)), after, before)

    rate = None
    if step.rates is not None:
        before, after = step.rates
        rate = after._replace(u=chosen(after.u, before.u), flow=chosen(after.flow, before.flow))
    return Rows(chosen(step.u, rows.u), chosen(end, rows.time), rate)


def _raise_if_unbounded(state: Progress, shrinking: Array, last: float) -> None:
    """Raises an error where accepted steps shrink below the smallest one: the time never reaches the end."""
    rows = state.rows
    small = state.proposal < kernels.smallest_steps(rows.time, last)
    for row in np.flatnonzero(shrinking & (rows.time < last) & small)[:1]:
        step = float(state.proposal[row]), 0.0
        raise divergence(int(state.index[row]), rows.u[row], float(rows.time[row]), step, last, stuck=False)


def _raise_if_stuck(state: Progress, step: Step, following: Array, failed: Array, times: Array) -> None:
    floor = kernels.smallest_steps(state.rows.time, times[-1])
    for row in np.flatnonzero(failed & (following < floor))[:1]:
        last, time = (float(step.length[row]), float(step.residual[row])), float(state.rows.time[row])
        raise divergence(int(state.index[row]), state.rows.u[row], time, last, times[-1], stuck=True)
