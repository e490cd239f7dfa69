"""Derivatives where the prior has no variance: finite, and those of a formula without a root of the variance."""

import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator.operators import DenseLinearOperator
from torch.distributions import Normal

from probconserv import LinearConstraint, condition
from probconserv.sampling import draw

double = torch.float64
N = 6
MASK = torch.tensor([0.0, 1.0, 1.0, 1.0, 1.0, 0.0], dtype=double)
MEAN = torch.tensor([0.1, 0.4, -0.3, 0.5, 0.2, 0.3], dtype=double)
TOTAL = LinearConstraint(torch.ones(1, N, dtype=double), torch.tensor([1.5], dtype=double))


def gradient_of(function, at):
    at = at.clone().requires_grad_()
    return torch.autograd.grad(function(at).square().sum(), at)[0]


def test_draws_are_differentiable_in_a_deviation_of_zero():
    """u = μ + σ z − …: the derivative in σ from the right is that of the formula, though √σ² has none."""
    sd = 0.3 * MASK

    def result(sd):
        return draw(condition(Normal(MEAN, sd, validate_args=False), TOTAL), (4,), torch.Generator().manual_seed(0))

    gradient = gradient_of(result, sd)
    base, step = result(sd).square().sum(), 1e-7 * torch.eye(N, dtype=double)
    rises = torch.stack([(result(sd + e).square().sum() - base) / 1e-7 for e in step])
    torch.testing.assert_close(gradient, rises, rtol=1e-4, atol=1e-5)  # first order in the step
    assert bool((gradient[MASK == 0].abs() > 1e-3).all())


def test_the_noise_of_an_exact_row_beside_a_noisy_one_has_a_finite_derivative():
    rows = torch.cat([TOTAL.rows, torch.eye(N, dtype=double)[2:3]])

    def result(noise):
        law = LinearConstraint(rows, torch.tensor([1.5, 0.2], dtype=double), noise_variance=noise)
        prior = Normal(MEAN, torch.full((N,), 0.3, dtype=double))
        return draw(condition(prior, law), (4,), torch.Generator().manual_seed(0))

    noise = torch.tensor([0.0, 0.1], dtype=double)
    gradient = gradient_of(result, noise)
    step = torch.tensor([0.0, 1e-6], dtype=double)
    rise = (result(noise + step).square().sum() - result(noise - step).square().sum()) / 2e-6
    assert bool(gradient.isfinite().all())
    torch.testing.assert_close(gradient[1], rise, rtol=1e-5, atol=1e-6)


def test_a_covariance_of_low_rank_is_differentiable_through_its_eigenvectors():
    """Dense, rank two of six, so that its root is one of eigenvectors; also where two eigenvalues are equal."""
    basis = torch.linalg.qr(torch.randn(N, 2, dtype=double, generator=torch.Generator().manual_seed(2)))[0]
    normals = torch.randn(5, N, dtype=double, generator=torch.Generator().manual_seed(3))

    def draws(variance):
        prior = MultivariateNormal(MEAN, DenseLinearOperator((basis * variance) @ basis.mT))
        return condition(prior, TOTAL).rsample(base_samples=normals)

    variance = torch.tensor([1.0, 2.0], dtype=double)
    step = 1e-3 * torch.eye(2, dtype=double)
    rises = [(draws(variance + e).square().sum() - draws(variance - e).square().sum()) / 2e-3 for e in step]
    torch.testing.assert_close(
        gradient_of(draws, variance), torch.stack(rises), rtol=1e-4, atol=1e-4
    )  # noise of √round-off
    assert bool(gradient_of(draws, torch.ones(2, dtype=double)).isfinite().all())


def test_a_density_allows_for_round_off_in_certain_values_and_for_nothing_more():
    """Relative to the value: 1e-9 of it in float64."""
    mean = 1e6 + MEAN
    posterior = condition(Normal(mean, 0.3 * MASK, validate_args=False), LinearConstraint(TOTAL.rows, mean.sum()[None]))
    shifts = torch.tensor([1e-5, 1e-2], dtype=double)[:, None] * (1 - MASK)  # of the two certain values
    density = posterior.log_prob(posterior.mean + shifts)
    assert density.isfinite().tolist() == [True, False]
