"""Priors whose variances are too small for their own precision, or for the floor of gpytorch."""

import pytest
import torch
from torch.distributions import MultivariateNormal as TorchMultivariateNormal
from torch.distributions import Normal

from probconserv import Bounded, LinearConstraint, condition
from probconserv.update import as_multivariate_normal


@pytest.mark.parametrize(("dtype", "unit"), [(torch.float16, 1.0), (torch.float32, 1e-20), (torch.float64, 1e-20)])
def test_standard_deviations_whose_squares_underflow_count(dtype, unit):
    """(1e-4)² is 0 in float16, (1e-24)² in float32; the mean moves in proportion to σ² all the same."""
    deviation = torch.tensor([1e-4, 1.5e-4, 2e-4, 3e-4], dtype=torch.float64)
    law = LinearConstraint(torch.full((1, 4), 0.25), torch.tensor([1e-2 * unit], dtype=torch.float64))
    posterior = condition(Normal(torch.zeros(4, dtype=dtype), (unit * deviation).to(dtype)), law)
    expected = 4e-2 * unit * deviation.square() / deviation.square().sum()
    assert posterior.mean.dtype == posterior.rsample().dtype == dtype
    torch.testing.assert_close(posterior.mean.double(), expected, rtol=torch.finfo(dtype).eps * 8, atol=0)
    reduced = condition(Normal(torch.zeros(4, dtype=dtype), (unit * deviation).to(dtype)), law & Bounded(0.0, 1.0))
    torch.testing.assert_close(reduced.mode.double(), expected, rtol=torch.finfo(dtype).eps * 8, atol=0)


def test_variances_of_torch_gaussians_have_no_floor():
    prior = TorchMultivariateNormal(torch.zeros(4).double(), 1e-14 * torch.eye(4).double())
    torch.testing.assert_close(as_multivariate_normal(prior).variance, torch.full((4,), 1e-14).double())
