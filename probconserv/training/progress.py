"""The progress bar of a training on standard error."""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ProgressHook = Callable[[int, float, float], None]
"""Is called after every step with the number of steps done, the loss and the rate of the step."""


@contextmanager
def progress_bar(title: str, steps: int) -> Iterator[ProgressHook]:
    """A bar with title (20 columns of it), steps, time left, smoothed loss and rate, in 80 columns.

    Yields what the training calls after every step.
    """
    from rich.console import Console  # slow to import, needed here alone
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    columns = (
        TextColumn("{task.description}", table_column=Column(max_width=20, no_wrap=True, overflow="ellipsis")),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        BarColumn(bar_width=10),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.3g} rate {task.fields[rate]:.1e}"),
    )
    with Progress(*columns, console=Console(file=sys.stderr)) as bar:
        training = bar.add_task(title, total=steps, loss=math.nan, rate=0.0)
        smooth = math.nan

        def report(step: int, loss: float, rate: float) -> None:
            nonlocal smooth
            smooth = loss if math.isnan(smooth) else 0.98 * smooth + 0.02 * loss
            bar.update(training, completed=step, loss=smooth, rate=rate)

        yield report
