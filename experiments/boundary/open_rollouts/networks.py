"""Operators of one step: what they are built of, and their training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

import boon
from boon import BOON, FNO, FNOConfig, Normalised
from experiments.boundary.open_rollouts.systems import OpenSystem
from experiments.errors import require_at_least
from experiments.experiment import RunContext, Training
from experiments.stages import one_thread, store_finished
from probconserv.emulator import met, step_network
from probconserv.rollout.step_network import (
    EmulatorConfig,
    StepNetwork,
    StepOperator,
    channels_of,
    train_steps,
    values_after,
)
from probconserv.rollout.trajectories import Functions, given_sides


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Trajectories and the operator's size and training."""

    training: int = 40
    validation: int = 64
    test: int = 32
    steps: int = 200
    trained_steps: int = 100
    width: int = 32
    modes: int = 16
    depth: int = 4
    optimiser_steps: int = 1000

    def __post_init__(self) -> None:
        require_at_least(self, training=2, validation=18, test=2, steps=2, trained_steps=16)

    def config(self, seed: int, unrolled: int = 16) -> EmulatorConfig:
        """Network and training as emulators have them; single steps alone with ``unrolled`` 1."""
        return EmulatorConfig(
            width=self.width,
            modes=self.modes,
            depth=self.depth,
            steps=self.optimiser_steps,
            flux_steps=self.optimiser_steps,
            unrolled=unrolled,
            seed=seed,
        )


@dataclass(frozen=True, kw_only=True)
class OperatorConfig:
    """Everything that decides a network.

    ``fno`` predicts the field and learns single steps, ``default`` is the same within BOON's default correction;
    ``increments`` predicts changes and learns steps after steps of its own, ``increments-walls`` with the walls
    prescribed.
    """

    system: OpenSystem
    sizes: Sizes
    data_seed: int
    architecture: Literal["fno", "default", "increments", "increments-walls"]
    training: EmulatorConfig


class SingleStep(nn.Module):
    """An operator that predicts the field, and reads data of sides as channels.

    Args:
        operator: From channels; a ``BOON`` takes values at the end of the step.
        axes: Axis along which each of the data is constant; None for media.
        given: Which data are values of conditions, as for ``StepOperator``.
    """

    def __init__(self, operator: nn.Module, axes: tuple[int | None, ...], given: tuple) -> None:
        super().__init__()
        self.operator, self.axes, self.given = operator, axes, given

    def forward(self, field: Tensor, *data: Tensor) -> Tensor:
        """The field one step on."""
        channels = channels_of(field, data, self.axes)
        if isinstance(self.operator, BOON):
            return self.operator(channels, values_after(self.given, data, field))
        return self.operator(channels)


def build(config: OperatorConfig, known: Functions) -> StepOperator:
    """An untrained operator, scaled by trajectories."""
    setting, sides = known.setting, given_sides(known.walls)
    increments = step_network(known, config.training)
    prescribed = met(increments, setting, sides)
    if config.architecture.startswith("increments"):
        return prescribed if config.architecture == "increments-walls" else StepOperator(increments, None, ())
    single, sizes, d = known.single, config.sizes, setting.grid.dimension
    inputs = channels_of(single.before, single.data, increments.axes)
    torch.manual_seed(config.training.seed)
    network = FNOConfig(
        in_channels=inputs.shape[1],
        out_channels=single.after.shape[1],
        width=sizes.width,
        modes=(sizes.modes if d == 1 else sizes.modes // 2,) * d,
        depth=sizes.depth,
    )
    operator: nn.Module = Normalised.fit(FNO(network), inputs, single.after)
    if config.architecture == "default":
        operator = BOON(operator, setting.conditions)
    return StepOperator(SingleStep(operator, increments.axes, prescribed.given), None, ())


def train_operator(training: Training, known: Functions, context: RunContext) -> None:
    """Trains an operator, or goes on from its checkpoint, and stores it."""
    model = build(training.config, known)
    with one_thread():
        state = train_steps(
            model, known, training.config.training, training.path(context.options.out), context.progress
        )
    store_finished(model.base, training, state, training.weights(context.options.out))


def load(path: Path, config: OperatorConfig, known: Functions) -> nn.Module:
    """The base of a stored operator, without walls that are prescribed after it."""
    return boon.load(path, build(config, known).base).requires_grad_(False).eval()


def emulated(base: nn.Module, shape: tuple[int, ...]) -> StepNetwork:
    """A stored base as emulators take it; one of single steps has a normalisation of its own."""
    if isinstance(base, StepNetwork):
        return base
    assert isinstance(base, SingleStep)
    assert isinstance(base.operator, Normalised)
    counts = len(base.operator.input_mean), len(base.operator.output_mean)
    network = StepNetwork(base.operator, shape, base.axes, (), counts, changes=False)
    network.mean.zero_()
    return network
