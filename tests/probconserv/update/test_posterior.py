"""The conditioned Gaussian: density, draws, lazy covariance, and what gpytorch users expect of it."""

import math

import gpytorch
import numpy as np
import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from hypothesis import given, settings
from linear_operator.operators import (
    DenseLinearOperator,
    DiagLinearOperator,
    KroneckerProductLinearOperator,
    RootLinearOperator,
)
from scipy.stats import multivariate_normal
from torch.distributions import Normal

from probconserv import LinearConstraint, condition, from_samples, integral
from probconserv.errors import IncompatibleQueryError, InvalidArgumentError
from probconserv.fields import block_means
from probconserv.posterior import Posterior
from probconserv.prediction import Prediction
from probconserv.sampling import draw
from tests.oracles import condition_densely, log_density_on_surface
from tests.strategies import COVARIANCES, conditioning_problems, make_covariance, normal, positive_definite, seeds

FULL_RANK = tuple(kind for kind in COVARIANCES if kind != "low_rank")
few = settings(deadline=None, max_examples=30)


@few
@given(conditioning_problems(kinds=FULL_RANK, batches=((),)), seeds)
def test_density_on_the_surface_equals_a_change_of_variables(problem, seed):
    prior, law = problem
    posterior = condition(prior, law)
    u = posterior.rsample(generator=torch.Generator().manual_seed(seed))
    dense = prior.lazy_covariance_matrix.to_dense().numpy()
    expected = log_density_on_surface(u.numpy(), prior.mean.numpy(), dense, law.rows.numpy(), law.b.numpy())
    # Terms of up to |u|²/λ_min ≈ 1e10 would cancel to order n if the prior's and the target's densities were summed.
    assert float(posterior.log_prob(u)) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@few
@given(conditioning_problems(kinds=FULL_RANK, batches=((),), noise_variance=0.4), seeds)
def test_density_with_noise_is_that_of_the_dense_gaussian(problem, seed):
    prior, law = problem
    posterior = condition(prior, law)
    u = posterior.rsample(torch.Size([3]), generator=torch.Generator().manual_seed(seed))
    mean, covariance = condition_densely(
        prior.mean.numpy(),
        prior.lazy_covariance_matrix.to_dense().numpy(),
        *(part.numpy() for part in (law.rows, law.b, law.noise)),
    )
    expected = multivariate_normal.logpdf(u.numpy(), mean, covariance)
    np.testing.assert_allclose(posterior.log_prob(u).numpy(), expected, rtol=1e-9, atol=1e-7)


