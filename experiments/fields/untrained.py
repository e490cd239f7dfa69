"""What experiments have in common whose models are fitted in closed form, so that they have no weights."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from experiments.checks import refuse_data
from experiments.experiment import RunContext, Training
from experiments.records.record import Arrays, Over, Record
from experiments.records.release import data_version


class UntrainedExperiment(ABC):
    """An experiment that fits what it needs when it scores; ``reproduce`` fits again."""

    name: str
    over = Over.FUNCTIONS

    @abstractmethod
    def score_case(self, case: Any, method: Any, context: RunContext) -> Arrays:
        """Scores per function of a method, and arrays for the figures."""

    @property
    def data_version(self) -> int:
        return data_version(self.name)

    def refuse_data(self, context: RunContext) -> None:
        """Raises InvalidArgumentError if the user chose where training functions come from."""
        refuse_data(context.options, self.name, "its data are always the same")

    def seeds(self, case: Any, context: RunContext) -> tuple[int, ...]:  # noqa: ARG002
        return (context.options.seed,)

    def trainings(self, case: Any, method: Any, seed: int, context: RunContext) -> list[Training]:  # noqa: ARG002
        return []

    def train(self, training: Training, context: RunContext) -> None:  # noqa: ARG002
        assert False, "there are no trainings"  # noqa: B011, PT015

    def score(self, case: Any, method: Any, seed: int, weights: Sequence[Path], context: RunContext) -> Arrays:  # noqa: ARG002
        return self.score_case(case, method, context)

    def compare(self, case: Any, records: pd.DataFrame) -> list[Record]:  # noqa: ARG002
        return []

    def published(self, case: Any) -> list[Record]:  # noqa: ARG002
        return []

    def overview(self, cases: Sequence[Any], records: pd.DataFrame) -> dict[str, Figure]:  # noqa: ARG002
        return {}
