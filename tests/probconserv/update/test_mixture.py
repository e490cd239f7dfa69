"""Mixtures: moments, draws, density, and their update component by component."""

import math

import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_operator.operators import DiagLinearOperator, PsdSumLinearOperator, RootLinearOperator
from torch.distributions import Categorical, MixtureSameFamily, Normal

from probconserv import Bounded, LinearConstraint, Mixture, NonNegative, condition
from probconserv._linalg.gaussian import FieldGaussian
from probconserv.errors import InvalidArgumentError
from probconserv.inequalities.projected import Projected
from probconserv.posterior import Posterior
from probconserv.prediction import Prediction
from probconserv.sampling import draw
from tests.strategies import positive_definite, seeds

few = settings(deadline=None, max_examples=20)


def make_mixture(seed, batch=(3,), n=5, components=4, weights=None):
    generator = torch.Generator().manual_seed(seed)
    loc, scale = torch.randn(2, components, *batch, n, dtype=torch.float64, generator=generator)
    return Mixture(Normal(loc, scale.abs() + 0.1), weights)


@few
@given(seeds, st.booleans())
def test_moments_and_density_equal_those_of_torch(seed, weighted):
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4] if weighted else [0.25] * 4, dtype=torch.float64)
    mixture = make_mixture(seed, weights=weights if weighted else None)
    components = mixture.components
    per_value = MixtureSameFamily(
        Categorical(weights), Normal(components.loc.movedim(0, -1), components.scale.movedim(0, -1))
    )
    assert torch.allclose(mixture.mean, per_value.mean, rtol=1e-13, atol=1e-15)
    assert torch.allclose(mixture.variance, per_value.variance, rtol=1e-12)
    u = torch.randn(6, 3, 5, dtype=torch.float64)
    joint = torch.stack(
        [Normal(components.loc[c], components.scale[c]).log_prob(u).sum(-1) + weights[c].log() for c in range(4)]
    ).logsumexp(0)
    assert torch.allclose(mixture.log_prob(u), joint, rtol=1e-12)


@few
@given(seeds)
def test_every_component_and_every_draw_meets_the_law(seed):
    mixture = make_mixture(seed)
    law = LinearConstraint(torch.rand(1, 5).double() + 0.1, torch.randn(3, 1).double())
    conditioned = condition(mixture, law)
    assert isinstance(conditioned, Mixture)
    assert isinstance(conditioned.components, Posterior)
    assert torch.equal(condition(mixture, law, keep_weights=True).weights, mixture.weights)
    draws = conditioned.rsample(torch.Size([9]))
    # A few roundings of numbers of order one.
    for u in (conditioned.components.mean, conditioned.mean, draws):
        assert float(law.residual(u).abs().max()) <= 1e-13
    assert bool(torch.isfinite(conditioned.log_prob(draws)).all())


def test_a_draw_belongs_to_one_component():
    # Components far apart: each draw lies near one of them in all its values, not near several.
    loc = torch.tensor([-100.0, 0.0, 100.0]).double()[:, None, None].expand(3, 2, 4)
    draws = Mixture(Normal(loc, torch.ones_like(loc))).sample((200,), generator=torch.Generator().manual_seed(2))
    nearest = (draws[..., None] - loc[:, 0, 0]).abs().argmin(-1)
    assert bool((nearest == nearest[..., :1]).all())
    assert set(nearest.unique().tolist()) == {0, 1, 2}
    assert not torch.equal(nearest[:, 0], nearest[:, 1])


def test_gaussians_with_full_covariance_are_components_too():
    generator = torch.Generator().manual_seed(3)
    gaussians = MultivariateNormal(torch.randn(3, 6, dtype=torch.float64), positive_definite(6, generator, (3,)))
    mixture = Mixture(gaussians)
    assert isinstance(mixture, Prediction)
    assert mixture.batch_shape == ()
    assert mixture.event_shape == (6,)
    draws = mixture.rsample((2,))
    assert draws.shape == (2, 6)
    assert mixture.log_prob(draws).shape == (2,)
    lower, upper = mixture.confidence_region()
    assert torch.allclose(upper - lower, 4 * mixture.stddev)


