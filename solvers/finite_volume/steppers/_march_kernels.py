"""What the compiled loops over steps have in common: rows under way, lengths of steps, their ends and outputs."""

from typing import Any, NamedTuple

import numpy as np

from solvers._compiled import inner
from solvers.finite_volume.sides._data_kernels import Sampler, largest_step, may_jump
from solvers.finite_volume.steppers._output_kernels import keep_to_range
from solvers.finite_volume.steppers._row_kernels import (
    end_of_step,
    landing,
    next_proposal,
    passed,
    record,
    smallest_step,
)

_Array = np.ndarray

RUNNING, STUCK, ENDLESS = 0, 1, 2
"""Verdicts on rows: fine, failed at the smallest step, or accepted steps below it."""


class March(NamedTuple):
    """Rows under way, all changed in place.

    Attributes:
        u: Cell averages ``(rows, n)``.
        earlier: State before the last step ``(rows, n)``.
        earlier_length: Length of that step ``(rows,)``.
        rate: Rates at the present state ``(rows, n)``.
        flow: Fluxes through the sides at the present state ``(rows, 2d)``.
        data: Data of the sides at the present time ``(rows, S)``.
        time: Present times ``(rows,)``.
        proposal: Proposed steps ``(rows,)``.
        failed: Whether the last trial step failed ``(rows,)``.
        cursor: Next output ``(rows,)``.
        account: Time-integrated fluxes through the sides, and of sources ``(rows, 2d + 1)``.
        sampled: Time integrals of the data as the steps sampled them ``(rows, S)``.
        work: Accepted and rejected steps and evaluations of the rates ``(rows, 3)``.
        produced: Integral of the source at the present state ``(rows,)``.
        fresh: Whether rates and fluxes at the present state are still to be computed ``(rows,)``.
        verdict: ``RUNNING``, ``STUCK`` or ``ENDLESS`` ``(rows,)``.
        last: Length of the last trial step, and the residual of its Newton iteration ``(rows, 2)``.
        seen: Smallest and largest value of all states so far ``(rows, 2)``.
    """

    u: _Array
    earlier: _Array
    earlier_length: _Array
    rate: _Array
    flow: _Array
    data: _Array
    time: _Array
    proposal: _Array
    failed: _Array
    cursor: _Array
    account: _Array
    sampled: _Array
    work: _Array
    produced: _Array
    fresh: _Array
    verdict: _Array
    last: _Array
    seen: _Array


class Output(NamedTuple):
    """Output times ``(t,)``, values ``(all, t, n)``, account ``(all, t, 2d + 1)``, and places of the rows in them."""

    times: _Array
    values: _Array
    account: _Array
    place: _Array


class Limits(NamedTuple):
    """Tolerances and largest step of a stepper."""

    tolerance: float
    atol: float
    largest_step: float


@inner
def proposed_length(rows: March, limits: Limits, sampler: Sampler, row: Any, end: float) -> float:
    """Length of the next step of a row."""
    time = rows.time[row]
    proposal = min(min(rows.proposal[row], limits.largest_step), largest_step(sampler, row, time))
    return landing(proposal, end - time)


@inner
def planned_length(rows: March, limits: Limits, sampler: Sampler, row: Any, end: float) -> float:
    """Length of the next step of a row; NaN if data may jump where it starts or ends."""
    time, length = rows.time[row], proposed_length(rows, limits, sampler, row, end)
    return np.nan if may_jump(sampler, row, time) or may_jump(sampler, row, time + length) else length


@inner
def settle(rows: March, row: Any, verdict: tuple[Any, Any], length: Any, evaluations: Any, end: float) -> bool:
    """Counts a trial step and proposes the next one; whether the step failed at the smallest length.

    Args:
        rows: Rows under way.
        row: The row of the step.
        verdict: Whether the step is accepted, and the factor for the next one.
        length: Its length.
        evaluations: Evaluations of the rates.
        end: Last output time.
    """
    accepted, factor = verdict
    rows.work[row, 0 if accepted else 1] += 1
    rows.work[row, 2] += evaluations
    rows.proposal[row] = next_proposal(accepted, factor, length, rows.proposal[row])
    rows.failed[row] = not accepted
    return not accepted and factor * length < smallest_step(rows.time[row], end)


@inner
def passes_output(rows: March, output: Output, row: Any, length: Any) -> bool:
    """Whether a step of a row passes an output."""
    finish = end_of_step(rows.time[row], length, output.times[-1])
    return passed(output.times, rows.cursor[row : row + 1], np.full(1, finish))[0] > rows.cursor[row]


@inner
def write_outputs(
    rows: March, output: Output, states: _Array, account: tuple[_Array, _Array], step: tuple[Any, Any], row: Any
) -> None:
    """Writes the outputs that a step passes, along a parabola through three states.

    Args:
        rows: Rows under way, with the row at the start of the step.
        output: Where to write.
        states: At the start, at a fraction of the step and at the end ``(3, n)``.
        account: Of the step, until that fraction and until the end.
        step: Length and fraction.
        row: The row.
    """
    length, fraction = step
    start = rows.time[row]
    finish = end_of_step(start, length, output.times[-1])
    curve = fraction * (1.0 - fraction)
    bow, ends = np.empty((1, states.shape[1])), np.full((2, 1), states[0, 0])
    for i in range(states.shape[1]):
        bow[0, i] = ((states[1, i] - states[0, i]) - fraction * (states[2, i] - states[0, i])) / curve
        for k in range(3):
            ends[0, 0], ends[1, 0] = min(ends[0, 0], states[k, i]), max(ends[1, 0], states[k, i])
    span = np.full(1, start), np.full(1, finish - start)
    plan = output.place[row : row + 1], np.full(1, rows.cursor[row]), np.ones(1, np.bool_), output.times
    record(output.values, states[:1], states[2:], bow, span, plan)
    before = np.empty((1, rows.account.shape[1]))
    after, curved = np.empty_like(before), np.empty_like(before)
    for k in range(before.shape[1]):
        before[0, k], after[0, k] = rows.account[row, k], rows.account[row, k] + account[1][k]
        curved[0, k] = (account[0][k] - fraction * account[1][k]) / curve
    record(output.account, before, after, curved, span, plan)
    keep_to_range(output.values, ends, np.full(1, finish), plan)
    rows.cursor[row] = passed(output.times, plan[1], np.full(1, finish))[0]


@inner
def move_to_end(rows: March, account: _Array, length: Any, row: Any, end: float) -> None:
    """Adds the account of an accepted step and moves the time of its row to its end."""
    for k in range(account.shape[0]):
        rows.account[row, k] += account[k]
    rows.time[row] = end_of_step(rows.time[row], length, end)
