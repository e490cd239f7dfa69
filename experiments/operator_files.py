"""The file that a finished training of an operator leaves."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import boon
from boon import BOON, FNO
from experiments.errors import TrainingInterruptedError
from experiments.processes import first_before_others, launched
from experiments.runs import environment
from experiments.storage import alone_with
from experiments.training import Progression


def made_once(path: Path, make: Callable[[], object]) -> Path:
    """A file of weights, made unless it is there; of several runs that want it one makes it and the others wait.

    Args:
        path: The file.
        make: Trains and stores.

    Returns:
        The file.
    """
    if path.exists():
        return path
    if launched().count > 1:
        make()
        return path
    with alone_with(path):
        if not path.exists():
            make()
    return path


def store_finished(
    operator: FNO | BOON, path: Path, progression: Progression, steps: int, title: str, notes: Mapping[str, Any]
) -> None:
    """Saves an operator with how it was trained, by the first of the processes that trained it.

    Args:
        operator: The operator.
        path: The file, in the folder of the checkpoint.
        progression: How the training went.
        steps: Steps of the whole training.
        title: What was trained, for the message.
        notes: What decides the training; wall time, history and machine are added.

    Raises:
        TrainingInterruptedError: If the training was stopped before its end.
    """
    if progression.step < steps:
        raise TrainingInterruptedError(
            f"The training of {title} was stopped; '{path.parent}' holds its checkpoint. Start the same command again "
            "to go on."
        )
    how = {"seconds": progression.seconds, "history": progression.history, "environment": environment()}
    with first_before_others():
        if launched().first:
            boon.save(operator, path, {**notes, **how})
