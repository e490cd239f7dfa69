"""Operators of one step, trained on single steps and then after steps of their own."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

import boon
from boon import BOON, FNO, FNOConfig, Normalised, relative_l2
from boon.cosine import CosineConfig, CosineFNO
from experiments.boundary.baselines.layout import Sensors
from experiments.boundary.baselines.pca import Samples, fit
from experiments.boundary.open_rollouts.systems import OpenSystem, Pair, Trajectories
from experiments.errors import require_at_least
from experiments.experiment import RunContext, Training
from experiments.stages import one_thread, store_finished
from probconserv.training import StepContext, Task, TrainingConfig, train
from probconserv.training.loop import pushforward

Data = tuple[Tensor, ...]
"""What an operator sees of each open side in a step ``(b, m, *face)``, or in all of them ``(b, t − 1, m, *face)``."""
UNROLLED = 16
"""Most steps of its own that an operator is trained after."""
REGRESSED = 1000
"""About how many pairs of fields a regression is fitted to, a dense system of as many equations."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Trajectories and the operator's size and training."""

    training: int = 40
    validation: int = 64
    test: int = 64
    steps: int = 200
    trained_steps: int = 100
    width: int = 32
    modes: int = 16
    depth: int = 4
    batch: int = 20
    optimiser_steps: int = 3000

    def __post_init__(self) -> None:
        require_at_least(self, training=2, validation=10, test=2, steps=2, trained_steps=UNROLLED, batch=1)


@dataclass(frozen=True, kw_only=True)
class OperatorConfig:
    """Everything that decides an operator; those of increments are trained after steps of their own, too."""

    system: OpenSystem
    sizes: Sizes
    seed: int
    architecture: Literal["fno", "fno-increments", "boon", "cosine"]
    training: TrainingConfig

    @property
    def increments(self) -> bool:
        """Whether the operator predicts changes."""
        return self.architecture in ("fno-increments", "cosine")


