"""Cost of a training step of the neural process against explicit attention in float32, and of the paper's accuracy."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor, nn

from experiments import conservation
from experiments.benchmarks.anp_accuracy import say, time_to_accuracy
from experiments.benchmarks.measure import compared, difference_within, report, take_turns
from experiments.conservation.data import exact_stream
from experiments.conservation.networks import NetworkConfig
from experiments.conservation.training import evidence_loss
from experiments.experiment import Preset, RunContext, RunOptions
from probconserv import ANP
from probconserv.training import StepContext, one_cycle
from solvers.problems import STEFAN
from solvers.problems.sampling import FunctionBatch

# Timed steps of every form. A step of the paper preset takes many times longer than one of the laptop preset.
ROUNDS: dict[Preset, int] = {"laptop": 20, "paper": 2}
# Largest difference of the two forms in float32, relative to the largest value: eps = 1.2e-7, times √128 for sums over
# the width or over some 100 points, times about ten layers.
AGREEMENT = 1.5e-5

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Form:
    """How a network is computed.

    Args:
        name: What the table calls it.
        bfloat16: Whether matrices are multiplied in bfloat16.
        explicit: Whether attention is written out.
    """

    name: str
    bfloat16: bool
    explicit: bool

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Networks inside are computed so."""
        attention = attention_by(explicit_attention) if self.explicit else nullcontext()
        with attention, torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            yield


FUSED_BFLOAT16 = Form("fused attention, bfloat16", bfloat16=True, explicit=False)
FUSED_FLOAT32 = Form("fused attention, float32", bfloat16=False, explicit=False)
OURS = (FUSED_BFLOAT16, FUSED_FLOAT32)
BASELINE = Form("explicit softmax attention, float32", bfloat16=False, explicit=True)


def stefan_config(preset: Preset) -> NetworkConfig:
    """How the experiment on the Stefan problem trains its network on closed forms."""
    context = RunContext(options=RunOptions(preset=preset))
    return conservation.EXPERIMENTS["stefan"].training("anp", 0, "exact", context).config


def run(
    config: Callable[[Preset], NetworkConfig] = stefan_config, rounds: Mapping[Preset, int] = ROUNDS, **accuracy: int
) -> dict[str, Any]:
    """Times training steps, then trains on Stefan from nothing until the conditioned error is that of the paper.

    Args:
        config: From the preset to the training.
        rounds: Timed steps of every form, by preset.
        **accuracy: Sizes of ``time_to_accuracy``.

    Returns:
        One case per preset and form of ours: seconds a step beside those of the same network with attention written
        out in float32, ``ratio`` baseline over ours, ``difference`` the largest one of the predicted means relative to
        the largest value, at the weights of the first step. The last case has no baseline time, but ``steps``,
        ``minutes``, ``MSE`` and ``result``.
    """
    cases = [
        case for preset, count in rounds.items() for case in compare_steps(config(preset), f"{preset} preset", count)
    ]
    return report("anp", [*cases, time_to_accuracy(config("laptop"), "laptop preset", **accuracy)])


def explicit_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(Q Kᵀ/√d) V with every matrix formed.

    Args:
        query: Q ``(*batch, q, d)``.
        key: K ``(*batch, n, d)``.
        value: V ``(*batch, n, d)``.

    Returns:
        Attended values ``(*batch, q, d)``.
    """
    weights = torch.softmax(query @ key.mT / math.sqrt(query.shape[-1]), dim=-1)
    return weights @ value


@contextmanager
def attention_by(function: Attention) -> Iterator[None]:
    """Every network inside computes scaled dot-product attention by this function instead of torch's fused one."""
    fused = nn.functional.scaled_dot_product_attention
    nn.functional.scaled_dot_product_attention = function
    try:
        yield
    finally:
        nn.functional.scaled_dot_product_attention = fused


def compare_steps(config: NetworkConfig, name: str, rounds: int) -> list[dict[str, Any]]:
    """Times forward, backward, clipping and AdamW update of every form; they take turns, so all see the same machine.

    All start from the same weights and take the same batch. The weights are moved off their initial values, where
    attention is multiplied by zero and forms could not differ.

    Args:
        config: Network, batch and rates.
        name: What the table calls it.
        rounds: Number of timed steps of each form.

    Returns:
        One case per form of ours.

    Raises:
        ExperimentError: If the forms differ by more than rounding in float32.
    """
    batch, network = training_batch(config), moved_network(config)
    means = [predicted_mean(network, batch, form) for form in (*OURS, BASELINE)]
    size = float(means[-1].abs().max())
    differences = [
        difference_within(mean, means[-1], math.inf if form.bfloat16 else AGREEMENT * size) / size
        for form, mean in zip(OURS, means[:-1], strict=True)
    ]
    steps = [training_step(copy.deepcopy(network), batch, config, form) for form in (*OURS, BASELINE)]
    say(f"{name}: {rounds} timed steps of each of {len(steps)} forms")
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
    """The step of ``probconserv.training`` on a fixed batch, in one form; returns its loss.

    Args:
        network: What is trained, in place.
        batch: Its data.
        config: Loss, weight decay and rate, that of the first step of the training.
        form: How the network is computed.

    Returns:
        The action to be timed.
    """
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
