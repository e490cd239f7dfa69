"""Training of one operator of a boundary-condition experiment."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from boon import relative_l2
from experiments.boundary.cases import BoundaryCase, NetworkSizes, describe_samples
from experiments.boundary.data import Fields, Values, load_fields
from experiments.boundary.operator import ConditionedOperator, Treatment, build
from experiments.experiment import RunContext, Training
from experiments.stages import one_thread
from experiments.training_files import store_finished
from probconserv.training import StepContext, Task, TrainingConfig, first_before_others, launched, train


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
    case, ranks = config.case, launched()
    with first_before_others():
        samples = case.training_data(config.data_seed)
        fields = load_fields(case, samples, context.data_folder, training.data_version)
    torch.manual_seed(config.training.seed)
    model = build(config.treatment, case)
    task = operator_task(model, config, fields.to(ranks.device(context.options.device)), training)
    how = replace(config.training, device=context.options.device, processes=ranks.world_size)
    with one_thread():
        state = train(task, how, training.path(context.options.out), context.progress)
    store_finished(model.operator.cpu().eval(), training, state, training.weights(context.options.out))


def operator_task(model: ConditionedOperator, config: OperatorTraining, fields: Fields, training: Training) -> Task:
    """What is trained: batches of the training samples, and the error on the validation set.

    Args:
        model: The untrained operator.
        config: Batch and validation set.
        fields: All training samples on the device, the validation set last.
        training: Hash and label of the training.
    """
    count = len(fields) - config.validation
    training_set, validation_set = fields.take(slice(count)), fields.take(slice(count, None))

    def loss(module: nn.Module, step: StepContext) -> Tensor:
        rows = torch.randperm(count, generator=step.generator)[: step.rows(config.batch)]
        batch = training_set.take(rows.to(fields.input.device))
        return module(batch.input, batch.output, batch.values)

    return Task(
        model=_Loss(model),
        loss=loss,
        validate=lambda *_: {"relative_l2": validation_error(model, validation_set, config.batch)},
        config=training.hash,
        title=training.label,
    )


class _Loss(nn.Module):
    """The loss as the module's forward pass, so that several processes average gradients."""

    def __init__(self, model: ConditionedOperator) -> None:
        super().__init__()
        self.model = model

    def forward(self, first: Tensor, output: Tensor, values: Values) -> Tensor:
        return self.model.loss(Fields(input=first, output=output, values=values))


def validation_error(model: ConditionedOperator, validation: Fields, batch: int) -> float:
    """Mean relative L2 on the validation set."""
    return float(relative_l2(model.predict(validation, batch).double(), validation.output.double()))
