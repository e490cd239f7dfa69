"""The file that a finished training of an operator leaves."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

import boon
from experiments.experiment import Training
from experiments.records.store import as_json, environment
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
