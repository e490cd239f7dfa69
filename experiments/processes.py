"""Several processes of one training, as ``torchrun`` starts them: who does what, and how they draw random numbers.

Every process makes the whole batch and trains on its own rows, and what a model draws for its rows are the rows of what
one process would draw for the whole batch. So the number of processes changes a training by rounding only.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from experiments.errors import InvalidArgumentError, UnsharedDrawError

_FILLS = ("aten::normal_", "aten::uniform_", "aten::bernoulli_")


@dataclass(frozen=True)
class Share:
    """Which of several processes this is.

    Args:
        index: Number of this process, from 0; the first one writes files.
        count: Number of processes.
        local_index: Number of this process on its node.
        local_count: Number of processes on its node.
    """

    index: int = 0
    count: int = 1
    local_index: int = 0
    local_count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.index == 0

    def rows(self, batch: int) -> slice:
        """The rows of a batch that this process works on.

        Args:
            batch: Rows of the whole batch.

        Raises:
            InvalidArgumentError: If the processes cannot have equally many.
        """
        if batch % self.count:
            raise InvalidArgumentError(
                f"{self.count} processes cannot share a batch of {batch} evenly; start a number that divides {batch}."
            )
        own = batch // self.count
        return slice(self.index * own, (self.index + 1) * own)

    def device(self, name: str) -> torch.device:
        """The device of this process: ``cuda`` stands for one GPU a process of the node."""
        return torch.device("cuda", self.local_index) if name == "cuda" and self.count > 1 else torch.device(name)


def launched() -> Share:
    """What ``torchrun`` says of this process; a single process otherwise."""
    if not torch.distributed.is_torchelastic_launched():
        return Share()
    return Share(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")))


def say_once(text: str) -> None:
    """Prints a line on standard error, from the first process only."""
    if launched().first:
        print(text, file=sys.stderr)


@contextmanager
def first_before_others() -> Iterator[None]:
    """The first process runs the block before the others do, which then find the files that it wrote."""
    share = launched()
    if not share.first:
        _wait_for_all(share)
    yield
    if share.first:
        _wait_for_all(share)


def _wait_for_all(share: Share) -> None:
    if share.count == 1:
        return
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group()
    torch.distributed.all_reduce(torch.zeros(1))  # on the CPU, where a barrier would take a GPU


@contextmanager
def interruption(share: Share) -> Iterator[Callable[[], bool]]:
    """Turns the first SIGINT into an answer; a second one interrupts at once. Does nothing outside the main thread.

    Of several processes, each gets the signal from the terminal and again from ``torchrun``, and a job from the process
    that started it. There a second one counts as the first.
    """
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag.is_set
        return
    before = signal.getsignal(signal.SIGINT)

    def stop(*_: Any) -> None:
        flag.set()
        if share.count == 1 and "SUBMITIT_EXECUTOR" not in os.environ:
            signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, stop)
    try:
        yield flag.is_set
    finally:
        signal.signal(signal.SIGINT, before)


class WholeBatchDraws(TorchDispatchMode):
    """Inside, the global generators give every process its rows of the numbers for the whole batch.

    Rows are the first axis of a tensor of random numbers. Numbers from a generator of one's own are left alone.

    Args:
        share: Which of the processes this is.

    Raises:
        UnsharedDrawError: Inside, at a random operation that is not known how to share.
    """

    def __init__(self, share: Share) -> None:
        super().__init__()
        self.share = share

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not _draws_globally(func, args, kwargs):
            return func(*args, **kwargs)
        name = func._schema.name
        like = args[0]
        if isinstance(like, Tensor) and like.ndim:
            rows = len(like)
            mine = slice(self.share.index * rows, (self.share.index + 1) * rows)
            whole = like.new_ones(self.share.count * rows, *like.shape[1:])
            if name in _FILLS:
                return like.copy_(func(whole, *args[1:], **kwargs)[mine])
            if name == "aten::native_dropout":
                factors, mask = func(whole, *args[1:], **kwargs)
                return like * factors[mine], mask[mine]
        raise UnsharedDrawError(
            f"'{name}' draws random numbers in a way that several processes cannot share; draw them with normal_, "
            "uniform_, bernoulli_ or dropout on tensors whose first axis is the batch, or train in one process."
        )


def _draws_globally(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Whether an operation draws from a global generator: with none of its own, and not a dropout of nothing."""
    if torch.Tag.nondeterministic_seeded not in func.tags:
        return False
    given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
    own = any(isinstance(value, Generator) for value in given.values())
    attention = any(argument.name == "dropout_p" for argument in func._schema.arguments)
    return not own and not (attention and given.get("dropout_p", 0.0) == 0.0)
