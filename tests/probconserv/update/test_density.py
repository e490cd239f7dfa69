"""Entropy, factors and Kullback-Leibler divergence of conditioned predictions, where there is a density or none."""

import hypothesis.strategies as st
import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from hypothesis import given, settings
from linear_operator.operators import DiagLinearOperator
from torch import Tensor
from torch.distributions import MultivariateNormal as TorchMultivariateNormal
from torch.distributions import Normal, kl_divergence

from probconserv import LinearConstraint, condition, from_samples
from probconserv._linalg.gaussian import FieldGaussian
from probconserv.errors import InvalidArgumentError
from probconserv.fields import block_means
from probconserv.posterior import Posterior

double = torch.float64
EPS = torch.finfo(double).eps
seeds = st.integers(0, 2**32 - 1)


def problem(seed: int, batch: tuple[int, ...] = (), n: int = 6, k: int = 2) -> tuple[Tensor, Tensor, LinearConstraint]:
    generator = torch.Generator().manual_seed(seed)
    mean, root = (
        torch.randn(*batch, n, dtype=double, generator=generator),
        torch.randn(n, n, dtype=double, generator=generator),
    )
    rows, totals, noise = torch.randn(k, n, dtype=double, generator=generator), torch.ones(k), torch.tensor([0.1, 0.3])
    return mean, root @ root.mT + torch.eye(n), LinearConstraint(rows, totals, noise_variance=noise[:k])


def dense(posterior, covariance: Tensor, law: LinearConstraint) -> TorchMultivariateNormal:
    """The same distribution from its precision matrix Σ⁻¹ + Gᵀ N⁻¹ G."""
    precision = torch.linalg.inv(covariance) + law.rows.mT @ (law.rows / law.noise[..., None])
    return TorchMultivariateNormal(posterior.mean.to(double), precision_matrix=precision)


@settings(max_examples=20, deadline=None)
@given(seeds, st.sampled_from([(), (3,), (1,), (2, 2)]))
def test_entropy_and_factors_under_a_noisy_law_are_those_of_the_dense_gaussian(seed, batch):
    mean, covariance, law = problem(seed, batch)
    posterior = condition(MultivariateNormal(mean, covariance.expand(*batch, 6, 6)), law)
    expected = dense(posterior, covariance, law)
    condition_number = float(torch.linalg.cond(expected.covariance_matrix).max())
    close = {"rtol": 100 * EPS * condition_number, "atol": 100 * EPS * condition_number}
    assert posterior.entropy().shape == batch
    assert torch.allclose(posterior.entropy(), expected.entropy(), **close)
    assert torch.allclose(posterior.scale_tril, expected.scale_tril, **close)
    assert torch.allclose(posterior.precision_matrix, expected.precision_matrix, **close)


def test_entropy_under_a_diagonal_or_structured_prior_keeps_its_digits_under_little_noise():
    """log det Σ′ = n log v + Σ log σ²/(v |g|² + σ²), here with σ² = 1e-18 v, where Σ′ itself is singular in float64."""
    prior = Normal(torch.zeros(8, dtype=double), 2 * torch.ones(8, dtype=double))
    noise = 4e-18
    constant = 8 * (1 + torch.log(torch.tensor(2 * torch.pi, dtype=double)))
    for law in (
        LinearConstraint(torch.ones(1, 8), torch.ones(1), noise_variance=noise),
        block_means(torch.ones(2), (4,)),
    ):
        law = LinearConstraint(law.G, law.b, noise_variance=noise)
        size = 4 * law.rows.square().sum(dim=-1) + noise
        expected = 0.5 * (constant + 8 * torch.tensor(4.0, dtype=double).log() + (noise / size).log().sum())
        assert torch.allclose(condition(prior, law).entropy(), expected, rtol=1e-13)
        with pytest.raises(InvalidArgumentError, match="covariance is singular"):
            _ = condition(prior, law).scale_tril


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_divergence_under_noisy_laws_is_that_of_the_dense_gaussians(seed):
    mean, covariance, law = problem(seed)
    prior = MultivariateNormal(mean, covariance)
    first, second = condition(prior, law), condition(MultivariateNormal(mean + 1, 2 * covariance), law)
    ours = {"first": first, "second": second}
    theirs = {"first": dense(first, covariance, law), "second": dense(second, 2 * covariance, law)}
    for left, right in (("first", "second"), ("second", "first"), ("first", "first")):
        expected = kl_divergence(theirs[left], theirs[right])
        for pair in ((ours[left], ours[right]), (theirs[left], ours[right]), (ours[left], theirs[right])):
            assert torch.allclose(kl_divergence(*pair), expected, rtol=1e-8, atol=1e-10)
    assert torch.allclose(
        kl_divergence(first, prior), kl_divergence(theirs["first"], TorchMultivariateNormal(mean, covariance))
    )


