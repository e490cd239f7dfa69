"""Trains one flow on random solutions of a problem."""

from dataclasses import dataclass, field
from typing import Any

import torch

from experiments.experiment import RunContext, Training
from experiments.generation.problems import GenerationProblem
from experiments.records.store import as_json, environment
from experiments.stages import one_thread
from probconserv import FlowMatching, KarhunenLoeve, ResidualVelocity
from probconserv.training import TrainingConfig, launched

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


def train_flow(training: Training, context: RunContext) -> None:
    """One training, from its checkpoint if there is one; leaves its file of weights."""
    config: FlowTraining = training.config
    path, seed = training.weights(context.options.out), config.training.seed
    with one_thread():
        fields = config.problem.draws(config.samples, config.nodes, seed=10**6 + seed)
        latent = KarhunenLoeve.of(fields[:_MODES_OF], config.modes, seed=seed, whitened=False)
        torch.manual_seed(seed)
        size = {"width": config.width, "blocks": config.blocks}
        velocity = ResidualVelocity(config.modes, **size, spread=latent.spread)
        flow = FlowMatching(latent, velocity.to(context.options.device), axes=config.problem.axes(config.nodes))
        state = flow.fit(fields, config.training, path.parent, batch=config.batch, progress=context.progress)
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
