"""Ensembles: moments against a dense re-statement, rank, conditioning, messages."""

import hypothesis.strategies as st
import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from hypothesis import given, settings
from linear_operator.operators import DiagLinearOperator
from torch import Tensor, nn
from torch.distributions import Normal

from probconserv import Context, Query, condition, integral
from probconserv._linalg.gaussian import FieldGaussian
from probconserv.errors import InvalidArgumentError
from probconserv.surrogates.ensemble import Ensemble
from probconserv.surrogates.surrogate import Surrogate
from solvers import NodeGrid
from tests.strategies import normal


class Constant(Surrogate):
    """Predicts a fixed Gaussian with independent values."""

    def __init__(self, mean: Tensor, variance: Tensor) -> None:
        super().__init__()
        self.mean, self.variance = mean, variance

    def predict(self, context: Context, query: Query) -> MultivariateNormal:  # noqa: ARG002 - a fixed answer
        return FieldGaussian(self.mean, DiagLinearOperator(self.variance))


class Answering(nn.Module):
    """No surrogate, but a module that answers with a prediction."""

    def __init__(self, answer: Normal | MultivariateNormal) -> None:
        super().__init__()
        self.answer = answer

    def forward(self) -> Normal | MultivariateNormal:
        return self.answer


def data(batch: int, n: int) -> tuple[Context, Query]:
    points = torch.zeros(batch, n, 2)
    return Context(points, torch.zeros(batch, n)), Query(points)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), members=st.integers(2, 5), batch=st.integers(1, 3), n=st.integers(1, 8))
def test_moments_of_surrogates_against_dense_sums(seed: int, members: int, batch: int, n: int) -> None:
    means, variances = normal(members, batch, n, seed=seed), normal(members, batch, n, seed=seed + 1).square()
    models = [Constant(mean, variance) for mean, variance in zip(means, variances, strict=True)]
    prediction = Ensemble(models, own_variance=True, noise_variance=0.1).predict(*data(batch, n))
    for b in range(batch):
        average = means[:, b].sum(dim=0) / members
        covariance = sum(torch.outer(mean - average, mean - average) for mean in means[:, b]) / (members - 1)
        covariance = covariance + torch.diag(variances[:, b].sum(dim=0) / members + 0.1)
        # Sums of at most five products of numbers of order one.
        torch.testing.assert_close(prediction.mean[b], average, rtol=0, atol=1e-14)
        torch.testing.assert_close(prediction.covariance_matrix[b], covariance, rtol=0, atol=1e-13)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), members=st.integers(2, 5))
def test_without_correlation_the_same_variances_are_left(seed: int, members: int) -> None:
    """An update then moves every place by its own variance; what all members know stays where it is."""
    grid = NodeGrid(0.0, 1.0, 6)
    means, variances = normal(members, 2, 6, seed=seed), normal(members, 2, 6, seed=seed + 1).square()
    means[..., 0], variances[..., 0] = 1.5, 0.0
    models = [Constant(mean, variance) for mean, variance in zip(means, variances, strict=True)]
    correlated = Ensemble(models, own_variance=True).predict(*data(2, 6))
    prediction = Ensemble(models, own_variance=True, shrinkage=1.0).predict(*data(2, 6))
    assert torch.equal(prediction.mean, correlated.mean)
    assert torch.equal(prediction.covariance_matrix, torch.diag_embed(correlated.variance))
    law = integral(grid, torch.tensor(0.5))
    moved = condition(prediction, law).mean - prediction.mean
    fraction = correlated.variance * grid.weights
    torch.testing.assert_close(moved / moved.sum(-1, True), fraction / fraction.sum(-1, True), rtol=1e-9, atol=1e-12)
    assert torch.equal(moved[:, 0], torch.zeros(2, dtype=torch.float64))


def test_operators_count_as_vectors_of_channels_and_places() -> None:
    operators = [nn.Conv1d(1, 2, 1).double() for _ in range(3)]
    field = normal(4, 1, 6, seed=1)
    prediction = Ensemble(operators)(field)
    expected = torch.stack([operator(field) for operator in operators]).mean(dim=0)
    assert prediction.mean.shape == (4, 12)
    torch.testing.assert_close(prediction.mean.reshape(4, 2, 6), expected, rtol=0, atol=1e-14)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), members=st.integers(2, 7))
def test_what_all_members_know_is_kept_to_the_last_bit(seed: int, members: int) -> None:
    means, deviations = normal(members, 1, 6, seed=seed), normal(members, 1, 6, seed=seed + 1).abs()
    means[:, :, 0], deviations[:, :, 0] = means[0, :, 0], 0.0
    models = [Answering(Normal(*moments, validate_args=False)) for moments in zip(means, deviations, strict=True)]
    prediction = Ensemble(models, own_variance=True)()
    assert float(prediction.mean[0, 0]) == float(means[0, 0, 0])
    assert float(prediction.variance[0, 0]) == 0
    assert bool((prediction.variance[0, 1:] > 0).all())


def test_variances_of_members_have_no_floor() -> None:
    prior = MultivariateNormal(torch.zeros(1, 3).double(), DiagLinearOperator(torch.full((1, 3), 1e-14).double()))
    prediction = Ensemble([Answering(prior), Answering(prior)], own_variance=True)()
    torch.testing.assert_close(prediction.variance, torch.full((1, 3), 1e-14).double())


def test_wrong_ensembles_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="at least two members, got 1"):
        Ensemble([nn.Identity()])
    with pytest.raises(InvalidArgumentError, match="noise_variance must not be negative, got -1"):
        Ensemble([nn.Identity(), nn.Identity()], noise_variance=-1.0)
    with pytest.raises(InvalidArgumentError, match="needs members that predict a variance"):
        Ensemble([nn.Identity(), nn.Identity()], own_variance=True)(torch.zeros(1, 1, 3))
