"""The strongest rival with a training: a transformer over values and window masses, both given as inputs.

It learns from new values and windows in every batch, with 0 to 16 windows at a time, and predicts the field jointly,
mean + factor ξ + deviation η with normal ξ and η. The loss is the CRPS plus the energy score of a few draws.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from experiments.experiment import Preset, RunContext, Training
from experiments.gpme.cases import Observed, observe
from experiments.gpme.networks import training_of, validated
from experiments.gpme.queries.cases import QueryCase, windows
from experiments.records.store import as_json, environment
from experiments.stages import one_thread
from probconserv import scores
from probconserv.surrogates.weights import Weights, fill, read_weights, write_weights
from probconserv.training import StepContext, Task, TrainingConfig, train

COUNTS = (0, 1, 2, 4, 8, 16)
"""Numbers of windows in a batch of the training."""
FEATURES = 13
"""Of a coordinate: itself, and sines and cosines of six frequencies."""
DRAWS = 6
"""Draws of a prediction in the loss."""
STEPS: Mapping[Preset, int] = {"smoke": 40, "laptop": 8_000, "paper": 100_000}
KIND = "WindowNetwork"


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """Everything that decides the network."""

    data: str
    functions: int
    training: TrainingConfig
    points: int = 5
    width: int = 64
    layers: int = 2
    rank: int = 24
    batch: int = 32


class WindowNetwork(nn.Module):
    """From values and window masses to mean, factors and deviations of the field at the cells."""

    x: Tensor

    def __init__(self, cells: int, width: int, layers: int, rank: int) -> None:
        super().__init__()
        self.register_buffer("x", (torch.arange(cells) + 0.5) / cells, persistent=False)
        self.value = _perceptron(1 + 2 * FEATURES, width)
        self.window = _perceptron(2 + 2 * FEATURES, width)
        self.cell = _perceptron(FEATURES, width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.seen = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.after = nn.Sequential(nn.LayerNorm(width), _perceptron(width, width))
        self.smooth = nn.Conv1d(width, width, 9, padding=4, groups=8)
        self.out = nn.Sequential(nn.GELU(), nn.Linear(width, 2 + rank))

    def forward(self, points: Tensor, values: Tensor, ends: Tensor, masses: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean ``(b, n)``, factors ``(b, n, rank)`` and deviations ``(b, n)``.

        Args:
            points: Times, in units of the last, and places of the values ``(b, M, 2)``.
            values: Noisy values ``(b, M)``.
            ends: Ends of the windows ``(b, K, 2)``.
            masses: Their masses ``(b, K)``.
        """
        length = (ends[..., 1] - ends[..., 0])[..., None]
        means = masses[..., None] / length
        tokens = self.value(torch.cat([values[..., None], _waves(points)], dim=-1))
        tokens = torch.cat([tokens, self.window(torch.cat([means, length, _waves(ends)], dim=-1))], dim=1)
        tokens = self.seen(tokens)
        asked = self.cell(_waves(self.x[:, None])).expand(len(tokens), -1, -1)
        found = asked + self.attention(asked, tokens, tokens, need_weights=False)[0]
        found = found + self.after(found)
        found = self.out(found + self.smooth(found.mT).mT)
        return found[..., 0], 0.2 * found[..., 2:], nn.functional.softplus(found[..., 1] - 4.0)


def _perceptron(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, width))


