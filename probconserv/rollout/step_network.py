"""Operators of one step: a network that predicts changes or values, the walls that it meets, and its training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from probconserv.errors import InvalidArgumentError
from probconserv.rollout.regression import Steps
from probconserv.rollout.trajectories import Functions
from probconserv.training import StepContext, Task, TrainingConfig, train
from probconserv.training.checkpoint import TrainingState
from probconserv.training.loop import pushforward


@dataclass(frozen=True, kw_only=True)
class EmulatorConfig:
    """The network and its training.

    Args:
        width: Channels of the hidden layers of the FNO.
        modes: Its frequencies along an axis; half of them with more axes than one.
        depth: Its layers.
        steps: Optimiser steps.
        unrolled: Most steps of its own that the network is trained after, in the second half of the steps.
        batch: Fields in a batch.
        peak_rate: Largest learning rate.
        weight_decay: Of AdamW.
        flux_steps: Optimiser steps of the model of fluxes, where it is needed.
        seed: Of weights, batches and draws.
        device: Where the network is trained.
    """

    width: int = 32
    modes: int = 16
    depth: int = 4
    steps: int = 3000
    unrolled: int = 16
    batch: int = 20
    peak_rate: float = 4e-3
    weight_decay: float = 1e-5
    flux_steps: int = 3000
    seed: int = 0
    device: str = "cpu"


class StepNetwork(nn.Module):
    """A network between normalised channels that predicts changes in units of their standard deviation, or values.

    Args:
        network: ``(batch, in_channels, *space)`` → ``(batch, c, *space)``.
        shape: Of the fields' space.
        axes: Axis along which each of the data is constant; None for coefficients.
        periodic: Axes of cells that the network sees with the first cell repeated at the end.
        counts: Numbers of channels of the input and of the field.
        changes: Whether it predicts changes; else the normalised field one step on.
    """

    mean: Tensor
    scale: Tensor
    change: Tensor

    def __init__(
        self,
        network: nn.Module,
        shape: Sequence[int],
        axes: Sequence[int | None],
        periodic: Sequence[int],
        counts: Sequence[int],
        changes: bool = True,
    ) -> None:
        super().__init__()
        self.network, self.shape, self.axes, self.periodic = network, tuple(shape), tuple(axes), tuple(periodic)
        self.changes = changes
        for name, count in (("mean", counts[0]), ("scale", counts[0]), ("change", counts[1])):
            self.register_buffer(name, torch.ones(count))

    @property
    def name(self) -> str:
        """What it predicts, as reports and errors have it."""
        return "increments" if self.changes else "single step"

    @property
    def layout(self) -> dict[str, Any]:
        """All arguments but the network."""
        counts = len(self.mean), len(self.change)
        places = {"shape": self.shape, "axes": self.axes, "periodic": self.periodic}
        return {**places, "counts": counts, "changes": self.changes}

    def scaled_by(self, steps: Steps) -> "StepNetwork":
        """Takes means and scales from true steps."""
        inputs, change = channels_of(steps.before, steps.data, self.axes), steps.after - steps.before
        for buffer, values in ((self.scale, inputs), (self.change, change)):
            spread = values.transpose(0, 1).flatten(1).double().std(dim=1)
            buffer.copy_(torch.where(spread > 0, spread, 1.0))
        self.mean.copy_(inputs.transpose(0, 1).flatten(1).double().mean(dim=1))
        return self

    def check(self, known: Functions) -> None:
        """Refuses functions of other channels, and a network that does not map its channels to those of the field.

        Raises:
            InvalidArgumentError: If it does not.
        """
        counts, out = (len(self.mean), len(self.change)), known.fields.shape[2]
        wanted = out + sum(part.shape[2] for part in known.inputs), out
        if counts != wanted:
            raise InvalidArgumentError(
                f"base was trained from {counts[0]} channels to {counts[1]}, but the field, data of walls and media "
                f"have {wanted[0]} and the field {out}; train it on such trajectories."
            )
        space = tuple(n + (axis in self.periodic) for axis, n in enumerate(self.shape))
        device = next((each.device for each in self.network.parameters()), self.mean.device)
        modes = {module: module.training for module in self.network.modules()}
        shape, problem = (2, out, *space), None
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                got = tuple(self.network.eval()(self.mean.new_zeros(2, counts[0], *space, device=device)).shape)
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            got, problem = f"{type(error).__name__}: {str(error).rstrip('.')}", error
        for module, mode in modes.items():
            module.training = mode
        if got != shape:
            raise InvalidArgumentError(
                f"base must map (batch, {', '.join(map(str, (counts[0], *space)))}), the field with data of walls and "
                f"media as channels, to (batch, {', '.join(map(str, shape[1:]))}) in {self.mean.dtype}; for a batch of "
                f"2 got {got}."
            ) from problem

    def forward(self, field: Tensor, *data: Tensor) -> Tensor:
        """The field one step on."""
        channels = channels_of(field, data, self.axes).to(self.mean.dtype)
        along = (-1, *[1] * len(self.shape))
        z = (channels - self.mean.view(along)) / self.scale.view(along)
        for axis in self.periodic:
            z = torch.cat([z, z.narrow(2 + axis, 0, 1)], dim=2 + axis)
        predicted = self.network(z)
        for axis in self.periodic:
            predicted = predicted.narrow(2 + axis, 0, self.shape[axis])
        if self.changes:
            return field + (self.change.view(along) * predicted).to(field.dtype)
        c = len(self.change)
        return (self.mean[:c].view(along) + self.scale[:c].view(along) * predicted).to(field.dtype)


def channels_of(field: Tensor, data: Sequence[Tensor], axes: Sequence[int | None]) -> Tensor:
    """A field with what is given as further channels, data of sides constant along their axes."""
    parts = [field]
    for axis, part in zip(axes, data, strict=True):
        part = part if axis is None else part.unsqueeze(2 + axis)
        parts.append(part.expand(*part.shape[:2], *field.shape[2:]).to(field))
    return torch.cat(parts, dim=1)


class StepOperator(nn.Module):
    """A base, and the conditions at the walls prescribed in what it predicts.

    Args:
        base: From field and data of a step to the field one step on.
        walls: An identity under the conditions; None where there are none.
        given: The places among the data of those sides whose values are given, one pair or None per axis.
    """

    def __init__(self, base: nn.Module, walls: nn.Module | None, given: Sequence[tuple[int | None, int | None] | None]):
        super().__init__()
        self.base, self.walls, self.given = base, walls, tuple(given)

    def forward(self, field: Float[Tensor, "batch c *space"], *data: Tensor) -> Float[Tensor, "batch c *space"]:
        """The field one step on."""
        u = self.base(field, *data)
        if self.walls is None:
            return u
        return self.walls(u, values_after(self.given, data, u))


def values_after(
    given: Sequence[tuple[int | None, int | None] | None], data: Sequence[Tensor], like: Tensor
) -> list[Any]:
    """The values of conditions at the end of a step, as ``boon.BOON`` takes them; ``given`` as for ``StepOperator``."""
    after = [part[:, part.shape[1] // 2 :] for part in data]
    return [pair and tuple(None if n is None else after[n].to(like) for n in pair) for pair in given]


def train_steps(
    operator: nn.Module,
    known: Functions,
    config: EmulatorConfig,
    folder: Path | None = None,
    progress: bool = False,
) -> TrainingState:
    """Trains an operator of one step in place: single steps, and in the second half steps after steps of its own."""
    fields, inputs, device = known.fields, known.inputs, torch.device(config.device)

    def loss(module: nn.Module, context: StepContext) -> Tensor:
        late, most = context.progress >= 0.5, min(config.unrolled, known.steps)
        before = int(torch.randint(most, (), generator=context.generator)) if late else 0
        rows = torch.randint(len(fields), (context.rows(config.batch),), generator=context.generator)
        first = torch.randint(known.steps - before, rows.shape, generator=context.generator)
        course = first[:, None] + torch.arange(before + 1)
        data = (part[rows[:, None], course].to(device, torch.float32) for part in inputs)
        u = pushforward(module, fields[rows, first].to(device, torch.float32), before + 1, *data)
        true = fields[rows, first + before + 1].to(u)
        size = true.flatten(1).norm(dim=1).clamp_min(torch.finfo(u.dtype).tiny)
        return ((u - true).flatten(1).norm(dim=1) / size).mean()

    identity = {"fields": list(fields.shape), "sum": float(fields.double().sum()), "unrolled": config.unrolled}
    often = max(1, config.steps // 6)
    how = TrainingConfig(
        steps=config.steps,
        peak_rate=config.peak_rate,
        weight_decay=config.weight_decay,
        validate_every=often,
        checkpoint_every=often,
        precision="32-true",
        seed=config.seed,
        device=config.device,
    )
    data = {"fields": fields, "walls": known.walls, "media": known.media, "interval": known.setting.interval}
    task = Task(operator, loss, config=identity, data=data, title="operator of one step")
    state = train(task, how, folder, progress)
    operator.cpu().requires_grad_(False).eval()
    return state
