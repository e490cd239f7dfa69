"""Trains one attentive neural process as its config says."""

from dataclasses import asdict, fields, replace
from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from experiments.conservation.data import Stream, exact_stream, training_bank
from experiments.conservation.networks import NetworkConfig
from experiments.experiment import RunContext, Training
from experiments.records.scores import VARIANCE_FLOOR
from experiments.records.store import environment
from probconserv.baselines import soft_penalty
from probconserv.scores import log_likelihood, mse
from probconserv.surrogates.anp import ANP
from probconserv.surrogates.fitting import FitOptions, to_device
from probconserv.surrogates.surrogate import Context, Query
from probconserv.training import StepContext
from probconserv.training.distributed import first_before_others, launched
from solvers.problems import Problem
from solvers.problems.sampling import FunctionBatch, random_parameters, sample_bank, sample_exact

PENALTY_RISE = 0.2
"""Fraction of the steps in which the penalty of SoftC reaches its full weight."""


def train_network(problem: Problem, training: Training, start: Path | None, context: RunContext) -> None:
    """Trains a network from random weights or those of ``start``, or goes on from its checkpoint; writes its weights.

    The config hash does not depend on the functions of the problem, nor on the device.
    """
    config: NetworkConfig = training.config
    torch.manual_seed(config.training.seed)
    network = ANP(config.network)
    if start is not None:
        network.load_state_dict(ANP.load(start, problem.name).state_dict())
    seen = replace(problem, training_range=config.parameters)
    with first_before_others():
        stream = _stream(problem, seen, config, context.data_folder, training.data_version)
    options = replace(
        _options(config, problem),
        config=training.hash,
        title=f"{problem.name} {training.key}",
    )
    how = replace(config.training, device=context.options.device, processes=launched().world_size)
    state = network.fit(
        stream,
        lambda model, generator: _validate(model, generator, config, seen),
        config=how,
        folder=training.path(context.options.out),
        options=options,
        progress=context.progress,
    ).state
    notes = {"training": asdict(config), "seconds": state.seconds, "last": state.history[-1]}
    with first_before_others() as ranks:
        if ranks.first:
            network.cpu().eval().save(training.weights(context.options.out), **notes, environment=environment())


def _options(config: NetworkConfig, problem: Problem) -> FitOptions:
    """The loss of a config."""

    def penalty(model: nn.Module, batch: FunctionBatch, step: StepContext) -> Tensor:
        weight = config.soft_penalty * min(1.0, step.progress / PENALTY_RISE)
        if not weight:
            return torch.zeros((), device=batch.target_values.device)
        return weight / batch.target_values.shape[-1] * _penalty(model, batch, config, step, problem)

    return FitOptions(
        batch=config.batch,
        tempering=config.tempering,
        tempering_fraction=config.tempering_fraction,
        tempering_unit=1.0,
        penalty=penalty if config.soft_penalty else None,
    )


def _stream(problem: Problem, seen: Problem, config: NetworkConfig, folder: Path, data_version: int) -> Stream:
    if config.data == "exact":
        return exact_stream(seen, config.protocol, config.end_weighted)
    bank = training_bank(problem, config.bank, folder, data_version).within(*config.parameters)
    return lambda generator, batch: sample_bank(bank, batch, config.protocol, generator)


def _penalty(
    model: nn.Module, batch: FunctionBatch, config: NetworkConfig, step: StepContext, problem: Problem
) -> Tensor:
    """Mean squared residual of the problem's equation at random targets; needs attention that derives twice."""
    count = step.rows(min(config.penalty_functions, config.batch))
    some = FunctionBatch(*(getattr(batch, entry.name)[:count] for entry in fields(batch)))
    chosen = torch.randperm(some.target_points.shape[-2], generator=step.generator)[: config.penalty_points]
    points, values = some.target_points[:, chosen], some.target_values[:, chosen]

    def mean(where: Tensor) -> Tensor:
        return model(some.context_points, some.context_values, where, values).mean

    with sdpa_kernel(SDPBackend.MATH):
        return soft_penalty(problem.law(some.parameter), mean, points)


def _validate(model: nn.Module, generator: Generator, config: NetworkConfig, problem: Problem) -> dict[str, float]:
    """Scores at the test time over random training parameters: mean squared error and log-likelihood."""
    assert isinstance(model, ANP)
    parameter = random_parameters(problem, config.validation_functions, generator)
    batch = to_device(sample_exact(problem, parameter, config.protocol, generator), next(model.parameters()).device)
    x = torch.linspace(*problem.domain, 201, dtype=torch.float64, device=batch.parameter.device)
    points = torch.stack((torch.full_like(x, problem.test_time), x), dim=-1).expand(len(parameter), -1, -1)
    truth = problem.solution(problem.test_time, x.cpu(), parameter[:, None]).to(x)
    few = min(10, config.network.latent_samples)
    means, scales = model.components(Context(batch.context_points, batch.context_values), Query(points), few)
    mean = means.double().mean(dim=0)
    variance = scales.double().square().mean(dim=0) + means.double().var(dim=0, correction=0)
    return {
        "MSE": float(mse(truth, mean).mean()),
        "LL": float(log_likelihood(truth, mean, variance, VARIANCE_FLOOR).mean()),
    }
