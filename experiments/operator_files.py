"""The file that a finished training of an operator leaves."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boon
from boon import BOON, FNO
from experiments.errors import TrainingInterruptedError
from probconserv.training import first_before_others, launched
from experiments.runs import environment
from probconserv.training import TrainingState


def store_finished(
    operator: FNO | BOON, path: Path, state: TrainingState, steps: int, title: str, notes: Mapping[str, Any]
) -> None:
    """Saves an operator with how it was trained, by the first of the processes that trained it.

    Args:
        operator: The operator.
        path: The file, in the folder of the checkpoint.
        state: How the training went.
        steps: Steps of the whole training.
        title: What was trained, for the message.
        notes: What decides the training; wall time, history and machine are added.

    Raises:
        TrainingInterruptedError: If the training was stopped before its end.
    """
    if state.step < steps:
        raise TrainingInterruptedError(
            f"The training of {title} was stopped; '{path.parent}' holds its checkpoint. Start the same command again "
            "to go on."
        )
    how = {"seconds": state.seconds, "history": state.history, "environment": environment()}
    with first_before_others():
        if launched().first:
            boon.save(operator, path, {**notes, **how})
