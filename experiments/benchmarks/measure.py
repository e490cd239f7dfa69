"""What benchmarks share: timing, memory, agreement of what is timed, and the report with its machine."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from experiments.errors import ExperimentError
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


def in_new_process(module: str, call: str) -> dict[str, float]:
    """What a function of a module returns in a new process, whose peak memory is that of the function.

    Args:
        module: The module.
        call: The call, for instance ``measure('points', 10)``.

    Raises:
        ExperimentError: If the process fails.
    """
    program = f"import json; from {module} import *; print(json.dumps({call}))"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    if finished.returncode:
        raise ExperimentError(f"The measurement {call} failed: {finished.stderr.strip()[-500:]}")
    return json.loads(finished.stdout.splitlines()[-1])


def difference_within(ours: Tensor, theirs: Tensor, tolerance: float) -> float:
    """Largest difference of two results.

    Raises:
        ExperimentError: If it exceeds the tolerance.
    """
    difference = float((ours - theirs).abs().max())
    if not difference <= tolerance:
        raise ExperimentError(f"The two results differ by {difference:.3g}, so their times do not count.")
    return difference


def compared(name: str, seconds: float, baseline: str, baseline_seconds: float, **more: Any) -> dict[str, Any]:
    """A case of a benchmark.

    Args:
        name: What is measured.
        seconds: Our time.
        baseline: What it is compared with.
        baseline_seconds: Its time.
        **more: Further entries.

    Returns:
        All of them, with ``ratio``, baseline over ours.
    """
    entry = {"case": name, "seconds": seconds, "baseline": baseline, "baseline_seconds": baseline_seconds}
    return {**entry, "ratio": baseline_seconds / seconds, **more}


def report(benchmark: str, cases: list[dict[str, Any]]) -> dict[str, Any]:
    """What a benchmark hands to the command line.

    Args:
        benchmark: Its name.
        cases: One dictionary per measured case.

    Returns:
        Name, one line on the machine, and the cases.
    """
    made = environment()
    machine, packages = made["machine"], made["packages"]
    line = f"{machine['processor']}, {machine['threads']} threads, {machine['system']}, torch {packages['torch']}"
    return {"benchmark": benchmark, "machine": line, "cases": cases}
