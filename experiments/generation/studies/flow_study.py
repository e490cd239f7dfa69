"""What studies of one flow share: the first flow of an experiment, released or trained."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from typing_extensions import override

from experiments.experiment import Experiment, Preset, RunContext, Training
from experiments.generation.cases import Case
from experiments.generation.experiment import GenerationExperiment
from experiments.records.record import Over
from experiments.training_files import take_released

DRAWS: Mapping[Preset, int] = {"smoke": 64, "laptop": 1024, "paper": 4096}
"""Draws at most."""


@dataclass(frozen=True, kw_only=True)
class FlowStudy(Experiment):
    """A study of the samplers of one flow.

    Args:
        name: Name on the command line.
        flows: The experiment whose first flow and whose laws are used.
    """

    name: str
    flows: GenerationExperiment

    over = Over.GROUPS

    @property
    def data_version(self) -> int:
        return self.flows.data_version

    def cases(self, context: RunContext) -> list[Case]:
        """The laws of the experiment, with fewer draws."""
        most = DRAWS[context.options.preset]
        cases = self.flows.cases(context)
        return [replace(case, sizes=replace(case.sizes, draws=min(most, case.sizes.draws))) for case in cases]

    @override
    def seeds(self, case: Case, context: RunContext) -> range:
        return range(1)

    def trainings(self, case: Case, method: Any, seed: int, context: RunContext) -> list[Training]:
        return self.flows.trainings(case, method, seed, context)

    def train(self, training: Training, context: RunContext) -> None:
        """Takes the released weights of the laptop's flow, or trains one."""
        if not take_released(training, context):
            self.flows.train(training, context)
