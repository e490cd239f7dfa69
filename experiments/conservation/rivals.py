"""Rivals without a network: functions of the training range themselves, and the law's total alone.

The problems have one parameter, which a total may give away: a prediction that beats these has learnt something of the
field, and one that does not has not. All functions here are closed forms.
"""

from functools import lru_cache
from itertools import product

import torch
from gpytorch.distributions import MultivariateNormal
from typing_extensions import override

from experiments.conservation.cases import Case
from probconserv import Context, EmpiricalGP, Query, scores
from probconserv.surrogates.surrogate import Surrogate
from solvers.problems import Problem, sampling

FUNCTIONS, TIMES, POINTS = 400, 100, 201
"""Functions at equally spaced parameters, and the grid that they are interpolated on."""
TRIED = 2000
"""Parameters whose total is compared with the law's."""
LEAST = 1e-3
"""Standard deviation that a prediction has at least, in the units of the field."""
NOISES = (0.003, 0.01, 0.03)
"""Deviations of observations from interpolated functions that are tried on validation functions."""
NARROW = (0.02,)
"""Bandwidth of the search among functions: each is hardly moved, so that its weight is all that counts."""
WIDE = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)


class Functions(Surrogate):
    """An EmpiricalGP whose observations are known up to an error of its own; those before ``start`` count as then."""

    def __init__(self, functions: EmpiricalGP, noise: float, start: float) -> None:
        super().__init__()
        self.functions, self.noise, self.start = functions, noise, start

    @override
    def predict(self, context: Context, query: Query) -> MultivariateNormal:
        points = torch.cat([context.points[..., :1].clamp_min(self.start), context.points[..., 1:]], dim=-1)
        seen = Context(points, context.values, context.problem, noise_variance=self.noise**2)
        prediction = self.functions.predict(seen, query)
        assert isinstance(prediction, MultivariateNormal)
        least = torch.full_like(prediction.mean, LEAST**2)
        return MultivariateNormal(prediction.mean, prediction.lazy_covariance_matrix.add_diagonal(least))


class Inverted(Surrogate):
    """The functions of the training range whose total is the law's at the test time; it sees no observation."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.problem, self.total = case.problem, case.problem.total(case.problem.test_time, case.parameter)

    @override
    def predict(self, context: Context, query: Query) -> MultivariateNormal:
        parameter = sampling.even_parameters(self.problem.training_range, TRIED)
        totals = self.problem.total(self.problem.test_time, parameter)
        apart = (totals - self.total).abs()
        width = apart.min() + (totals.max() - totals.min()) / TRIED
        near = apart <= width
        x = query.points[..., :1, :, 1]  # the same for all functions
        fields = self.problem.solution(self.problem.test_time, x, parameter[near].reshape(-1, *[1] * x.ndim))
        mean, apart = fields.mean(dim=0), (fields - fields.mean(dim=0)) / len(fields) ** 0.5
        covariance = torch.einsum("p...i,p...j->...ij", apart, apart) + LEAST**2 * torch.eye(x.shape[-1]).to(mean)
        shape = query.points.shape[:-1]
        return MultivariateNormal(mean.expand(shape), covariance.expand(*shape, shape[-1]))


@lru_cache(maxsize=4)
def functions_of(problem: Problem, bandwidths: tuple[float, ...], seed: int) -> Functions:
    """The functions of the training range with the bandwidth and noise that suit validation functions of it."""
    times = problem.final_time * torch.linspace(0.01, 1.0, TIMES, dtype=torch.float64).square()
    points = torch.linspace(*problem.domain, POINTS, dtype=torch.float64)
    parameter = sampling.even_parameters(problem.training_range, FUNCTIONS)[:, None, None]
    process = EmpiricalGP(problem.solution(times[:, None], points, parameter), (times, points), mixture=False)
    generator = torch.Generator().manual_seed(seed)
    unseen = sampling.random_parameters(problem, 20, generator)
    batch = sampling.sample_exact(problem, unseen, sampling.Protocol(), generator)
    context, query = Context(batch.context_points, batch.context_values), Query(batch.target_points)

    def error(choice: tuple[float, float]) -> float:
        noise, process.bandwidth = choice
        prediction = Functions(process, noise, float(times[0])).predict(context, query)
        return float(scores.crps(batch.target_values, prediction.mean, prediction.variance).mean())

    noise, process.bandwidth = min(product(NOISES, bandwidths), key=error)
    return Functions(process, noise, float(times[0]))
