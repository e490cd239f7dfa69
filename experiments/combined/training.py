"""Trains one operator by the closed-form CRPS of its prediction."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from boon import BOON, FNO
from experiments.combined.data import FieldSamples, field_samples
from experiments.combined.fields import FieldProblem
from experiments.combined.networks import (
    UNIT,
    FieldMap,
    Inputs,
    Network,
    NetworkSizes,
    build,
    diversity_penalty,
    inputs,
)
from experiments.experiment import RunContext, Training
from experiments.stages import one_thread
from experiments.training_files import store_finished
from probconserv import condition, integral
from probconserv.scores import crps
from probconserv.surrogates.operator import as_gaussian
from probconserv.training import StepContext, Task, TrainingConfig, first_before_others, launched, train


@dataclass(frozen=True, kw_only=True)
class FieldTraining:
    """Everything that decides a trained operator, apart from the version of the data.

    Args:
        data: What decides the training fields, ``FieldProblem.description``.
        samples: Training parameters.
        validation: Parameters of the validation set.
        sizes: Width, modes and depth.
        network: What is trained.
        training: Steps, rate, decay and seed.
        batch: Fields a step.
        problem: The problem, which ``data`` describes.
    """

    data: dict[str, Any]
    samples: int
    validation: int
    sizes: NetworkSizes
    network: Network
    training: TrainingConfig
    batch: int
    problem: FieldProblem = field(compare=False, repr=False)


def train_operator(training: Training, context: RunContext) -> None:
    """One training, from its checkpoint if there is one; leaves its file of weights.

    Args:
        training: What is trained; its config is a ``FieldTraining``.
        context: Device and folders.

    Raises:
        TrainingInterruptedError: If it was stopped before its end.
        TrainingDivergedError: If the loss is not finite; the last good checkpoint stays.
    """
    config, path, ranks = training.config, training.weights(context.options.out), launched()
    with first_before_others():
        data = [field_samples(config.problem, n, context.data_folder) for n in (config.samples, config.validation)]
    torch.manual_seed(config.training.seed)
    operator = build(config.network, config.problem, config.sizes)
    model = FieldLoss(operator, config.network, config.problem)
    device = ranks.device(context.options.device)
    training_set, validation_set = (model.prepared(part, device) for part in data)

    def loss(model: nn.Module, step: StepContext) -> Tensor:
        rows = torch.randperm(config.samples, generator=step.generator)[: step.rows(config.batch)]
        return model(*training_set.take(rows.to(device)))

    task = Task(
        model=model,
        loss=loss,
        validate=lambda *_: {"crps": float(model.score(*validation_set.take(slice(None))))},
        config=training.hash,
        title=training.label,
    )
    how = replace(config.training, device=context.options.device, processes=ranks.world_size)
    with one_thread():
        state = train(task, how, path.parent, context.progress)
    store_finished(operator.cpu().eval(), training, state, path)


@dataclass(frozen=True)
class PreparedSamples:
    """Samples as the loss takes them, on its device.

    Args:
        a: Input fields ``(samples, channels, nodes)``.
        ends: Boundary values of a BOON's channels on both sides; empty for a plain FNO.
        total: Conserved totals ``(samples, T)``.
        fields: Targets ``(samples, T, n)``.
    """

    a: Tensor
    ends: tuple[Tensor, ...]
    total: Tensor
    fields: Tensor

    def take(self, rows: Tensor | slice) -> tuple[Inputs, Tensor, Tensor]:
        """Inputs, totals and targets of some samples."""
        ends = tuple(end[rows] for end in self.ends)
        return (self.a[rows], *([[ends]] if ends else [])), self.total[rows], self.fields[rows]


class FieldLoss(nn.Module):
    """The loss as a module's forward pass, so that several processes average gradients.

    Args:
        operator: The operator.
        network: What is trained.
        problem: The problem.
    """

    def __init__(self, operator: FNO | BOON, network: Network, problem: FieldProblem) -> None:
        super().__init__()
        self.map, self.network, self.problem = FieldMap(operator, network, problem), network, problem

    def forward(self, arguments: Inputs, total: Tensor, fields: Tensor) -> Tensor:
        """The score, plus the penalty of the network.

        Args:
            arguments: What the operator takes.
            total: Conserved totals ``(batch, T)``.
            fields: Targets ``(batch, T, n)``.
        """
        loss = self.score(arguments, total, fields)
        if not self.network.diversity:
            return loss
        return loss + self.network.diversity * diversity_penalty(self.map.operator, self.network.heads)

    def score(self, arguments: Inputs, total: Tensor, fields: Tensor) -> Tensor:
        """Mean CRPS over fields, times, points and heads, of the conditioned prediction if the network says so."""
        heads = self.map(*arguments).to(torch.float64).chunk(self.network.heads, dim=1)
        scores = []
        for head in heads:
            prediction = as_gaussian(head, UNIT)
            if self.network.conserved:
                prediction = condition(prediction, integral(self.problem.grid, total))
            scores.append(crps(fields, prediction.mean, prediction.variance).mean())
        return torch.stack(scores).mean()

    def prepared(self, samples: FieldSamples, device: torch.device) -> PreparedSamples:
        """Samples with their inputs on a device."""
        a, *sides = inputs(self.problem, self.network, samples.parameter, torch.float32)
        ends = tuple(end.to(device) for pair in sides for end in pair[0])
        total = self.problem.total(samples.parameter)
        return PreparedSamples(a.to(device), ends, total.to(device), samples.fields.to(device))
