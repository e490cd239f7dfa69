"""Averages over displacements by the evidence of a law."""

import math

import pytest
import torch
from hypothesis import given, settings
from torch.distributions import Normal

from experiments.conservation.displacement import displaced_by_law
from probconserv import LinearConstraint, Mixture, condition, integral, scores
from probconserv.law_evidence import evidence
from solvers import NodeGrid
from tests.strategies import mixture, seeds

few = settings(deadline=None, max_examples=10)
GRID = NodeGrid(0.0, 1.0, 101)
X = GRID.points


def step(front: float) -> torch.Tensor:
    return torch.sigmoid((front - X) / 0.005)


def alone(mean: torch.Tensor, deviation: torch.Tensor) -> Mixture:
    """A mixture of one component."""
    return Mixture(Normal(mean[None], deviation[None]), torch.ones(1, dtype=torch.float64))


def predicted(mean: torch.Tensor, deviation: float = 0.002) -> Mixture:
    return alone(mean, torch.full_like(mean, deviation))


def law_of(front: torch.Tensor) -> LinearConstraint:
    return integral(GRID, front, noise_variance=1e-6)


def test_a_displaced_front_is_found_and_one_in_order_is_left() -> None:
    predictions = predicted(step(0.5).expand(2, -1))
    averaged = displaced_by_law(predictions, law_of(torch.tensor([0.56, 0.5005])), X)
    assert scores.mse(step(0.56), averaged.mean[0]) < 1e-3 < 0.04 < scores.mse(step(0.56), predictions.mean[0])
    plain = condition(predictions, integral(GRID, torch.tensor([0.56, 0.5005]))).mean[1]
    assert (averaged.mean[1] - plain).abs().max() < 0.02 * step(0.5).max()
    assert averaged.weights[0].tolist() == pytest.approx([0.0, 0.98], abs=0.02)  # H₀ of both functions


@pytest.mark.parametrize(
    ("truth", "factor"),
    [
        (torch.exp(-(((X - 0.5) / 0.05) ** 2)), 1.0),
        (1.1 * (1 + 0.3 * torch.sin(2 * math.pi * X)), 1 / 1.1),
        (0.2 * torch.sin(2 * math.pi * X) + 0.003, 1.0),
    ],
    ids=["a bump in its place", "a wave that is too low", "a wave with an offset"],
)
def test_what_ends_as_high_as_it_begins_is_conditioned_alone(truth: torch.Tensor, factor: float) -> None:
    """Its total hardly moves with it, whatever the residual says."""
    prior, total = predicted(factor * truth, 0.03), torch.trapezoid(truth, X)
    averaged = displaced_by_law(prior, integral(GRID, total + 1e-3, noise_variance=1e-8), X)
    conditioned = condition(prior, integral(GRID, total + 1e-3))
    assert averaged.weights.tolist() == [1.0]
    assert torch.allclose(averaged.mean, conditioned.mean, atol=1e-12)
    assert torch.allclose(averaged.variance, conditioned.variance, atol=1e-12)


def test_a_prediction_that_is_unsure_of_its_total_is_conditioned_alone() -> None:
    """Displacements move the total of a step of height 0.02 by less than its standard deviation of 0.01."""
    prior = predicted(0.02 * step(0.5), 0.1)
    assert displaced_by_law(prior, law_of(torch.tensor(0.012).double()), X).weights.tolist() == [1.0]


@few
@given(seeds)
def test_every_component_meets_the_exact_law_and_every_draw(seed: int) -> None:
    law = law_of(torch.tensor([0.4, 0.9], dtype=torch.float64))
    averaged = displaced_by_law(mixture(seed), law, X)
    assert law.residual(averaged.components.mean).abs().max() < 1e-12
    assert law.residual(averaged.sample(torch.Size([20]))).abs().max() < 1e-10
    assert torch.allclose(averaged.weights.sum(dim=0), torch.ones(2).double())


@few
@given(seeds)
def test_weights_are_those_of_the_stated_evidences(seed: int) -> None:
    """H₀ against a naive restatement, and H₁ as a sum over shifts and τ of scalar normal densities."""
    rough, law = mixture(seed, batch=1), law_of(torch.tensor([0.5], dtype=torch.float64))
    fronts = torch.stack([step(front)[None] for front in (0.49, 0.5, 0.505)])  # closer than they are moved
    prior = Mixture(Normal(fronts + 0.05 * rough.components.mean, 0.01 * rough.components.stddev), rough.weights)
    averaged = displaced_by_law(prior, law, X, deviation=0.02, prior_weight=0.3, shape_error=0.5)
    shifts = [0.005 * number for number in range(-12, 13)]
    prior_of = [math.exp(-0.5 * (shift / 0.02) ** 2) for shift in shifts]
    prior_of = [value / sum(prior_of) for value in prior_of]
    weight = law.rows[0]
    totals = []
    for shift in shifts:
        place = ((X - shift) * 100).clamp(0, 100)
        left = place.floor().long().clamp_max(99)
        mean = prior.mean[0]
        moved = mean[left] * (1 - (place - left)) + mean[left + 1] * (place - left)
        totals.append(float(weight @ moved))
    centre = sum(p * g for p, g in zip(prior_of, totals, strict=True))
    spread = math.sqrt(sum(p * (g - centre) ** 2 for p, g in zip(prior_of, totals, strict=True)))
    own = (prior.components.mean[:, 0] @ weight, (prior.components.variance[:, 0] * weight.square()).sum(dim=-1))
    mean_total = float((prior.weights[:, 0] * own[0]).sum())
    variance = float((prior.weights[:, 0] * (own[1] + (own[0] - mean_total) ** 2)).sum()) + 1e-6
    ends = math.log(1e-3), math.log(max(0.5 * spread, 1e-3))
    taus = [math.exp(ends[0] + (ends[1] - ends[0]) * number / 8) for number in range(9)]
    first = 0.0
    for p, g in zip(prior_of, totals, strict=True):
        density = [Normal(g, math.sqrt(variance + tau**2)).log_prob(torch.tensor(0.5).double()).exp() for tau in taus]
        first += p * float(sum(density)) / 9
    none = float(evidence(prior, law).log_evidence.exp())
    expected = 0.3 * first / (0.3 * first + 0.7 * none)
    assert float(averaged.weights[3:].sum()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("unit", [1e-3, 1e-9])
def test_averages_do_not_depend_on_units(unit: float) -> None:
    def averaged(unit: float) -> Mixture:
        mean, deviation = unit * step(0.5), unit * (0.003 + 0.02 * torch.exp(-(((X - 0.5) / 0.05) ** 2)))
        law = integral(GRID, torch.tensor(0.53 * unit, dtype=torch.float64), noise_variance=(1e-3 * unit) ** 2)
        return displaced_by_law(alone(mean, deviation), law, X)

    first, second = averaged(1.0), averaged(unit)
    torch.testing.assert_close(second.weights, first.weights)
    torch.testing.assert_close(second.mean / unit, first.mean, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(second.variance / unit**2, first.variance, rtol=1e-7, atol=1e-12)


def test_small_variances_of_large_values_stay() -> None:
    """Standard deviations of 1e-9 at values of 300, whose squares are known to 1e-11."""
    law = law_of(torch.tensor(300.53, dtype=torch.float64))
    averaged = displaced_by_law(predicted(300.0 + step(0.5), 1e-9), law, X)
    small = averaged.components.variance[:, :5]  # the profile is flat here
    assert small.min() >= 0
    torch.testing.assert_close(float(small.max()), 1e-18, rtol=0.1, atol=0)
