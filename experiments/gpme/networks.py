"""The networks of the family: how neural processes learn from functions seen at few noisy places."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Normal

from experiments.experiment import Preset, RunContext, Training
from experiments.gpme.cases import COUNTS, Case, observe
from experiments.gpme.functions import FINAL_TIME, Member
from experiments.records.release import data_version
from experiments.records.store import as_json, environment
from probconserv import ANP, Context
from probconserv.surrogates.anp import ANPConfig
from probconserv.surrogates.fitting import FitOptions
from probconserv.training import TrainingConfig

AT_ONE_TIME = 0.7
"""Fraction of the functions in a batch whose targets are all at one time, as those that are asked for are."""
MEMBERS = tuple(f"member-{number}" for number in range(4))
"""Names of the small networks of the ensemble."""
SHARED: Mapping[str, Any] = {"frequencies": 6, "latent_samples": 30, "value_scale": 0.2}
LARGE: Mapping[str, Any] = {"width": 64, "latent_width": 32, "decoder_layers": 3, **SHARED}
SMALL: Mapping[str, Any] = {"width": 32, "latent_width": 16, "decoder_layers": 2, **SHARED}
STEPS: Mapping[Preset, int] = {"smoke": 50, "laptop": 20_000, "paper": 100_000}


@dataclass(frozen=True)
class Sample:
    """Noisy context points and exact targets of several functions."""

    context_points: Tensor
    context_values: Tensor
    target_points: Tensor
    target_values: Tensor


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Everything that decides a neural process of the family."""

    member: Member
    functions: int
    network: ANPConfig
    training: TrainingConfig
    batch: int = 16
    targets: int = 64
    at_one_time: float = AT_ONE_TIME
    counts: tuple[int, ...] = COUNTS
    patience: int = 10


def network_training(name: str, case: Case, seed: int, preset: Preset) -> Training:
    """The training of one network on the functions that a case learns from; its observations have all counts."""
    member = case.source
    ends = [(float(axis.min()), float(axis.max())) for axis in (torch.tensor([0.0, FINAL_TIME]), *member.grid.axes)]
    low, high = zip(*ends, strict=True)
    sizes = SMALL if name in MEMBERS else LARGE
    steps = STEPS[preset]
    config = NetworkConfig(
        member=member,
        functions=case.sizes.training,
        network=ANPConfig(low=low, high=high, **sizes),
        training=validated(steps, 40, seed=100 * seed + (MEMBERS.index(name) if name in MEMBERS else 0)),
    )
    label = f"{name} of gpme, {member.name}, at most {steps} steps"
    return training_of(member, name, config, label, seed)


def validated(steps: int, times: int, **options: Any) -> TrainingConfig:
    """How a network of the family is trained: validated so many times, with 20 checkpoints, in single precision."""
    every = {"validate_every": max(1, steps // times), "checkpoint_every": max(1, steps // 20)}
    return TrainingConfig(steps=steps, precision="32-true", **every, **options)


def training_of(member: Member, name: str, config: Any, label: str, seed: int | None = None) -> Training:
    """The training of a network on functions of a member; weights of seed 0, or of the only seed, are released."""
    return Training(
        key="-".join([member.name, name, *([] if seed is None else [str(seed)])]),
        label=label,
        folder="gpme/networks",
        config=config,
        data_version=data_version("gpme"),
        release=None if seed else f"gpme-{member.name}-{name}.safetensors",
    )


def train_network(training: Training, case: Case, seed: int, context: RunContext) -> None:
    """Trains a neural process until its validation improves no more, or goes on from its checkpoint."""
    config: NetworkConfig = training.config
    torch.manual_seed(config.training.seed)
    network = ANP(config.network)
    functions, axes = case.functions("training", seed), case.axes
    how = replace(config.training, device=context.options.device)
    options = FitOptions(
        batch=config.batch,
        patience=config.patience,
        tempering_unit=1.0,
        config=training.hash,
        title=training.label,
    )

    def dataset(generator: Generator, count: int) -> Sample:
        return sample(functions, axes, config, generator, count)

    def validation(model: nn.Module, _: Generator) -> dict[str, float]:
        return validate(model, case, seed)

    folder, progress = training.path(context.options.out), context.progress
    fit = network.fit(dataset, validation, config=how, folder=folder, options=options, progress=progress)
    last = {**fit.state.history[-1], "best_step": fit.best_step}
    notes = {"training": as_json(config), "seconds": fit.state.seconds, "last": last}
    network.cpu().save(training.weights(context.options.out), **notes, environment=environment())


def sample(
    functions: Tensor, axes: tuple[Tensor, ...], config: NetworkConfig, generator: Generator, count: int
) -> Sample:
    """Random functions with one number of observations for all, and targets at random places."""
    chosen = functions[torch.randint(len(functions), (count,), generator=generator)]
    number = config.counts[int(torch.randint(len(config.counts), (), generator=generator))]
    seen = observe(chosen, axes, number, config.member.noise, generator)
    points, times, per_time = torch.cartesian_prod(*axes), len(axes[0]), chosen[0, 0].numel()
    row = torch.randint(times, (count, config.targets), generator=generator)
    alike = torch.rand(count, 1, generator=generator) < config.at_one_time
    place = torch.randint(per_time, (count, config.targets), generator=generator)
    index = torch.where(alike, row[:, :1], row) * per_time + place
    return Sample(seen.points, seen.values, points[index], chosen.flatten(1).gather(1, index))


@torch.no_grad()
def validate(model: nn.Module, case: Case, seed: int) -> dict[str, float]:
    """Negative log-likelihood at a point and MSE of validation functions, over all numbers of observations."""
    assert isinstance(model, ANP)
    parts = []
    for count in COUNTS:
        seen = replace(case, count=count).observed("validation", seed)
        context = Context(seen.context.points, seen.context.values)
        means, scales = (part.double() for part in model.components(context, seen.query, 10))
        likelihood = Normal(means, scales).log_prob(seen.truth).logsumexp(dim=0) - math.log(10)
        parts.append(torch.stack([-likelihood.mean(), (means.mean(dim=0) - seen.truth).square().mean()]))
    likelihood, error = torch.stack(parts).mean(dim=0).tolist()
    return {"NLL": likelihood, "MSE": error}
