"""One training loop for every model: fresh data in each step, one-cycle rate, checkpoints, exact resumption.

All random numbers of a step follow from (seed, stream, step, rank), so a training that is killed at any time and
started again ends with the same weights as one that was not.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from probconserv.errors import InvalidArgumentError, TrainingDivergedError, TrainingInterruptedError
from probconserv.training.checkpoint import TrainingState, read_checkpoint, write_checkpoint
from probconserv.training.config import TrainingConfig, one_cycle
from probconserv.training.distributed import Ranks, connect, means
from probconserv.training.files import writable_folder
from probconserv.training.fingerprint import fingerprint, network_fingerprint
from probconserv.training.interruption import interruption
from probconserv.training.memory import keep_freed_memory
from probconserv.training.precision import place
from probconserv.training.progress import ProgressHook, progress_bar

TRAINING, VALIDATION = 0, 1
_FREE = ("validate_every", "checkpoint_every", "device", "processes")  # a checkpoint may go on with others


@dataclass(frozen=True)
class StepContext:
    """Position of a step in the training, and its randomness.

    Args:
        step: Number of steps done before this one.
        progress: ``step / steps``.
        generator: Source of this step's data, on the CPU and different for each rank; the global generators are seeded
            like it.
        ranks: Rank and world size.
    """

    step: int
    progress: float
    generator: torch.Generator
    ranks: Ranks = field(default_factory=Ranks)

    def rows(self, batch: int) -> int:
        """Rows of a batch that this process draws."""
        if batch % self.ranks.world_size:
            raise InvalidArgumentError(
                f"The number of processes must divide the batch of {batch}, got {self.ranks.world_size}; start fewer, "
                "or change the batch."
            )
        return batch // self.ranks.world_size


Loss = Callable[[nn.Module, StepContext], Tensor]


@dataclass(frozen=True)
class Task:
    """The model, its data and its loss.

    Args:
        model: The model; trained in place.
        loss: (model, context) → scalar loss of a fresh batch, a mean over ``context.rows(batch)`` rows; calls the model
            that it is given, which may wrap ``model``.
        validate: (model, generator) → scores on data that are the same in every validation.
        config: What else decides the result, as JSON can hold it: a dictionary or a hash. A checkpoint of another
            config is refused, like one of another training config or network.
        data: The data that the loss and the validation read, by name: tensors, arrays, dataclasses and lists of them.
            The checkpoint holds their hashes, and one of other data is refused.
        title: What is trained, for the progress bar and messages.
        validated: Is called with the state after every validation, on every rank.
        stop: (history) → whether the training ends here; follows from the history alone, so that a resumed training
            ends where the other one did.
    """

    model: nn.Module
    loss: Loss
    validate: Callable[[nn.Module, torch.Generator], dict[str, float]] | None = None
    config: Any = None
    data: Mapping[str, Any] = field(default_factory=dict)
    title: str = "training"
    validated: Callable[[TrainingState], None] | None = None
    stop: Callable[[list[dict[str, float]]], bool] | None = None


def pushforward(
    operator: Callable[..., Tensor], start: Tensor, steps: int, *inputs: Float[Tensor, "batch steps *rest"]
) -> Tensor:
    """The field after several steps of an operator, of which the last alone is differentiated.

    In a loss it teaches an operator that is applied many times to start from fields such as it makes itself
    (Brandstetter et al. 2022), without noise and without derivatives through many steps.

    Args:
        operator: From the field ``(batch, c, *space)``, and what ``inputs`` hold for the step, to the one a step on.
        start: True field, ``steps`` steps before the one that the result is compared with.
        steps: Number of steps; 1 for ordinary training.
        inputs: Further arguments of the operator, one entry per step.
    """
    with torch.no_grad():
        for step in range(steps - 1):
            start = operator(start, *(part[:, step] for part in inputs))
    return operator(start, *(part[:, steps - 1] for part in inputs))


def random_seed(seed: int, stream: int, step: int = 0, rank: int = 0) -> int:
    """A 63-bit seed; different arguments give independent random numbers."""
    entropy = [seed, stream, step, rank] if rank else [seed, stream, step]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


def train(
    task: Task, config: TrainingConfig, folder: Path | None = None, progress: bool | ProgressHook = True
) -> TrainingState:
    """Trains a model, from the last checkpoint in the folder if there is one.

    The first interrupt (SIGINT) ends the training after the current step, with a checkpoint; a second one at once.

    Args:
        task: What is trained.
        config: How.
        folder: Folder of the checkpoint ``checkpoint.safetensors``; None to keep none, for a short training.
        progress: Whether rank 0 shows a progress bar on standard error, or a function that it calls after every step
            with the number of steps done, the loss and the learning rate.

    Raises:
        TrainingInterruptedError: If it was interrupted; start it again to go on.
        TrainingDivergedError: If a loss or a gradient is not finite; the last checkpoint stays.
        DataFileError: If the checkpoint in the folder is damaged or belongs to another training.
        OutputFolderError: If the folder cannot be written.
    """
    keep_freed_memory()
    ranks = connect()
    _check_processes(config, ranks)
    path = folder and (writable_folder(folder) if ranks.first else folder) / "checkpoint.safetensors"
    model = place(task.model, config, ranks)
    optimizer = torch.optim.AdamW(
        task.model.parameters(), lr=config.peak_rate, betas=(0.9, 0.98), weight_decay=config.weight_decay
    )
    loop = _Loop(task, config, model, optimizer, path, ranks, _decisive(task, config) if path else {})
    if path and path.exists():  # after place, since the optimiser's state goes to the device of the parameters
        loop.state = read_checkpoint(path, task.model, optimizer, loop.decisive)
    hook = progress if ranks.first else False
    bar = progress_bar(task.title, config.steps) if hook is True else nullcontext(hook or (lambda *_: None))
    with interruption() as interrupted, bar as report:
        loop.run(interrupted, report)
    if loop.state.step < config.steps and not loop.ended:
        kept = f"'{folder}' holds its checkpoint. Start the same command again to go on."
        raise TrainingInterruptedError(
            f"{task.title}: interrupted after step {loop.state.step} of {config.steps}; "
            f"{kept if folder else 'without a folder there is no checkpoint.'}"
        )
    return loop.state


@dataclass
class _Loop:
    """The loop and what it works on."""

    task: Task
    config: TrainingConfig
    model: nn.Module
    optimizer: torch.optim.Optimizer
    path: Path | None
    ranks: Ranks
    decisive: dict[str, Any]
    state: TrainingState = field(default_factory=TrainingState)

    def run(self, interrupted: Callable[[], bool], report: ProgressHook) -> None:
        """Steps until the end or an interruption."""
        self.model.train()
        losses: list[float] = []
        before = self.state.seconds
        start = time.perf_counter()
        while self.state.step < self.config.steps and not self.ended:
            loss, stop = self.one_step(interrupted)
            losses.append(loss)
            self.state.step += 1
            self.state.seconds = before + time.perf_counter() - start
            report(self.state.step, loss, one_cycle(self.state.step - 1, self.config))
            stop = stop or self.state.step == self.config.steps
            validate = self.state.step % self.config.validate_every == 0 or self.state.step == self.config.steps
            if validate or stop:
                self.record(losses, validate)
                losses = []
            if stop or (validate and self.ended) or self.state.step % self.config.checkpoint_every == 0:
                self.save()
            if stop:
                break

    @property
    def ended(self) -> bool:
        """Whether the task stops early."""
        return self.task.stop is not None and self.task.stop(self.state.history)

    def one_step(self, interrupted: Callable[[], bool]) -> tuple[float, bool]:
        """Loss, gradient, update; returns the loss of the whole batch, and whether any process was interrupted."""
        step = self.state.step
        seed = random_seed(self.config.seed, TRAINING, step, self.ranks.rank)
        rate = one_cycle(step, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        with _seeded(seed):
            context = StepContext(step, step / self.config.steps, torch.Generator().manual_seed(seed), self.ranks)
            loss = self.task.loss(self.model, context)
            value, stopped = means(loss.item(), float(interrupted()))
            if math.isfinite(value):
                loss.backward()
        norm = clip_gradients(self.model, self.config.gradient_norm) if math.isfinite(value) else math.nan
        if not math.isfinite(norm):
            kept = "There is no checkpoint yet."
            if self.path and self.path.exists():
                kept = f"The last checkpoint is '{self.path}'."
            raise TrainingDivergedError(
                f"{self.task.title}: diverged at step {step + 1} of {self.config.steps} with loss {value:g}, gradient "
                f"norm {norm:g}, rate {rate:.2g}. {kept} Lower peak_rate or train in precision 32-true."
            )
        self.optimizer.step()
        return value, stopped > 0

    def record(self, losses: list[float], validate: bool) -> None:
        """Adds an entry to the history, with scores if wanted."""
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
                scores = self.task.validate(self.task.model, torch.Generator().manual_seed(seed))
            self.model.train()
            entry |= dict(zip(scores, means(*scores.values()), strict=True))
        self.state.history.append(entry)
        if validate and self.task.validated is not None:
            self.task.validated(self.state)

    def save(self) -> None:
        """Writes the checkpoint on rank 0, if there is a folder for it."""
        if self.path and self.ranks.first:
            write_checkpoint(self.path, self.task.model, self.optimizer, self.state, self.decisive)


def _decisive(task: Task, config: TrainingConfig) -> dict[str, Any]:
    """Entries that must agree between a checkpoint and the training that resumes it, in JSON's types."""
    training = {name: value for name, value in asdict(config).items() if name not in _FREE}
    given = {"network": network_fingerprint(task.model), "data": fingerprint(task.data)}
    return json.loads(json.dumps({"training": training, "task": task.config, **given}))


def clip_gradients(model: nn.Module, largest: float) -> float:
    """Clips all gradients together to the norm ``largest``; returns their norm before.

    Complex gradients count as pairs of real numbers: the same norm, in a tenth of the time.
    """
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = get_total_norm([torch.view_as_real(grad) if grad.is_complex() else grad for grad in gradients])
    clip_grads_with_norm_(model.parameters(), largest, norm)
    return float(norm)


def _check_processes(config: TrainingConfig, ranks: Ranks) -> None:
    """Raises InvalidArgumentError unless the config fits the processes that were started."""
    if ranks.world_size != config.processes:
        raise InvalidArgumentError(
            f"processes is {config.processes}, but the number of those started is {ranks.world_size}; start as many "
            f"with torchrun --standalone --nproc-per-node {config.processes}."
        )
    if ranks.world_size > 1 and ":" in config.device:
        raise InvalidArgumentError(
            f"device must be cuda or cpu for {ranks.world_size} processes, got {config.device}: each takes its own GPU."
        )


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds the global generators inside the block and restores them after it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
