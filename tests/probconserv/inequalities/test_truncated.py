"""Truncated Gaussians: closed forms, quadrature in one to three dimensions, Gibbs sampling in fifty, messages."""

import math

import mpmath
import numpy as np
import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri
from scipy.stats import truncnorm
from torch.distributions import Normal

from probconserv import (
    Bounded,
    LinearConstraint,
    Mixture,
    Monotone,
    NonlinearLaw,
    NonNegative,
    condition,
    from_samples,
    truncate,
)
from probconserv.errors import InfeasibleConstraintError, InvalidArgumentError
from probconserv.inequalities._moments import quantiles_between
from probconserv.prediction import Prediction
from tests.oracles import truncated_moments_by_quadrature
from tests.strategies import INEQUALITIES, positive_definite, projection_problem, seeds

double = torch.float64
few = settings(deadline=None, max_examples=10)
COUNT = 6000


@pytest.mark.parametrize(
    ("lower", "upper"),
    [(-1, 2), (0, math.inf), (-math.inf, 0), (3, 5), (-5, -3), (40, 41), (-math.inf, math.inf), (5, 5 + 1e-6)],
)
def test_quantiles_between_bounds_are_those_of_scipy(lower, upper):
    probability = np.concatenate([np.random.default_rng(0).random(1000), [0.0, 1e-300, 1e-17, 1.0]])
    bounds = np.full_like(probability, lower), np.full_like(probability, upper)
    expected = truncnorm.ppf(probability, *bounds)
    np.testing.assert_allclose(quantiles_between(probability, *bounds), expected, rtol=1e-12, atol=1e-15)


def require_moments(posterior, mean, variance, effective=COUNT / 10):
    """Moments of a chain within five standard errors of that many independent draws."""
    draws = posterior.sample((COUNT,), generator=torch.Generator().manual_seed(0))
    deviation = np.sqrt(variance)
    assert (np.abs(draws.mean(0).numpy() - mean) <= 5 * deviation / math.sqrt(effective) + 1e-12).all()
    # Fourth moments of truncated Gaussians are below 10 σ⁴, those of an exponential 9 σ⁴.
    assert (np.abs(draws.var(0).numpy() - variance) <= 15 * variance / math.sqrt(effective) + 1e-12).all()


def exact_moments(mean: float, scale: float, lower: float, upper: float) -> tuple[float, float]:
    """Mean and variance between bounds by the closed form, in 60 digits since up to 40 of them cancel."""
    with mpmath.workdps(60):
        centre, scale = mpmath.mpf(mean), mpmath.mpf(scale)
        ends = [(mpmath.mpf(end) - centre) / scale for end in (lower, upper)]
        sign = 1 if ends[0] + ends[1] > 0 else -1
        a, b = sorted(sign * end for end in ends)  # a tail on the right, which erfc resolves
        density = [mpmath.npdf(end) for end in (a, b)]
        moments = [end * value if mpmath.isfinite(end) else 0 for end, value in zip((a, b), density, strict=True)]
        total = (mpmath.erfc(a / mpmath.sqrt(2)) - mpmath.erfc(b / mpmath.sqrt(2))) / 2
        first = (density[0] - density[1]) / total
        variance = 1 + (moments[0] - moments[1]) / total - first**2
        return float(centre + sign * scale * first), float(scale**2 * variance)


# Exact


@pytest.mark.parametrize("mean", [0.0, -2.0, -10.0, -30.0, 3.0])
def test_independent_values_have_closed_forms(mean):
    posterior = truncate(
        Normal(torch.full((4,), mean, dtype=double), torch.full((4,), 0.5, dtype=double)), NonNegative()
    )
    exact, _ = exact_moments(mean, 0.5, 0.0, math.inf)
    assert posterior.is_exact
    assert posterior.mean.tolist() == pytest.approx([exact] * 4, rel=1e-12)
    draws = posterior.sample((20_000,), generator=torch.Generator().manual_seed(0))
    assert float(draws.min()) >= 0
    assert float(draws.mean()) == pytest.approx(exact, rel=0.03)
    assert float(posterior.variance[0]) == pytest.approx(float(draws.var()), rel=0.05)


