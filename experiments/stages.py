"""What runs share on their way from data to files: one thread, files made once, a line that says how far they are."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from experiments.storage import alone_with, is_taken
from probconserv.training import launched


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread inside: small batches cost more to divide than to compute, and sums keep their order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def made_once(path: Path, make: Callable[[], object], is_whole: Callable[[], bool]) -> Path:
    """A file of weights, made unless it is there; of several runs that want it one makes it and the others wait."""
    several = launched().world_size > 1  # ranks of one training wait for each other there
    with nullcontext() if several else alone_with(path):
        if not is_whole():
            make()
    return path


def free_first(paths: Iterable[Path]) -> Iterator[Path]:
    """Files in order, those that another run is making when their turn comes after all others: runs share the work."""
    taken, alone = [], launched().world_size == 1  # ranks of one training go through them together
    for path in paths:
        if alone and is_taken(path):
            taken.append(path)
        else:
            yield path
    yield from taken


@contextmanager
def stage_progress(count: int) -> Iterator[Callable[[str], None]]:
    """A line on standard error: stage k of ``count`` and the time left; call what it gives at the start of each."""
    columns = (MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=count)
        started = 0

        def begin(description: str) -> None:
            nonlocal started
            progress.update(task, description=description, completed=started)
            started += 1

        yield begin
        progress.update(task, completed=count)
