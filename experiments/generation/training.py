"""Trains one flow on random solutions of a problem."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from experiments.experiment import RunContext, Training
from experiments.generation.cases import Sizes
from experiments.generation.problem import GenerationProblem
from experiments.records.store import as_json, environment
from experiments.stages import one_thread
from probconserv import FlowMatching
from probconserv.surrogates.flow import KarhunenLoeve, ResidualVelocity
from probconserv.training import TrainingConfig
from probconserv.training.distributed import launched

_MODES_OF = 2000  # training fields that the modes are computed from


@dataclass(frozen=True, kw_only=True)
class FlowTraining:
    """Everything that decides a trained flow, apart from the version of the data."""

    data: dict[str, Any]
    samples: int
    nodes: int
    modes: int
    width: int
    blocks: int
    training: TrainingConfig
    batch: int
    noise: str = "of one variance in all modes"
    problem: GenerationProblem = field(compare=False, repr=False)

    def fields(self) -> Tensor:
        """The training fields ``(samples, t, x)``."""
        return self.problem.draws(self.samples, self.nodes, seed=10**6 + self.training.seed)

    def untrained(self, fields: Tensor) -> FlowMatching:
        """The flow with its coordinates, from training fields, and initial weights."""
        latent = KarhunenLoeve.of(fields[:_MODES_OF], self.modes, seed=self.training.seed, whitened=False)
        torch.manual_seed(self.training.seed)
        size = {"width": self.width, "blocks": self.blocks}
        velocity = ResidualVelocity(self.modes, **size, spread=latent.spread)
        return FlowMatching(latent, velocity, axes=self.problem.axes(self.nodes))


def training_of(problem: GenerationProblem, sizes: Sizes, number: int, device: str) -> FlowTraining:
    """Training number ``number`` of a problem."""
    return FlowTraining(
        data=problem.description,
        samples=sizes.samples,
        nodes=sizes.nodes,
        modes=min(sizes.modes, problem.modes),
        width=sizes.width,
        blocks=sizes.blocks,
        training=replace(sizes.training, seed=number, device=device),
        batch=sizes.batch,
        problem=problem,
    )


def train_flow(training: Training, context: RunContext) -> None:
    """One training, from its checkpoint if there is one; leaves its file of weights."""
    config: FlowTraining = training.config
    path = training.weights(context.options.out)
    with one_thread():
        fields = config.fields()
        flow = config.untrained(fields)
        flow.velocity.to(context.options.device)
        state = flow.fit(
            fields, config=config.training, folder=path.parent, batch=config.batch, progress=context.progress
        )
    flow.velocity.to("cpu")
    if launched().first:
        flow.save(
            path,
            label=training.label,
            training=as_json(config),
            data_version=training.data_version,
            seconds=state.seconds,
            history=state.history,
            environment=environment(),
        )
