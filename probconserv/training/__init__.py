"""The training loop, for any model: ``train`` with checkpoints and exact resumption."""

from probconserv.training.checkpoint import TrainingState
from probconserv.training.config import TrainingConfig, one_cycle
from probconserv.training.loop import StepContext, Task, random_seed, train
from probconserv.training.processes import Ranks, first_before_others, launched, process_group, say_once

__all__ = [
    "Ranks",
    "StepContext",
    "Task",
    "TrainingConfig",
    "TrainingState",
    "first_before_others",
    "launched",
    "one_cycle",
    "process_group",
    "random_seed",
    "say_once",
    "train",
]
