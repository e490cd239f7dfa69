"""Trains one operator by the closed-form CRPS of its prediction."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from boon import BOON, FNO
from experiments.combined.fields import FieldProblem
from experiments.combined.networks import UNIT, FieldMap, Inputs, Network, build, inputs
from experiments.experiment import RunContext, Training
from experiments.records.release import data_version
from experiments.records.storage import Arrays, cached_arrays, writable_folder
from experiments.records.store import config_hash
from experiments.stages import one_thread, store_finished
from probconserv import condition, integral
from probconserv.scores import crps
from probconserv.surrogates.operator import as_gaussian
from probconserv.training import StepContext, Task, TrainingConfig, train
from probconserv.training.distributed import first_before_others, launched
from solvers import TRBDF2, CellGrid, LeastCost
from solvers.problems.sampling import even_parameters, solve_problem

Batch = tuple[Inputs, Tensor, Tensor]
"""Inputs of the operator, conserved totals and fields."""


@dataclass(frozen=True, kw_only=True)
class FieldTraining:
    """Everything that decides a trained operator, apart from the version of the data.

    ``data`` is the description of the ``problem``; ``batch`` fields make a step.
    """

    data: dict[str, Any]
    samples: int
    validation: int
    network: Network
    training: TrainingConfig
    batch: int
    problem: FieldProblem = field(compare=False, repr=False)


def train_operator(training: Training, context: RunContext) -> None:
    """One training, from its checkpoint if there is one; leaves its file of weights."""
    config, path, ranks = training.config, training.weights(context.options.out), launched()
    with first_before_others():
        data = [field_samples(config.problem, n, context.data_folder) for n in (config.samples, config.validation)]
    torch.manual_seed(config.training.seed)
    operator = build(config.network, config.problem)
    model = FieldLoss(operator, config.network, config.problem)
    device = ranks.device(context.options.device)
    training_set, validation_set = (model.batches(part, device) for part in data)

    def loss(model: nn.Module, step: StepContext) -> Tensor:
        rows = torch.randperm(config.samples, generator=step.generator)[: step.rows(config.batch)]
        return model(*training_set(rows.to(device)))

    def validate(*_: object) -> dict[str, float]:
        return {"crps": float(model(*validation_set(slice(None))))}

    task = Task(model, loss, validate, config=training.hash, title=training.label)
    how = replace(config.training, device=context.options.device, processes=ranks.world_size)
    with one_thread():
        state = train(task, how, path.parent, context.progress)
    store_finished(operator.cpu().eval(), training, state, path)


class FieldLoss(nn.Module):
    """The loss as a module's forward pass, so that several processes average gradients."""

    def __init__(self, operator: FNO | BOON, network: Network, problem: FieldProblem) -> None:
        super().__init__()
        self.map, self.network, self.problem = FieldMap(operator, problem), network, problem

    def forward(self, arguments: Inputs, total: Tensor, fields: Tensor) -> Tensor:
        """Mean CRPS of fields ``(batch, T, n)`` with totals ``(batch, T)``, conditioned if the network says so."""
        prediction = as_gaussian(self.map(*arguments).to(torch.float64), UNIT)
        if self.network.conserved:
            prediction = condition(prediction, integral(self.problem.grid, total))
        return crps(fields, prediction.mean, prediction.variance).mean()

    def batches(self, samples: tuple[Tensor, Tensor], device: torch.device) -> Callable[[Tensor | slice], Batch]:
        """The samples on a device: rows → the arguments of ``forward`` for these samples."""
        parameter, fields = samples
        a, *sides = inputs(self.problem, self.network, parameter, torch.float32)
        ends = [end.to(device) for pair in sides for end in pair[0]]
        a, total, fields = (tensor.to(device) for tensor in (a, self.problem.total(parameter), fields))

        def take(rows: Tensor | slice) -> Batch:
            boundary = [[tuple(end[rows] for end in ends)]] if ends else []
            return (a[rows], *boundary), total[rows], fields[rows]

        return take


def field_samples(problem: FieldProblem, count: int, folder: Path) -> tuple[Tensor, Tensor]:
    """Training fields of a problem: finite-volume solutions at its nodes, made once and read afterwards.

    Midpoints of equal parts of the training range ``(count,)``, and their solutions ``(count, T, n)``, float64.
    """
    parameter = even_parameters(problem.training_range, count)

    def build() -> Arrays:
        cells = CellGrid(*problem.problem.domain, problem.refinement * (problem.nodes - 1))
        parts, steps = parameter.split(16), LeastCost() if problem.tolerance is None else TRBDF2(problem.tolerance)
        solutions = [solve_problem(problem.problem, cells, part, problem.output_times, stepper=steps) for part in parts]
        fields = [problem.restricted(values, part) for values, part in zip(solutions, parts, strict=True)]
        return {"fields": torch.cat(fields).numpy()}

    name = config_hash([problem.description, count, data_version(problem.name)])
    path = writable_folder(folder) / f"{problem.name}-fields-{name}.safetensors"
    notes = {"location": problem.grid.location, "axes": "parameter, t, x", "units": "dimensionless"}
    return parameter, torch.from_numpy(cached_arrays(path, build, notes)["fields"])
