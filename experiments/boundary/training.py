"""Training of one operator of a boundary-condition experiment."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from boon import relative_l2
from experiments.boundary.cases import BoundaryCase, NetworkSizes, describe_samples
from experiments.boundary.data import Fields, Values, load_fields
from experiments.boundary.operator import ConditionedOperator, Treatment, build
from experiments.operator_files import store_finished
from experiments.processes import first_before_others, launched
from experiments.protocol import RunContext, Training
from experiments.records.store import as_json
from experiments.stages import one_thread
from experiments.training import Moment, Progression, Task, TrainingConfig, train


@dataclass(frozen=True, kw_only=True)
class OperatorTraining:
    """Everything that decides a trained operator.

    Args:
        samples: What decides the training samples, ``describe_samples``.
        validation: Samples of the validation set, the last ones.
        network: Sizes of the operator.
        treatment: What it does with the boundary.
        training: Length, rate and seed.
        batch: Samples a step.
        case: The case, which ``samples`` and ``network`` describe.
        data_seed: Seed of the samples, which ``samples`` contains.
    """

    samples: Mapping[str, Any]
    validation: int
    network: NetworkSizes
    treatment: Treatment
    training: TrainingConfig
    batch: int
    case: BoundaryCase = field(compare=False, repr=False)
    data_seed: int = field(compare=False)


def operator_training(case: BoundaryCase, treatment: Treatment, data_seed: int, seed: int) -> OperatorTraining:
    """The training of one method.

    Args:
        case: The case.
        treatment: What the method does with the boundary.
        data_seed: Seed of the samples, the same for all methods and seeds.
        seed: Seed of weights and batches.
    """
    return OperatorTraining(
        samples=describe_samples(case.problem, case.training_data(data_seed)),
        validation=case.sizes.validation,
        network=case.sizes.network,
        treatment=treatment,
        training=replace(case.sizes.training, seed=seed),
        batch=case.sizes.batch,
        case=case,
        data_seed=data_seed,
    )


def train_operator(training: Training, context: RunContext) -> None:
    """Trains an operator, or goes on from its checkpoint, and stores it.

    Args:
        training: The training; its config is an ``OperatorTraining``.
        context: Folders and device.

    Raises:
        TrainingInterruptedError: If it was stopped before its end.
        TrainingDivergedError: If the loss is not finite; the last good checkpoint stays.
    """
    config: OperatorTraining = training.config
    case = config.case
    with first_before_others():
        fields = load_fields(case, case.training_data(config.data_seed), context.data_folder, training.data_version)
    with one_thread():
        model, state = _trained(config, fields, training.path(context.options.out), context)
    notes = {"case": case.label, "training": as_json(config)}
    path = training.weights(context.options.out)
    store_finished(model.operator, path, state, config.training.steps, training.label, notes)


def _trained(
    config: OperatorTraining, fields: Fields, folder: Path, context: RunContext
) -> tuple[ConditionedOperator, Progression]:
    """The operator on the CPU in evaluation mode, and how its training went."""
    torch.manual_seed(config.training.seed)
    model = build(config.treatment, config.case)
    share = launched()
    fields = fields.to(share.device(context.options.device))
    count = len(fields) - config.validation
    trained_on, validation = fields.take(slice(count)), fields.take(slice(count, None))

    def loss(module: torch.nn.Module, context: Moment) -> Tensor:
        rows = torch.randperm(count, generator=context.generator)[: config.batch][context.share.rows(config.batch)]
        batch = trained_on.take(rows.to(fields.input.device))
        return module(batch.input, batch.output, batch.values)

    def validate(_: torch.nn.Module, __: torch.Generator) -> dict[str, float]:
        return {"relative_l2": validation_error(model, validation, config.batch)}

    identity = {name: value for name, value in as_json(config).items() if name != "training"}
    task = Task(model=_Loss(model), loss=loss, validate=validate, identity=identity)
    on_device = replace(config.training, device=context.options.device, processes=share.count)
    state = train(task, on_device, folder, context.progress)
    return model.cpu().eval(), state


class _Loss(torch.nn.Module):
    """The loss as the module's forward pass, so that several processes average gradients."""

    def __init__(self, model: ConditionedOperator) -> None:
        super().__init__()
        self.model = model

    def forward(self, first: Tensor, output: Tensor, values: Values) -> Tensor:
        return self.model.loss(Fields(input=first, output=output, values=values))


def validation_error(model: ConditionedOperator, validation: Fields, batch: int) -> float:
    """Mean relative L2 on the validation set."""
    return float(relative_l2(model.predict(validation, batch).double(), validation.output.double()))
