"""Helpers of benchmarks: fields, timing, memory, agreement of results, and the report with its machine."""

import sys
import timeit
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Generator, Tensor
from torch.distributions import Normal

from experiments.errors import LibraryError
from experiments.records.store import environment
from probconserv import LinearConstraint, condition, integral
from solvers import NodeGrid

Result = TypeVar("Result")


def random_fields(count: int, points: int) -> tuple[Tensor, Tensor, Generator]:
    """Means and standard deviations ``(count, points)``, float64, and the generator that they were drawn from."""
    generator = Generator().manual_seed(0)
    mean = torch.randn(count, points, dtype=torch.float64, generator=generator)
    return mean, torch.rand(count, points, dtype=torch.float64, generator=generator) + 0.1, generator


def fields_with_totals(count: int, points: int) -> tuple[Tensor, Tensor, LinearConstraint]:
    """Means, standard deviations, and the law of random totals."""
    mean, scale, generator = random_fields(count, points)
    totals = torch.rand(count, dtype=torch.float64, generator=generator)
    return mean, scale, integral(NodeGrid(0.0, 1.0, points), totals)


def updated(mean: Tensor, scale: Tensor, law: LinearConstraint) -> tuple[Tensor, Tensor]:
    """Mean and variance under the law, materialised."""
    posterior = condition(Normal(mean, scale, validate_args=False), law)
    return posterior.mean, posterior.variance


def best_of(action: Callable[[], Result], repeats: int = 3) -> tuple[float, Result]:
    """Shortest wall-clock seconds of an action that ran once before to warm up, and what it then returned."""
    result = action()
    return min(timeit.repeat(action, number=1, repeat=repeats)), result


def take_turns(actions: Sequence[Callable[[], Any]], rounds: int) -> list[float]:
    """Shortest wall-clock time of each of several actions that run in turn, after one round to warm up."""
    seconds = [[timeit.timeit(action, number=1) for action in actions] for _ in range(rounds + 1)]
    return [min(times) for times in zip(*seconds[1:], strict=True)]


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # unlike getrusage it does not count the process that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def in_new_process(function: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """The result of a function in a new process, whose peak memory is that of the function."""
    try:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            return pool.submit(function, *arguments).result()
    except Exception as error:
        call = f"{function.__name__}({', '.join(map(repr, arguments))})"
        raise LibraryError(f"The measurement {call} failed: {error!r}.") from error


def difference_within(ours: Tensor, theirs: Tensor, tolerance: float) -> float:
    """Largest difference of two results; raises LibraryError if it exceeds the tolerance."""
    difference = float((ours - theirs).abs().max())
    if not difference <= tolerance:
        raise LibraryError(f"The two results differ by {difference:.3g}, so their times do not count.")
    return difference


def compared(name: str, seconds: float, baseline: str, baseline_seconds: float, **more: Any) -> dict[str, Any]:
    """A case of a benchmark with ``ratio``, baseline over ours, and further entries."""
    entry = {"case": name, "seconds": seconds, "baseline": baseline, "baseline_seconds": baseline_seconds}
    return {**entry, "ratio": baseline_seconds / seconds, **more}


def report(benchmark: str, cases: list[dict[str, Any]], *more: str) -> dict[str, Any]:
    """Report of a benchmark for the command line: its name, one line on machine, version and day, and the cases.

    ``more`` are further entries of that line.
    """
    made = environment()
    machine, packages = made["machine"], made["packages"]
    parts = (machine["processor"], f"{machine['threads']} threads", machine["system"], f"torch {packages['torch']}")
    measured = f"version {packages['probconserv-boon']}", made["date"][:10]
    return {"benchmark": benchmark, "machine": ", ".join((*parts, *more, *measured)), "cases": cases}