@pytest.mark.parametrize("scale", [1.0, 1e-5])
@pytest.mark.parametrize(
    ("below", "above"),
    [
        *[(0.0, width) for width in (1e-9, 1e-5, 0.1, 3.0, 20.0, math.inf)],
        *[(-1.0, width) for width in (1e-9, 0.1, 3.0, math.inf)],
        *[(-20.0, 1e-3), (-20.0, 8.5), (-math.inf, 2.0), (-8.9, 8.8)],
        *[(start, start + width) for start in (1e-3, 1.0, 30.0) for width in (1e-6, 0.5, 9.0, math.inf)],
        *[(start, start + width) for start in (1e3, 1e4) for width in (0.125, 1.0, math.inf)],
    ],
)
def test_moments_between_bounds_have_all_their_digits(below, above, scale):
    """Bounds in deviations from the mean, on either side of it: far away, close together, 10,000 deviations off."""
    lower, upper = below * scale, above * scale
    prior = Normal(torch.zeros(2, dtype=double), torch.full((2,), scale, dtype=double))
    bounds = Bounded(torch.tensor([lower, -upper], dtype=double), torch.tensor([upper, -lower], dtype=double))
    posterior = truncate(prior, bounds)
    mean, variance = exact_moments(0.0, scale, lower, upper)
    nearest = min(max(0.0, lower), upper)
    slack = 1e-12 * (abs(nearest) + math.sqrt(variance))
    assert posterior.mean.tolist() == pytest.approx([mean, -mean], rel=0, abs=slack)
    assert posterior.variance.tolist() == pytest.approx([variance] * 2, rel=1e-12)
    assert bool(((posterior.mean >= bounds.lower) & (posterior.mean <= bounds.upper)).all())


def test_moments_far_from_the_mean_stay_within_the_bounds():
    """Where only the distance from the nearer bound has digits: 1 - 1e-4, 1e-9 and the middle of a narrow interval."""
    prior = Normal(torch.tensor([1e4, -0.1, 5.0], dtype=double), torch.tensor([1.0, 1e-5, 1.0], dtype=double))
    posterior = truncate(prior, Bounded(0.0, torch.tensor([1.0, math.inf, 1e-9], dtype=double)))
    exact = [exact_moments(1e4, 1.0, 0.0, 1.0), exact_moments(-0.1, 1e-5, 0.0, math.inf), (5e-10, 1e-18 / 12)]
    assert posterior.mean.tolist() == pytest.approx([mean for mean, _ in exact], rel=1e-8)
    assert posterior.variance.tolist() == pytest.approx([variance for _, variance in exact], rel=1e-8)
    single = truncate(Normal(prior.loc[:1].float(), prior.scale[:1].float()), Bounded(0.0, 1.0))
    assert float(single.variance) == pytest.approx(exact[0][1], rel=1e-6)
    beyond = truncate(Normal(torch.tensor([-1e160], dtype=double), torch.tensor([1e-160], dtype=double)), NonNegative())
    assert (float(beyond.mean), float(beyond.variance)) == (0.0, 0.0)  # 10³²⁰ deviations are infinitely many


def test_fixed_values_and_infinite_bounds_stay():
    prior = Normal(torch.tensor([0.0, 1.0, 2.0]).double(), torch.tensor([1.0, 0.0, 1.0]).double(), validate_args=False)
    posterior = truncate(prior, Bounded(torch.tensor([-math.inf, 0.0, 5.0]).double(), torch.tensor([math.inf, 9, 5.0])))
    assert posterior.mean.tolist() == [0.0, 1.0, 5.0]
    assert posterior.variance.tolist() == [1.0, 0.0, 0.0]
    assert posterior.sample((3,))[:, 1:].tolist() == [[1.0, 5.0]] * 3


# Oracles


@few
@given(seeds, st.integers(1, 3), st.sampled_from([0, 1]), st.booleans())
def test_moments_agree_with_quadrature(seed, n, k, dense):
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(n, dtype=double, generator=generator)
    covariance = positive_definite(n, generator) if dense else torch.diag(torch.rand(n, dtype=double) + 0.1)
    rows = torch.rand(k, n, dtype=double, generator=generator) + 0.5
    b = torch.full((k,), 0.7, dtype=double)
    inequality = Bounded(0.0, 1.5)
    law = inequality if not k else LinearConstraint(rows, b, noise_variance=0.2) & inequality
    posterior = truncate(MultivariateNormal(mean, covariance), law)
    exact = truncated_moments_by_quadrature(mean.numpy(), covariance.numpy(), rows.numpy(), b.numpy(), 0.2, (0.0, 1.5))
    require_moments(posterior, *exact)


def test_a_triangle_agrees_with_quadrature():
    """Three non-negative values with an exact total: a Gaussian on a triangle, by a grid in its plane."""
    mean, scale = np.array([0.6, -0.5, 0.2]), np.array([0.5, 0.8, 0.3])
    side = np.linspace(0, 1, 1501)[:-1] + 0.5 / 1500
    first, second = np.meshgrid(side, side, indexing="ij")
    fields = np.stack([first, second, 1 - first - second])
    density = np.exp(-0.5 * (((fields - mean[:, None, None]) / scale[:, None, None]) ** 2).sum(0)) * (fields[2] > 0)
    density /= density.sum()
    expected = (fields * density).sum((1, 2))
    variance = (fields**2 * density).sum((1, 2)) - expected**2
    law = LinearConstraint(torch.ones(1, 3), torch.ones(1)) & NonNegative()
    require_moments(truncate(Normal(torch.as_tensor(mean), torch.as_tensor(scale)), law), expected, variance)