def test_components_keep_variances_below_the_floor_of_gpytorch():
    variance = torch.tensor([0.0, 1e-18, 1e-12], dtype=torch.float64)
    mixture = Mixture(MultivariateNormal(torch.zeros(2, 3).double(), DiagLinearOperator(variance.expand(2, 3))))
    assert torch.allclose(mixture.variance, variance, rtol=1e-15, atol=0)


def shared_mixture(components=40, fields=3, n=6):
    """Components that share one covariance, one of which has most of the weight."""
    generator = torch.Generator().manual_seed(5)
    means, root = (
        torch.randn(*shape, generator=generator).double() for shape in ((components, fields, n), (1, 3, n, 2))
    )
    independent = torch.full((1, fields, n), 0.1, dtype=torch.float64)
    covariance = PsdSumLinearOperator(RootLinearOperator(root), DiagLinearOperator(independent))
    weights = torch.ones(components, fields, dtype=torch.float64)
    weights[7] = components
    return Mixture(FieldGaussian(means, covariance), weights / weights.sum(dim=0))


@pytest.mark.parametrize("conditioned", [False, True])
def test_components_that_share_a_covariance_are_drawn_together(monkeypatch, conditioned):
    mixture, law = shared_mixture(), LinearConstraint(torch.ones(1, 6).double(), torch.ones(3, 1).double())
    mixture = condition(mixture, law) if conditioned else mixture
    expected, calls = mixture.variance.sqrt(), []

    def counted(prediction, sample_shape, generator):
        calls.append((*sample_shape, *prediction.batch_shape))
        return draw(prediction, sample_shape, generator)

    monkeypatch.setattr("probconserv.mixture.draw", counted)
    total = 40_000
    draws = mixture.rsample(torch.Size([total]), generator=torch.Generator().manual_seed(0))
    assert calls == [(total, 3)]
    # Five standard errors of a mean, and of a standard deviation of a distribution with a kurtosis of ten at most.
    assert float(((draws.mean(dim=0) - mixture.mean) / expected).abs().max()) <= 5 / total**0.5
    assert float((draws.std(dim=0) / expected - 1).abs().max()) <= 5 * 1.5 / total**0.5
    if conditioned:
        assert float(law.residual(draws).abs().max()) <= 1e-13


def test_components_with_a_row_each_are_not_drawn_together():
    generator = torch.Generator().manual_seed(1)
    prior = MultivariateNormal(torch.zeros(2, 3).double(), DiagLinearOperator(torch.ones(1, 3).double()))
    law = LinearConstraint(torch.eye(2, 3).double()[:, None], torch.zeros(2, 1).double())
    draws = Mixture(Posterior(prior, law)).rsample(torch.Size([200]), generator=generator)
    assert bool(((draws[:, 0] == 0) != (draws[:, 1] == 0)).all())


