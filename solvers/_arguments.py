"""Arguments that several solvers take: their checks, and the progress bar."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.errors import InvalidArgumentError


def checked_values(values: Any, name: str, when: str = "") -> Tensor:
    """Values as a float64 tensor on the CPU; an error, with their name, if they are no finite real numbers, or carry a
    gradient. ``when`` says for which time they are given.
    """
    if isinstance(values, Tensor) and values.requires_grad:
        raise InvalidArgumentError(
            f"{name} requires a gradient, which does not flow through a solver; give it without, by detach()."
        )
    try:
        given = values if isinstance(values, Tensor) else torch.from_numpy(np.array(values))
    except (TypeError, ValueError):
        raise InvalidArgumentError(
            f"{name} must be a number, an array or a tensor, got {values!r} ({type(values).__name__})."
        ) from None
    if given.is_complex():
        raise InvalidArgumentError(f"{name} must be real, got complex numbers.")
    tensor = given.to("cpu", torch.float64)
    if not (isfinite(tensor.item()) if tensor.numel() == 1 else bool(torch.isfinite(tensor).all())):
        raise InvalidArgumentError(f"{name} is not finite{when}; remove NaN and infinite entries.")
    return tensor


def output_times(times: float | Sequence[float] | np.ndarray | Tensor, start: float, *, after: bool = False) -> Tensor:
    """Output times ``(t,)``, float64; a number is one time.

    An error unless they are finite and increase from the start on, the first one later than it if they are ``after``
    it.
    """
    output = checked_values(times, "times").reshape(-1)
    ordered = output.numel() > 0 and bool((output.diff() > 0).all())
    if not ordered or float(output[0]) < start or (after and float(output[0]) == start):
        place = "later than" if after else "not before"
        raise InvalidArgumentError(
            f"times must be finite, strictly increasing and {place} start = {start:g}, got {output.tolist()[:8]}."
        )
    return output


def check_positive_number(value: Any, name: str) -> None:
    """Raises an error, with a name, unless a value is one finite number above 0."""
    if not (isinstance(value, Real) and isfinite(value) and float(value) > 0):
        raise InvalidArgumentError(
            f"{name} must be one finite number above 0, got {value!r}; for several values solve once for each."
        )


@contextmanager
def reporter(show: bool, total: float) -> Iterator[Callable[[float], None] | None]:
    """A function that advances a bar on standard error by steps that add up to ``total``; None if none is shown."""
    if not show:
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(file=sys.stderr)) as bar:
        task = bar.add_task("solving", total=total)
        yield lambda step: bar.advance(task, step)
