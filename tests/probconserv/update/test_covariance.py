"""Covariances fitted to residuals: pair by pair, reconciliation by minimal trace, messages."""

import math
import warnings

import numpy as np
import pytest
import torch
from linear_operator.operators import PsdSumLinearOperator

from probconserv import LinearConstraint, condition, from_samples
from probconserv.errors import IncompatibleQueryError, InvalidArgumentError
from probconserv.fitted.covariance import fit_covariance


def residuals(samples=15, points=7, seed=0, scale=100.0):
    generator = np.random.default_rng(seed)
    common = generator.standard_normal((samples, 2)) @ generator.standard_normal((2, points))
    return scale * (common + generator.standard_normal((samples, points)) + 3.0)


def shrunk_pair_by_pair(x):
    """λ and Σ as Schäfer and Strimmer (2005) state them, one pair of points after the other."""
    count, n = x.shape
    standard = (x - x.mean(axis=0)) / x.std(axis=0, ddof=1)
    covariance = np.cov(x.T)
    top = bottom = 0.0
    for i in range(n):
        for j in range(n):
            if i == j:
                continue
            products = standard[:, i] * standard[:, j]
            r = count / (count - 1) * products.mean()
            variance = count / (count - 1) ** 3 * ((products - products.mean()) ** 2).sum()
            top += r**2 - variance
            bottom += r**2
    shrinkage = 1 - min(max(top / bottom, 0.0), 1.0)
    return shrinkage, (1 - shrinkage) * covariance + shrinkage * np.diag(np.diag(covariance))


@pytest.mark.parametrize(("samples", "points"), [(4, 9), (15, 7), (60, 5)])
def test_shrinkage_is_that_of_the_pairs(samples, points):
    x = residuals(samples, points, seed=samples)
    expected, sigma = shrunk_pair_by_pair(x)
    fitted = fit_covariance(torch.as_tensor(x))
    assert np.allclose(fitted.bias, x.mean(axis=0), rtol=1e-14)
    assert 0 < expected < 1
    assert float(fitted.shrinkage) == pytest.approx(expected, rel=1e-10)
    assert isinstance(fitted.covariance, PsdSumLinearOperator)
    assert np.allclose(fitted.covariance.to_dense(), sigma, rtol=1e-10, atol=0)
    members = from_samples(torch.as_tensor(x), shrinkage="auto")
    assert np.allclose(members.covariance_matrix, sigma, rtol=1e-10, atol=0)


def sums(groups, size):
    """A total and groups of so many series each, above the series."""
    each = np.kron(np.eye(groups), np.ones(size))
    return np.vstack([np.ones(groups * size), each])


def reconciled(forecasts, sigma, aggregates):
    """S (Sᵀ Σ⁻¹ S)⁻¹ Sᵀ Σ⁻¹ ŷ (Wickramasuriya et al. 2019)."""
    full = np.vstack([aggregates, np.eye(aggregates.shape[1])])
    weighed = np.linalg.solve(sigma, full).T
    return full @ np.linalg.solve(weighed @ full, weighed @ forecasts)


def updated(x, forecasts, aggregates):
    law = LinearConstraint(np.hstack([np.eye(len(aggregates)), -aggregates]), torch.zeros(len(aggregates)))
    return condition(fit_covariance(torch.as_tensor(x)).around(torch.as_tensor(forecasts), level=0.9), law).mean


def test_the_update_is_reconciliation_by_minimal_trace():
    aggregates = sums(groups=2, size=2)
    x, forecasts = residuals(), 1000 * np.random.default_rng(1).random(7)
    expected = reconciled(forecasts, shrunk_pair_by_pair(x)[1], aggregates)
    assert np.allclose(updated(x, forecasts, aggregates), expected, rtol=1e-10, atol=0)


def test_equal_to_hierarchicalforecast():
    """It adds 2e-8 to Σ r², which is below 1e-10 of it for its hundreds of series and more."""
    methods = pytest.importorskip("hierarchicalforecast.methods")
    aggregates = sums(groups=9, size=20)
    full = np.vstack([aggregates, np.eye(180)])
    x, forecasts = residuals(40, 190, scale=1e4), 1e5 * np.random.default_rng(1).random(190)
    trace = methods.MinTrace("mint_shrink", mint_shr_ridge=0.0)
    theirs = trace.fit_predict(full, forecasts[:, None], y_insample=x.T, y_hat_insample=np.zeros_like(x.T))["mean"]
    assert np.abs(updated(x, forecasts, aggregates).numpy() - theirs[:, 0]).max() < 1e-10 * np.abs(theirs).max()


