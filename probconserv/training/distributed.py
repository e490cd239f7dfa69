"""Several processes of one training, as ``torchrun`` starts them; a single process needs none of this."""

import atexit
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed


@dataclass(frozen=True)
class Ranks:
    """Rank of this process, from 0, and the number of processes, in all and on this node; rank 0 writes and prints."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1

    @property
    def first(self) -> bool:
        """True for rank 0."""
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


def connect() -> Ranks:
    """Connects the processes of ``torchrun`` until they end, once; returns the ranks."""
    ranks = launched()
    if ranks.world_size > 1 and not distributed.is_initialized():
        distributed.init_process_group()
        atexit.register(distributed.destroy_process_group)
    return ranks


@contextmanager
def first_before_others() -> Iterator[Ranks]:
    """Rank 0 runs the block before the others, which can then read the files that it wrote."""
    ranks = connect()
    if not ranks.first:
        wait_for_all()
    yield ranks
    if ranks.first:
        wait_for_all()


def means(*values: float) -> list[float]:
    """Means over the processes, computed on the CPU; the values themselves where there is one process."""
    ranks = launched()
    tensor = torch.tensor(values, dtype=torch.float64)
    if ranks.world_size > 1:
        distributed.all_reduce(tensor)
    return (tensor / ranks.world_size).tolist()


def wait_for_all() -> None:
    """Returns when every process is here."""
    means(0.0)


def say_once(text: str) -> None:
    """Prints a line on standard error, from rank 0 only."""
    if launched().first:
        print(text, file=sys.stderr)
