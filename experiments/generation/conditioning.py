"""Many fields of one problem, each with its own law: values with noise, and totals."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from experiments.errors import InvalidArgumentError, require_at_least
from experiments.generation.cases import Case, Condition
from experiments.generation.problem import GenerationProblem
from probconserv import Bounded, LinearConstraint
from probconserv.nonlinear.law import AnyLaw
from probconserv.training.loop import random_seed

TEST, VALIDATION = 7, 8
"""Seeds of true fields."""
TRIED = 16
"""True fields on which settings are chosen."""


@dataclass(frozen=True, kw_only=True)
class Told(Condition):
    """Observations, totals and bounds given for a field.

    Args:
        values: Number of values at random times and cells, with noise.
        deviation: Standard deviation of the noise.
        totals: Positions of the times at which the mean over all cells is known.
    """

    values: int = 0
    deviation: float = 0.02
    totals: tuple[int, ...] = ()
    resample: int | None = 1  # the best of 1, 5 and never on validation fields

    def __post_init__(self) -> None:
        require_at_least(self, values=0)
        if not self.deviation > 0:
            raise InvalidArgumentError(f"deviation must be positive, got {self.deviation}.")

    @property
    def conditional(self) -> bool:
        """Whether anything is imposed: bounds at least."""
        return True

    def law_of(self, u: Float[Tensor, "t x"], number: int) -> LinearConstraint | None:
        """The law of field ``number``; None if bounds alone are given."""
        if self.values > u.numel():
            raise InvalidArgumentError(f"values must be at most the {u.numel()} of a field, got {self.values}.")
        if not (self.values or self.totals):
            return None
        generator = Generator().manual_seed(random_seed(number, self.values, 0))
        places = torch.randperm(u.numel(), generator=generator)[: self.values]
        errors = self.deviation * torch.randn(self.values, dtype=u.dtype, generator=generator)
        rows = torch.zeros(self.values + len(self.totals), *u.shape, dtype=u.dtype)
        rows.flatten(1)[range(self.values), places] = 1.0
        for row, when in zip(rows[self.values :], self.totals, strict=True):
            row[when] = 1 / u.shape[1]
        exact = torch.zeros(len(self.totals), dtype=u.dtype)
        b = rows.flatten(1) @ u.flatten() + torch.cat([errors, exact])
        noise = torch.cat([torch.full_like(errors, self.deviation**2), exact])
        return LinearConstraint(rows.flatten(1).to_sparse(), b, noise_variance=noise)


@dataclass(frozen=True, kw_only=True)
class OneField(Case):
    """One of ``among`` true fields of a seed, and what is given of it."""

    number: int
    among: int
    seed: int = TEST

    @property
    def truth(self) -> Float[Tensor, "t x"]:
        """The field."""
        return true_fields(self.problem, self.among, self.sizes.nodes, self.seed)[self.number]

    @property
    def law(self) -> LinearConstraint | None:
        assert isinstance(self.condition, Told)
        return self.condition.law_of(self.truth, self.number)

    @property
    def law_and_bounds(self) -> AnyLaw | None:
        assert self.problem.bounds is not None
        law, bounds = self.law, Bounded(*self.problem.bounds)
        return bounds if law is None else law & bounds

    def validation(self) -> list[Self]:
        """Other fields of which as much is given, to choose settings on."""
        return [replace(self, number=number, among=TRIED, seed=VALIDATION) for number in range(TRIED)]


@dataclass(frozen=True, kw_only=True)
class ManyFields(Case):
    """A problem whose true fields are all given in one way."""

    fields: int

    @property
    def config(self) -> dict[str, Any]:
        return {**super().config, "fields": self.fields, "told": self.condition}

    def each(self, group: int) -> list[OneField]:
        """The fields, for one group of trainings."""
        common: dict[str, Any] = {"problem": self.problem, "condition": self.condition, "sizes": self.sizes}
        return [OneField(**common, number=number, group=group, among=self.fields) for number in range(self.fields)]


@lru_cache(maxsize=2)
def true_fields(problem: GenerationProblem, count: int, nodes: int, seed: int) -> Float[Tensor, "s t x"]:
    """True fields, which no training has."""
    return problem.draws(count, nodes, seed)
