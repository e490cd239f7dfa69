"""The priors of the matrix, each as the library has it and as dense matrices, from the same numbers."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from gpytorch.distributions import MultivariateNormal
from torch import Tensor, nn
from torch.distributions import Normal

from probconserv import Context, Ensemble, Mixture, NonNegative, Query, condition, from_samples
from probconserv.surrogates.empirical import EmpiricalGP
from probconserv.surrogates.flow import KarhunenLoeve, SamplingOptions
from probconserv.surrogates.flow.observations import DrawnFields
from tests.probconserv.pairs.dense import Array, Field, Rows, conditioned
from tests.probconserv.surrogates.exact_flows import of_gaussian

MEMBERS, COMPONENTS, FUNCTIONS, DRAWS = 5, 3, 8, 40


@dataclass(frozen=True, eq=False)
class Numbers:
    """Ingredients of priors and laws for several fields.

    Args:
        centre: (fields, n), positive.
        deviation: (fields, n).
        mix: (fields, n, n), a root of a covariance.
        around: (40, fields, n), standard normal.
        dtype: Precision of the priors.
        scale: Unit of the field.
        factor: Scale of the rows of a law.
    """

    centre: Array
    deviation: Array
    mix: Array
    around: Array
    dtype: torch.dtype
    scale: float
    factor: float

    @classmethod
    def drawn(
        cls, seed: int, n: int = 6, dtype: torch.dtype = torch.float64, scale: float = 1.0, factor: float = 1.0
    ) -> "Numbers":
        """Numbers of three fields, exact in the precision of the priors."""
        random = np.random.default_rng(seed)
        parts = (
            scale * random.uniform(0.3, 1.2, (3, n)),
            scale * random.uniform(0.3, 0.6, (3, n)),
            scale * (0.4 * np.eye(n) + 0.25 / np.sqrt(n) * random.standard_normal((3, n, n))),
            random.standard_normal((DRAWS, 3, n)),
        )
        return cls(*(torch.tensor(part).to(dtype).double().numpy() for part in parts), dtype, scale, factor)

    def tensor(self, values: Array, fields: list[int], shape: tuple[int, ...], axis: int = 0) -> Tensor:
        """The values of some of the fields, whose axis becomes the batch axes."""
        chosen = torch.tensor(np.take(values, fields, axis)).to(self.dtype)
        return chosen.reshape(*chosen.shape[:axis], *shape, *chosen.shape[axis + 1 :])

    def members(self, count: int) -> Array:
        """Fields around the centre (count, fields, n)."""
        return torch.tensor(self.centre + self.deviation * self.around[:count]).to(self.dtype).double().numpy()


Maker = Callable[[Numbers, list[int], tuple[int, ...]], Any]


def normal(numbers: Numbers, fields: list[int], shape: tuple[int, ...]) -> Normal:
    return Normal(*(numbers.tensor(part, fields, shape) for part in (numbers.centre, numbers.deviation)))


def of_normal(numbers: Numbers, field: int) -> Field:
    return _single(numbers.centre[field], np.diag(numbers.deviation[field] ** 2))


def dense(numbers: Numbers, fields: list[int], shape: tuple[int, ...]) -> MultivariateNormal:
    root = numbers.tensor(numbers.mix, fields, shape).double()
    return MultivariateNormal(numbers.tensor(numbers.centre, fields, shape), (root @ root.mT).to(numbers.dtype))


def of_dense(numbers: Numbers, field: int) -> Field:
    root = numbers.mix[field]
    return _single(numbers.centre[field], torch.tensor(root @ root.T).to(numbers.dtype).double().numpy())


WEIGHTS = np.array([0.5, 0.3, 0.2])


def mixture(numbers: Numbers, fields: list[int], shape: tuple[int, ...]) -> Mixture:
    centres = numbers.tensor(numbers.members(COMPONENTS), fields, shape, axis=1)
    deviation = numbers.tensor(numbers.deviation, fields, shape).expand(centres.shape)
    return Mixture(Normal(centres, deviation), torch.tensor(WEIGHTS))


def of_mixture(numbers: Numbers, field: int) -> Field:
    covariance = np.diag(numbers.deviation[field] ** 2)
    return Field(WEIGHTS, numbers.members(COMPONENTS)[:, field], np.stack([covariance] * COMPONENTS))


class Answering(nn.Module):
    """A member that answers with a prediction."""

    def __init__(self, answer: Normal) -> None:
        super().__init__()
        self.answer = answer

    def forward(self) -> Normal:
        return self.answer


def ensemble(numbers: Numbers, fields: list[int], shape: tuple[int, ...]) -> MultivariateNormal:
    deviation = numbers.tensor(numbers.deviation, fields, shape)
    means = numbers.tensor(numbers.members(MEMBERS), fields, shape, axis=1)
    return Ensemble([Answering(Normal(mean, deviation)) for mean in means], own_variance=True)()


def of_ensemble(numbers: Numbers, field: int) -> Field:
    members = numbers.members(MEMBERS)[:, field]
    return _single(members.mean(0), np.cov(members.T) + np.diag(numbers.deviation[field] ** 2))


def samples(numbers: Numbers, fields: list[int], shape: tuple[int, ...]) -> MultivariateNormal:
    return from_samples(numbers.tensor(numbers.members(MEMBERS), fields, shape, axis=1))


def of_samples(numbers: Numbers, field: int) -> Field:
    members = numbers.members(MEMBERS)[:, field]
    return _single(members.mean(0), np.cov(members.T))


def projected(numbers: Numbers, fields: list[int], shape: tuple[int, ...]) -> Any:
    return condition(dense(numbers, fields, shape), NonNegative())


BANDWIDTH, ERROR = 0.6, 0.2


def empirical(numbers: Numbers, fields: list[int], shape: tuple[int, ...]) -> Mixture:
    """From the functions around the first field, by two noisy observations of each field at the first points."""
    functions = torch.tensor(numbers.members(FUNCTIONS)[:, 0])
    at = torch.arange(functions.shape[1], dtype=torch.float64)
    points = at[:, None].expand(*shape, -1, 1)
    values = numbers.tensor(numbers.centre, fields, shape)[..., :2]
    context = Context(points[..., :2, :], values, noise_variance=(ERROR * numbers.scale) ** 2)
    return EmpiricalGP(functions, [at], BANDWIDTH).predict(context, Query(points))


def of_empirical(numbers: Numbers, field: int) -> Field:
    functions = numbers.members(FUNCTIONS)[:, 0]
    mean, covariance = functions.mean(0), BANDWIDTH**2 * np.cov(functions.T)
    centres = mean + np.sqrt(1 - BANDWIDTH**2) * (functions - mean)
    prior = Field(np.full(FUNCTIONS, 1 / FUNCTIONS), centres, np.stack([covariance] * FUNCTIONS))
    noise = torch.full((2,), (ERROR * numbers.scale) ** 2, dtype=numbers.dtype).double().numpy()
    found = conditioned(prior, Rows(np.eye(len(mean))[:2], numbers.centre[field, :2], noise)).field
    order = np.argsort(-found.weights)
    return Field(found.weights[order], found.means[order], found.covariances[order])


@cache
def drawn(numbers: Numbers, field: int) -> Tensor:
    """Draws of a flow whose data are Gaussian around one field (s, n)."""
    data = torch.tensor(numbers.members(DRAWS)[:, field])
    latent = KarhunenLoeve.of(data, data.shape[1])
    flow = of_gaussian(latent)
    return flow.sample(DRAWS, options=SamplingOptions(steps=4), seed=field).to(numbers.dtype)


def flow_draws(numbers: Numbers, fields: list[int], shape: tuple[int, ...]) -> DrawnFields:
    draws = torch.stack([drawn(numbers, field) for field in fields], dim=1)
    return DrawnFields(draws.reshape(len(draws), *shape, draws.shape[-1]))


def of_flow_draws(numbers: Numbers, field: int) -> Field:
    draws = drawn(numbers, field).double().numpy()
    return _single(draws.mean(0), np.cov(draws.T))


def _single(mean: Array, covariance: Array) -> Field:
    return Field(np.ones(1), mean[None], covariance[None])


PRIORS: dict[str, tuple[Maker, Callable[[Numbers, int], Field]]] = {
    "normal": (normal, of_normal),
    "dense": (dense, of_dense),
    "mixture": (mixture, of_mixture),
    "ensemble": (ensemble, of_ensemble),
    "samples": (samples, of_samples),
    "projected": (projected, lambda numbers, field: replace(of_dense(numbers, field), lower=0.0)),
    "empirical": (empirical, of_empirical),
    "flow draws": (flow_draws, of_flow_draws),
}
"""How a prior is made in the library, and what it is for one of its fields."""
