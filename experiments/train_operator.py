"""Trains one operator of a boundary-condition experiment as its config says, or finds it if it is finished."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import boon
from boon import relative_l2
from experiments.boundary_data import describe_samples
from experiments.errors import InvalidArgumentError
from experiments.operator_config import NetworkSizes, OperatorCase
from experiments.operator_data import Fields, Values, load_fields
from experiments.operator_files import store_finished
from experiments.operator_methods import ConditionedOperator, Method, build
from probconserv.training import first_before_others, launched, say_once
from experiments.runs import as_json, digest
from experiments.stages import made_once, one_thread
from probconserv.training import StepContext, Task, TrainingConfig, TrainingState, train


@dataclass(frozen=True, kw_only=True)
class OperatorTraining:
    """Everything that decides a trained operator.

    Args:
        samples: What decides the training samples, ``boundary_data.describe_samples``.
        validation: Samples held out, the last ones.
        network: Sizes of the operator.
        method: The method.
        training: Length, rate and seed.
        batch: Samples a step, shared by all processes.
    """

    samples: dict[str, object]
    validation: int
    network: NetworkSizes
    method: Method
    training: TrainingConfig
    batch: int

    @property
    def content(self) -> dict[str, Any]:
        """The config as JSON can hold it, without the method's name: rows and candidates share equal trainings."""
        content = as_json(self)
        del content["method"]["name"]
        return content

    @property
    def identity(self) -> str:
        """Twelve hexadecimal digits that the training is known by."""
        return digest(self.content)


def operator_training(case: OperatorCase, method: Method, data_seed: int, seed: int) -> OperatorTraining:
    """The training of one row.

    Args:
        case: The case.
        method: The method.
        data_seed: Seed of the samples, shared by all rows and seeds.
        seed: Seed of weights and batches.
    """
    return OperatorTraining(
        samples=describe_samples(case.problem, case.training_data(data_seed)),
        validation=case.sizes.validation,
        network=case.sizes.network,
        method=method,
        training=replace(case.sizes.training, seed=seed),
        batch=case.sizes.batch,
    )


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where trainings of an experiment live and run.

    Args:
        experiment: Name of the experiment.
        out: Folder of all stored runs.
        device: Torch device; does not change what is trained.
        data_seed: Seed of the samples.
        progress: Whether to show a progress bar on standard error.
    """

    experiment: str
    out: Path
    device: str = "cpu"
    data_seed: int = 0
    progress: bool = True

    @property
    def data(self) -> Path:
        """Folder of samples."""
        return self.out / "data"

    def folder(self, case: OperatorCase, config: OperatorTraining) -> Path:
        """Where checkpoint and weights of a training live."""
        return self.out / self.experiment / "operators" / f"{case.name}-{config.training.seed}-{config.identity}"


def slug(name: str) -> str:
    """A name of a method in file names."""
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower().replace("'", "")).split())


def trained_operator(case: OperatorCase, method: Method, place: Place, seed: int) -> Path:
    """Trains an operator or goes on where an earlier start stopped; a finished one is not trained again.

    Args:
        case: The case.
        method: The method.
        place: Experiment, folders, device.
        seed: Seed of weights and batches.

    Returns:
        The file of weights; ``boon.read_notes`` gives how it was trained.

    Raises:
        TrainingInterruptedError: If it was stopped before its end.
        TrainingDivergedError: If the loss is not finite; the last good checkpoint stays.
        InvalidArgumentError: If several processes are to share a loss that is not a mean over samples.
    """
    config = operator_training(case, method, place.data_seed, seed)
    folder = place.folder(case, config)
    path = folder / "weights.safetensors"
    if not path.exists() and launched().world_size > 1 and not shareable(method):
        raise InvalidArgumentError(f"The loss of '{method.name}' is no mean over samples; train it in one process.")

    def make() -> None:
        with first_before_others():
            fields = load_fields(case, case.training_data(place.data_seed), place.data)
        steps = config.training.steps
        say_once(f"Training '{method.name}' of {place.experiment}, {case.label}, seed {seed}: {steps} steps.")
        with one_thread():
            model, state = train_operator(case, config, fields, folder, place)
        title, notes = f"'{method.name}' for {place.experiment}", {"case": case.label, "training": config.content}
        store_finished(model.operator, path, state, steps, title, notes)

    return made_once(path, make)


def shareable(method: Method) -> bool:
    """Whether several processes can train a method: a penalty is a ratio of norms over the whole batch."""
    return not method.penalty


def train_operator(
    case: OperatorCase, config: OperatorTraining, fields: Fields, folder: Path, place: Place
) -> tuple[ConditionedOperator, TrainingState]:
    """One training, from the folder's checkpoint if there is one.

    Args:
        case: The case.
        config: Everything that decides the result.
        fields: All training samples, those held out last.
        folder: Where the checkpoint lives.
        place: Device and progress bar.

    Returns:
        The operator on the CPU in evaluation mode, and how it went.
    """
    torch.manual_seed(config.training.seed)
    model = build(config.method, case)
    share = launched()
    device = share.device(place.device)
    fields = fields.to(device)
    count = len(fields) - config.validation
    kept, held_out = fields.take(slice(count)), fields.take(slice(count, None))
    task = Task(
        model=_Loss(model),
        loss=lambda loss, context: loss(*kept.take(_own_samples(context, count, config.batch).to(device)).parts),
        validate=lambda loss, generator: {"relative_l2": validation_score(model, held_out, config.batch)},  # noqa: ARG005
        config={name: value for name, value in config.content.items() if name != "training"},
    )
    training = replace(config.training, device=place.device, processes=share.world_size)
    state = train(task, training, folder, place.progress)
    return model.cpu().eval(), state


class _Loss(torch.nn.Module):
    """The loss as the module's forward pass, so that several processes share gradients."""

    def __init__(self, model: ConditionedOperator) -> None:
        super().__init__()
        self.model = model

    def forward(self, first: Tensor, output: Tensor, values: Values) -> Tensor:
        return self.model.loss(Fields(input=first, output=output, values=values))


def predict(model: ConditionedOperator, fields: Fields, batch: int) -> Tensor:
    """Output fields of all samples, ``batch`` at a time, without gradients."""
    parts = [fields.take(slice(start, start + batch)) for start in range(0, len(fields), batch)]
    with torch.no_grad():
        return torch.cat([model(part.input, part.values) for part in parts])


def validation_score(model: ConditionedOperator, held_out: Fields, batch: int) -> float:
    """Mean relative L2 on the samples held out."""
    return float(relative_l2(predict(model, held_out, batch).double(), held_out.output.double()))


def load_operator(path: Path, method: Method, case: OperatorCase) -> ConditionedOperator:
    """A stored operator as a map of its case.

    Args:
        path: The file of weights.
        method: The method.
        case: The case.
    """
    return ConditionedOperator(boon.load(path), method, case).eval()


def _own_samples(context: StepContext, count: int, batch: int) -> Tensor:
    """Indices of the process's share of a random batch."""
    return torch.randperm(count, generator=context.generator)[: context.rows(batch)]
