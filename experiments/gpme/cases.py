"""The cases: functions of a member, seen at M noisy places; the field at one time is wanted, its total is known."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from experiments.errors import require_at_least
from experiments.experiment import Preset
from experiments.gpme.functions import STREAMS, Functions, Member, Split
from experiments.records.release import data_version
from probconserv import Context, LinearConstraint, Query, integral

COUNTS = (5, 10, 20, 40)
"""Numbers of observations."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Functions to learn from, to choose on and to score, and draws of a prediction."""

    training: int = 4000
    validation: int = 200
    test: int = 200
    draws: int = 200

    def __post_init__(self) -> None:
        require_at_least(self, training=4, validation=2, test=2, draws=4)


SIZES: Mapping[Preset, Sizes] = {
    "smoke": Sizes(training=100, validation=10, test=8, draws=40),
    "laptop": Sizes(),
    "paper": Sizes(),
}


class Observed(NamedTuple):
    """Observations of some functions, the fields that are wanted ``(functions, n)``, and their totals as a law."""

    context: Context
    query: Query
    truth: Tensor
    law: LinearConstraint


@dataclass(frozen=True, kw_only=True)
class Case:
    """One member with one number of observations."""

    member: Member
    count: int
    sizes: Sizes
    seed: int
    folder: Path

    @property
    def key(self) -> str:
        return f"{self.member.name}-{self.count}"

    @property
    def label(self) -> str:
        return f"{self.member.name}, {self.count} observations"

    @property
    def config(self) -> dict[str, Any]:
        described = {"member": self.member, "count": self.count, "sizes": self.sizes}
        return {**described, "data_version": data_version("gpme")}

    @property
    def source(self) -> Member:
        """The member whose functions are trained on."""
        return self.member.trained_on or self.member

    @property
    def axes(self) -> tuple[Tensor, ...]:
        """Times and coordinates at which functions are known."""
        return (self.member.times, *self.member.grid.axes)

    def functions(self, split: Split, seed: int) -> Tensor:
        """Functions of the kind that is learnt from ``(functions, t, *space)``."""
        return self._functions(self.source, split, seed).values

    def observed(self, split: Split, seed: int) -> Observed:
        """Functions of the test, or of the validation, where those that are trained on are of the same kind."""
        member = self.member if split == "test" else self.source
        functions = self._functions(member, split, seed)
        generator = Generator().manual_seed(1000 * seed + 10 * self.count + STREAMS[split])
        context = observe(functions.values, self.axes, self.count, member.noise, generator)
        truth = functions.values[:, member.wanted].flatten(1)
        points = torch.cartesian_prod(member.times[[member.wanted]], *member.grid.axes)
        law = integral(member.grid, functions.total)
        return Observed(context, Query(points.expand(len(truth), -1, -1)), truth, law)

    def _functions(self, member: Member, split: Split, seed: int) -> Functions:
        return _read(member, split, getattr(self.sizes, split), seed, self.folder)


@lru_cache(maxsize=9)  # three parts for three seeds
def _read(member: Member, split: Split, count: int, seed: int, folder: Path) -> Functions:
    return member.functions(split, count, seed, folder)


def observe(values: Tensor, axes: tuple[Tensor, ...], count: int, noise: float, generator: Generator) -> Context:
    """Functions ``(functions, t, *space)`` at random times and cells, with independent errors."""
    flat = values.flatten(1)
    index = torch.randint(flat.shape[1], (len(flat), count), generator=generator)
    error = noise * torch.randn(index.shape, generator=generator, dtype=torch.float64)
    return Context(torch.cartesian_prod(*axes)[index], flat.gather(1, index) + error, noise_variance=noise**2)
