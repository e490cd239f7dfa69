"""The file that a finished training leaves: of an operator, or of a network that comes with the library."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

import boon
from experiments.errors import NotReleasedError
from experiments.experiment import RunContext, Training
from experiments.records.release import released_weights
from experiments.records.store import as_json, environment
from experiments.storage import write_bytes
from probconserv.training import TrainingState, first_before_others


def store_finished(
    operator: nn.Module, training: Training, state: TrainingState, path: Path, more: Mapping[str, Any] | None = None
) -> None:
    """Saves an operator with how it was trained, and further notes, by rank 0 of the processes that trained it."""
    notes = {
        "label": training.label,
        "training": as_json(training.config),
        "data_version": training.data_version,
        "seconds": state.seconds,
        "history": state.history,
        "environment": environment(),
        **(more or {}),
    }
    with first_before_others() as ranks:
        if ranks.first:
            boon.save(operator, path, notes)


def take_released(training: Training, context: RunContext) -> bool:
    """Puts the released weights of a training where it would leave them; False where there are none.

    They are those of the preset laptop, of the seed that is released.

    Raises:
        DataFileError: If the released file is damaged.
    """
    if training.release is None or context.options.preset != "laptop":
        return False
    try:
        content = released_weights(training.release, context.release).read_bytes()
    except NotReleasedError:
        return False
    path = training.weights(context.options.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content)
    return True
