"""An experiment whose trainings and scores take milliseconds; jobs import it by name."""

import json
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from experiments import registry
from experiments.errors import DataFileError
from experiments.experiment import RunContext, Style, Table, Training
from experiments.options import CATALOGUE
from experiments.records.record import Over, Record, Source
from experiments.records.storage import write_bytes
from experiments.records.store import as_json
from probconserv.training import StepContext, Task, TrainingConfig, train
from solvers.tensor_files import decode_tensors, encode_tensors


@dataclass(frozen=True)
class Entry:
    """A case or a method."""

    key: str
    label: str
    style: Style = field(default_factory=Style)
    information: str = ""

    @property
    def config(self) -> dict[str, str]:
        return {"key": self.key}


@dataclass(frozen=True, kw_only=True)
class Stub:
    """Two cases, the truth and a trained method whose squared error is case + seed + weight.

    Args:
        version: Version of the data.
        fails: Seeds that cannot be scored.
        interrupted: Step at which its trainings send themselves the signal of Ctrl-C.
        seconds: Length of a step after the first, of which there are then very many.
        paper: The paper's score of the trained method.
    """

    name: str = "stub"
    version: int = 1
    over: Over = Over.FUNCTIONS
    fails: tuple[int, ...] = ()
    interrupted: int | None = None
    seconds: float = 0.0
    paper: float = 0.25

    @property
    def table(self) -> Table:
        return Table(
            name=self.name,
            title=self.title,
            data_version=self.version,
            cases=self.cases,
            methods=self.methods,
            score=self.score,
            trainings=self.trainings,
            train=self.train,
            published=self.published,
            shown=("CE", "MSE"),
            over=self.over,
            options=("data",),
        )

    def title(self, cases: Any) -> str:
        return f"Stub of {len(cases)} cases"

    def cases(self, context: RunContext) -> list[Entry]:  # noqa: ARG002
        return [Entry("m=1", "m is 1"), Entry("m=2", "m is 2")]

    def methods(self, case: Entry) -> list[Entry]:  # noqa: ARG002
        return [Entry("truth", "truth"), Entry("trained", "Trained")]

    def trainings(self, case: Entry, method: Entry, seed: int, context: RunContext) -> list[Training]:  # noqa: ARG002
        if method.key == "truth":
            return []
        steps = 10**6 if self.seconds else 3
        config = TrainingConfig(
            steps=steps, checkpoint_every=steps // 3, validate_every=500, precision="32-true", seed=seed
        )
        names = {"key": "net", "label": f"stub, seed {seed}", "release": f"{self.name}.safetensors"}
        return [Training(config=config, data_version=self.version, folder=self.name, **names)]

    def train(self, training: Training, context: RunContext) -> None:
        """Fits one number, and notes what every file of weights notes."""
        torch.manual_seed(training.config.seed)
        model = nn.Linear(1, 1)

        def loss(module: nn.Module, step: StepContext) -> torch.Tensor:
            if step.step == self.interrupted:
                signal.raise_signal(signal.SIGINT)
            if step.step and self.seconds:
                (training.path(context.options.out) / "under-way").touch()
                time.sleep(self.seconds)
            return module(torch.ones(1)).square().sum()

        task = Task(model=model, loss=loss, config=training.hash, title=training.label)
        state = train(task, training.config, training.path(context.options.out), progress=False)
        notes = {"training": as_json(training.config), "seconds": state.seconds, "history": state.history}
        notes["environment"] = {"machine": {"processor": "abacus"}}
        content = encode_tensors(model.state_dict(), {"notes": json.dumps(notes)})
        write_bytes(training.weights(context.options.out), content)

    def score(self, case: Entry, method: Entry, seed: int, weights: Any, context: RunContext) -> dict[str, np.ndarray]:
        """Scores of two functions."""
        if context.options.seed in self.fails:
            raise DataFileError(f"seed {seed} is unlucky")
        if method.key == "truth":
            return {"CE": np.zeros(2)}
        weight = decode_tensors(weights[0].read_bytes())[0]["weight"].item()
        first = int(case.key[-1]) + seed + abs(weight)
        return {"CE": np.array([1.0, np.nan]), "MSE": np.array([first, first + 1]), "shown": np.zeros(3)}

    def published(self, case: Entry) -> list[Record]:
        keys = {"experiment": self.name, "case": case.key, "method": "trained", "seed": None, "score": "MSE"}
        return [Record(**keys, mean=self.paper, standard_error=None, source=Source.PUBLISHED, note="a paper")]


def forget(name: str) -> None:
    """Takes an experiment out of those of the command line again."""
    del registry._registered[name], CATALOGUE[name]


@dataclass(frozen=True)
class Endless:
    """A training as a job, with long steps that end when it is interrupted.

    Args:
        folder: Where its checkpoint goes, and the file ``under-way`` after the first step.
    """

    folder: Path

    def __call__(self) -> None:
        def loss(module: nn.Module, step: StepContext) -> torch.Tensor:
            if step.step:
                (self.folder / "under-way").touch()
                time.sleep(1.0)
            return module(torch.ones(1)).square().sum()

        config = TrainingConfig(steps=10**6, checkpoint_every=10**6, validate_every=10**6, precision="32-true")
        train(Task(model=nn.Linear(1, 1), loss=loss), config, self.folder, progress=False)
