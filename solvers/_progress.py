"""The progress bar of a solution, on standard error."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def reporter(show: bool, total: float) -> Iterator[Callable[[float], None] | None]:
    """A function that advances the bar by steps that add up to ``total``, or None if none is shown."""
    if not show:
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(file=sys.stderr)) as bar:
        task = bar.add_task("solving", total=total)
        yield lambda step: bar.advance(task, step)
