"""One plain training loop for every model: fresh data each step, one-cycle rate, checkpoints, exact resumption.

Everything random in a step is drawn from (seed, stream, step), so a run that is killed at any moment and started again
ends with the same weights as one that was not. Devices, precision and several processes (``torchrun``) come from
lightning-fabric; processes share every batch, see ``experiments.processes``.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from experiments.allocator import keep_freed_memory
from experiments.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from experiments.checks import require_at_least
from experiments.errors import InvalidArgumentError, TrainingDivergedError
from experiments.processes import Share, WholeBatchDraws, interruption, launched
from experiments.storage import writable_folder

Precision = Literal["32-true", "bf16-mixed", "64-true"]
TRAINING, VALIDATION = 0, 1


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long and how fast a model is trained, and on what.

    Args:
        steps: Optimiser steps.
        peak_rate: Largest learning rate, reached after the warm-up.
        warmup: Fraction of the steps in which the rate rises linearly; it falls to zero along a cosine after that.
        gradient_norm: Gradients longer than this are shortened to it.
        weight_decay: Decoupled weight decay of AdamW.
        validate_every: Steps between validations.
        checkpoint_every: Steps between checkpoints.
        precision: Number format: ``bf16-mixed`` multiplies matrices in bfloat16.
        seed: Seed of the initial weights and of all data.
        device: ``cpu``, ``cuda`` or ``cuda:1``; the points of fields need float64, which other devices lack.
        processes: Number of processes, which share every batch; above one, start with ``torchrun``. Like the device, it
            changes what is trained by rounding only.

    Raises:
        InvalidArgumentError: If a number is out of range.
    """

    steps: int
    peak_rate: float = 1e-3
    warmup: float = 0.1
    gradient_norm: float = 1.0
    weight_decay: float = 0.0
    validate_every: int = 500
    checkpoint_every: int = 500
    precision: Precision = "bf16-mixed"
    seed: int = 0
    device: str = "cpu"
    processes: int = 1

    def __post_init__(self) -> None:
        require_at_least(self, steps=1, validate_every=1, checkpoint_every=1, processes=1)
        for name in ("peak_rate", "gradient_norm"):
            if not getattr(self, name) > 0:
                raise InvalidArgumentError(f"{name} must be positive, got {getattr(self, name)}.")
        if not 0 <= self.warmup < 1 or self.weight_decay < 0:
            raise InvalidArgumentError(
                f"warmup must lie in [0, 1) and weight_decay not be negative, got {self.warmup}, {self.weight_decay}."
            )


@dataclass(frozen=True)
class Moment:
    """Where a training is, and its randomness.

    Args:
        step: Number of steps done before this one.
        progress: ``step / steps``.
        generator: Source of this step's data on the CPU, the same in every process; the global generators are seeded
            for it as well, and give every process its rows of what one process would draw for the whole batch.
        share: Which of the processes this is: the loss is that of ``share.rows(batch)``.
    """

    step: int
    progress: float
    generator: torch.Generator
    share: Share = field(default_factory=Share)


Loss = Callable[[nn.Module, Moment], Tensor]


@dataclass(frozen=True)
class Task:
    """What is trained.

    Args:
        model: The model; trained in place.
        loss: (model, moment) → scalar loss of a fresh batch, the mean over the process's rows of it; calls the model
            it is given, not its own.
        validate: (model, generator) → figures of merit on data that are the same at every validation.
        identity: What decides the result besides the training config, as JSON can hold it; a checkpoint of another
            identity is refused.
    """

    model: nn.Module
    loss: Loss
    validate: Callable[[nn.Module, torch.Generator], dict[str, float]] | None = None
    identity: dict[str, Any] = field(default_factory=dict)


@dataclass
class Progression:
    """How a training went so far: what a checkpoint keeps besides weights and optimiser.

    Args:
        step: Steps done.
        seconds: Wall time of them, over all interruptions.
        history: One entry a validation or checkpoint: step, mean loss since the last entry, rate, figures of merit.
    """

    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def one_cycle(step: int, config: TrainingConfig) -> float:
    """Learning rate: a linear rise to ``peak_rate``, then half a cosine down to a thousandth of it.

    Args:
        step: Steps done before.
        config: Length, peak and warm-up.

    Returns:
        The rate of the next step.
    """
    rise = max(1, round(config.warmup * config.steps))
    if step < rise:
        return config.peak_rate * (step + 1) / rise
    fall = (step - rise) / max(1, config.steps - rise)
    return config.peak_rate * (0.001 + 0.999 * 0.5 * (1 + math.cos(math.pi * fall)))


