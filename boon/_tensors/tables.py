"""Tables of numbers that depend on sizes alone: made once, kept."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, TypeVar

import torch

from boon._tensors.values import is_transformed

Table = TypeVar("Table", bound=Callable[..., Any])


def kept(function: Table) -> Table:
    """A function of sizes whose results are kept, as tensors for training and inference alike.

    While a graph is traced (``torch.export``, ``torch.compile``) or a function transformed (``vmap``, ``jvp``) results
    are made anew: the tensors of a trace hold no numbers and must not be given to later calls.
    """
    once = lru_cache(maxsize=256)(torch.inference_mode(False)(function))

    @wraps(function)
    def found(*arguments: Any) -> Any:
        return function(*arguments) if is_transformed() else once(*arguments)

    return found  # type: ignore[return-value]
