"""Cost of a training step of the neural process against explicit attention in float32, and of the paper's accuracy."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from experiments import conservation
from experiments.benchmarks.anp_accuracy import time_to_accuracy
from experiments.benchmarks.measure import compared, difference_within, report, take_turns
from experiments.conservation.data import exact_stream
from experiments.conservation.networks import NetworkConfig
from experiments.conservation.training import evidence_loss
from experiments.experiment import Preset, RunContext, RunOptions
from probconserv import ANP
from probconserv.training import StepContext, one_cycle, say_once
from solvers.problems import STEFAN
from solvers.problems.sampling import FunctionBatch

# Timed steps of every form. A step of the paper preset takes many times longer than one of the laptop preset.
ROUNDS: dict[Preset, int] = {"laptop": 20, "paper": 2}
# Largest difference of the two forms in float32, relative to the largest value: eps = 1.2e-7, times √128 for sums over
# the width or over some 100 points, times about ten layers.
AGREEMENT = 1.5e-5


class Form(NamedTuple):
    """How a network is computed: matrices multiplied in bfloat16 or float32, attention written out or fused."""

    name: str
    bfloat16: bool
    explicit: bool

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Networks inside are computed so."""
        name, fused = "scaled_dot_product_attention", functional.scaled_dot_product_attention
        attention = patch.object(functional, name, explicit_attention if self.explicit else fused)
        with attention, torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            yield


FUSED = Form("fused attention, float32", bfloat16=False, explicit=False)
OURS = (Form("fused attention, bfloat16", bfloat16=True, explicit=False), FUSED)
BASELINE = Form("explicit softmax attention, float32", bfloat16=False, explicit=True)


def stefan_config(preset: Preset) -> NetworkConfig:
    """How the experiment on the Stefan problem trains its network on closed forms."""
    context = RunContext(options=RunOptions(preset=preset))
    return conservation.EXPERIMENTS["stefan"].training("anp", 0, "exact", context).config


def run(
    config: Callable[[Preset], NetworkConfig] = stefan_config, rounds: Mapping[Preset, int] = ROUNDS, **accuracy: int
) -> dict[str, Any]:
    """Times steps, by preset, of every form against explicit attention in float32, then ``time_to_accuracy``."""
    cases = [case for name, n in rounds.items() for case in compare_steps(config(name), f"{name} preset", n)]
    return report("anp", [*cases, time_to_accuracy(config("laptop"), "laptop preset", **accuracy)])


def explicit_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(Q Kᵀ/√d) V with every matrix formed: Q ``(*batch, q, d)``, K and V ``(*batch, n, d)``."""
    return torch.softmax(query @ key.mT / math.sqrt(query.shape[-1]), dim=-1) @ value


def compare_steps(config: NetworkConfig, name: str, rounds: int) -> list[dict[str, Any]]:
    """Times forward, backward, clipping and AdamW update of every form; they take turns, so all see the same machine.

    All start from the same weights, moved off their initial values, where attention is multiplied by zero, and take the
    same batch; ``difference`` is that of the predicted means there, relative to the largest value.
    """
    batch, network = training_batch(config), moved_network(config)
    means = [predicted_mean(network, batch, form) for form in (*OURS, BASELINE)]
    size = float(means[-1].abs().max())
    tolerances = [math.inf if form.bfloat16 else AGREEMENT * size for form in OURS]
    pairs = zip(means[:-1], tolerances, strict=True)
    differences = [difference_within(mean, means[-1], most) / size for mean, most in pairs]
    steps = [training_step(copy.deepcopy(network), batch, config, form) for form in (*OURS, BASELINE)]
    say_once(f"{name}: {rounds} timed steps of each of {len(steps)} forms")
    *seconds, baseline = take_turns(steps, rounds)
    points = f"{batch.context_values.shape[-1]} context and {batch.target_values.shape[-1]} target points"
    title = f"{name}, batch {config.batch}, {points}"
    return [
        compared(f"{title}: {form.name}", ours, BASELINE.name, baseline, difference=error)
        for form, ours, error in zip(OURS, seconds, differences, strict=True)
    ]


def training_batch(config: NetworkConfig) -> FunctionBatch:
    """A batch of closed-form functions, values in float32."""
    stream = exact_stream(STEFAN, config.protocol)
    batch = stream(Generator().manual_seed(config.training.seed), config.batch)
    return replace(batch, context_values=batch.context_values.float(), target_values=batch.target_values.float())


def moved_network(config: NetworkConfig) -> ANP:
    """A network whose weights are moved off their seeded initial values, some of which are zero."""
    torch.manual_seed(config.training.seed)
    network = ANP(config.network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return network


def predicted_mean(network: ANP, batch: FunctionBatch, form: Form) -> Tensor:
    """Mean at the targets ``(batch, q)`` with a seeded z, in one form; without dropout."""
    network = copy.deepcopy(network).eval()
    torch.manual_seed(0)
    with torch.no_grad(), form.applied():
        return network(batch.context_points, batch.context_values, batch.target_points, batch.target_values).mean


def training_step(network: ANP, batch: FunctionBatch, config: NetworkConfig, form: Form) -> Callable[[], float]:
    """The step of ``probconserv.training`` on a fixed batch with the rate of the first step, in one form; its loss."""
    rate, decay = one_cycle(0, config.training), config.training.weight_decay
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=decay)
    context = StepContext(0, 0.0, Generator())

    def step() -> float:
        optimizer.zero_grad()
        with form.applied():
            loss = evidence_loss(network, context, config, lambda *_: batch, STEFAN)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), config.training.gradient_norm)
        optimizer.step()
        return loss.item()

    return step
