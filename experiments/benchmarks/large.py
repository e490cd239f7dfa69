"""Large grids: seconds and memory of one porous medium function, m = 3, on up to a million cells."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from experiments.benchmarks.measure import in_new_process, peak_memory, report
from experiments.stages import one_thread
from solvers import CellGrid, solve
from solvers.problems import POROUS_MEDIUM

EXPONENT = 3.0
SIZES = {0.5: (1_000, 10_000, 100_000), 0.005: (10_000, 100_000, 1_000_000)}
"""Numbers of cells by the final time, at which the front is."""


def measure(cells: int, end: float) -> dict[str, float]:
    """Processor seconds of one run on one thread, its peak memory in MB above that before, and the L1 error.

    On Linux the peak of compilation does not count; elsewhere memory below it does not show.
    """
    _solved(100, end)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = peak_memory()
    started = time.process_time()
    values, grid = _solved(cells, end)
    seconds = time.process_time() - started
    memory = (peak_memory() - before) / 1e6
    error = (values - POROUS_MEDIUM.averages(end, grid, EXPONENT)).abs().mean()
    return {"seconds": seconds, "memory": memory, "L1 error": float(error)}


def _solved(cells: int, end: float) -> tuple[torch.Tensor, CellGrid]:
    grid = CellGrid(0.0, 1.0, cells)
    with one_thread():
        result = solve(POROUS_MEDIUM.law(EXPONENT), grid, POROUS_MEDIUM.boundary(EXPONENT), 0.0, [end])
    return result.values[0], grid


in_new = partial(in_new_process, measure)


def run(
    sizes: dict[float, Sequence[int]] | None = None, measured: Callable[[int, float], dict[str, float]] = in_new
) -> dict[str, Any]:
    """Measures every number of cells in a new process; ``growth`` is p of time ~ cellsᵖ since the case before."""
    cases: list[dict[str, Any]] = []
    for end, every in (sizes or SIZES).items():
        for number, cells in enumerate(every):
            case = {"case": f"PME m = {EXPONENT:g} to t = {end:g}: {cells:,} cells", "size": cells}
            case |= {**measured(cells, end), "growth": None}
            if number:
                case["growth"] = math.log(case["seconds"] / cases[-1]["seconds"]) / math.log(cells / cases[-1]["size"])
            cases.append(case)
    return report("large", cases)
