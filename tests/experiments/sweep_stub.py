"""Experiments that take no time, for jobs, which import them by name."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from experiments.errors import NotShippedError
from experiments.experiment import Experiment, Report, RunOptions
from experiments.runs import digest
from experiments.storage import writable_folder, write_json
from experiments.tables import Row
from experiments.training import Moment, Task, TrainingConfig, train

LONG_STEP = 2.0  # seconds; more than submitit leaves to a job that it ends
FAILING = "SWEEP_STUB_FAILS_ON_SEED"


def run(options: RunOptions) -> Report:
    """Scores that follow from the seed; fails on the seed that the environment names."""
    if os.environ.get(FAILING) == str(options.seed):
        raise ValueError(f"seed {options.seed} is unlucky")
    folder = writable_folder(options.out / "stub" / digest([options.seed, options.preset]))
    with (folder / "calls.txt").open("a") as file:
        file.write("called\n")
    rows = [
        Row("m=1", "ours", {"MSE": (1.0 + options.seed, 0.1), "CE": (0.0, 0.0)}),
        Row("m=1", "ours", {"MSE": (9.0, None)}, source="somebody else's"),
    ]
    write_json(folder / "metrics.json", {"rows": [row.as_json() for row in rows]})
    return Report(title="stub", rows=rows, folder=folder)


def calls(out: Path) -> int:
    """How often the experiment ran to its end."""
    return sum(len(file.read_text().splitlines()) for file in out.glob("stub/*/calls.txt"))


def reproduce_nothing(options: RunOptions) -> Report:  # noqa: ARG001
    """What an experiment without shipped weights does."""
    raise NotShippedError("no results of 'unshipped' ship")


STUB = Experiment(name="stub", summary="takes no time", durations={"smoke": "1 s"}, run=run, reproduce=run)
UNSHIPPED = Experiment(
    name="unshipped", summary="takes no time", durations={"smoke": "1 s"}, run=run, reproduce=reproduce_nothing
)


@dataclass(frozen=True)
class Endless:
    """A training that ends when it is interrupted, as a job.

    Args:
        folder: Where its checkpoint goes, the file ``under-way`` after the first step, and ``ended``: whether the
            training was left by itself.
        steps: Its length.
    """

    folder: Path
    steps: int = 1_000_000

    @property
    def label(self) -> str:
        return f"endless {self.folder.name}"

    def __call__(self) -> None:
        def loss(model: nn.Module, moment: Moment) -> torch.Tensor:
            if moment.step > 1:
                (self.folder / "under-way").touch()
                time.sleep(LONG_STEP)
            return model(torch.ones(1)).square().sum()

        task = Task(model=nn.Linear(1, 1), loss=loss, identity={"name": "endless"})
        config = TrainingConfig(
            steps=self.steps,
            peak_rate=1e-3,
            validate_every=self.steps,
            checkpoint_every=self.steps,
            precision="32-true",
        )
        progression = train(task, config, self.folder, progress=False)
        (self.folder / "ended").write_text(str(progression.step < self.steps))
