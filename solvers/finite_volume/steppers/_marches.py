"""Many steps of many rows in one compiled call, for the operators and steppers that have such loops."""

import numpy as np

from solvers.finite_volume._operator import Array, Operator, Rate
from solvers.finite_volume.sides._side_samplers import sampler_of
from solvers.finite_volume.steppers import _trbdf2_kernels as trbdf2
from solvers.finite_volume.steppers._progress import Course, Progress
from solvers.finite_volume.steppers.implicit import TRBDF2, UNCONTROLLED
from solvers.finite_volume.steppers.stepper import Rows, rate_at_start


def march_implicit(stepper: TRBDF2, state: Progress, times: Array, course: Course) -> None:
    """Takes steps of compiled diffusion along one axis until every row is at the end or needs a step with more care.

    Nothing happens where the operator is another one.

    Args:
        stepper: The stepper.
        state: Rows under way, changed.
        times: Output times ``(t,)``.
        course: Results, written.
    """
    operator, rows = state.operator, state.rows
    if not (operator.only_compiled_diffusion and operator.grid.dimension == 1):
        return
    data = operator.sides.at(rows.time[None])[0].copy()
    rate = rate_at_start(operator, rows, data, operator.diffusive_rate)
    march = trbdf2.March(
        u=rows.u.copy(),
        earlier=rows.earlier[0].copy(),
        earlier_length=rows.earlier[1].copy(),
        rate=rate.u.copy(),
        flow=rate.flow[:, :-1].copy(),
        data=data,
        time=rows.time.copy(),
        proposal=state.proposal.copy(),
        failed=state.failed.copy(),
        cursor=state.cursor.copy(),
        account=state.account.copy(),
        sampled=state.sampled.copy(),
        work=np.zeros((len(rows.u), 3), dtype=np.int64),
    )
    assert operator.diffusion is not None
    newton = operator.diffusion.newton
    limits = trbdf2.Limits(
        stepper.tolerance,
        stepper.atol,
        stepper.largest_step,
        min(stepper.tolerance, UNCONTROLLED),
        newton.tolerance,
        newton.iterations,
    )
    output = trbdf2.Output(times, course.values, course.account, state.index)
    sampler = sampler_of(operator.sides, operator.largest_step)
    trbdf2.march(march, operator.diffusion.medium, limits, sampler, output)
    _write_back(state, march, course)


def _write_back(state: Progress, march: trbdf2.March, course: Course) -> None:
    """Moves the rows to where the march has left them."""
    flow = Operator.with_source(march.flow)
    rate = Rate(march.rate, flow, None, np.zeros(len(march.u)))
    state.rows = Rows(march.u, march.time, rate, (march.earlier, march.earlier_length))
    state.account, state.sampled, state.cursor = march.account, march.sampled, march.cursor
    state.proposal, state.failed = march.proposal, march.failed
    for k, counts in enumerate((course.steps, course.rejected, course.evaluations)):
        counts[state.index] += march.work[:, k]
