"""Training of one operator of a boundary-condition experiment."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from boon import Prescription, relative_l2
from experiments.boundary.baselines.architectures import PrincipalComponents
from experiments.boundary.baselines.pca import Samples, describe, fit
from experiments.boundary.cases import BoundaryCase, NetworkSizes
from experiments.boundary.data import Fields, Values, load_fields
from experiments.boundary.operator import (
    ConditionedOperator,
    Treatment,
    build,
    corrected,
    discretise_case,
    layout_of,
    prescribed,
    with_channels,
)
from experiments.boundary.samples import DataStore, SampleConfig
from experiments.experiment import RunContext, Training
from experiments.stages import one_thread, store_finished
from probconserv.training import StepContext, Task, TrainingConfig, train
from probconserv.training.checkpoint import TrainingState
from probconserv.training.distributed import first_before_others, launched


@dataclass(frozen=True, kw_only=True)
class OperatorTraining:
    """Everything that decides a trained operator; ``samples`` describes ``data``, ``network`` the ``case``."""

    samples: Mapping[str, Any]
    validation: int
    network: NetworkSizes
    treatment: Treatment
    training: TrainingConfig
    batch: int
    case: BoundaryCase = field(compare=False, repr=False)
    data: SampleConfig = field(compare=False)


def operator_training(
    case: BoundaryCase, treatment: Treatment, data_seed: int, seed: int, rate: float = 1.0
) -> OperatorTraining:
    """The training of a method: samples are the same for all methods and seeds, weights and batches by ``seed``.

    ``rate`` is the peak learning rate in units of that of the case.
    """
    data, sizes = case.training_data(data_seed), case.sizes
    return OperatorTraining(
        samples=case.source.describe(data),
        validation=sizes.validation,
        network=sizes.network,
        treatment=treatment,
        training=replace(sizes.training, seed=seed, peak_rate=rate * sizes.training.peak_rate),
        batch=sizes.batch,
        case=case,
        data=data,
    )


def store_of(context: RunContext, version: int) -> DataStore:
    """Samples of a run."""
    options = context.options
    return DataStore(folder=context.data_folder, version=version, jobs=options.workers or 1)


def train_operator(training: Training, context: RunContext) -> None:
    """Trains an operator, or goes on from its checkpoint, and stores it."""
    config: OperatorTraining = training.config
    ranks = launched()
    device = ranks.device(context.options.device)
    with first_before_others():
        fields = load_fields(config.case, config.data, store_of(context, training.data_version))
    training_set = fields.take(slice(len(fields) - config.validation))
    more = {"layout": asdict(layout_of(config.treatment, config.case, training_set))}
    path = training.weights(context.options.out)
    if isinstance(config.treatment.architecture, PrincipalComponents):
        operator, state, regression = fit_components(config, fields)
        store_finished(operator, training, state, path, {**more, "regression": regression})
        return
    torch.manual_seed(config.training.seed)
    model = build(config.treatment, config.case, training_set)
    task = operator_task(model, config, fields.each(lambda field: field.to(device)), training)
    how = replace(config.training, device=context.options.device, processes=ranks.world_size)
    with one_thread():
        state = train(task, how, training.path(context.options.out), context.progress)
    store_finished(model.operator.cpu().eval(), training, state, path, more)


def fit_components(config: OperatorTraining, fields: Fields) -> tuple[nn.Module, TrainingState, dict[str, Any]]:
    """A regression on principal components: the operator, how long it took, and what was tried.

    The boundary of its output is prescribed if that is better on the validation set, which ``fields`` have last.
    """
    case, treatment, count = config.case, config.treatment, len(fields) - config.validation
    inputs = with_channels(fields.input, fields.values, treatment, case)
    samples = [Samples(inputs[part], fields.output[part]) for part in (slice(count), slice(count, None))]
    unseen, start = fields.take(slice(count, None)), time.perf_counter()
    boundary = discretise_case(case, unseen.output.double(), unseen.each(torch.Tensor.double).values)
    with one_thread():
        model, trials = fit(
            layout_of(treatment, case, fields).sensors, *samples, finish=lambda u: prescribed(u, boundary)
        )
    history = [{"step": 0, "relative_l2": trials[0].error}]
    state = TrainingState(step=0, seconds=time.perf_counter() - start, history=history)
    correction = Prescription() if trials[0].finished else None
    return corrected(model, correction, case), state, describe(model, trials)


def operator_task(model: ConditionedOperator, config: OperatorTraining, fields: Fields, training: Training) -> Task:
    """Batches of the training samples, and the error on the validation set, which ``fields`` have last."""
    count = len(fields) - config.validation
    training_set, validation_set = fields.take(slice(count)), fields.take(slice(count, None))

    def loss(module: nn.Module, step: StepContext) -> Tensor:
        rows = torch.randperm(count, generator=step.generator)[: step.rows(config.batch)]
        batch = training_set.take(rows.to(fields.input.device))
        return module(batch.input, batch.output, batch.values)

    def validate(*_: object) -> dict[str, float]:
        return {"relative_l2": validation_error(model, validation_set, config.batch)}

    return Task(_Loss(model), loss, validate, config=training.hash, title=training.label)


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
