"""Tables of numbers that depend on sizes alone, made once."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, TypeVar

import torch

from solvers.recording import is_transformed

Table = TypeVar("Table", bound=Callable[..., Any])


def cached_table(function: Table) -> Table:
    """A function of sizes whose results are cached, as tensors for training and inference alike.

    While a graph is traced (``torch.export``, ``torch.compile``) or a function transformed (``vmap``, ``jvp``) results
    are made anew: the tensors of a trace hold no numbers and must not be given to later calls.
    """
    once = lru_cache(maxsize=256)(torch.inference_mode(False)(function))

    @wraps(function)
    def look_up(*arguments: Any) -> Any:
        return function(*arguments) if is_transformed() else once(*arguments)

    return look_up  # type: ignore[return-value]