def test_a_rank_keeps_the_leading_correlations_and_every_variance():
    x = torch.as_tensor(residuals(12, 9))
    full = fit_covariance(x, shrinkage=0.0).covariance.to_dense()
    few = fit_covariance(x, shrinkage=0.0, rank=2).covariance
    values, vectors = torch.linalg.eigh(full)
    leading = vectors[:, -2:] @ values[-2:].diag() @ vectors[:, -2:].mT
    expected = leading + (full - leading).diagonal().diag()
    assert torch.allclose(few.to_dense(), expected, rtol=1e-9)
    assert torch.allclose(few.diagonal(), full.diagonal(), rtol=1e-12)
    assert torch.allclose(fit_covariance(x, shrinkage=0.0, rank=50).covariance.to_dense(), full, rtol=1e-12)


def test_batches_are_fitted_one_by_one_and_precision_is_kept():
    x = torch.stack([torch.as_tensor(residuals(8, 6, seed)) for seed in range(3)], dim=1)
    together = fit_covariance(x)
    for entry in range(3):
        alone = fit_covariance(x[:, entry])
        assert torch.allclose(together.covariance.to_dense()[entry], alone.covariance.to_dense(), rtol=1e-12)
        assert torch.allclose(together.shrinkage[entry], alone.shrinkage, rtol=1e-12)
    single = fit_covariance(x[:, 0].float())
    assert single.covariance.dtype == torch.float32
    assert single.shrinkage.dtype == torch.float64
    assert torch.allclose(single.shrinkage, together.shrinkage[0], rtol=1e-5)


def test_points_that_never_vary_and_samples_that_say_nothing():
    x = torch.as_tensor(residuals(8, 6))
    x[:, 2] = 0.1
    fitted = fit_covariance(x)
    assert float(fitted.covariance.diagonal()[2]) == 0.0
    others = [0, 1, 3, 4, 5]
    assert float(fitted.shrinkage) == pytest.approx(shrunk_pair_by_pair(x[:, others].numpy())[0], rel=1e-10)
    assert float(fit_covariance(torch.ones(3, 4)).shrinkage) == 1.0
    assert float(fit_covariance(torch.rand(3, 1)).shrinkage) == 1.0
    two = fit_covariance(torch.rand(2, 4, generator=torch.Generator().manual_seed(0)))  # correlations are ±1
    assert 0 <= float(two.shrinkage) <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"residuals": torch.rand(1, 4)}, r"samples ≥ 2, got \(1, 4\)"),
        ({"residuals": torch.tensor([[1.0, math.nan], [0.0, 1.0]])}, "NaN or infinite entries"),
        ({"shrinkage": 1.5}, r"shrinkage must lie in \[0, 1\].*got 1.5"),
        ({"rank": 0}, "rank must be at least 1"),
    ],
)
def test_invalid_arguments_raise_with_reason(arguments, message):
    with pytest.raises(InvalidArgumentError, match=message):
        fit_covariance(**({"residuals": torch.rand(3, 4)} | arguments))
    with pytest.raises(IncompatibleQueryError, match="at 4 points, but the mean has the shape"):
        fit_covariance(torch.rand(3, 4)).around(torch.zeros(5))


@pytest.mark.parametrize("samples", [3, 4, 5, 8, 15, 50])
def test_intervals_about_few_errors_hold_as_often_as_they_say(samples):
    """A fraction of 4,000 has a standard error of 0.005, of which 4 are allowed."""
    errors = torch.randn(samples + 1, 4000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(samples))
    fitted = fit_covariance(0.3 + errors[:samples])

    def inside(gaussian):
        return float(((0.3 + errors[samples] - gaussian.mean).abs() <= 1.6449 * gaussian.stddev).double().mean())

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plain = inside(fitted.around(fitted.bias))
        few = [str(each.message) for each in caught]
        widened = fitted.around(fitted.bias, level=0.9)
    held = inside(widened)
    assert held == pytest.approx(0.9, abs=0.02)
    assert bool(few) == (samples < 25)
    if few:
        named = float(few[0].split("expected to hold ")[1].split("%")[0]) / 100
        assert plain == pytest.approx(named, abs=0.005 + 4 * 0.008)  # rounded to a percent, standard error at 0.6
    assert torch.equal(widened.mean, fitted.bias)


def test_few_samples_are_named_and_a_level_is_one():
    fitted = fit_covariance(torch.rand(8, 3, generator=torch.Generator().manual_seed(0)))
    with pytest.warns(UserWarning, match="Variances of 8 cases .* expected to hold 84% of new cases. Give around"):
        fitted.around(torch.zeros(3))
    with pytest.raises(InvalidArgumentError, match="level must lie between 0 and 1"):
        fitted.around(torch.zeros(3), level=90.0)
