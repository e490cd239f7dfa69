"""Fields given a few of their values with noise: the exact posterior of their parameters, on a fine grid of them."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from experiments.generation.problem import GenerationProblem, weighted_moments
from probconserv import LinearConstraint
from probconserv.training.loop import random_seed

_GRID = 400  # parameters along every axis
_PART = 256  # fields made at a time
_LEAST = 1e-9  # weight of a parameter, relative to the largest, that is left out


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Values of one field at a few points, with noise.

    Args:
        places: Points as fractions of the time and of the length.
        parameters: Of the field.
        deviation: Standard deviation of the noise, of which the values given happen to have none.
    """

    places: tuple[tuple[float, float], ...]
    parameters: tuple[float, ...]
    deviation: float

    def nodes(self, count: int) -> list[tuple[int, int]]:
        """The nearest nodes of a grid."""
        return [(round(t * (count - 1)), round(x * (count - 1))) for t, x in self.places]

    def law(self, problem: GenerationProblem, count: int) -> LinearConstraint:
        """The values as rows."""
        places = self.nodes(count)
        u = problem.fields(torch.tensor([self.parameters], dtype=torch.float64), count)[0]
        rows = torch.zeros(len(places), u.numel(), dtype=u.dtype)
        rows[range(len(places)), [t * count + x for t, x in places]] = 1.0
        return LinearConstraint(rows.to_sparse(), rows @ u.flatten(), noise_variance=self.deviation**2)

    def draws(self, problem: GenerationProblem, count: int, nodes: int, seed: int) -> Float[Tensor, "count t x"]:
        """Fields of the posterior."""
        parameters, weights = _posterior(self, problem, nodes)
        generator = torch.Generator().manual_seed(random_seed(seed, 0, 0))
        chosen = parameters[weights.multinomial(count, replacement=True, generator=generator)]
        return torch.cat([problem.fields(part, nodes) for part in chosen.split(_PART)])

    def moments(self, problem: GenerationProblem, nodes: int) -> tuple[Float[Tensor, "t x"], Float[Tensor, "t x"]]:
        """Mean and standard deviation of the posterior."""
        return _moments(self, problem, nodes)


@lru_cache(maxsize=4)
def _posterior(seen: Seen, problem: GenerationProblem, nodes: int) -> tuple[Float[Tensor, "m d"], Float[Tensor, " m"]]:
    """Parameters in the middle of the cells of a grid, and their weights."""
    middles = (torch.arange(_GRID, dtype=torch.float64) + 0.5) / _GRID
    axes = [low + (high - low) * middles for low, high in problem.ranges]
    parameters = torch.cartesian_prod(*axes).reshape(-1, len(axes))
    times, points = problem.axes(nodes)
    columns = [column[:, None, None] for column in parameters.T]
    law, log_weights = seen.law(problem, nodes), torch.zeros(len(parameters), dtype=torch.float64)
    for (t, x), value in zip(seen.nodes(nodes), law.b, strict=True):
        values = problem.solution(times[t : t + 1, None], points[x : x + 1], *columns)[:, 0, 0]
        log_weights -= 0.5 * ((values - value) / seen.deviation).square()
    weights = log_weights.softmax(dim=0)
    likely = weights > _LEAST * weights.max()
    return parameters[likely], weights[likely] / weights[likely].sum()


@lru_cache(maxsize=4)
def _moments(seen: Seen, problem: GenerationProblem, nodes: int) -> tuple[Tensor, Tensor]:
    return weighted_moments(problem, nodes, *_posterior(seen, problem, nodes))