def test_fifty_ordered_values_agree_with_gibbs_sampling():
    """An independent sampler: one value at a time from its truncated conditional, 60,000 sweeps of an AR(1) prior."""
    n, sweeps, generator = 50, 20_000, np.random.default_rng(0)
    mean = np.linspace(0.5, -0.3, n)
    index = np.arange(n)
    covariance = 0.04 * 0.7 ** np.abs(index[:, None] - index)
    precision = np.linalg.inv(covariance)
    deviation = 1 / np.sqrt(precision.diagonal())
    chains = 20
    u = np.abs(np.tile(mean, (chains, 1)))
    total, squares, count = np.zeros(n), np.zeros(n), 0
    for sweep in range(sweeps // chains):
        uniform = generator.random((n, chains))
        for i in range(n):
            centre = u[:, i] - ((u - mean) @ precision[i]) / precision[i, i]
            lowest = ndtr(centre / deviation[i])  # the probability above 0, by symmetry
            u[:, i] = centre - deviation[i] * ndtri(uniform[i] * lowest)
        if sweep >= 50:
            total, squares, count = total + u.sum(0), squares + (u**2).sum(0), count + chains
    expected = total / count
    posterior = truncate(MultivariateNormal(torch.as_tensor(mean), torch.as_tensor(covariance)), NonNegative())
    require_moments(posterior, expected, squares / count - expected**2, effective=COUNT / 20)


# Invariants


@few
@given(seeds, st.sampled_from(INEQUALITIES), st.booleans(), st.booleans())
def test_draws_and_mean_meet_law_and_inequalities(seed, inequality, dense, batched):
    mean, scale, weights, total = projection_problem(seed, 9, (2,) if batched else ())
    generator = torch.Generator().manual_seed(seed)
    prior = MultivariateNormal(mean, positive_definite(9, generator)) if dense else Normal(mean, scale)
    joined = LinearConstraint(weights[None], total[..., None]) & inequality
    posterior = truncate(prior, joined, draws=50)
    assert isinstance(posterior, Prediction)
    draws = posterior.sample((20,), generator=generator)
    assert dense or torch.equal(posterior.mode, condition(prior, joined).mode)
    for u in (draws, posterior.mean):
        assert float(joined.law.residual(u).abs().max()) <= 1e-11
        assert bool(((u >= joined.lower) & (u <= joined.upper)).all())
        assert not joined.order or bool((joined.order * u.diff() >= 0).all())
    assert draws.shape == (20, *mean.shape)
    assert bool((posterior.variance > 0).all())


def test_draws_repeat_with_the_generator_and_keep_the_precision():
    law = LinearConstraint(torch.ones(1, 4), torch.ones(1)) & NonNegative()
    posterior = truncate(Normal(torch.zeros(4), torch.ones(4)), law)
    draws = [posterior.rsample((5,), generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert draws[0].dtype == posterior.mean.dtype == torch.float32
    lower, upper = posterior.with_draws(100, seed=3).confidence_region()
    assert not bool(lower.any())
    assert bool((upper > posterior.mean).all())


def test_a_law_that_leaves_one_value_on_its_bound_leaves_the_others_free():
    law = LinearConstraint(torch.tensor([[1.0, 1.0, 0.0]]), torch.zeros(1)) & NonNegative()
    posterior = truncate(Normal(torch.zeros(3).double(), torch.ones(3).double()), law)
    draws = posterior.sample((4000,), generator=torch.Generator().manual_seed(0))
    assert not bool(draws[:, :2].any())
    assert float(draws[:, 2].mean()) == pytest.approx(math.sqrt(2 / math.pi), abs=0.05)


def test_mixtures_and_conditioned_predictions_are_truncated_too():
    mean, scale, weights, total = projection_problem(3, 6, (3, 2))
    law = LinearConstraint(weights[None], total[0][:, None])
    mixture = truncate(Mixture(Normal(mean, scale)), law & NonNegative(), keep_weights=True, draws=40)
    for u in (mixture.mean, mixture.sample((7,))):
        assert bool((u >= 0).all())
        assert float(law.residual(u).abs().max()) <= 1e-11
    single = truncate(condition(Normal(mean[0], scale[0]), law), NonNegative())
    assert float(law.residual(single.mean).abs().max()) <= 1e-11
    members = torch.rand(4, 6, dtype=double) + 0.1
    low_rank = truncate(from_samples(members), NonNegative(), draws=20)
    basis = (members - members[0])[1:].T
    off = low_rank.mean - members[0]
    assert float((off - basis @ torch.linalg.lstsq(basis, off[:, None]).solution[:, 0]).abs().max()) <= 1e-12


def test_invalid_arguments_raise_with_reason():
    prior = Normal(torch.zeros(3).double().requires_grad_(), torch.ones(3).double())
    posterior = truncate(prior, NonNegative())
    for moment in (lambda: posterior.mean, lambda: posterior.rsample((2,))):
        with pytest.raises(InvalidArgumentError, match="no derivatives"):
            moment()
    assert posterior.sample((2,)).shape == (2, 3)
    with pytest.raises(InvalidArgumentError, match="needs inequalities"):
        truncate(prior, LinearConstraint(torch.ones(1, 3), torch.ones(1)))
    squares = NonlinearLaw(residual_function=lambda u: u.square().sum(-1, keepdim=True) - 1, points=3)
    under_squares = condition(Normal(torch.ones(3), 1.0), squares)
    for base, stated in ((prior, squares & NonNegative()), (prior, squares), (under_squares, NonNegative())):
        with pytest.raises(InvalidArgumentError, match="no NonlinearLaw"):
            truncate(base, stated)
    with pytest.raises(InvalidArgumentError, match="keep_weights=True"):
        truncate(Mixture(Normal(torch.zeros(2, 3), torch.ones(2, 3))), NonNegative())
    with pytest.raises(InfeasibleConstraintError, match="between"):
        truncate(prior, LinearConstraint(torch.ones(1, 3), -torch.ones(1)) & NonNegative())
    for total in (0.0, 3.0):
        full = truncate(
            Normal(torch.zeros(3), 1.0), LinearConstraint(torch.ones(1, 3), torch.tensor([total])) & Bounded(0.0, 1.0)
        )
        assert torch.equal(full.mode, torch.full((3,), total / 3))
        with pytest.raises(InfeasibleConstraintError, match="only fields on a bound"):
            full.rsample((2,))
    rows = torch.tensor([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0]])
    with torch.no_grad(), pytest.raises(InfeasibleConstraintError, match="does not exist"):
        truncate(prior, LinearConstraint(rows, torch.zeros(2)) & Monotone() & Bounded(0.0, 1e-9)).mean  # noqa: B018


def rising_chain(**options):
    """Independent values with a total and an order, whose draws are a Markov chain."""
    prior = Normal(torch.linspace(4, 0, 8, dtype=torch.float64), torch.full((8,), 0.3, dtype=torch.float64))
    law = LinearConstraint(torch.full((1, 8), 0.125), torch.tensor([0.5]))
    return truncate(prior, law & NonNegative() & Monotone(), **options)


def test_the_effective_size_is_that_of_the_spread_of_means():
    """Means of 40 chains spread as those of so many independent draws do, within the error of 40."""
    one = rising_chain(draws=300)
    size = float(one.effective_size)
    assert 5 < size < 150
    means = torch.stack([one.with_draws(300, seed).mean for seed in range(40)])
    sizes = [float(one.with_draws(300, seed).effective_size) for seed in range(5)]
    found = float((one.variance / means.var(dim=0)).mean())
    assert found == pytest.approx(sum(sizes) / 5, rel=0.5)


def test_thinned_draws_are_worth_more_and_are_those_of_the_chain():
    plain, thin = rising_chain(draws=300), rising_chain(draws=300, thinning=8)
    assert float(thin.effective_size) > 2 * float(plain.effective_size)
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    every, eighth = (
        each.sample(torch.Size([n]), generator=g)
        for each, n, g in zip((plain, thin), (80, 10), generators, strict=True)
    )
    assert torch.allclose(every[7::8], eighth)
    assert thin.with_draws(20).thinning == 8
    with pytest.raises(InvalidArgumentError, match="thinning must be at least 1"):
        rising_chain(thinning=0)


def test_exact_draws_are_worth_infinitely_many_and_an_empty_batch_has_none():
    prior = Normal(torch.zeros(2, 3, dtype=torch.float64), torch.ones(2, 3, dtype=torch.float64))
    assert truncate(prior, NonNegative()).effective_size.tolist() == [math.inf] * 2
    empty = Normal(torch.zeros(0, 3, dtype=torch.float64), torch.ones(0, 3, dtype=torch.float64), validate_args=False)
    law = LinearConstraint(torch.ones(1, 3), torch.ones(0, 1))
    assert truncate(empty, law & NonNegative()).sample(torch.Size([4])).shape == (4, 0, 3)
