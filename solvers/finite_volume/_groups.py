"""Divides rows into groups with one stepper each, which run on several threads."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from solvers._progress import reporter
from solvers.finite_volume._cost import candidates
from solvers.finite_volume._operator import Array, Operator
from solvers.finite_volume.steppers._drive import Course, drive
from solvers.finite_volume.steppers.stepper import Stepper

_CELLS_PER_GROUP = 16_000


@dataclass(frozen=True)
class Plan:
    """Which stepper integrates which rows.

    Attributes:
        steppers: The steppers used.
        choice: Index into ``steppers`` of every row ``(rows,)``.
        estimates: Estimated nanoseconds per cell of every stepper that could be chosen ``(rows,)``; empty if the
            stepper was given.
        groups: Stepper and rows of every group.
    """

    steppers: tuple[Stepper, ...]
    choice: Array
    estimates: Mapping[Stepper, Array]
    groups: tuple[tuple[Stepper, Array], ...]


def plan_groups(operator: Operator, u: Array, stepper: Stepper | None) -> Plan:
    """The given stepper for all rows ``(rows, cells)``, or the one with the lowest estimated cost for each."""
    estimates = {stepper: np.zeros(len(u))} if stepper is not None else candidates(operator, u)
    best = np.argmin(np.stack(list(estimates.values())), 0)
    used = np.unique(best)
    steppers = tuple(list(estimates)[k] for k in used)
    groups = [
        (each, rows[part])
        for each, rows in ((each, np.flatnonzero(best == k)) for each, k in zip(steppers, used, strict=True))
        for part in make_groups(len(rows), u.shape[1], operator.divisible)
    ]
    return Plan(steppers, np.searchsorted(used, best), {} if stepper is not None else estimates, tuple(groups))


def make_groups(rows: int, cells: int, divisible: bool) -> list[Array]:
    """The rows of every group, which fits the processor's cache; one group if law and source cannot be cut."""
    step = max(1, _CELLS_PER_GROUP // cells) if divisible else rows
    return [np.arange(first, min(first + step, rows)) for first in range(0, rows, step)]


def integrate(operator: Operator, plan: Plan, u: Array, times: tuple[float, ...], progress: bool) -> Course:
    """The course of all rows in their order, from the first of the times to the last.

    Groups run on as many threads as torch may use.
    """
    output = np.array(times[1:])
    with reporter(progress, (times[-1] - times[0]) * len(u)) as report:

        def work(group: tuple[Stepper, Array]) -> Course:
            stepper, rows = group
            part = operator if len(rows) == len(u) else operator.take(rows)
            return drive(part, stepper, u[rows], output, times[0], report)

        workers = min(len(plan.groups), torch.get_num_threads())
        if workers == 1:
            courses = [work(group) for group in plan.groups]
        else:
            with ThreadPoolExecutor(workers) as pool:
                courses = list(pool.map(work, plan.groups))
    return Course.joined(courses, np.concatenate([rows for _, rows in plan.groups]))
