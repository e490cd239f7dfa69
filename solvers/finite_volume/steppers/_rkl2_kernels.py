"""Compiled steps of the Runge–Kutta–Legendre method for diffusion in any number of axes, row by row.

The arithmetic is that of ``RKL2.step`` and ``drive``, which take the steps that are not taken here.
"""

from typing import Any, Final

import numpy as np

from solvers._compiled import compiled
from solvers.finite_volume.diffusion._diffusion_kernels import radii, rates, supersteps
from solvers.finite_volume.sides._data_kernels import Sampler, value_at
from solvers.finite_volume.steppers._march_kernels import (
    Limits,
    March,
    Output,
    move_to_end,
    passes_output,
    planned_length,
    settle,
    write_outputs,
)
from solvers.finite_volume.steppers._row_kernels import (
    allowed_error,
    control,
    error_ratio,
    range_of_data,
    range_of_rows,
)

_Array = np.ndarray

MOST_STAGES: Final = 401
SAFETY: Final = 1.05
ORDER: Final = 3


@compiled
def euler_steps(stages: Any) -> Any:
    """Number of stable Euler steps in a stable step of s stages."""
    return 0.25 * (stages**2 + stages - 2)


@compiled
def stages_for(steps: Any) -> Any:
    """Fewest stages, odd and at least 3, with a stable step of so many stable Euler steps; a float or floats."""
    stages = np.ceil(0.5 * (np.sqrt(9.0 + 16.0 * steps) - 1.0))
    return np.maximum(stages + 1.0 - stages % 2.0, 3.0)


@compiled
def middle_stage(stages: Any) -> Any:
    """The stage nearest to half of the step; a float or floats."""
    return np.maximum(np.rint(stages / 2**0.5), 2.0)


@compiled
def fraction_at(stage: Any, stages: Any) -> Any:
    """Fraction of the step that stages 2, 3, … have reached, at most 1."""
    return np.minimum((stage**2 + stage - 2.0) / (stages**2 + stages - 2.0), 1.0)


@compiled
def first_fraction(stages: Any) -> Any:
    """Fraction of the step that stage 1 has reached."""
    return 4.0 / 3.0 / (stages**2 + stages - 2.0)


@compiled
def march(rows: March, parts: Any, limits: Limits, sampler: Sampler, output: Output) -> None:
    """Takes steps until every row has reached the last output or must take its next step with more care.

    That is a step that starts or ends where data jump, one beyond the stretches where data are known, and one below the
    smallest length.

    Args:
        rows: Rows under way, changed.
        parts: Law, sides and grid, as in ``rates``.
        limits: Of the stepper.
        sampler: The data.
        output: Where to write.
    """
    (kind, parameters, coefficient, faces), (edges, modes, pull), grid = parts
    for row in range(rows.u.shape[0]):
        one = slice(row, row + 1)
        law = kind, parameters[one], coefficient[one], faces[one]
        place = law, (edges, modes, pull[one]), grid
        while rows.time[row] < output.times[-1]:
            if not _advance(rows, place, limits, sampler, output, row):
                break


@compiled(inline="always")
def _advance(rows: March, place: Any, limits: Limits, sampler: Sampler, output: Output, row: int) -> bool:
    """One trial step of a row; whether the row can go on."""
    one, end = slice(row, row + 1), output.times[-1]
    law, sides, grid = place
    time, u, length = rows.time[row], rows.u[one], planned_length(rows, limits, sampler, row, end)
    if np.isnan(length):
        return False
    last_data = _data(sampler, row, np.full(1, time + length))
    if np.isnan(last_data.sum()):
        return False
    radius = max(radii(u, rows.data[one], law, sides, grid)[0], radii(u, last_data[0], law, sides, grid)[0])
    radius = SAFETY * radius if np.isfinite(radius) else 0.0
    length = min(length, 2.0 / radius * euler_steps(MOST_STAGES))
    stages = stages_for(0.5 * radius * length)
    middle = middle_stage(stages)
    data, sampled = _stage_data(rows, sampler, row, (time, length), int(stages))
    if np.isnan(data.sum()):
        return False
    plan = np.full(1, length), np.full(1, int(stages)), np.full(1, int(middle))
    first = rows.rate[one], rows.flow[one]
    cells, account, between, early = supersteps(u, first, plan, data, law, sides, grid)
    rate, flow = rates(cells, data[-1], law, sides, grid)
    ratio = _ratio(limits, (u, cells), (first[0], rate), length, range_of_data(data, sampler.dirichlet))
    accepted, factor = control(ratio, ORDER, rows.failed[one])
    stuck = settle(rows, row, (accepted[0], factor[0]), length, int(stages) + 1, end)
    if not accepted[0]:
        return not stuck
    step, until = np.zeros(rows.account.shape[1]), np.zeros(rows.account.shape[1])
    step[:-1], until[:-1] = account[0], early[0]
    if passes_output(rows, output, row, length):
        states = np.concatenate((u, between, cells))
        write_outputs(rows, output, states, (until, step), (length, fraction_at(middle, stages)), row)
    move_to_end(rows, step, length, row, end)
    rows.u[row], rows.rate[row], rows.flow[row] = cells[0], rate[0], flow[0]
    rows.data[row] = data[-1, 0]
    rows.sampled[row] += sampled
    return True


@compiled
def _data(sampler: Sampler, row: int, times: _Array) -> _Array:
    """Data at times ``(k, 1, S)``; NaN where they are not known."""
    data = np.empty((times.shape[0], 1, sampler.fixed.shape[1]))
    for k in range(data.shape[0]):
        for entry in range(data.shape[2]):
            data[k, 0, entry] = value_at(sampler, row, entry, times[k])
    return data


@compiled
def _stage_data(
    rows: March, sampler: Sampler, row: int, interval: tuple[Any, Any], stages: int
) -> tuple[_Array, _Array]:
    """Data at stages 0, 1, … ``(k, 1, S)``, and their integral over the step by the trapezoidal rule ``(S,)``."""
    time, length = interval
    if sampler.column.max() < 0:
        return rows.data[row : row + 1].copy().reshape((1, 1, -1)), np.zeros(rows.data.shape[1])
    times = np.empty(stages + 1)
    for j in range(stages + 1):
        part = first_fraction(stages) if j == 1 else fraction_at(j, stages)
        times[j] = time + length * (part if j > 0 else 0.0)
    data = _data(sampler, row, times)
    data[0, 0] = rows.data[row]
    sampled = np.zeros(data.shape[2])
    for j in range(stages):
        sampled += (0.5 * (times[j + 1] - times[j])) * (data[j, 0] + data[j + 1, 0])
    return data, sampled


@compiled
def _ratio(limits: Limits, states: Any, slopes: Any, length: float, dirichlet: _Array) -> _Array:
    """Estimated over allowed error ``(1,)``."""
    before, after = states
    error = 0.8 * (before - after) + (0.4 * length) * (slopes[0] + slopes[1])
    ends = range_of_rows(before), range_of_rows(after)
    return error_ratio(error, allowed_error(ends[0], ends[1], dirichlet, limits.tolerance, limits.atol))