def test_draws_in_several_goes_are_those_of_one(monkeypatch):
    """Where components do not vary, a draw is the mean of the component that was chosen for it."""
    means = torch.arange(1.0, 61.0, dtype=torch.float64).reshape(3, 5, 4).requires_grad_()
    mixture = Mixture(Normal(means, torch.full_like(means, 1e-300)))
    whole = mixture.rsample(torch.Size([40]), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr("probconserv.mixture.DRAWN_AT_ONCE", 2 * means.numel())
    parts = mixture.rsample(torch.Size([40]), generator=torch.Generator().manual_seed(0))
    assert torch.equal(parts, whole)
    (gradient,) = torch.autograd.grad(parts.sum(), means)
    torch.testing.assert_close(gradient.sum(dim=0), torch.full((5, 4), 40.0, dtype=torch.float64))


@pytest.mark.parametrize("draws", [2, 10])
def test_variance_under_an_inactive_bound_is_that_of_the_conditioned_gaussians(draws):
    """Against the closed form at the few draws a component that experiments take, many components."""
    count, n = 4000, 5
    generator = torch.Generator().manual_seed(6)
    scale = 0.5 + torch.rand(n, dtype=torch.float64, generator=generator)
    loc = 0.1 * torch.randn(count, n, dtype=torch.float64, generator=generator)
    weights = 0.5 + torch.rand(count, dtype=torch.float64, generator=generator)
    mixture = Mixture(Normal(loc, scale.expand(count, n)), weights / weights.sum())
    law = LinearConstraint(torch.full((1, n), 0.2).double(), torch.tensor([0.4]).double())
    bounded = condition(mixture, law & Bounded(-1e6, 1e6))
    assert isinstance(bounded, Mixture)
    assert isinstance(bounded.components, Projected)
    few = Mixture(bounded.components.with_draws(draws), bounded.weights)
    # One row with equal weights g: μ − v (Σ μ − b/g)/Σ v, and variance v − v²/Σ v, component by component.
    v, w = scale.square(), mixture.weights[:, None]
    means = loc - v * (loc.sum(-1, keepdim=True) - 0.4 / 0.2) / v.sum()
    centre = (w * means).sum(0)
    expected = v - v.square() / v.sum() + (w * (means - centre).square()).sum(0)
    # Of one component, within the draws: √(2/(d − 1)); the spread of the means adds less than the factor 1 − 1/d takes.
    error = math.sqrt(2 / (draws - 1) * float(mixture.weights.square().sum()))
    assert torch.allclose(few.variance, expected, rtol=5 * error)
    assert torch.allclose(few.mean, centre, atol=5 * float(expected.max().sqrt()) / math.sqrt(draws * count / 1.2))
    assert 5 * error < 0.5 / draws  # tight enough to see the spread of the means of draws


def test_moments_of_projected_components_are_those_of_all_their_draws():
    """Bounds that most draws meet at an edge, equal weights: mean and variance of the pooled draws."""
    loc = torch.randn(7, 2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    law = LinearConstraint(torch.ones(1, 6).double(), torch.tensor([2.0]).double())
    bounded = condition(Mixture(Normal(loc, torch.ones_like(loc))), law & NonNegative())
    components = bounded.components.with_draws(4)
    pooled = components.sample((4,), generator=torch.Generator().manual_seed(0)).flatten(0, 1)
    assert float((pooled == 0).double().mean()) > 0.2
    few = Mixture(components)
    assert torch.allclose(few.mean, pooled.mean(0), rtol=1e-12, atol=1e-14)
    assert torch.allclose(few.variance, pooled.var(0, correction=0), rtol=1e-12, atol=1e-14)


def test_invalid_arguments_raise_with_reason():
    with pytest.raises(InvalidArgumentError, match=r"\(components, \*batch, n\), got \(4,\)"):
        Mixture(Normal(torch.zeros(4), torch.ones(4)))
    for weights in (torch.tensor([0.5, 0.6]), torch.tensor([1.5, -0.5]), torch.ones(3) / 3):
        with pytest.raises(InvalidArgumentError, match=r"weights must be \(2,\), not negative, .* divide them by"):
            Mixture(Normal(torch.zeros(2, 4), torch.ones(2, 4)), weights)


@pytest.mark.parametrize("name", ["mode", "misfit", "log_evidence"])
def test_what_a_mixture_does_not_have_says_what_does(name):
    law = LinearConstraint(torch.ones(1, 5), torch.ones(1))
    for mixture in (make_mixture(0), condition(make_mixture(0), law)):
        assert not hasattr(mixture, name)
        with pytest.raises(AttributeError, match=rf"A Mixture has no {name}.*mixture\.components"):
            getattr(mixture, name)
    with pytest.raises(AttributeError, match="'Mixture' object has no attribute 'moed'"):
        _ = mixture.moed
