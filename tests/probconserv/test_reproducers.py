"""Cases that release 0.1 got wrong, or misread without a word: one test a finding."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from scipy.stats import norm
from torch.distributions import Normal

from probconserv import Bounded, Mixture, Monotone, NonlinearLaw, NonNegative, condition, from_samples, scores
from probconserv.constraints import LinearConstraint, integral
from probconserv.errors import IncompatibleQueryError, InfeasibleConstraintError, InvalidArgumentError
from solvers import CellGrid
from tests.strategies import seeds

GRID = CellGrid(0.0, 1.0, 100)
double = torch.float64
few = settings(deadline=None, max_examples=25)


def total(values, **options):
    """One law: the values of the row, and b."""
    row = torch.as_tensor(values, dtype=double)
    return LinearConstraint(row[None], torch.tensor([options.pop("b")], dtype=double), **options)


@few
@given(seeds)
def test_totals_at_an_end_leave_one_field_for_any_prior_and_any_order(seed):
    generator = torch.Generator().manual_seed(seed)
    mean, scale, weights = torch.rand(3, 4, 12, dtype=double, generator=generator)
    prior, weights = Normal(3 * mean - 1.5, scale + 0.01), weights[0] + 0.01
    for end in (0.0, 1.0):
        law = total(weights, b=end * float(weights.sum()))
        for inequality in (Bounded(0.0, 1.0), Bounded(0.0, 1.0) & Monotone()):
            assert torch.equal(condition(prior, law & inequality).mean, torch.full((4, 12), end, dtype=double))


@few
@given(seeds)
def test_points_without_weight_stay_free_at_an_extreme_total(seed):
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(12, dtype=double, generator=generator)
    weights = torch.ones(12, dtype=double)
    weights[8:] = 0.0
    mode = condition(Normal(mean, torch.ones(12, dtype=double)), total(weights, b=0.0) & NonNegative()).mode
    assert torch.equal(mode, torch.where(weights > 0, 0.0, mean.clamp_min(0.0)))
    increasing = total(weights, b=0.0) & NonNegative() & Monotone()
    mode = condition(Normal(mean, torch.ones(12, dtype=double)), increasing).mode
    assert not bool(mode[:8].any())
    assert bool((mode.diff() >= 0).all())


@pytest.mark.parametrize("exponent", [3, 12, 20, 100, 300])
def test_tiny_totals_are_met(exponent):
    law = integral(torch.linspace(0, 1, 201), 10.0**-exponent) & NonNegative()
    mean = torch.sin(torch.arange(201, dtype=double))
    draws = condition(Normal(mean, torch.ones(201, dtype=double)), law).sample((20,))
    assert float(law.law.residual(draws).abs().max()) <= 1e-12 * 10.0**-exponent
    assert float(draws.min()) >= 0


def test_gradients_at_an_extreme_total_are_those_of_the_bound():
    lower = torch.zeros(5, dtype=double, requires_grad=True)
    prior = Normal(torch.randn(5, dtype=double).requires_grad_(), torch.ones(5, dtype=double))
    condition(prior, total(torch.ones(5), b=0.0) & Bounded(lower)).mode.sum().backward()
    assert torch.equal(lower.grad, torch.ones(5, dtype=double))
    assert not bool(prior.loc.grad.any())


def test_draws_are_scored_by_their_quantiles():
    """Half of an exponential's draws lie in the interval of its quantiles; the Gaussian formula says otherwise."""
    generator = torch.Generator().manual_seed(0)
    truth, draws = torch.empty(400), torch.empty(2000, 400)
    truth.exponential_(generator=generator), draws.exponential_(generator=generator)
    for level in (0.5, 0.9):
        covered = float(scores.coverage_of_samples(truth, draws, level))
        assert covered == pytest.approx(level, abs=5 * math.sqrt(level * (1 - level) / 400))
        lower, upper = scores.interval_of_samples(draws, level)
        expected = -math.log(1 - (1 - level) / 2), -math.log((1 - level) / 2)
        assert [float(end.mean()) for end in (lower, upper)] == pytest.approx(expected, rel=0.02)
    gaussian = float(scores.coverage(truth, draws.mean(0), draws.var(0), 0.5))
    assert abs(gaussian - 0.5) > 0.04  # what the interval of mean and variance says


