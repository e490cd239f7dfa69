"""How benchmarks time things and say on which machine."""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from experiments.records.store import environment

Result = TypeVar("Result")


def best_of(action: Callable[[], Result], repeats: int = 3) -> tuple[float, Result]:
    """Shortest wall-clock time of an action that was run once before to warm up.

    Args:
        action: What to time.
        repeats: Number of timed runs.

    Returns:
        Seconds, and what the last run returned.
    """
    result = action()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        result = action()
        seconds.append(time.perf_counter() - started)
    return min(seconds), result


def take_turns(actions: Sequence[Callable[[], Any]], rounds: int) -> list[float]:
    """Shortest wall-clock time of each of several actions that run in turn, after one round to warm up."""
    seconds: list[list[float]] = [[] for _ in actions]
    for number in range(rounds + 1):
        for action, times in zip(actions, seconds, strict=True):
            started = time.perf_counter()
            action()
            if number:
                times.append(time.perf_counter() - started)
    return [min(times) for times in seconds]


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # unlike getrusage it does not count the process that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def report(benchmark: str, cases: list[dict[str, Any]]) -> dict[str, Any]:
    """What a benchmark hands to the command line.

    Args:
        benchmark: Its name.
        cases: One dictionary per measured case.

    Returns:
        Name, one line on the machine, and the cases.
    """
    found = environment()
    machine, packages = found["machine"], found["packages"]
    line = f"{machine['processor']}, {machine['threads']} threads, {machine['system']}, torch {packages['torch']}"
    return {"benchmark": benchmark, "machine": line, "cases": cases}