@pytest.mark.parametrize("n", [5, 33, 1000])
@pytest.mark.parametrize("kind", [MultivariateNormal, FieldGaussian, TorchMultivariateNormal])
def test_divergence_from_or_to_an_exact_law_is_infinite(n, kind):
    mean, scale = torch.rand(n, dtype=double), torch.rand(n, dtype=double) + 0.1
    prior = kind(mean, torch.diag(scale.square()))
    exact = condition(Normal(mean, scale), LinearConstraint(torch.rand(1, n), torch.ones(1)))
    noisy = condition(Normal(mean, scale), LinearConstraint(torch.rand(1, n), torch.ones(1), noise_variance=0.1))
    for other in (prior, noisy):
        assert kl_divergence(exact, other) == kl_divergence(other, exact) == torch.inf
    batch = condition(Normal(mean.expand(3, n), scale), LinearConstraint(torch.rand(1, n), torch.ones(3, 1)))
    assert torch.equal(kl_divergence(batch, prior), torch.full((3,), torch.inf, dtype=double))
    with pytest.raises(InvalidArgumentError, match="two predictions under exact laws"):
        kl_divergence(exact, exact)


def test_a_part_of_an_exact_prediction_or_members_without_noise_have_no_divergence():
    prior = Normal(torch.zeros(4, dtype=double), torch.ones(4, dtype=double))
    law = LinearConstraint(torch.ones(1, 4), torch.ones(1), noise_variance=0.1)
    noisy = condition(prior, law)
    members = from_samples(torch.rand(3, 4, dtype=double))
    walls = FieldGaussian(torch.zeros(4, dtype=double), DiagLinearOperator(torch.tensor([0.0, 1.0, 1.0, 1.0]).double()))
    for singular in (members, walls):
        with pytest.raises(InvalidArgumentError, match="singular"):
            kl_divergence(singular, noisy)
        with pytest.raises(InvalidArgumentError, match="singular"):
            condition(singular, law).entropy()


def test_part_of_an_exact_prediction_has_no_divergence_and_that_of_its_entries_and_shifts_is_infinite():
    generator = torch.Generator().manual_seed(0)
    scale = torch.rand(2, 9, dtype=double, generator=generator) + 0.1
    exact = condition(Normal(scale, scale), LinearConstraint(torch.rand(1, 9, generator=generator), torch.ones(1)))
    prior = FieldGaussian(scale[0], torch.diag(scale[0]))
    assert torch.isfinite(kl_divergence(prior, MultivariateNormal(scale[1], torch.diag(scale[1]))))
    for each in (exact[0], exact[0] + 1.0, exact[0] * 2.0):
        assert kl_divergence(each, prior) == kl_divergence(prior, each) == torch.inf
    parts = (exact[..., 0:], exact[0][0:])
    for pair in (*((part, prior) for part in parts), *((prior, part) for part in parts)):
        with pytest.raises(InvalidArgumentError, match="singular"):
            kl_divergence(*pair)


@pytest.mark.parametrize("of", [Posterior.entropy, lambda q: q.scale_tril, lambda q: q.precision_matrix])
def test_exact_rows_leave_no_density(of):
    prior = Normal(torch.zeros(4, dtype=double), torch.ones(4, dtype=double))
    law = LinearConstraint(torch.eye(4)[:2], torch.ones(2), noise_variance=torch.tensor([0.0, 0.1]))
    posterior = condition(prior, law)
    with pytest.raises(InvalidArgumentError, match=r"no Cholesky factor, .* exact rows leave no variance"):
        of(posterior)


def test_single_precision_and_gradients():
    scale = torch.ones(4, dtype=double, requires_grad=True)
    law = LinearConstraint(torch.ones(1, 4), torch.ones(1), noise_variance=0.1)
    entropy = lambda s: condition(Normal(torch.zeros(4).to(s), s), law).entropy()  # noqa: E731
    assert torch.autograd.gradcheck(entropy, scale)
    assert entropy(torch.ones(4)).dtype == torch.float32
    assert float(entropy(torch.ones(4))) == pytest.approx(float(entropy(scale).detach()), rel=1e-6)
