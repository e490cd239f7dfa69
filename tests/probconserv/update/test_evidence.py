"""Evidence of a law: closed forms by scipy, mixtures, further laws, calibration, messages."""

import math

import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from hypothesis import given, settings
from scipy.stats import chi2, multivariate_normal
from torch.distributions import Normal

from probconserv import LinearConstraint, Mixture, NonNegative, condition
from probconserv.errors import DependentConstraintsError, InvalidArgumentError
from probconserv.fields import block_means
from probconserv.law_evidence import evidence
from tests.strategies import conditioning_problems, seeds

double = torch.float64
few = settings(deadline=None, max_examples=20)


@few
@given(conditioning_problems(batches=((),), noise_variance=0.3))
def test_evidence_is_the_density_of_the_right_hand_sides_and_has_the_joint_chi_square(problem):
    prior, law = problem
    found = evidence(prior, law)
    rows = law.rows
    spread = rows @ prior.covariance_matrix @ rows.mT + 0.3 * torch.eye(len(rows)).double()
    expected = multivariate_normal.logpdf(law.b.numpy(), (rows @ prior.mean).numpy(), spread.numpy())
    assert float(found.log_evidence) == pytest.approx(expected, rel=1e-9)
    z = (rows @ prior.mean - law.b) / spread.diagonal().sqrt()
    assert torch.allclose(found.standardised_residual, z, rtol=1e-10)
    residual = rows @ prior.mean - law.b
    expected = float(residual @ torch.linalg.solve(spread, residual))
    assert float(found.chi_square) == pytest.approx(expected, rel=1e-9)
    assert found.degrees_of_freedom == len(rows)
    assert float(found.probability) == pytest.approx(float(chi2.sf(expected, len(rows))), rel=1e-6, abs=1e-300)


@few
@given(seeds)
def test_evidence_of_two_laws_is_that_of_one_after_the_other(seed):
    generator = torch.Generator().manual_seed(seed)
    mean, scale, first, second = torch.rand(4, 6, dtype=double, generator=generator)
    prior = Normal(mean, scale + 0.1)
    laws = [LinearConstraint(row[None], torch.ones(1)) for row in (first, second)]
    for box in (prior, Mixture(Normal(torch.stack([mean, 1 - mean]), (scale + 0.1).expand(2, 6)))):
        after = evidence(condition(box, laws[0]), laws[1])
        together = evidence(box, laws[0]).log_evidence + after.log_evidence
        assert torch.allclose(together, evidence(box, laws[0] & laws[1]).log_evidence, rtol=1e-9)


def test_residuals_of_functions_drawn_from_the_prediction_have_mean_square_one():
    generator = torch.Generator().manual_seed(0)
    loc = torch.randn(3, 1, 8, dtype=double, generator=generator)
    mixture = Mixture(Normal(loc.expand(3, 4000, 8), torch.full((3, 4000, 8), 0.5, dtype=double)))
    row = torch.ones(1, 8, dtype=double)
    totals = mixture.sample(generator=generator) @ row.mT
    for prior in (mixture, MultivariateNormal(mixture.mean[0], torch.eye(8, dtype=double)).expand(torch.Size([4000]))):
        z = evidence(prior, LinearConstraint(row, totals)).standardised_residual
        assert z.shape == (4000, 1)
        if prior is mixture:
            assert float(z.square().mean()) == pytest.approx(1.0, abs=5 * (2 / 4000) ** 0.5)


@pytest.mark.long
def test_invalid_arguments_raise_with_reason():
    law = LinearConstraint(torch.ones(1, 3), torch.ones(1))
    prior = Normal(torch.zeros(3), torch.ones(3))
    with pytest.raises(InvalidArgumentError, match="got Projected"):
        evidence(condition(prior, law & NonNegative()), law)
    with pytest.raises(InvalidArgumentError, match="mixtures of Gaussians, not of Projected"):
        evidence(condition(Mixture(Normal(torch.zeros(2, 3), torch.ones(2, 3))), law & NonNegative()), law)
    with pytest.raises(DependentConstraintsError):
        evidence(condition(prior, law), law)


@few
@given(seeds)
def test_the_joint_chi_square_of_a_mixture_and_of_a_further_law(seed):
    generator = torch.Generator().manual_seed(seed)
    loc, scale = torch.rand(2, 3, 6, dtype=double, generator=generator)
    rows, targets = (
        torch.rand(2, 6, dtype=double, generator=generator),
        torch.rand(2, dtype=double, generator=generator),
    )
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=double)
    law = LinearConstraint(rows, targets, noise_variance=0.1)
    found = evidence(Mixture(Normal(loc, scale + 0.1), weights), law)
    mean = weights @ loc
    apart = loc - mean
    covariance = (weights @ (scale + 0.1).square()).diag() + (weights[:, None] * apart).mT @ apart
    total = rows @ covariance @ rows.mT + 0.1 * torch.eye(2, dtype=double)
    residual = rows @ mean - targets
    assert torch.allclose(found.chi_square, residual @ torch.linalg.solve(total, residual), rtol=1e-9)
    gaussian = Normal(loc[0], scale[0] + 0.1)
    first, second = (LinearConstraint(rows[i : i + 1], targets[i : i + 1], noise_variance=0.1) for i in range(2))
    after = evidence(condition(gaussian, first), second)
    assert torch.allclose(after.chi_square, after.standardised_residual[0].square(), rtol=1e-9)
    assert torch.allclose(evidence(gaussian, first).chi_square + after.chi_square, evidence(gaussian, law).chi_square)


def test_residuals_that_are_small_one_by_one_may_be_large_together():
    """Twenty rows, each half a standard deviation off, of values that are said to vary as one."""
    ones = torch.ones(20, 1, dtype=double)
    prior = MultivariateNormal(torch.zeros(20, dtype=double), ones @ ones.mT + 1e-4 * torch.eye(20, dtype=double))
    found = evidence(prior, LinearConstraint(torch.eye(20), 0.5 * torch.tensor([1.0, -1.0]).repeat(10)))
    assert float(found.standardised_residual.abs().max()) < 0.6
    assert float(found.probability) < 1e-100
    blocks = evidence(Mixture(Normal(torch.zeros(2, 2000), 1.0)), block_means(torch.zeros(1000), (2,)))
    assert math.isnan(float(blocks.chi_square))
    assert bool(torch.isfinite(blocks.log_evidence))
