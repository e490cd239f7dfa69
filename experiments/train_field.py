"""Trains one operator of a field case by the closed-form CRPS of its prediction, or finds it if it is finished.

Experiments share trainings: one of the same config is done once in an output folder.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from boon import BOON, FNO
from experiments.field_cases import FieldCase
from experiments.field_data import FieldSamples, field_samples
from experiments.field_models import UNIT, Inputs, Network, as_map, build, diversity_penalty, inputs
from experiments.operator_config import NetworkSizes
from experiments.operator_files import store_finished
from probconserv.training import first_before_others, launched, say_once
from experiments.runs import as_json, digest
from experiments.stages import made_once, one_thread
from probconserv.training import StepContext, Task, TrainingConfig, TrainingState, train
from probconserv import condition, integral
from probconserv.scores import crps
from probconserv.surrogates.operator import as_gaussian


@dataclass(frozen=True, kw_only=True)
class FieldTraining:
    """Everything that decides a trained operator.

    Args:
        data: What decides the training fields, ``FieldCase.description``.
        samples: Training parameters.
        held_out: Parameters held out for validation.
        sizes: Width, modes and depth.
        network: What is trained.
        training: Steps, rate, decay and seed.
        batch: Fields a step.
    """

    data: dict[str, Any]
    samples: int
    held_out: int
    sizes: NetworkSizes
    network: Network
    training: TrainingConfig
    batch: int

    @property
    def content(self) -> dict[str, Any]:
        """The config as JSON can hold it."""
        return as_json(self)

    @property
    def identity(self) -> str:
        """Twelve hexadecimal digits that the training is known by; the network's name does not count."""
        content = self.content
        del content["network"]["name"]
        return digest(content)

    def folder(self, out: Path) -> Path:
        """Where checkpoint and weights live."""
        place = out / "fields" / str(self.data["problem"])
        return place / f"{self.network.name}-{self.training.seed}-{self.identity}"


def trained_field(case: FieldCase, config: FieldTraining, out: Path, device: str = "cpu") -> Path:
    """Trains an operator or goes on where an earlier start stopped; a finished one is not trained again.

    Args:
        case: The case.
        config: The training.
        out: Folder of all stored runs.
        device: Torch device; changes what is trained by rounding only.

    Returns:
        The file of weights; ``boon.read_notes`` gives how it was trained.

    Raises:
        TrainingInterruptedError: If it was stopped before its end.
        TrainingDivergedError: If the loss is not finite; the last good checkpoint stays.
    """
    folder, steps = config.folder(out), config.training.steps
    path = folder / "weights.safetensors"

    def make() -> None:
        with first_before_others():
            samples, held_out = (
                field_samples(case, count, out / "data") for count in (config.samples, config.held_out)
            )
        say_once(f"Training '{config.network.name}' of {case.name}, seed {config.training.seed}: {steps} steps.")
        with one_thread():
            operator, state = train_field(case, config, (samples, held_out), folder, device)
        title = f"'{config.network.name}' for {case.name}"
        store_finished(operator, path, state, steps, title, {"training": config.content})

    return made_once(path, make)


def train_field(
    case: FieldCase,
    config: FieldTraining,
    samples: tuple[FieldSamples, FieldSamples],
    folder: Path,
    device: str = "cpu",
    progress: bool = True,
) -> tuple[FNO | BOON, TrainingState]:
    """One training, from the folder's checkpoint if there is one.

    Args:
        case: The case.
        config: Everything that decides the result.
        samples: Training fields and those held out.
        folder: Where the checkpoint lives.
        device: Torch device.
        progress: Whether to show a progress bar on standard error.

    Returns:
        The operator on the CPU in evaluation mode, and how it went.
    """
    torch.manual_seed(config.training.seed)
    operator = build(config.network, case, config.sizes)
    model = FieldLoss(operator, config.network, case)
    share = launched()
    place = share.device(device)
    kept, held_out = (model.prepared(part, place) for part in samples)

    def loss(model: nn.Module, context: StepContext) -> Tensor:
        drawn = torch.randperm(config.samples, generator=context.generator)[: context.rows(config.batch)]
        return model(*kept.take(drawn.to(place)))

    task = Task(
        model=model,
        loss=loss,
        validate=lambda _, generator: {"crps": float(model.score(*held_out.take(slice(None))))},  # noqa: ARG005
        config={name: value for name, value in config.content.items() if name != "training"},
    )
    state = train(task, replace(config.training, device=device, processes=share.world_size), folder, progress)
    return operator.cpu().eval(), state


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

    def take(self, chosen: Tensor | slice) -> tuple[Inputs, Tensor, Tensor]:
        """Inputs, totals and targets of some samples."""
        ends = tuple(end[chosen] for end in self.ends)
        return (self.a[chosen], *([[ends]] if ends else [])), self.total[chosen], self.fields[chosen]


class FieldLoss(nn.Module):
    """The loss as a module's forward pass, so that several processes share gradients.

    Args:
        operator: The operator.
        network: What is trained.
        case: The case.
    """

    def __init__(self, operator: FNO | BOON, network: Network, case: FieldCase) -> None:
        super().__init__()
        self.map, self.network, self.case = as_map(operator, network, case), network, case
        self.bare = [operator]  # in a list, since its parameters are those of the map

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
        return loss + self.network.diversity * diversity_penalty(self.bare[0], self.network.heads)

    def score(self, arguments: Inputs, total: Tensor, fields: Tensor) -> Tensor:
        """Mean CRPS over fields, times, places and heads, of the conditioned prediction if the network says so."""
        heads = self.map(*arguments).to(torch.float64).chunk(self.network.heads, dim=1)
        scores = []
        for head in heads:
            prediction = as_gaussian(head, UNIT)
            if self.network.conserved:
                prediction = condition(prediction, integral(self.case.grid, total))
            scores.append(crps(fields, prediction.mean, prediction.variance).mean())
        return torch.stack(scores).mean()

    def prepared(self, samples: FieldSamples, device: torch.device) -> PreparedSamples:
        """Samples with their inputs on a device."""
        a, *sides = inputs(self.case, self.network, samples.parameter, torch.float32)
        ends = tuple(end.to(device) for pair in sides for end in pair[0])
        total = self.case.total(samples.parameter)
        return PreparedSamples(a.to(device), ends, total.to(device), samples.fields.to(device))