class StepOperator(nn.Module):
    """From a field and the data of the walls to the field one step on.

    Args:
        operator: From fields with the data as further channels.
        system: Says where the data are.
    """

    def __init__(self, operator: nn.Module, system: OpenSystem) -> None:
        super().__init__()
        self.operator, self.system = operator, system

    def forward(self, field: Tensor, *data: Tensor) -> Tensor:
        """The field ``(b, c, *space)`` one step on; data are those of ``data_of`` in this step."""
        inputs = with_data(self.system, field, data)
        if not isinstance(self.operator, BOON):
            return self.operator(inputs)
        ends = [side[:, side.shape[1] // 2 :] for side in data]
        return self.operator(inputs, [(ends[0], ends[1])])


def data_of(system: OpenSystem, walls: tuple[Pair, ...]) -> Data:
    """What operators see of the open sides: data at both ends of a step, or the mean flux in it."""
    sides = [side.float() for axis in system.open_axes for side in walls[axis]]
    if system.given is None:
        return tuple(side / system.interval for side in sides)
    return tuple(torch.cat([side[:, :-1], side[:, 1:]], dim=2) for side in sides)


def with_data(system: OpenSystem, field: Tensor, data: Data) -> Tensor:
    """A field with the data of sides as further channels, each the same along its axis."""
    space, channels = field.shape[2:], [field]
    for number, side in enumerate(data):
        axis = system.open_axes[number // 2]
        channels.append(side.unsqueeze(2 + axis).expand(*side.shape[:2], *space))
    return torch.cat(channels, dim=1)


class _Cosine(nn.Module):
    """A ``CosineFNO`` that reads its gradients from the channels behind the field, as ``with_data`` has them."""

    def __init__(self, config: CosineConfig) -> None:
        super().__init__()
        self.network = CosineFNO(config)

    def forward(self, inputs: Tensor) -> Tensor:
        first, first_after, last, last_after = inputs[:, 1:, :1].split(1, dim=1)
        before, after = torch.cat([first, last], dim=2), torch.cat([first_after, last_after], dim=2)
        return self.network(inputs[:, :1], before, after)


def build(config: OperatorConfig, trajectories: Trajectories) -> StepOperator:
    """An untrained operator, normalised by trajectories; its weights are drawn from torch's global generator."""
    system, sizes = config.system, config.sizes
    before, after, data = pairs_of(system, trajectories)
    inputs, change = with_data(system, before, data), float((after - before).std())
    if config.architecture == "cosine":
        slope = float(data[0].square().mean().sqrt())
        size = float(before.square().mean().sqrt())
        cosine = CosineConfig(width=sizes.width, depth=sizes.depth, size=size, change=change, slope=slope)
        return StepOperator(_unscaled(cosine, inputs.shape[1], system), system)
    network = FNOConfig(
        in_channels=inputs.shape[1],
        out_channels=system.channels,
        width=sizes.width,
        modes=(sizes.modes if system.dimension == 1 else sizes.modes // 2,) * system.dimension,
        depth=sizes.depth,
    )
    if config.increments:
        network = replace(network, increment=change / float(before.std()))
    operator = Normalised.fit(FNO(network), inputs, after)
    if config.increments:  # of fields in the units of the input
        operator.output_mean.copy_(operator.input_mean[: system.channels].view(-1, *[1] * system.dimension))
        operator.output_scale.copy_(operator.input_scale[: system.channels])
    if config.architecture != "boon":
        return StepOperator(operator, system)
    assert system.given is not None
    return StepOperator(BOON(operator, [(system.given(), system.given())]), system)


def _unscaled(config: CosineConfig, channels: int, system: OpenSystem) -> Normalised:
    """A ``CosineFNO``, which has scales of its own, in the form that ``boon.save`` takes."""
    zero, one = torch.zeros(channels), torch.ones(channels)
    return Normalised(_Cosine(config), zero, one, torch.zeros(1, *system.grid.shape), torch.ones(1))


def pairs_of(system: OpenSystem, trajectories: Trajectories) -> tuple[Tensor, Tensor, Data]:
    """Fields before and after every step ``(pairs, c, *space)``, and the data of the step."""
    fields = trajectories.fields
    data = tuple(side.flatten(0, 1) for side in data_of(system, trajectories.walls))
    return fields[:, :-1].flatten(0, 1), fields[:, 1:].flatten(0, 1), data


def train_operator(training: Training, known: Trajectories, unseen: Trajectories, context: RunContext) -> None:
    """Trains an operator, or goes on from its checkpoint, and stores it.

    In the first half of the steps it learns single steps; in the second, if it predicts changes, single steps from
    fields that up to ``UNROLLED`` − 1 steps of its own have led to, through which no gradient goes.
    """
    config: OperatorConfig = training.config
    torch.manual_seed(config.training.seed)
    model, system, sizes = build(config, known), config.system, config.sizes
    data, fields = data_of(system, known.walls), known.fields

    def loss(module: nn.Module, step: StepContext) -> Tensor:
        late = config.increments and step.progress >= 0.5
        before = int(torch.randint(UNROLLED, (), generator=step.generator)) if late else 0
        rows = torch.randint(len(fields), (sizes.batch,), generator=step.generator)
        first = torch.randint(known.steps - before, (sizes.batch,), generator=step.generator)
        course = first[:, None] + torch.arange(before + 1)
        u = pushforward(module, fields[rows, first], before + 1, *(side[rows[:, None], course] for side in data))
        return relative_l2(u, fields[rows, first + before + 1])

    def validate(*_: object) -> dict[str, float]:
        before, after, given = pairs_of(system, unseen)
        with torch.no_grad():
            return {"relative_l2": float(relative_l2(model(before, *given).double(), after.double()))}

    task = Task(model, loss, validate, config=training.hash, title=training.label)
    how = replace(config.training, device=context.options.device)
    with one_thread():
        state = train(task, how, training.path(context.options.out), context.progress)
    operator = model.operator.cpu().eval()
    inner = getattr(operator, "operator", None)
    more = {"cosine": asdict(inner.network.config)} if isinstance(inner, _Cosine) else {}
    store_finished(operator, training, state, training.weights(context.options.out), more)


def load(path: Path, system: OpenSystem) -> StepOperator:
    """A stored operator."""
    config = boon.read_notes(path).get("cosine")
    return StepOperator(boon.load(path, _Cosine(CosineConfig(**config)) if config else None), system).eval()


def fit_regression(system: OpenSystem, known: Trajectories, unseen: Trajectories) -> Callable[..., Tensor]:
    """The change in a step by a regression between principal components, chosen on trajectories of the validation."""
    samples = []
    for part in (known, unseen):
        before, after, data = pairs_of(system, part)
        every = slice(None, None, -(-len(before) // REGRESSED))
        samples.append(Samples(with_data(system, before, data)[every], (after - before)[every]))
    per_axis = (samples[0].inputs.shape[1] - system.channels) // len(system.open_axes)
    constant = (*[None] * system.channels, *(axis for axis in system.open_axes for _ in range(per_axis)))
    sensors = Sensors(space=system.grid.shape, constant=constant)
    model = fit(sensors, *samples)[0]
    return lambda field, *given: field + model(with_data(system, field, given))