def _waves(x: Tensor) -> Tensor:
    """Coordinates ``(*b, d)`` and their sines and cosines ``(*b, 13 d)``."""
    angle = (x[..., None] * torch.pi * 2.0 ** torch.arange(FEATURES // 2)).flatten(-2)
    return torch.cat([x, angle.sin(), angle.cos()], dim=-1)


def draws_of(prediction: tuple[Tensor, Tensor, Tensor], count: int, generator: Generator) -> Tensor:
    """Draws ``(s, b, n)`` of mean, factors and deviations."""
    mean, factor, deviation = prediction
    common = torch.randn(count, len(mean), factor.shape[-1], generator=generator)
    own = torch.randn(count, *mean.shape, generator=generator)
    return mean + torch.einsum("sbr,bnr->sbn", common, factor) + deviation * own


def window_training(case: QueryCase, preset: Preset) -> Training:
    """The training of the network on the functions of seed 0."""
    steps, base = STEPS[preset], case.base
    config = WindowConfig(
        data=base.member.name,
        functions=base.sizes.training,
        points=base.count,
        training=validated(steps, 20, weight_decay=1e-3),
    )
    return training_of(base.member, "windows", config, f"network on windows, {steps} steps")


def train_network(training: Training, case: QueryCase, context: RunContext) -> None:
    """Trains the network, or goes on from its checkpoint; its file holds the course of the validation."""
    config: WindowConfig = training.config
    base, grid = case.base, case.base.member.grid
    functions, unseen = (base.functions(split, 0) for split in ("training", "validation"))
    torch.manual_seed(config.training.seed)
    model = WindowNetwork(len(grid.axes[0]), config.width, config.layers, config.rank)

    def batch(chosen: Tensor, count: int, generator: Generator) -> tuple[tuple[Tensor, ...], Tensor]:
        seen = observe(chosen, base.axes, config.points, base.member.noise, generator)
        truth = chosen[:, base.member.wanted]
        rows = windows(grid, len(chosen) * count, generator).reshape(len(chosen), count, *grid.shape)
        masses = torch.einsum("bkn,bn->bk", rows, truth)
        return inputs_of(case, seen.points, seen.values, rows, masses), truth

    def loss(network: nn.Module, step: StepContext) -> Tensor:
        index = torch.randint(len(functions), (config.batch,), generator=step.generator)
        count = COUNTS[int(torch.randint(len(COUNTS), (), generator=step.generator))]
        inputs, truth = batch(functions[index], count, step.generator)
        draws = draws_of(network(*inputs), DRAWS, step.generator)
        return (scores.crps_of_samples(truth, draws) + scores.energy_score(truth, draws)).mean()

    def validate(network: nn.Module, generator: Generator) -> dict[str, float]:
        found = {}
        for count in COUNTS:
            inputs, truth = batch(unseen, count, generator)
            draws = draws_of(network(*inputs), 32, generator)
            found[f"CRPS, {count} windows"] = float(scores.crps_of_samples(truth, draws).mean())
        return found

    task = Task(model, loss, validate, config=training.hash, title=training.label)
    how = replace(config.training, device=context.options.device)
    with one_thread():
        state = train(task, how, training.path(context.options.out), context.progress)
    notes = {"training": as_json(config), "data_version": training.data_version, "seconds": state.seconds}
    notes |= {"history": state.history, "last": state.history[-1], "environment": environment()}
    sizes = {"cells": grid.shape[0], "width": config.width, "layers": config.layers, "rank": config.rank}
    write_weights(training.weights(context.options.out), Weights(KIND, sizes, model.cpu().state_dict(), notes))


def inputs_of(case: QueryCase, points: Tensor, values: Tensor, rows: Tensor, masses: Tensor) -> tuple[Tensor, ...]:
    """Inputs of the network: rows of windows ``(b, K, n)`` become their ends."""
    faces, inside = case.base.member.grid.faces[0], rows > 0
    first = torch.where(inside, faces[:-1], 2.0).amin(dim=-1)
    last = torch.where(inside, faces[1:], -1.0).amax(dim=-1)
    scaled = points / torch.tensor([float(case.base.member.times[-1]), 1.0], dtype=points.dtype)
    return tuple(part.float() for part in (scaled, values, torch.stack([first, last], dim=-1), masses))


@torch.no_grad()
def network_draws(file: Path, case: QueryCase, observed: Observed, generator: Generator) -> Tensor:
    """Draws ``(s, queries, n)`` of the trained network, float64."""
    stored = read_weights(file, KIND)
    network = WindowNetwork(**stored.config)
    fill(file, network, stored.tensors)
    seen, law = observed.context, observed.law
    inputs = inputs_of(case, seen.points, seen.values, law.rows, law.b)
    return draws_of(network.eval()(*inputs), case.base.sizes.draws, generator).double()


def validation_curve(file: Path) -> dict[str, Tensor]:
    """Steps of the training, and the CRPS of validation functions by the number of windows ``(steps, counts)``."""
    history = read_weights(file, KIND).notes["history"]
    curves = [[entry[f"CRPS, {count} windows"] for count in COUNTS] for entry in history]
    return {"curve_steps": torch.tensor([entry["step"] for entry in history]), "curve": torch.tensor(curves)}