def test_a_point_mass_is_covered():
    """A value that every draw puts on its bound is in every interval if the truth is there too, and in none else."""
    draws = torch.zeros(10, 2)
    assert float(scores.coverage_of_samples(torch.tensor([0.0, 0.1]), draws, 0.5)) == 0.5


def components_of_three_points(seed=0, noise=0.0):
    generator = torch.Generator().manual_seed(seed)
    loc, scale = torch.rand(2, 4, 2, 3, dtype=double, generator=generator)
    law = LinearConstraint(
        torch.tensor([[1.0, 2.0, 0.5]]).double(), torch.tensor([[1.0], [2.0]]).double(), noise_variance=noise
    )
    return Normal(loc, scale + 0.1), torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=double), law


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_weights_and_density_are_those_of_the_joint_density(noise):
    """Against p(u, b)/p(b) by scipy for a noisy law, and the ratio of evidences for an exact one."""
    components, weights, law = components_of_three_points(noise=noise)
    posterior = condition(Mixture(components, weights), law)
    row = law.rows[0].numpy()
    spread = torch.as_tensor((components.scale.numpy() ** 2 @ row**2 + noise) ** 0.5)
    evidence = weights[:, None] * torch.as_tensor(norm.pdf([1.0, 2.0], components.loc.numpy() @ row, spread.numpy()))
    assert torch.allclose(posterior.weights, evidence / evidence.sum(0), rtol=1e-12)
    if noise:
        u = torch.randn(5, 2, 3, dtype=double)
        prior = (weights[:, None] * components.log_prob(u[:, None]).sum(-1).exp()).sum(1)
        likelihood = torch.as_tensor(norm.pdf([1.0, 2.0], u.numpy() @ row, noise**0.5))
        assert torch.allclose(posterior.log_prob(u), (prior * likelihood / evidence.sum(0)).log(), rtol=1e-11)


def test_density_of_one_field_under_a_batch_of_mixtures():
    mixture = Mixture(Normal(torch.randn(4, 3, 3).double(), torch.ones(4, 3, 3).double()))
    u = torch.randn(3, dtype=double)
    assert torch.allclose(mixture.log_prob(u), mixture.log_prob(u.expand(3, 3)))
    with pytest.raises(InvalidArgumentError, match="3 points"):
        mixture.log_prob(torch.zeros(2))


@pytest.mark.parametrize("delta", [1e-4, 1e-5, 2e-6])
def test_nearly_dependent_rows_leave_the_variance_that_they_determine(delta):
    """Against rational arithmetic: rows (1, 1, 1) and (1 + δ, 1, 1) determine u₀."""
    rows = torch.tensor([[1.0, 1.0, 1.0], [1.0 + delta, 1.0, 1.0]], dtype=double)
    variance = torch.tensor([1.0, 0.7, 0.3], dtype=double)
    v, g, noise = [Fraction(x) for x in variance.tolist()], [[Fraction(x) for x in row] for row in rows.tolist()], 1e-20
    s = [[sum(a * b * c for a, b, c in zip(p, v, q, strict=True)) for q in g] for p in g]
    s[0][0] += Fraction(noise)
    s[1][1] += Fraction(noise)
    determinant = s[0][0] * s[1][1] - s[0][1] ** 2
    exact = []
    for j in range(3):
        p, q = g[0][j] * v[j], g[1][j] * v[j]
        lost = (s[1][1] * p * p - 2 * s[0][1] * p * q + s[0][0] * q * q) / determinant
        exact.append(float(v[j] - lost))
    posterior = condition(
        Normal(torch.zeros(3).double(), variance.sqrt()), LinearConstraint(rows, torch.zeros(2), noise_variance=noise)
    )
    assert posterior.variance.tolist() == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize("constraint", [total([1.0] * 3, b=1.0), total([1.0] * 3, b=1.0) & NonNegative()])
