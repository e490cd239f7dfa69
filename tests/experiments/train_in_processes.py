"""Tiny trainings that one process or several run alike: ``torchrun … -m tests.experiments.train_in_processes``."""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from experiments import train_field, train_operator
from experiments.field_config import STEFAN_CASE
from experiments.field_models import Network
from experiments.operator_config import OperatorCase
from experiments.operator_methods import methods
from experiments.processes import launched
from experiments.train_anp import train_anp
from experiments.train_field import trained_field
from experiments.train_operator import Place, operator_training, trained_operator
from experiments.training import Moment, Progression, Task, TrainingConfig, train
from tests.experiments.fields import TINY
from tests.experiments.operators import one
from tests.experiments.test_training import tiny

STEPS = 6
EVERY_STEP = {"steps": STEPS, "validate_every": 1, "checkpoint_every": 2, "precision": "64-true"}
CONFIG = TrainingConfig(peak_rate=1e-2, **EVERY_STEP)


def line(folder: Path, at: Callable[[int], None] = lambda step: None, config: TrainingConfig = CONFIG) -> Progression:  # noqa: ARG005
    """A straight line with dropout and noise; ``at`` is called at every step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, 1)).double()

    def loss(model: nn.Module, moment: Moment) -> torch.Tensor:
        at(moment.step)
        rows = moment.share.rows(16)
        x = torch.rand(16, 1, generator=moment.generator, dtype=torch.float64)[rows]
        noise = torch.empty_like(x).normal_()
        return (model(x) - 2 * x - 0.1 * noise).square().mean()

    task = Task(model=model, loss=loss, identity={"name": "line"})
    return train(task, replace(config, processes=launched().count), folder, progress=False)


def anp(folder: Path, **changes: object) -> Progression:
    """A neural process with dropout; weights in float64, so that rounding does not hide a difference."""
    config = tiny(**changes)
    network = replace(config.network, dropout=0.1)
    config = replace(config, network=network, training=replace(config.training, **EVERY_STEP))
    return train_anp(config, folder / "network", folder, progress=False).progression


def soft_anp(folder: Path) -> Progression:
    """The same under the penalty on the equation."""
    return anp(folder, soft_penalty=1.0, penalty_functions=2, penalty_points=5)


def bank_anp(folder: Path) -> Progression:
    """The same from finite-volume solutions, which the first process makes."""
    bank = replace(tiny().bank, members=4, cells=16, times=20)
    return anp(folder, data="solver", bank=bank)


def operator_case() -> OperatorCase:
    """A case whose trainings, in float32 as its fields, are scored at every step."""
    case = one("heat_independent", "single-values")
    training = replace(case.sizes.training, **EVERY_STEP | {"precision": "32-true"})
    return replace(case, sizes=replace(case.sizes, training=training))


def observed(module: Any, make: Callable[[], Path]) -> tuple[Path, Progression]:
    """The file that a training of a module writes, and how the training went."""
    found: list[Progression] = []
    original = module.train
    module.train = lambda *arguments: found.append(original(*arguments)) or found[0]
    path = make()
    module.train = original
    return path, found[0]


def operator(folder: Path) -> Progression:
    """The default boundary-corrected operator."""
    case = operator_case()
    method = methods(case)[-1]
    place = Place(experiment=case.problem.name, out=folder, progress=False)
    path, progression = observed(train_operator, lambda: trained_operator(case, method, place, 0))
    assert path.parent == place.folder(case, operator_training(case, method, 0, 0))
    return progression


def field(folder: Path) -> Progression:
    """An operator with dropout and heads kept apart, trained through the update."""
    network = Network(name="field", heads=2, diversity=0.1, dropout=0.1, conserved=True)
    training = replace(CONFIG, precision="32-true")
    sizes = replace(TINY, samples=8, batch=4, training=training)
    case = sizes.sized(STEFAN_CASE)
    config = sizes.field_training(case, network, 0)
    return observed(train_field, lambda: trained_field(case, config, folder))[1]


def interrupted(folder: Path) -> Progression:
    """A line that the second process is asked to stop in its third step; the first one is not."""
    last = launched().index == launched().count - 1
    return line(folder, lambda step: os.kill(os.getpid(), signal.SIGINT) if step == 2 and last else None)


def resumed(folder: Path) -> Progression:
    """The interrupted line, to its end."""
    return line(folder.parent / "interrupted")


def endless(folder: Path) -> Progression:
    """A line too long for a test, without checkpoints; a file says that it is under way."""
    config = replace(CONFIG, steps=10**6, checkpoint_every=10**6, validate_every=10**6)
    return line(folder, lambda step: (folder / "under-way").touch() if step == 2 else None, config)


TRAININGS: dict[str, Callable[[Path], Progression]] = {
    function.__name__: function
    for function in (line, anp, soft_anp, bank_anp, operator, field, interrupted, resumed, endless)
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[2:]:
        progression = TRAININGS[name](Path(sys.argv[1]) / name)
        losses = " ".join(f"{entry['loss']:.17g}" for entry in progression.history)
        Path(sys.argv[1], f"{name}-{launched().index}.txt").write_text(losses)
