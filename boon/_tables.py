"""Tables of numbers that depend on sizes alone: made once, kept."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

import torch

P, R = ParamSpec("P"), TypeVar("R")


def kept(function: Callable[P, R]) -> Callable[P, R]:
    """A function of sizes whose results are kept, as tensors for training and inference alike.

    While a graph is traced (``torch.export``, ``torch.compile``) results are made anew: the tensors of a trace hold no
    numbers and must not be given to later calls.
    """
    once = lru_cache(maxsize=256)(torch.inference_mode(False)(function))

    @wraps(function)
    def found(*arguments: P.args, **options: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            return function(*arguments, **options)
        return once(*arguments, **options)

    return found
