"""Several processes of one training, as ``torchrun`` starts them, and interruption by SIGINT."""

import atexit
import itertools
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

_groups = itertools.count()
_idle = False
"""Whether the processes are connected, and in no block that needs it."""
_works: deque[Any] = deque(maxlen=100)
"""Works of the last collectives. If a thread of gloo is the last to drop one, it waits for Python's lock, which the
main thread holds while it waits for gloo's threads to end: the process hangs, or aborts if Python is ending."""


@dataclass(frozen=True)
class Ranks:
    """Rank of this process, from 0, and the number of processes, in all and on this node; rank 0 writes and prints."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """The device of this process: ``cuda`` means one GPU for each process of a node."""
        several = name == "cuda" and self.world_size > 1
        return torch.device("cuda", self.local_rank) if several else torch.device(name)


def launched() -> Ranks:
    """The ranks that ``torchrun`` set in the environment; a single process otherwise."""
    if not distributed.is_torchelastic_launched():
        return Ranks()
    return Ranks(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")))


@contextmanager
def process_group() -> Iterator[Ranks]:
    """Connects the processes; does nothing for a single one, or where they are connected.

    They stay connected for the next block and until they end, since to connect anew for every training has hung now and
    then. All leave a block together: a process that closes its connections breaks those of the others. An error closes
    them, since the others may be elsewhere.
    """
    global _idle
    ranks = launched()
    if ranks.world_size == 1 or (distributed.is_initialized() and not _idle):
        yield ranks
        return
    if not distributed.is_initialized():
        store, rank, world_size = next(iter(rendezvous("env://")))
        store = PrefixStore(f"training-{next(_groups)}", store)  # the addresses of earlier groups are void
        distributed.init_process_group(store=store, rank=rank, world_size=world_size)
        atexit.register(_disconnect)
    _idle = False
    try:
        yield ranks
        wait_for_all()
        _idle = True
    except BaseException:
        _disconnect()
        raise


def _disconnect() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


@contextmanager
def first_before_others() -> Iterator[Ranks]:
    """Rank 0 runs the block before the others, which can then read the files that it wrote."""
    with process_group() as ranks:
        if not ranks.first:
            wait_for_all()
        yield ranks
        if ranks.first:
            wait_for_all()


def means(*values: float) -> list[float]:
    """Means over the processes, computed on the CPU; the values themselves where there is one process."""
    if launched().world_size == 1:
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float64)
    work = distributed.all_reduce(tensor, async_op=True)
    assert work is not None
    work.wait()
    _works.append(work)
    return (tensor / distributed.get_world_size()).tolist()


def wait_for_all() -> None:
    """Returns when every process is here."""
    means(0.0)


def say_once(text: str) -> None:
    """Prints a line on standard error, from rank 0 only."""
    if launched().first:
        print(text, file=sys.stderr)


@contextmanager
def interruption() -> Iterator[Callable[[], bool]]:
    """Inside, the first SIGINT sets a flag, which the yielded function reads; a second one interrupts at once.

    Processes of ``torchrun`` and jobs of submitit receive one Ctrl-C twice, from the terminal and from the program that
    started them, so there any further SIGINT only sets the flag. Outside the main thread signals stay as they are.
    """
    # No threading.Event: a second signal inside its set would wait for a lock that the first one holds.
    stopped = False
    if threading.current_thread() is not threading.main_thread():
        yield lambda: stopped
        return
    before = signal.getsignal(signal.SIGINT)
    repeated = launched().world_size > 1 or "SUBMITIT_EXECUTOR" in os.environ

    def stop(*_: Any) -> None:
        nonlocal stopped
        stopped = True
        if not repeated:
            signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, stop)
    try:
        yield lambda: stopped
    finally:
        signal.signal(signal.SIGINT, before)