def random_seed(seed: int, stream: int, step: int = 0) -> int:
    """A 63-bit seed; different arguments give independent streams."""
    return int(np.random.SeedSequence([seed, stream, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def train(task: Task, config: TrainingConfig, folder: Path, progress: bool = True) -> Progression:
    """Trains a model, from the last checkpoint in the folder if there is one.

    An interrupt (SIGINT) ends the training after the step in progress, with a checkpoint.

    Args:
        task: What is trained.
        config: How.
        folder: Where the checkpoint ``checkpoint.safetensors`` lives.
        progress: Whether to show a progress bar on standard error.

    Returns:
        How it went; ``step`` is below ``config.steps`` if it was stopped.

    Raises:
        TrainingDivergedError: If a loss or a gradient is not finite; the last checkpoint stays.
        DataFileError: If the checkpoint in the folder is damaged or of another training.
        OutputFolderError: If the folder cannot be written.
        InvalidArgumentError: If the config asks for other processes than there are.
    """
    keep_freed_memory()
    share = _own_share(config)
    path = (writable_folder(folder) if share.first else folder) / "checkpoint.safetensors"
    fabric = Fabric(**_placement(config, share), **_precision(config))
    fabric.launch()
    optimizer = torch.optim.AdamW(
        task.model.parameters(), lr=config.peak_rate, betas=(0.9, 0.98), weight_decay=config.weight_decay
    )
    model, optimizer = fabric.setup(task.model, optimizer)
    state = Progression()
    identity = _identity(task, config)
    if path.exists():  # after the set-up, since the optimiser's state goes where the parameters are
        state = Progression(**read_checkpoint(path, task.model, optimizer.optimizer, identity))
    loop = _Loop(fabric, task, config, model, optimizer, state, path, identity, share)
    with interruption(share) as interrupted, _bar(config, progress and share.first) as report:
        loop.run(interrupted, report)
    return state


@dataclass
class _Loop:
    """The loop and what it works on."""

    fabric: Fabric
    task: Task
    config: TrainingConfig
    model: nn.Module
    optimizer: Any
    state: Progression
    path: Path
    identity: dict[str, Any]
    share: Share

    def run(self, interrupted: Callable[[], bool], report: Callable[..., None]) -> None:
        """Steps until the end or an interruption."""
        self.model.train()
        losses: list[float] = []
        before = self.state.seconds
        start = time.perf_counter()
        while self.state.step < self.config.steps:
            losses.append(self.one_step())
            self.state.step += 1
            self.state.seconds = before + time.perf_counter() - start
            report(self.state.step, losses[-1])
            stop = self.agreed(interrupted()) or self.state.step == self.config.steps
            validate = self.state.step % self.config.validate_every == 0 or self.state.step == self.config.steps
            if validate or stop:
                self.record(losses, validate)
                losses = []
            if stop or self.state.step % self.config.checkpoint_every == 0:
                self.save()
            if stop:
                break

    def one_step(self) -> float:
        """Loss, gradient, update; returns the loss of the whole batch."""
        step = self.state.step
        seed = random_seed(self.config.seed, TRAINING, step)
        rate = one_cycle(step, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        with _seeded(seed):
            moment = Moment(step, step / self.config.steps, torch.Generator().manual_seed(seed), self.share)
            with self.own_rows():
                loss = self.task.loss(self.model, moment)
            value = self.mean(loss.item())
            if math.isfinite(value):
                self.fabric.backward(loss)
        norm = shorten_gradients(self.model, self.config.gradient_norm) if math.isfinite(value) else math.nan
        if not math.isfinite(norm):
            raise TrainingDivergedError(
                f"Training diverged at step {step + 1} of {self.config.steps}: loss {value:g}, gradient norm {norm:g}, "
                f"rate {rate:.2g}. {self.last_checkpoint()} Lower peak_rate or train in precision 32-true."
            )
        self.optimizer.step()
        return value

    def own_rows(self) -> AbstractContextManager[Any]:
        """Random numbers inside are those of the process's rows."""
        return WholeBatchDraws(self.share) if self.share.count > 1 else nullcontext()

    def mean(self, value: float) -> float:
        """Mean over the processes."""
        own = torch.tensor(value, dtype=torch.float64, device=self.fabric.device)
        return float(self.fabric.strategy.all_reduce(own, reduce_op="mean"))

    def record(self, losses: list[float], validate: bool) -> None:
        """Adds an entry to the history, with figures of merit if wanted."""
        entry = {
            "step": self.state.step,
            "loss": sum(losses) / len(losses),
            "rate": one_cycle(self.state.step - 1, self.config),
            "seconds": round(self.state.seconds, 1),
        }
        if validate and self.task.validate is not None:
            seed = random_seed(self.config.seed, VALIDATION)
            self.model.eval()
            with _seeded(seed), torch.no_grad():
                entry |= self.task.validate(self.task.model, torch.Generator().manual_seed(seed))
            self.model.train()
        self.state.history.append(entry)

    def save(self) -> None:
        """Writes the checkpoint; the first process does, the others wait."""
        if self.share.first:
            content = Checkpoint(self.identity, self.state.step, self.state.seconds, self.state.history)
            write_checkpoint(self.path, self.task.model, self.optimizer.optimizer, content)
        self.fabric.barrier()

    def agreed(self, interrupted: bool) -> bool:
        """Whether any process was interrupted; all stop after the same step."""
        return self.fabric.strategy.reduce_boolean_decision(interrupted, all=False)

    def last_checkpoint(self) -> str:
        if not self.path.exists():
            return "There is no checkpoint yet."
        return f"The last good checkpoint is '{self.path}'."


def shorten_gradients(model: nn.Module, longest: float) -> float:
    """Scales all gradients so that together they are not longer than ``longest``; returns how long they were.

    Complex ones count as pairs of real numbers: the same norm, in a tenth of the time.
    """
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = get_total_norm([torch.view_as_real(grad) if grad.is_complex() else grad for grad in gradients])
    clip_grads_with_norm_(model.parameters(), longest, norm)
    return float(norm)


def _identity(task: Task, config: TrainingConfig) -> dict[str, Any]:
    """What must agree between a checkpoint and the training that resumes it, in JSON's types.

    The number of processes is that of a training in one: any number may go on.
    """
    training = {name: getattr(config, name) for name in ("steps", "peak_rate", "warmup", "gradient_norm")}
    training |= {name: getattr(config, name) for name in ("weight_decay", "precision", "seed")} | {"processes": 1}
    return json.loads(json.dumps({"training": training, "task": task.identity}))


class _Autocast(MixedPrecision):
    """Products in bfloat16, inputs as they are: rounded coordinates would move every front by a few thousandths."""

    def convert_input(self, data: Any) -> Any:
        return data


def _own_share(config: TrainingConfig) -> Share:
    """Which process of the training this is.

    Raises:
        InvalidArgumentError: If the config asks for other processes than there are, or for one GPU for several.
    """
    share = launched()
    if share.count != config.processes:
        raise InvalidArgumentError(
            f"processes is {config.processes}, but the number of those started is {share.count}; start as many with "
            f"torchrun --standalone --nproc-per-node {config.processes}."
        )
    if share.count > 1 and ":" in config.device:
        raise InvalidArgumentError(f"{share.count} processes cannot share device {config.device}; take cuda or cpu.")
    return share


def _placement(config: TrainingConfig, share: Share) -> dict[str, Any]:
    """Fabric's arguments for device and processes."""
    kind, _, index = config.device.partition(":")
    nodes = share.count // share.local_count
    return {"accelerator": kind, "devices": [int(index)] if index else share.local_count, "num_nodes": nodes}


def _precision(config: TrainingConfig) -> dict[str, Any]:
    """Fabric's arguments for a number format."""
    if config.precision != "bf16-mixed":
        return {"precision": config.precision}
    return {"plugins": [_Autocast("bf16-mixed", config.device.partition(":")[0])]}


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Global generators seeded inside, as they were outside."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@contextmanager
def _bar(config: TrainingConfig, show: bool) -> Iterator[Callable[[int, float], None]]:
    """A progress bar with smoothed loss, rate and time left on standard error."""
    columns = (
        TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.3f}  rate {task.fields[rate]:.1e}"),
    )
    with Progress(*columns, console=Console(file=sys.stderr), disable=not show) as bar:
        identifier = bar.add_task("training", total=config.steps, loss=math.nan, rate=0.0)
        smooth = math.nan

        def report(step: int, loss: float) -> None:
            nonlocal smooth
            smooth = loss if math.isnan(smooth) else 0.98 * smooth + 0.02 * loss
            bar.update(identifier, completed=step, loss=smooth, rate=one_cycle(step - 1, config))

        yield report
