"""How time and memory grow: the update with points, constraints and batch, the solver with cells and batch."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from experiments.benchmarks.measure import best_of, in_new_process, peak_memory, random_fields, report, updated
from experiments.stages import one_thread
from probconserv import LinearConstraint
from solvers import CellGrid, Solution, solve
from solvers.problems import POROUS_MEDIUM


class Series(NamedTuple):
    """Measurements in which one size grows; ``prepare`` makes what is timed with everything that it needs."""

    name: str
    axis: str
    sizes: tuple[int, ...]
    prepare: Callable[[int], Callable[[], object]]


def update_of(batch: int, points: int, constraints: int) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    """An exact update of float64 fields with a diagonal covariance, under random rows of G."""
    mean, scale, generator = random_fields(batch, points)
    rows = torch.rand(constraints, points, dtype=torch.float64, generator=generator) / points
    law = LinearConstraint(rows, torch.rand(batch, constraints, dtype=torch.float64, generator=generator))
    return lambda: updated(mean, scale, law)


def solution_of(batch: int, cells: int) -> Callable[[], Solution]:
    """Porous medium functions in one call to t = 0.5, exponents from 1 to 6, default stepper, on one thread."""
    exponents = torch.linspace(1.0, 6.0, batch, dtype=torch.float64)
    law, boundary = POROUS_MEDIUM.law(exponents), POROUS_MEDIUM.boundary(exponents)

    def run() -> Solution:
        with one_thread():
            return solve(law, CellGrid(0.0, 1.0, cells), boundary, 0.0, [POROUS_MEDIUM.test_time])

    return run


_POWERS = tuple(10**k for k in range(8))
_CONSTRAINTS = (1, 3, 10, 30, 100, 300, 1000)
SERIES = {
    "points": Series("update, one constraint", "points", _POWERS[2:], lambda n: update_of(1, n, 1)),
    "constraints": Series("update, 10,000 points", "constraints", _CONSTRAINTS, lambda k: update_of(1, 10_000, k)),
    "fields": Series("update, 201 points, one constraint", "fields", _POWERS[:6], lambda b: update_of(b, 201, 1)),
    "cells": Series("solver, 8 functions", "cells", (100, 200, 400, 800, 1600), lambda n: solution_of(8, n)),
    "functions": Series("solver, 200 cells", "functions", _POWERS[:4], lambda b: solution_of(b, 200)),
}


def measure(key: str, size: int) -> dict[str, float]:
    """Shortest seconds of three runs, and peak memory in MB above that after a smallest run, inputs included."""
    series = SERIES[key]
    series.prepare(series.sizes[0])()
    before = peak_memory()
    seconds, _ = best_of(series.prepare(size))
    return {"seconds": seconds, "memory": (peak_memory() - before) / 1e6}


in_new = partial(in_new_process, measure)


def run(sizes: Mapping[str, Sequence[int]] | None = None, measured: Callable[..., dict] = in_new) -> dict[str, Any]:
    """Measures every size of every series, or those given, each in a new process.

    ``growth`` is the exponent p of time ~ sizeᵖ since the size before, ``load`` the load average at the start.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan
    cases: list[dict[str, Any]] = []
    for key, every in (sizes or {key: series.sizes for key, series in SERIES.items()}).items():
        series = SERIES[key]
        for number, size in enumerate(every):
            case = {"case": f"{series.name}: {size:,} {series.axis}", "series": key, "axis": series.axis, "size": size}
            case |= {**measured(key, size), "growth": None}
            if number:
                case["growth"] = math.log(case["seconds"] / cases[-1]["seconds"]) / math.log(size / cases[-1]["size"])
            cases.append(case)
    return report("scaling", cases) | {"load": load}