def test_density_with_exact_and_noisy_rows_together():
    generator = torch.Generator().manual_seed(0)
    n = 7
    mean, covariance = torch.randn(n, dtype=torch.float64, generator=generator), positive_definite(n, generator)
    rows = torch.randn(2, n, dtype=torch.float64, generator=generator)
    exact, noisy = (
        LinearConstraint(rows[:1], torch.ones(1)),
        LinearConstraint(rows[1:], torch.zeros(1), noise_variance=0.3),
    )
    posterior = condition(MultivariateNormal(mean, covariance), exact & noisy)
    u = posterior.rsample()
    halfway = condition_densely(mean.numpy(), covariance.numpy(), rows[1:].numpy(), np.zeros(1), np.array([0.3]))
    expected = log_density_on_surface(u.numpy(), *halfway, rows[:1].numpy(), np.ones(1))
    assert float(posterior.log_prob(u)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("noise", [1e-4, 1e-12, 1e-20])
def test_density_of_centred_members_with_little_noise(noise):
    generator = torch.Generator().manual_seed(2)
    n, members = 30, 6
    modes = torch.linalg.qr(torch.randn(n, members - 1, dtype=torch.float64, generator=generator))[0]
    scales = torch.logspace(0, -1, members - 1, dtype=torch.float64)
    centred = torch.linalg.qr(torch.eye(members, dtype=torch.float64)[:, 1:] - 1 / members)[0]
    assert centred.sum(dim=0).abs().max() < 1e-14, "the mean of the members is subtracted"
    along, beside = (torch.randn(size, dtype=torch.float64, generator=generator) for size in (members - 1, n))
    beside -= modes @ (modes.mT @ beside)
    root = torch.nn.functional.pad((modes * scales) @ centred.mT, (0, 0, 0, 1))
    covariance = RootLinearOperator(root) + DiagLinearOperator(torch.full((n + 1,), noise, dtype=torch.float64))
    last = LinearConstraint(torch.eye(n + 1, dtype=torch.float64)[-1:], torch.zeros(1))
    posterior = condition(MultivariateNormal(torch.zeros(n + 1).double(), covariance), last)
    u = torch.nn.functional.pad(modes @ (scales * along) + math.sqrt(noise) * beside, (0, 1))
    spread = Normal(0.0, (scales**2 + noise).sqrt()).log_prob(scales * along).sum()
    rest = -0.5 * (beside.square().sum() + (n - members + 1) * math.log(2 * math.pi * noise))
    # Rounding of u alone, 1e-16 beside noise of 1e-10, moves the second part by 1e-6 of its deviation.
    assert float(posterior.log_prob(u)) == pytest.approx(float(spread + rest), rel=1e-7)


@pytest.mark.parametrize("kind", FULL_RANK)
def test_density_does_not_depend_on_the_scaling_of_rows(kind):
    generator = torch.Generator().manual_seed(1)
    prior = MultivariateNormal(torch.zeros(12).double(), make_covariance(kind, 12, generator))
    rows, b = torch.randn(2, 12, dtype=torch.float64, generator=generator), torch.tensor([1.0, -3.0]).double()
    factor = torch.tensor([1e-8, 1e6], dtype=torch.float64)
    posterior = condition(prior, LinearConstraint(rows, b))
    u = posterior.rsample(torch.Size([4]), generator=generator)
    scaled = condition(prior, LinearConstraint(factor[:, None] * rows, factor * b))
    assert torch.allclose(scaled.log_prob(u), posterior.log_prob(u), rtol=1e-11)


def test_density_is_minus_infinity_off_the_surface_only():
    law = integral(torch.linspace(0, 1, 9).double(), 0.5)
    posterior = condition(Normal(torch.zeros(9).double(), torch.ones(9).double()), law)
    u = posterior.rsample()
    assert math.isfinite(float(posterior.log_prob(u)))
    assert float(posterior.log_prob(u + 1e-6)) == -math.inf
    assert math.isfinite(float(posterior.log_prob(u + 1e-12)))
    single = condition(Normal(torch.zeros(9), torch.ones(9)), law)
    assert math.isfinite(float(single.log_prob(single.rsample())))
    assert float(single.log_prob(single.rsample() + 1e-3)) == -math.inf


@pytest.mark.parametrize("kind", ["diagonal", "dense"])
def test_nodes_without_variance_carry_no_density(kind):
    # The same distribution without those nodes, whose share of the total is taken to the other side.
    generator = torch.Generator().manual_seed(2)
    n = 8
    mean, covariance = torch.randn(n, dtype=torch.float64, generator=generator), positive_definite(n, generator)
    if kind == "diagonal":
        covariance = torch.diag(covariance.diagonal())
    covariance[0], covariance[:, 0] = 0.0, 0.0
    operator = DiagLinearOperator(covariance.diagonal()) if kind == "diagonal" else DenseLinearOperator(covariance)
    row = torch.rand(1, n, dtype=torch.float64, generator=generator)
    posterior = condition(MultivariateNormal(mean, operator), LinearConstraint(row, torch.ones(1)))
    u = posterior.rsample()
    rest = LinearConstraint(row[:, 1:], 1 - row[:, 0] * mean[0])
    expected = condition(MultivariateNormal(mean[1:], covariance[1:, 1:]), rest).log_prob(u[1:])
    assert float(posterior.log_prob(u)) == pytest.approx(float(expected), rel=1e-11)
    moved = u.clone()
    moved[0] += 1e-3
    moved[1] -= 1e-3 * row[0, 0] / row[0, 1]
    assert float(posterior.log_prob(moved)) == -math.inf


def test_a_prior_without_a_density_says_so():
    members = from_samples(torch.randn(4, 9, dtype=torch.float64))
    posterior = condition(members, integral(torch.linspace(0, 1, 9).double(), 0.5))
    with pytest.raises(InvalidArgumentError, match="add a noise variance"):
        posterior.log_prob(posterior.mean)


@pytest.mark.parametrize("noise_variance", [0.0, 0.5])
@pytest.mark.parametrize("kind", COVARIANCES)
def test_draws_have_the_moments_of_the_posterior(kind, noise_variance):
    generator = torch.Generator().manual_seed(3)
    prior = MultivariateNormal(torch.arange(8.0).double(), make_covariance(kind, 8, generator))
    rows = torch.rand(2, 8, dtype=torch.float64, generator=generator)
    posterior = condition(prior, LinearConstraint(rows, torch.ones(2), noise_variance=noise_variance))
    count = 40_000
    draws = posterior.sample(torch.Size([count]), generator=generator)
    # Standard errors are σ/√count for the mean and about √2 σ²/√count for the covariance; five of them.
    bound = 5 * float(posterior.variance.max()) / math.sqrt(count)
    assert float((draws.mean(0) - posterior.mean).abs().max()) <= 5 * math.sqrt(float(posterior.variance.max()) / count)
    assert float((torch.cov(draws.T) - posterior.covariance_matrix).abs().max()) <= math.sqrt(2) * bound


def test_draws_take_their_numbers_from_the_generator_or_the_caller():
    law = LinearConstraint(torch.ones(1, 4), torch.ones(1), noise_variance=0.1)
    posterior = condition(Normal(torch.zeros(3, 4).double(), torch.ones(3, 4).double()), law)
    first, second = (posterior.rsample(torch.Size([2]), generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second)
    assert posterior.base_sample_shape == (5,)
    numbers = posterior.get_base_samples(torch.Size([2]))
    assert numbers.shape == (2, 3, 5)
    assert torch.equal(posterior.rsample(base_samples=numbers), posterior.rsample(base_samples=numbers))
    assert not posterior.sample().requires_grad


def test_covariance_stays_lazy_and_consistent():
    n = 100_000
    law = LinearConstraint(torch.ones(1, n), torch.zeros(1))
    posterior = condition(Normal(torch.zeros(n), torch.ones(n)), law)
    diagonal = posterior.lazy_covariance_matrix.diagonal()
    assert torch.allclose(diagonal, posterior.variance, rtol=1e-6)
    # Σ′ has no variance along G.
    along = posterior.lazy_covariance_matrix @ law.rows.float().mT
    assert float(along.abs().max()) <= n * torch.finfo(torch.float32).eps


def test_it_behaves_as_a_gpytorch_distribution():
    law = LinearConstraint(torch.ones(1, 6), torch.ones(1))
    posterior = condition(Normal(torch.zeros(2, 6).double(), torch.ones(2, 6).double()), law)
    assert isinstance(posterior, MultivariateNormal)
    assert isinstance(posterior, Prediction)
    assert posterior.batch_shape == (2,)
    assert posterior.event_shape == (6,)
    lower, upper = posterior.confidence_region()
    assert torch.allclose(upper - lower, 4 * posterior.variance.sqrt())
    assert torch.allclose(posterior.stddev.square(), posterior.variance)
    expanded = posterior.expand(torch.Size([3, 2]))
    assert isinstance(expanded, Posterior)
    assert torch.equal(expanded.mean, posterior.mean.expand(3, 2, 6))
    assert torch.allclose(posterior[0].covariance_matrix, posterior.covariance_matrix[0])
    assert torch.allclose(posterior[..., 1:3].covariance_matrix, posterior.covariance_matrix[:, 1:3, 1:3])
    assert torch.allclose(
        posterior.lazy_covariance_matrix.repeat(2, 1, 1)[3].to_dense(), expanded.covariance_matrix[0, 1]
    )
    assert posterior.unsqueeze(0).mean.shape == (1, 2, 6)
    assert torch.allclose((posterior * 2).covariance_matrix, 4 * posterior.covariance_matrix)
    assert torch.allclose((posterior + 1.0).mean, posterior.mean + 1.0)
    jittered = posterior.add_jitter(0.1).covariance_matrix.diagonal(dim1=-2, dim2=-1)
    assert torch.allclose(jittered, posterior.variance + 0.1)


def test_parts_and_multiples_keep_small_variances():
    law = LinearConstraint(torch.ones(1, 6), torch.ones(1))
    posterior = condition(Normal(torch.zeros(2, 6).double(), torch.full((2, 6), 1e-7).double()), law)
    for part, variance in (
        (posterior[0], posterior.variance[0]),
        (posterior[..., 1:3], posterior.variance[..., 1:3]),
        (posterior * 1e-3, 1e-6 * posterior.variance),
        (posterior.unsqueeze(0), posterior.variance[None]),
    ):
        torch.testing.assert_close(part.variance, variance)


@pytest.mark.parametrize("entries", [1, -1, slice(1, 3), [2, 0], torch.tensor([2, 0]), (1,)])
@pytest.mark.parametrize("shared", ["all", "rows", "prior and rows", "structured rows"])
def test_entries_of_a_batch_stay_conditioned(shared, entries):
    """Draws meet exact rows to round-off; the root of a singular covariance would miss them by that of the epsilon."""
    mean, scale = normal(3, 6), 0.1 + normal(3, 6, seed=1).square()
    rows = normal(3, 2, 6, seed=2) if shared == "all" else normal(2, 6, seed=2)
    rows = block_means(torch.ones(2), (3,)).G if shared == "structured rows" else rows
    law = LinearConstraint(
        rows, normal(3, 2, seed=3), noise_variance=torch.tensor([0.0, 0.3 * (shared != "structured rows")])
    )
    prior = Normal(mean[:1], scale[:1]) if shared == "prior and rows" else Normal(mean, scale)
    posterior = condition(prior, law)
    chosen = posterior[entries]
    assert isinstance(chosen, Posterior)
    for actual, every in (
        (chosen.mean, posterior.mean),
        (chosen.covariance_matrix, posterior.covariance_matrix),
        (chosen.log_evidence, posterior.log_evidence),
        (chosen.log_prob(chosen.mean), posterior.log_prob(posterior.mean)),
    ):
        assert torch.allclose(actual, every[entries], rtol=1e-12, atol=1e-12)
    assert float(chosen.constraint.residual(chosen.sample((50,)))[..., 0].abs().max()) <= 1e-13


@pytest.mark.parametrize("kind", COVARIANCES)
def test_draw_has_the_moments_of_any_gaussian(kind):
    generator = torch.Generator().manual_seed(4)
    covariance = make_covariance(kind, 8, generator, batch=(2,))
    gaussian = MultivariateNormal(torch.ones(2, 8).double(), covariance)
    count = 40_000
    draws = draw(gaussian, (count // 4, 4), generator).flatten(0, 1)
    spread = float(covariance.diagonal().max())
    assert float((draws.mean(0) - 1).abs().max()) <= 5 * math.sqrt(spread / count)
    for entry in range(2):
        error = torch.cov(draws[:, entry].T) - covariance.to_dense()[entry]
        assert float(error.abs().max()) <= 5 * math.sqrt(2) * spread / math.sqrt(count)


def test_draw_from_a_singular_dense_covariance_stays_in_its_range():
    # Rank 2 of 6, given by entries: Cholesky breaks down, the eigenvectors do not.
    root = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    gaussian = MultivariateNormal(torch.zeros(6).double(), DenseLinearOperator(root @ root.mT))
    draws = draw(gaussian, (50,), torch.Generator().manual_seed(6))
    projector = root @ torch.linalg.solve(root.mT @ root, root.mT)
    # Eigenvalues of size eps · λ_max count as noise of size √(n eps) ≈ 4e-8 in a draw.
    assert float((draws - draws @ projector).abs().max()) <= 1e-6
    assert torch.linalg.matrix_rank(draws, rtol=1e-6) == 2


def test_draw_does_not_approximate_above_800_points():
    n = 850
    factor = torch.linspace(0, 1, n, dtype=torch.float64)[:, None]
    covariance = gpytorch.kernels.RBFKernel().double()(factor).evaluate_kernel().to_dense() + torch.eye(n).double()
    gaussian = MultivariateNormal(torch.zeros(n).double(), DenseLinearOperator(covariance))
    generator, again = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    normals = torch.randn(1, n, dtype=torch.float64, generator=again)
    expected = (torch.linalg.cholesky(covariance) @ normals.mT).mT
    assert torch.allclose(draw(gaussian, (1,), generator), expected, rtol=1e-12, atol=1e-12)


def test_kronecker_roots_are_factors():
    generator = torch.Generator().manual_seed(8)
    factors = positive_definite(3, generator), positive_definite(4, generator)
    lazy = KroneckerProductLinearOperator(*(DenseLinearOperator(factor) for factor in factors))
    gaussian = MultivariateNormal(torch.zeros(12).double(), lazy)
    normals = torch.randn(5, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    expected = normals @ torch.kron(*(torch.linalg.cholesky(factor) for factor in factors)).mT
    drawn = draw(gaussian, (5,), torch.Generator().manual_seed(9))
    assert torch.allclose(drawn, expected, rtol=1e-12, atol=1e-13)


def test_density_of_fields_of_another_shape_is_refused():
    prior = MultivariateNormal(torch.zeros(2, 30).double(), torch.eye(30).double().expand(2, 30, 30))
    posterior = condition(prior, integral(torch.linspace(0, 1, 30), 1.0))
    for wrong in (torch.zeros(7), torch.zeros(1), torch.tensor(0.0)):
        with pytest.raises(IncompatibleQueryError, match=r"over 30 points but the fields have shape \("):
            posterior.log_prob(wrong)
    with pytest.raises(IncompatibleQueryError, match=r"\(3, 30\) do not broadcast .* posterior's \(2, 30\)"):
        posterior.log_prob(torch.zeros(3, 30))


def test_samples_keep_their_precision_whatever_that_of_the_noise():
    members = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    gaussian = from_samples(members, torch.full((6,), 0.3, dtype=torch.float64))
    assert gaussian.covariance_matrix.dtype == torch.float32
    assert torch.allclose(gaussian.variance, members.var(dim=0) + 0.3)


def test_density_of_float32_predictions_is_float32():
    law = LinearConstraint(torch.ones(1, 6), torch.tensor([3.0]), noise_variance=0.1)
    posterior = condition(Normal(torch.zeros(6), torch.ones(6)), law)
    assert posterior.log_prob(torch.full((6,), 0.5)).dtype == torch.float32
