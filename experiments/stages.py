"""Helpers for runs: one thread, files made once, progress, files of weights."""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

import boon
from experiments.errors import NotReleasedError
from experiments.experiment import RunContext, Training
from experiments.records.release import released_weights
from experiments.records.storage import alone_with, is_taken, write_bytes
from experiments.records.store import as_json, environment
from experiments.records.weights import read_notes
from probconserv.training.checkpoint import TrainingState
from probconserv.training.distributed import first_before_others, launched, say_once


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread inside: small batches cost more to divide than to compute, and sums keep their order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def create_once(path: Path, make: Callable[[], object], is_whole: Callable[[], bool]) -> Path:
    """A file of weights, made unless it is there; of several runs that want it one makes it and the others wait."""
    several = launched().world_size > 1  # ranks of one training wait for each other there
    with nullcontext() if several else alone_with(path):
        if not is_whole():
            make()
    return path


def unlocked_first(paths: Iterable[Path]) -> Iterator[Path]:
    """Files in order, those that another run is making when their turn comes after all others: runs share the work."""
    taken, alone = [], launched().world_size == 1  # ranks of one training go through them together
    for path in paths:
        if alone and is_taken(path):
            taken.append(path)
        else:
            yield path
    yield from taken


class Stages(NamedTuple):
    """Progress of a run on standard error.

    Attributes:
        begin: Names the next stage.
        say: Says something between two stages.
    """

    begin: Callable[[str], None]
    say: Callable[[str], None]


@contextmanager
def stage_progress(count: int) -> Iterator[Stages]:
    """A line on standard error: stage k of ``count`` and the time left; a line per stage where that is no terminal."""
    columns = (MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    console = Console(stderr=True, highlight=False)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task, numbers = progress.add_task("", total=count), itertools.count()

        def begin(description: str) -> None:
            number = next(numbers)
            progress.update(task, description=description, completed=number)
            if not console.is_terminal:
                say(f"{number + 1}/{count} {description}")

        def say(text: str) -> None:
            console.print(text, soft_wrap=True, markup=False)

        yield Stages(begin, say)
        progress.update(task, completed=count)


def store_finished(
    operator: nn.Module, training: Training, state: TrainingState, path: Path, more: Mapping[str, Any] | None = None
) -> None:
    """Saves an operator with how it was trained, and further notes, by rank 0 of the processes that trained it."""
    notes = {
        "label": training.label,
        "training": as_json(training.config),
        "data_version": training.data_version,
        "seconds": state.seconds,
        "history": state.history,
        "environment": environment(),
        **(more or {}),
    }
    with first_before_others() as ranks:
        if ranks.first:
            boon.save(operator, path, notes)


def take_released(training: Training, context: RunContext) -> bool:
    """Puts the released weights of a training where it would leave them; False where there are none.

    They are those of the preset laptop, of the seed that is released. Weights that were trained with another
    configuration or on other data are named and left alone; ``reproduce`` takes those of older data too.
    """
    if training.release is None or context.options.preset != "laptop":
        return False
    try:
        released = released_weights(training.release, context.release)
    except NotReleasedError:
        return False
    changed = [name for name in changed_since(released, training) if name != "data_version" or not context.released]
    if changed:
        say_once(f"The released '{training.release}' is not used: it was trained with other {', '.join(changed)}.")
        return False
    path = training.weights(context.options.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, released.read_bytes())
    return True


def changed_since(released: Path, training: Training) -> list[str]:
    """The entries of a training's configuration that a file of weights was trained with otherwise.

    Files of release 0.1 name neither their version of the data nor the types of their configurations: of those, the
    entries are compared that they share with the training.
    """
    notes = read_notes(released)
    now = {"training": json.loads(json.dumps(as_json(training.config))), "data_version": training.data_version}
    then = {name: notes.get(name) for name in now}
    return _differences(then, now, shared_only="data_version" not in notes)


_OF_THE_MACHINE = {"device", "processes"}


def _differences(then: Any, now: Any, shared_only: bool, name: str = "") -> list[str]:
    """Dotted names of the entries of two JSON values that differ, apart from those of the machine."""
    if isinstance(then, dict) and isinstance(now, dict):
        names = (then.keys() & now.keys() if shared_only else then.keys() | now.keys()) - _OF_THE_MACHINE
        pairs = ((then.get(key), now.get(key), f"{name}.{key}".lstrip(".")) for key in sorted(names))
        return [each for a, b, key in pairs for each in _differences(a, b, shared_only, key)]
    return [] if then == now or (shared_only and then is None) else [name]
