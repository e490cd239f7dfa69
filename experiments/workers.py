"""Independent parts of a long computation on worker processes, with the same numbers as in one process."""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import torch
from joblib import Parallel, delayed

from experiments.errors import InvalidArgumentError
from experiments.stages import one_thread

Part = TypeVar("Part")
Result = TypeVar("Result")

PAYS = 20.0
"""Seconds of work above which workers are started; each takes a few seconds to import torch."""


def map_parts(work: Callable[[Part], Result], parts: Sequence[Part], processes: int | None = None) -> list[Result]:
    """Applies ``work`` to every part, each on one thread, so that the numbers do not depend on who computes them.

    Args:
        work: What to do; it and what it refers to are sent to the workers.
        parts: The parts, each independent of the others.
        processes: Number of worker processes; 1 for none. By default as many as torch may use threads
            (``OMP_NUM_THREADS``), if the time of the first part shows that it pays.

    Returns:
        Results in the order of the parts; the first exception is raised again.

    Raises:
        InvalidArgumentError: If the number of processes is below 1.
    """
    if processes is None:
        started = time.perf_counter()
        first = [_alone(work, part) for part in parts[:1]]
        left = (time.perf_counter() - started) * (len(parts) - 1)
        return [*first, *map_parts(work, parts[1:], torch.get_num_threads() if left > PAYS else 1)]
    if processes < 1:
        raise InvalidArgumentError(f"processes must be at least 1, got {processes}.")
    if processes == 1 or len(parts) < 2:
        return [_alone(work, part) for part in parts]
    calls = [delayed(_alone)(work, part) for part in parts]
    return cast(list[Result], Parallel(n_jobs=min(processes, len(parts)))(calls))


def _alone(work: Callable[[Part], Result], part: Part) -> Result:
    with one_thread():
        return work(part)