def test_an_empty_batch_gives_an_empty_batch(constraint):
    posterior = condition(Normal(torch.zeros(0, 3), torch.ones(0, 3)), constraint)
    assert posterior.mean.shape == posterior.variance.shape == (0, 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_draws_in_half_precision_have_a_density(dtype):
    prior = Normal(torch.ones(20, dtype=dtype), torch.full((20,), 0.1, dtype=dtype))
    posterior = condition(prior, total([0.05] * 20, b=1.25))
    draws = posterior.sample((5,), generator=torch.Generator().manual_seed(0))
    assert draws.dtype == dtype
    assert bool(torch.isfinite(posterior.log_prob(draws)).all())


def test_a_bare_tensor_means_members_and_warns():
    fields = torch.rand(4, 5, dtype=double)
    law = total([1.0] * 5, b=1.0)
    with pytest.warns(UserWarning, match="from_samples"):
        posterior = condition(fields, law)
    assert torch.equal(posterior.mean, condition(from_samples(fields), law).mean)


@pytest.mark.parametrize("inequalities", [None, NonNegative()])
def test_a_total_that_enlarges_the_batch_is_refused(inequalities):
    prior = Normal(torch.ones(7, 100).double(), torch.ones(7, 100).double())
    law = integral(GRID, torch.ones(7, 1))
    with pytest.raises(Exception, match=r"\(7, 1\).*\(7,\)"):
        condition(prior, law if inequalities is None else law & inequalities)


def test_a_flattened_field_needs_the_axis_of_its_order():
    grid = CellGrid((0.0, 0.0), (1.0, 1.0), (3, 4))
    with pytest.raises(InvalidArgumentError, match="axis"):
        integral(grid, 1.0) & Monotone()
    generator = torch.Generator().manual_seed(0)
    prior = Normal(torch.randn(12, dtype=double, generator=generator), torch.ones(12, dtype=double))
    for axis in (0, 1, -1):
        law = integral(grid, 1.0) & Monotone(decreasing=True, axis=axis, shape=(3, 4))
        for field in (condition(prior, law).mode, condition(prior, law).sample((3,))):
            assert bool((field.unflatten(-1, (3, 4)).diff(dim=axis if axis < 0 else axis - 2) <= 0).all())
            assert float((field.mean(-1) - 1).abs().max()) <= 1e-12


def test_invalid_arguments_raise_with_reason():
    mixture = Mixture(Normal(torch.zeros(4, 3), torch.ones(4, 3)))
    with pytest.raises(IncompatibleQueryError, match=r"mixture has the batch axes \(\)"):
        condition(mixture, LinearConstraint(torch.ones(1, 3), torch.zeros(4, 1)))
    prior = Normal(torch.zeros(2, 3).double() + 0.1, torch.ones(2, 3).double())
    goal = torch.tensor([[1.0], [-1.0]], dtype=double)
    with pytest.raises(Exception, match=r"batch entry \(1,\)"):
        condition(prior, NonlinearLaw(residual_function=lambda u: u.square().sum(-1, keepdim=True) - goal, points=3))
    prior = Normal(torch.zeros(100).double(), torch.ones(100).double())
    with pytest.raises(InfeasibleConstraintError, match="contradict"):
        condition(prior, integral(GRID, 1.0) & integral(GRID, 2.0))
    with pytest.raises(InvalidArgumentError, match="complex"):
        LinearConstraint(torch.ones(1, 3, dtype=torch.complex128), torch.zeros(1))
    n = 200_000  # its covariance would take 320 GB
    members = torch.randn(3, n, dtype=double)
    posterior = condition(from_samples(members), total(torch.ones(n), b=1.0))
    with pytest.raises(InvalidArgumentError, match="singular"):
        posterior.log_prob(posterior.mean)


def test_marginal_scores_have_gradients_where_the_density_has_none():
    mean = torch.zeros(5, dtype=double, requires_grad=True)
    posterior = condition(Normal(mean, torch.ones(5).double()), total([1.0] * 5, b=1.0))
    truth = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.2], dtype=double)
    assert float(posterior.log_prob(truth).detach()) == -math.inf
    loss = scores.nll(truth, posterior.mean, posterior.variance)
    expected = -norm.logpdf(truth.numpy(), posterior.mean.detach().numpy(), posterior.stddev.detach().numpy()).mean()
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-12)
    (gradient,) = torch.autograd.grad(loss, mean)
    assert bool(gradient.any())
