"""Many steps of many rows in one compiled call, for the operators and steppers that have such loops."""

import numpy as np

from solvers.finite_volume._operator import Array, Operator, Rate
from solvers.finite_volume.sides._side_samplers import sampler_of
from solvers.finite_volume.steppers import _rkl2_kernels as rkl2
from solvers.finite_volume.steppers import _trbdf2_kernels as trbdf2
from solvers.finite_volume.steppers._march_kernels import Limits, March, Output
from solvers.finite_volume.steppers._progress import Course, Progress
from solvers.finite_volume.steppers.explicit import RKL2
from solvers.finite_volume.steppers.implicit import TRBDF2, UNCONTROLLED
from solvers.finite_volume.steppers.stepper import Rows, Stepper, rate_at_start


def march_diffusion(stepper: Stepper, state: Progress, times: Array, course: Course) -> None:
    """Takes steps of compiled diffusion until every row is at the end or needs a step with more care.

    Nothing happens with other operators and steppers, nor where data change with time on sides of more than one face.

    Args:
        stepper: The stepper.
        state: Rows under way, changed.
        times: Output times ``(t,)``.
        course: Results, written.
    """
    operator, one_axis = state.operator, state.operator.grid.dimension == 1
    known = isinstance(stepper, RKL2) or (isinstance(stepper, TRBDF2) and one_axis)
    if not (known and operator.only_compiled_diffusion and (one_axis or operator.sides.steady)):
        return
    march, term = _rows_under_way(state), operator.diffusion
    assert isinstance(stepper, RKL2 | TRBDF2)
    assert term is not None
    limits = Limits(stepper.tolerance, stepper.atol, stepper.largest_step)
    sampler = sampler_of(operator.sides, operator.largest_step)
    output = Output(times, course.values, course.account, state.index)
    if isinstance(stepper, RKL2):
        rkl2.march(march, term.parts, limits, sampler, output)
    else:
        spread = min(stepper.tolerance, UNCONTROLLED)
        newton = trbdf2.NewtonLimits(spread, term.newton.tolerance, term.newton.iterations)
        trbdf2.march(march, term.medium, (limits, newton), sampler, output)
    _write_back(state, march, course)


def _rows_under_way(state: Progress) -> March:
    """Copies of what the march changes, with the rates at the present states."""
    operator, rows = state.operator, state.rows
    data = operator.sides.at(rows.time[None])[0].copy()
    rate = rate_at_start(operator, rows, data, operator.diffusive_rate)
    return March(
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


def _write_back(state: Progress, march: March, course: Course) -> None:
    """Moves the rows to where the march has left them."""
    flow = Operator.with_source(march.flow)
    rate = Rate(march.rate, flow, None, np.zeros(len(march.u)))
    state.rows = Rows(march.u, march.time, rate, (march.earlier, march.earlier_length))
    state.account, state.sampled, state.cursor = march.account, march.sampled, march.cursor
    state.proposal, state.failed = march.proposal, march.failed
    for k, counts in enumerate((course.steps, course.rejected, course.evaluations)):
        counts[state.index] += march.work[:, k]
