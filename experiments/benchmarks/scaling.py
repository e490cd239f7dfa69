"""How time and memory grow: the update with points, constraints and batch, the solver with cells and batch."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributions import Normal

from experiments.benchmarks.measure import best_of, in_new_process, peak_memory, report
from experiments.stages import one_thread
from probconserv import LinearConstraint, condition
from solvers import CellGrid, Dirichlet, PorousMedium, solve
from solvers.problems import exact

SLICE = 201
POINTS = 10_000
CELLS = 200
BATCH = 8
END = 0.5


@dataclass(frozen=True)
class Series:
    """Measurements in which one size grows.

    Args:
        name: What is measured.
        axis: What grows.
        sizes: Its values.
        prepare: Size → what is timed; everything that it needs is made before.
    """

    name: str
    axis: str
    sizes: tuple[int, ...]
    prepare: Callable[[int], Callable[[], object]]


def update_of(batch: int, points: int, constraints: int) -> Callable[[], object]:
    """An exact update of float64 fields with a diagonal covariance, mean and variance materialised.

    Args:
        batch: Fields.
        points: Points of each.
        constraints: Rows of G, random.
    """
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(batch, points, dtype=torch.float64, generator=generator)
    scale = torch.rand(batch, points, dtype=torch.float64, generator=generator) + 0.1
    rows = torch.rand(constraints, points, dtype=torch.float64, generator=generator) / points
    values = torch.rand(batch, constraints, dtype=torch.float64, generator=generator)
    law = LinearConstraint(rows, values)

    def update() -> object:
        posterior = condition(Normal(mean, scale, validate_args=False), law)
        return posterior.mean, posterior.variance

    return update


def solution_of(batch: int, cells: int) -> Callable[[], object]:
    """Porous medium functions to t = 0.5 in one call, exponents from 1 to 6, default tolerance, on one thread.

    Args:
        batch: Functions.
        cells: Cells of the grid.
    """
    exponents = torch.linspace(1.0, 6.0, batch, dtype=torch.float64)
    boundary = (Dirichlet(lambda t: exact.porous_medium_inflow(t, exponents)), Dirichlet(0.0))

    def solution() -> object:
        with one_thread():
            return solve(PorousMedium(exponents), CellGrid(0.0, 1.0, cells), boundary, 0.0, [END])

    return solution


SERIES = {
    "points": Series(
        "update, one constraint", "points", tuple(10**k for k in range(2, 8)), lambda n: update_of(1, n, 1)
    ),
    "constraints": Series(
        f"update, {POINTS:,} points", "constraints", (1, 3, 10, 30, 100, 300, 1000), lambda k: update_of(1, POINTS, k)
    ),
    "fields": Series(
        f"update, {SLICE} points, one constraint",
        "fields",
        (1, 10, 100, 1000, 10_000, 100_000),
        lambda b: update_of(b, SLICE, 1),
    ),
    "cells": Series(f"solver, {BATCH} functions", "cells", (100, 200, 400, 800, 1600), lambda n: solution_of(BATCH, n)),
    "functions": Series(f"solver, {CELLS} cells", "functions", (1, 10, 100, 1000), lambda b: solution_of(b, CELLS)),
}


def in_new(key: str, size: int) -> dict[str, float]:
    """What ``measure`` gives in a new process."""
    return in_new_process(__name__, f"measure({key!r}, {size})")


def run(
    sizes: Mapping[str, Sequence[int]] | None = None, measured: Callable[[str, int], dict[str, float]] = in_new
) -> dict[str, Any]:
    """Measures every size of every series, each in a new process.

    Args:
        sizes: Sizes by series; all those of ``SERIES`` by default.
        measured: From series and size to what ``measure`` gives.

    Returns:
        One case per size: ``series``, ``axis``, ``size``, ``seconds``, ``memory`` (peak in MB above that of the process
        after a smallest run, inputs included) and ``growth``, the exponent p of time ~ sizeᵖ since the size before.
        ``load`` is the load average of the machine at the start: about 0 if nothing else ran.
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


def measure(key: str, size: int) -> dict[str, float]:
    """Shortest seconds of three runs, and peak memory in MB, to be called in a new process.

    Args:
        key: Which of ``SERIES``.
        size: The size.
    """
    series = SERIES[key]
    series.prepare(series.sizes[0])()
    before = peak_memory()
    seconds, _ = best_of(series.prepare(size))
    return {"seconds": seconds, "memory": (peak_memory() - before) / 1e6}
