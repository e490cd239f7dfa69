"""The fastest setting of a method whose error suffices: how solvers are compared at equal error."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmarks.measure import compared
from experiments.errors import LibraryError

MARGIN, ALLOWED = 1.15, 1.1
"""The target error is MARGIN × the spatial error of the common cells; a setting suffices within ALLOWED × it."""
LIMIT, REPEATS, SHORT = 20.0, 5, 0.5
"""A ladder ends at a function that takes LIMIT seconds; runs of less than SHORT seconds are repeated."""
_SLOWER = 3.0


class Attempt(NamedTuple):
    """A setting of a method: what it is called, and what it computes, values ``(functions, t, *cells)``."""

    setting: str
    action: Callable[[], np.ndarray]


class Measured(NamedTuple):
    """A setting's seconds per function and L1 error, and whether the error suffices."""

    setting: str
    seconds: float
    error: float
    suffices: bool


Ladder = Iterable[Attempt]
"""Settings of one kind, from the cheapest to the most accurate."""


def fastest(
    ladders: Sequence[Ladder], error: Callable[[np.ndarray], float], floor: float, limit: float = LIMIT
) -> Measured:
    """The fastest setting whose error suffices, else the most accurate one.

    A ladder is climbed until its settings take thrice the time of the fastest that suffices, or ``limit`` seconds.
    ``floor`` is the spatial error of the common cells.
    """
    measured: list[Measured] = []
    for ladder in ladders:
        enough = min((each.seconds for each in measured if each.suffices), default=np.inf)
        measured += climb(ladder, error, floor, min(limit, _SLOWER * enough))
    if not measured:
        raise LibraryError("No setting of a method gave finite values, so there is nothing to compare with.")
    sufficient = [each for each in measured if each.suffices]
    if sufficient:
        return min(sufficient, key=lambda each: each.seconds)
    return min(measured, key=lambda each: each.error)


def climb(ladder: Ladder, error: Callable[[np.ndarray], float], floor: float, limit: float = LIMIT) -> list[Measured]:
    """What the settings of a ladder take and give, those with finite values; arguments are those of ``fastest``."""
    measured: list[Measured] = []
    for number, (setting, action) in enumerate(ladder):
        if number == 0:
            action()  # which may compile
        seconds, values = timed(action)
        seconds /= len(values)
        size = error(values)
        if np.isfinite(size):
            measured.append(Measured(setting, seconds, size, size <= ALLOWED * MARGIN * floor))
        if measured and measured[-1].suffices:
            limit = min(limit, _SLOWER * seconds)
        if seconds > limit:
            break
    return measured


def timed(action: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """Shortest processor seconds of an action, and its result: one run, or five if they are short.

    Processor time, since every method runs on one core: other work on the machine then counts little.
    """
    seconds, result = np.inf, np.empty(0)
    for _ in range(REPEATS):
        started = time.process_time()
        result = action()
        seconds = min(seconds, time.process_time() - started)
        if seconds > SHORT:
            break
    return seconds, result


def case_of(name: str, ours: Measured, baseline: str, theirs: Measured, floor: float) -> dict[str, Any]:
    """A case with the errors beside the seconds."""
    errors = {"L1 error": ours.error, "target L1": MARGIN * floor, "baseline L1 error": theirs.error}
    return compared(name, ours.seconds, baseline, theirs.seconds, **errors, setting=ours.setting)
