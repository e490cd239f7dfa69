"""What every experiment does on its way from data to files: stages with a progress line, one thread, tables."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from experiments import tables
from experiments.processes import launched
from experiments.storage import alone_with, write_bytes
from experiments.tables import Row


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread inside: small batches cost more to share than to compute, and sums keep their order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def made_once(path: Path, make: Callable[[], object], is_there: Callable[[], bool] | None = None) -> Path:
    """A file of weights, made unless it is there; of several runs that want it one makes it and the others wait.

    Args:
        path: The file.
        make: Trains and stores.
        is_there: Whether the file is there and whole; by default whether it exists.

    Returns:
        The file.
    """
    alone = launched().count == 1  # processes that share a training wait for each other
    with alone_with(path) if alone else nullcontext():
        if not (is_there or path.exists)():
            make()
    return path


@contextmanager
def stage_progress(count: int) -> Iterator[Callable[[str], None]]:
    """A line on standard error that says which of ``count`` stages runs; call what it gives at the start of each."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=count)
        started = 0

        def begin(description: str) -> None:
            nonlocal started
            progress.update(task, description=description, completed=started)
            started += 1

        yield begin


def write_tables(folder: Path, title: str, rows: Sequence[Row]) -> list[Path]:
    """Writes a table as Markdown, CSV and JSON into the folder of a run; returns the files."""
    contents = {
        "table.md": tables.as_markdown(title, tables.beside_paper(rows)),
        "table.csv": tables.as_csv(rows),
        "table.json": tables.as_json(rows),
    }
    for name, content in contents.items():
        write_bytes(folder / name, content.encode())
    return [folder / name for name in contents]
