# ruff: noqa: ARG002 - arguments that the driver gives to every experiment
"""Which correction shall be the default: candidates of one family, trained alike and ranked by validation alone."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from boon import SingularKernelError
from experiments.boundary.cases import BoundaryCase
from experiments.boundary.experiment import EXPERIMENTS, BoundaryExperiment
from experiments.boundary.methods import Method, candidates
from experiments.boundary.scoring import validation_score
from experiments.experiment import Durations, RunContext, Training
from experiments.records.record import Arrays, Over, Record
from probconserv.errors import TrainingDivergedError

_BEST = 4  # candidates that the terminal shows of a case
_DURATIONS: Durations = {"smoke": "30 s", "laptop": "60 min", "paper": "9000 min", "reproduce": "1 s"}


@dataclass(frozen=True, kw_only=True)
class BoundaryChoice:
    """The candidates for the default correction on the cases of an experiment; no test samples are made.

    Args:
        experiment: The experiment.
        repetitions: Trainings of every candidate.
    """

    experiment: BoundaryExperiment
    repetitions: int = 1

    @property
    def name(self) -> str:
        """``<problem>-choice``."""
        return f"{self.experiment.name}-choice"

    @property
    def summary(self) -> str:
        """One line for ``list``."""
        return f"{self.experiment.name}: boundary corrections ranked on the validation set"

    @property
    def durations(self) -> Durations:
        """How long each preset takes, about."""
        return _DURATIONS

    @property
    def over(self) -> Over:
        """Means and standard errors are taken over trainings with different seeds."""
        return Over.SEEDS

    @property
    def data_version(self) -> int:
        """Version of the data of the problem."""
        return self.experiment.data_version

    def title(self, cases: Sequence[BoundaryCase]) -> str:
        """The problem, and what its candidates are scored on."""
        return f"{self.experiment.title(cases)}; candidates for the default on the validation set"

    def cases(self, context: RunContext) -> Sequence[BoundaryCase]:
        """The cases of the experiment."""
        return self.experiment.cases(context)

    def methods(self, case: BoundaryCase) -> Sequence[Method]:
        """The candidates."""
        return candidates(case)

    def seeds(self, case: BoundaryCase, context: RunContext) -> Sequence[int]:
        """Seeds of the trainings of a candidate."""
        return range(context.training_seed, context.training_seed + self.repetitions)

    def trainings(self, case: BoundaryCase, method: Method, seed: int, context: RunContext) -> Sequence[Training]:
        """The training of a candidate, whose weights are not released."""
        return [replace(entry, release=None) for entry in self.experiment.trainings(case, method, seed, context)]

    def train(self, training: Training, context: RunContext) -> None:
        """Trains a candidate; where that fails, says so on standard error and leaves no weights."""
        try:
            self.experiment.train(training, context)
        except (TrainingDivergedError, SingularKernelError) as error:
            print(f"The training of {training.label} failed and scores inf: {error}", file=sys.stderr)

    def score(
        self, case: BoundaryCase, method: Method, seed: int, weights: Sequence[Path], context: RunContext
    ) -> Arrays:
        """The score on the validation set; infinite where the training failed."""
        return {"validation": validation_score(weights[0]) if weights[0].exists() else np.array(np.inf)}

    def compare(self, case: BoundaryCase, records: pd.DataFrame) -> Sequence[Record]:
        """Nothing more."""
        return ()

    def published(self, case: BoundaryCase) -> Sequence[Record]:
        """No paper ranks these candidates."""
        return ()

    def headline(self, case: BoundaryCase, records: pd.DataFrame) -> tuple[Sequence[str], Sequence[str]]:
        """The best candidates."""
        return list(records.sort_values("mean")["method"].head(_BEST)), ("validation",)

    def figures(self, *_: object) -> Mapping[str, Figure]:
        """None."""
        return {}

    def overview(self, *_: object) -> Mapping[str, Figure]:
        """None."""
        return {}


CHOICES: dict[str, BoundaryChoice] = {
    name: BoundaryChoice(experiment=experiment) for name, experiment in EXPERIMENTS.items()
}
"""By problem."""
