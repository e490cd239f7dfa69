"""Small trainings in several processes.

``torchrun … -m tests.probconserv.training.train_in_processes FOLDER NAME…``
"""

import faulthandler
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import distributed, nn

from probconserv.errors import InvalidArgumentError, TrainingInterruptedError
from probconserv.surrogates.anp import ANP, ANPConfig
from probconserv.surrogates.fitting import FitOptions, FunctionSet
from probconserv.training import StepContext, Task, TrainingConfig, train
from probconserv.training.checkpoint import TrainingState
from probconserv.training.distributed import launched

STEPS, BATCH = 6, 16
LIMIT = 240  # seconds
EVERY_STEP: dict[str, Any] = {"validate_every": 1, "checkpoint_every": 2, "precision": "64-true"}


def line_model() -> nn.Module:
    """A small network of float64 weights."""
    torch.manual_seed(launched().rank)  # rank 0 gives its weights to the others
    return nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.1), nn.Tanh(), nn.Linear(8, 1)).double()


def line_error(model: nn.Module, generator: torch.Generator, rows: int) -> torch.Tensor:
    """Mean squared error against 2 x at random x."""
    x = torch.rand(rows, 1, generator=generator, dtype=torch.float64)
    return (model(x) - 2 * x).square().mean()


def line(folder: Path, at: Callable[[int], None] = lambda step: None, steps: int = STEPS) -> TrainingState:  # noqa: ARG005
    """Fits a straight line; ``at`` is called in every step; every process notes its losses and its weights."""
    losses: list[float] = []
    model, ranks = line_model(), launched()

    def loss(model: nn.Module, context: StepContext) -> torch.Tensor:
        at(context.step)
        result = line_error(model, context.generator, context.rows(BATCH))
        losses.append(result.item())
        return result

    every = EVERY_STEP if steps == STEPS else {"validate_every": steps, "checkpoint_every": steps}
    config = TrainingConfig(steps=steps, peak_rate=1e-2, processes=ranks.world_size, **EVERY_STEP | every)
    try:
        return train(Task(model, loss, config={"name": "line"}), config, folder, progress=False)
    finally:
        (folder / f"losses-{ranks.rank}.json").write_text(json.dumps(losses))
        save_file(model.state_dict(), folder / f"weights-{ranks.rank}.safetensors")


def interrupted(folder: Path) -> TrainingState:
    """The last process alone gets an interrupt in its third step."""
    ranks = launched()
    last = ranks.rank == ranks.world_size - 1
    return line(folder, lambda step: os.kill(os.getpid(), signal.SIGINT) if step == 2 and last else None)


def resumed(folder: Path) -> TrainingState:
    """The interrupted training, to its end."""
    return line(folder.parent / "interrupted")


def around(folder: Path) -> TrainingState:
    """A loss that calls a method, whose gradients would not be averaged, and notes the error."""
    folder.mkdir(parents=True, exist_ok=True)
    model = line_model()
    config = TrainingConfig(steps=1, processes=launched().world_size, **EVERY_STEP)
    try:
        return train(Task(model, lambda model, _: model.extend([]).sum()), config, folder, progress=False)
    except InvalidArgumentError as error:
        (folder / f"error-{launched().rank}.txt").write_text(str(error))
        return TrainingState()


def early(folder: Path) -> TrainingState:
    """Stops at the second of the two validations that are worse than the first."""
    return process(folder, steps=12, worsens=True)


def improving(folder: Path) -> TrainingState:
    """Is best at its end, when rank 0 takes a while to write it."""
    return process(folder, steps=3, worsens=False)


def process(folder: Path, steps: int, worsens: bool) -> TrainingState:
    """A neural process whose scores differ from rank to rank; every process notes its weights and steps."""
    ranks, waves = launched(), torch.sin(torch.arange(20) / 3 + torch.arange(40)[:, None] / 20)
    torch.manual_seed(0)
    model = SlowlySaved(ANPConfig(low=(0.0,), high=(1.0,), width=32, latent_width=4, latent_samples=4))
    functions = FunctionSet(points=torch.linspace(0, 1, 20)[:, None], values=waves, context=8)
    scores = itertools.count(ranks.rank, 1 if worsens else -1)
    fit = model.fit(
        functions,
        lambda *_: {"NLL": float(next(scores))},
        config=TrainingConfig(steps=steps, validate_every=1, processes=ranks.world_size, precision="32-true"),
        folder=folder,
        options=FitOptions(batch=6, patience=2, config="waves"),
        progress=False,
    )
    save_file(model.state_dict(), folder / f"weights-{ranks.rank}.safetensors")
    (folder / f"steps-{ranks.rank}.txt").write_text(f"{fit.best_step} of {fit.state.step}")
    return fit.state


class SlowlySaved(ANP):
    """A network on a disk that is slow."""

    def save(self, path: str | Path, **notes: Any) -> None:
        time.sleep(0.5)
        super().save(path, **notes)


def endless(folder: Path) -> TrainingState:
    """A training too long for a test; a file says that it is under way."""
    return line(folder, lambda step: (folder / "under-way").touch() if step == 2 else None, 10**6)


if __name__ == "__main__":
    faulthandler.dump_traceback_later(LIMIT, exit=True)  # a process that waits for ever says where
    torch.set_num_threads(1)
    groups, connect = [], distributed.init_process_group
    distributed.init_process_group = lambda **options: groups.append(connect(**options))
    for name in sys.argv[2:]:
        where = Path(sys.argv[1]) / name
        try:
            globals()[name](where)
        except TrainingInterruptedError as error:
            (where / f"error-{launched().rank}.txt").write_text(str(error))
    (Path(sys.argv[1]) / f"groups-{launched().rank}.txt").write_text(str(len(groups)))
