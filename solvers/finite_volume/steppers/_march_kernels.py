"""What the compiled loops over steps have in common: rows under way, lengths of steps, their ends and outputs."""

from typing import Any, NamedTuple

import numpy as np

from solvers._compiled import compiled
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


@compiled
def planned_length(rows: March, limits: Limits, sampler: Sampler, row: Any, end: float) -> float:
    """Length of the next step of a row; NaN if data may jump where it starts or ends."""
    time = rows.time[row]
    proposal = min(min(rows.proposal[row], limits.largest_step), largest_step(sampler, row, time))
    length = landing(proposal, end - time)
    return np.nan if may_jump(sampler, row, time) or may_jump(sampler, row, time + length) else length


@compiled
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


@compiled
def passes_output(rows: March, output: Output, row: Any, length: Any) -> bool:
    """Whether a step of a row passes an output."""
    finish = end_of_step(rows.time[row], length, output.times[-1])
    return passed(output.times, rows.cursor[row : row + 1], np.full(1, finish))[0] > rows.cursor[row]


@compiled
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
    bow = ((states[1] - states[0]) - fraction * (states[2] - states[0])) / curve
    span = np.full(1, start), np.full(1, finish - start)
    plan = output.place[row : row + 1], rows.cursor[row : row + 1].copy(), np.ones(1, np.bool_), output.times
    record(output.values, states[:1], states[2:], bow.reshape(1, -1), span, plan)
    before = rows.account[row : row + 1]
    curved = ((account[0] - fraction * account[1]) / curve).reshape(1, -1)
    record(output.account, before, before + account[1], curved, span, plan)
    ends = np.array([[states.min()], [states.max()]])
    keep_to_range(output.values, ends, np.full(1, finish), plan)
    rows.cursor[row] = passed(output.times, plan[1], np.full(1, finish))[0]


@compiled
def move_to_end(rows: March, account: _Array, length: Any, row: Any, end: float) -> None:
    """Adds the account of an accepted step and moves the time of its row to its end."""
    rows.account[row] += account
    rows.time[row] = end_of_step(rows.time[row], length, end)
