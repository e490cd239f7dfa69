"""Evidence of a law: closed forms by scipy, mixtures, further laws, calibration, messages."""

import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from hypothesis import given, settings
from scipy.stats import multivariate_normal
from torch.distributions import Normal

from probconserv import (
    DependentConstraintsError,
    InvalidArgumentError,
    LinearConstraint,
    Mixture,
    NonNegative,
    condition,
    evidence,
)
from tests.strategies import conditioning_problems, seeds

double = torch.float64
few = settings(deadline=None, max_examples=20)


@few
@given(conditioning_problems(batches=((),), noise_variance=0.3))
def test_evidence_is_the_density_of_the_right_hand_sides(problem):
    prior, law = problem
    found = evidence(prior, law)
    rows = law.rows
    spread = rows @ prior.covariance_matrix @ rows.mT + 0.3 * torch.eye(len(rows)).double()
    expected = multivariate_normal.logpdf(law.b.numpy(), (rows @ prior.mean).numpy(), spread.numpy())
    assert float(found.log_evidence) == pytest.approx(expected, rel=1e-9)
    z = (rows @ prior.mean - law.b) / spread.diagonal().sqrt()
    assert torch.allclose(found.standardised_residual, z, rtol=1e-10)


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
def test_messages():
    law = LinearConstraint(torch.ones(1, 3), torch.ones(1))
    prior = Normal(torch.zeros(3), torch.ones(3))
    with pytest.raises(InvalidArgumentError, match="got Projected"):
        evidence(condition(prior, law & NonNegative()), law)
    with pytest.raises(InvalidArgumentError, match="mixtures of Gaussians, not of Projected"):
        evidence(condition(Mixture(Normal(torch.zeros(2, 3), torch.ones(2, 3))), law & NonNegative()), law)
    with pytest.raises(DependentConstraintsError):
        evidence(condition(prior, law), law)
