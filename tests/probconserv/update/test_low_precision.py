"""Laws under predictions of low precision, refused only where rounding is all that is left of S; tiny variances."""

import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from hypothesis import given, settings
from linear_operator.operators import DenseLinearOperator, KroneckerProductLinearOperator
from torch.distributions import MultivariateNormal as TorchMultivariateNormal
from torch.distributions import Normal

from probconserv import Bounded, LinearConstraint, Mixture, condition, from_samples, integral
from probconserv._linalg.gaussian import FieldGaussian
from probconserv.errors import DependentConstraintsError
from probconserv.posterior import Posterior
from probconserv.prior import as_multivariate_normal
from solvers import NodeGrid
from tests.strategies import conditioning_problems

double = torch.float64
PRECISIONS = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
N = 201
GRID = NodeGrid(0.0, 1.0, N)
TOTAL = integral(GRID, torch.ones((), dtype=double))
WEIGHTS = TOTAL.rows[0]
X = torch.linspace(0, 1, N, dtype=double)


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=double, generator=torch.Generator().manual_seed(seed))


def members(kind):
    """Twenty smooth or rough fields around 1."""
    if kind == "rough":
        return 1 + random(20, N)
    return 1 + random(20, 1) * torch.sin(torch.pi * X) + random(20, 1, seed=1) * torch.cos(3 * X)


@pytest.mark.parametrize("kind", ["smooth", "rough"])
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_an_ensemble_whose_members_differ_in_a_total_is_conditioned_on_it(kind, dtype):
    samples = members(kind).to(dtype)
    posterior = condition(from_samples(samples, shrinkage=0.0), TOTAL)
    expected = condition(from_samples(samples.double(), shrinkage=0.0), TOTAL)
    tolerance = 20 * torch.finfo(dtype).eps  # members, mean and result are rounded
    torch.testing.assert_close(posterior.mean.double(), expected.mean, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", ["smooth", "rough"])
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_an_ensemble_whose_members_have_one_total_is_refused(kind, dtype):
    samples = members(kind)
    samples = samples - ((samples @ WEIGHTS - 1) / (WEIGHTS @ WEIGHTS))[:, None] * WEIGHTS
    with pytest.raises(DependentConstraintsError, match="not independent"):
        Posterior(from_samples(samples.to(dtype), shrinkage=0.0), TOTAL)


@pytest.mark.parametrize("length", [0.0, 0.002, 0.1])
def test_a_kronecker_prior_in_single_precision_is_conditioned_on_a_total(length):
    """White noise on 512² points has a total 512² times less uncertain than its most uncertain combination."""
    x = torch.linspace(0, 1, 512)
    kernel = torch.eye(512) if length == 0 else torch.exp(-(((x[:, None] - x) / length) ** 2) / 2)
    factor = DenseLinearOperator(kernel)
    prior = FieldGaussian(torch.zeros(512**2), KroneckerProductLinearOperator(factor, factor))
    posterior = condition(prior, LinearConstraint(torch.full((1, 512**2), 1 / 512**2), torch.ones(1)))
    assert float(posterior.mean.double().mean()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_total_that_one_factor_of_a_kronecker_prior_has_already_is_refused(dtype):
    x = torch.linspace(0, 1, 20, dtype=double)
    kernel = torch.exp(-(((x[:, None] - x) / 0.2) ** 2) / 2)
    rest = kernel.sum(dim=0)
    without = kernel - torch.outer(rest, rest) / rest.sum()
    factors = (DenseLinearOperator(each.to(dtype)) for each in (without, kernel))
    prior = FieldGaussian(torch.zeros(400, dtype=dtype), KroneckerProductLinearOperator(*factors))
    with pytest.raises(DependentConstraintsError, match="not independent"):
        Posterior(prior, LinearConstraint(torch.ones(1, 400), torch.ones(1)))


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_a_row_given_twice_is_refused(dtype):
    with pytest.raises(DependentConstraintsError, match="2 constraint rows are not independent"):
        Posterior(from_samples(members("rough").to(dtype), shrinkage=0.0), TOTAL & TOTAL)


@settings(max_examples=30, deadline=None)
@given(conditioning_problems(dtype=torch.float32) | conditioning_problems(dtype=torch.float32, noise_variance=0.3))
def test_float32_gives_the_float64_update_rounded_once(problem: tuple[MultivariateNormal, LinearConstraint]) -> None:
    prior, law = problem
    covariance = prior.lazy_covariance_matrix.double()
    single, exact = condition(prior, law), condition(MultivariateNormal(prior.mean.double(), covariance), law)
    # Half an ulp, 6e-8, of each number; products of factors are taken in another order.
    for actual, expected, atol in (
        (single.mean, exact.mean, 1e-12 * float(exact.mean.abs().max())),
        (single.variance, exact.variance, 1e-12 * float(prior.variance.max())),
    ):
        assert actual.dtype == torch.float32
        torch.testing.assert_close(actual.double(), expected, rtol=1.2e-7, atol=atol)


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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("count", [11, 61, 244])
def test_mixtures_of_any_number_of_components_in_half_precision_have_equal_weights(dtype, count):
    components = Normal(torch.zeros(count, 3, dtype=dtype), torch.ones(count, 3, dtype=dtype))
    torch.testing.assert_close(Mixture(components).weights.double(), torch.full((count,), 1 / count).double())
    stated = Mixture(components, torch.full((count,), 1 / count).to(dtype))
    torch.testing.assert_close(stated.weights.double(), torch.full((count,), 1 / count).double())


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_moments_of_a_mixture_are_rounded_once(dtype):
    means = (300 + 2 * random(5, 2, 4)).to(dtype)
    scale = torch.full_like(means, 0.5)
    weights = torch.softmax(random(5), dim=0)
    found, exact = Mixture(Normal(means, scale), weights), Mixture(Normal(means.double(), scale.double()), weights)
    assert found.mean.dtype == found.variance.dtype == dtype
    eps = torch.finfo(dtype).eps
    roundings = 1 if eps > 1e-4 else 6  # half precision is averaged in single; others round 5 products and the weights
    torch.testing.assert_close(found.mean.double(), exact.mean, rtol=roundings * eps, atol=0)
    torch.testing.assert_close(found.variance.double(), exact.variance, rtol=eps + 1e-4 * (dtype != double), atol=1e-12)
