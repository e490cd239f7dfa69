"""How far fronts may be displaced is learnt from functions of a part of the range that a network has not seen."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator.operators import DiagLinearOperator
from torch import Tensor

from experiments import shift
from experiments.config import ConservationConfig
from experiments.conservation import Case
from experiments.shift import CONTEXT_NOISE, FRACTIONS, displacement, repaired
from experiments.storage import Arrays
from probconserv import Context, Mixture, Query, Surrogate
from probconserv.calibration import NoisyContext
from probconserv.surrogates.gp import GPConfig
from solvers.problems import BURGERS, STEFAN, Problem
from solvers.problems.sampling import FunctionBatch, sample_exact


class Misplaced(Surrogate):
    """Predicts the true field, displaced at random and too high.

    Args:
        problem: The problem.
        deviation: Standard deviation of the displacement, one a function, in the units of x.
        offset: What is added to the true field.
        variance: Variance that it claims.
    """

    def __init__(self, problem: Problem, deviation: float, offset: float = 0.0, variance: float = 1e-6) -> None:
        super().__init__()
        self.problem = problem
        self.deviation = deviation
        self.offset = offset
        self.variance = variance
        self.parameter = torch.full((5,), 0.6, dtype=torch.float64)

    def predict(self, context: Context, query: Query) -> MultivariateNormal:
        assert context.points.shape[:-2] == query.points.shape[:-2]
        normals = torch.randn(self.parameter.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        places = query.points[..., 1] - self.deviation * normals[:, None]
        mean = self.problem.solution(query.points[..., 0], places.clamp(*self.problem.domain), self.parameter[:, None])
        variance = torch.full_like(mean, self.variance)
        return MultivariateNormal(mean + self.offset, DiagLinearOperator(variance))


def case(surrogate: Surrogate, problem: Problem, functions: int, parameter: float = 0.6) -> Case:
    config = ConservationConfig(
        problem=problem.name, data="exact", seed=0, functions=functions, gp=GPConfig(smoothness=0.5)
    )
    return Case(problem, parameter, config, Path("unused"), {"edge": surrogate})


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> Callable[[Case], Arrays]:
    """``shift_scores`` of a case whose network is told the parameters of the functions."""

    def run(case: Case) -> Arrays:
        def told(problem: Problem, parameter: Tensor, *arguments: Any) -> FunctionBatch:
            case.surrogates["edge"].parameter = parameter
            return sample_exact(problem, parameter, *arguments)

        monkeypatch.setattr(shift, "sample_exact", told)
        return shift.shift_scores(case)

    return run


@pytest.mark.parametrize("problem", [STEFAN, BURGERS])
@pytest.mark.parametrize("fraction", [0.0, 0.005, 0.01, 0.03])
def test_the_displacement_of_a_front_is_found(
    scored: Callable[[Case], Arrays], problem: Problem, fraction: float
) -> None:
    assert fraction in FRACTIONS
    length = problem.domain[1] - problem.domain[0]
    arrays = scored(case(Misplaced(problem, fraction * length), problem, functions=200))
    assert arrays["LL"].shape == (len(FRACTIONS), 200)
    assert arrays["deviation"].tolist() == pytest.approx([length * candidate for candidate in FRACTIONS])
    assert displacement(arrays) == pytest.approx(fraction * length)


def test_only_functions_of_the_unseen_third_of_the_range_are_used(scored: Callable[[Case], Arrays]) -> None:
    network = Misplaced(STEFAN, 0.0)
    for parameter in STEFAN.test_parameters:
        scored(case(network, STEFAN, functions=100, parameter=parameter))
        # The range is [0.55, 0.7]; of 100 uniform draws the extremes lie within a tenth of the third's ends.
        assert 0.55 <= float(network.parameter.min()) < 0.555
        assert 0.595 < float(network.parameter.max()) <= 0.6


def test_likelihood_without_displacement_and_variance_factor_are_those_of_the_network(
    scored: Callable[[Case], Arrays],
) -> None:
    """Everywhere two too high at deviation 0.5: LL = −½ (16 + log π/2), and 16 times the variance."""
    arrays = scored(case(Misplaced(STEFAN, 0.0, offset=2.0, variance=0.25), STEFAN, functions=100))
    assert arrays["LL"][0] == pytest.approx(np.full(100, -0.5 * (16 + math.log(0.5 * math.pi))), rel=1e-12)
    assert arrays["factor"].shape == (1,)
    assert float(arrays["factor"][0]) == pytest.approx(16.0, rel=1e-12)


def test_the_displacement_is_the_best_on_average_over_the_functions() -> None:
    likelihood = np.array([[0.0, 0.0, 9.0], [4.0, 4.0, 4.0], [5.0, 5.0, -9.0]])
    arrays: Arrays = {"deviation": np.array([0.0, 0.1, 0.2]), "LL": likelihood}
    assert displacement(arrays) == 0.1


def test_remedies_stand_beside_the_black_boxes_and_use_what_was_learnt() -> None:
    network, other = Misplaced(STEFAN, 0.0, variance=0.01), Misplaced(STEFAN, 0.0)
    remedies = repaired({"anp": network, "edge": other}, {"factor": np.array([9.0])})
    assert list(remedies) == ["anp", "edge", "tempered", "context-calibrated", "noisy-context"]
    assert (remedies["anp"], remedies["edge"]) == (network, other)
    chosen = case(network, STEFAN, functions=5)
    context = chosen.context()
    query = Query(torch.stack((torch.full((5, 20), 0.05), torch.linspace(0, 1, 20).expand(5, -1)), dim=-1).double())
    plain = network.predict(context, query)
    tempered = remedies["tempered"].predict(context, query)
    assert torch.equal(tempered.mean, plain.mean)
    assert torch.allclose(tempered.variance, 9.0 * plain.variance, rtol=1e-12)
    # The network explains its context within its deviation, so there is nothing to calibrate.
    assert torch.allclose(remedies["context-calibrated"].predict(context, query).variance, plain.variance)
    noisy = remedies["noisy-context"]
    assert isinstance(noisy, NoisyContext)
    assert (noisy.surrogate, noisy.deviation) == (network, CONTEXT_NOISE)
    assert isinstance(noisy.predict(context, query), Mixture)
    rows = replace(chosen, surrogates=remedies).methods
    assert rows["ProbConserv-ANP (tempered)"].surrogate == "tempered"
    assert rows["ProbConserv-ANP (context-calibrated)"].surrogate == "context-calibrated"
    assert rows["ProbConserv-ANP (noisy context)"].surrogate == "noisy-context"
    assert "ProbConserv-ANP (displaced)" in rows
