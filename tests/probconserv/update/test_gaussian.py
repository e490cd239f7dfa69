"""A Gaussian from what people have: arrays, series, frames, lists, tensors; certain values; what is refused."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from torch.distributions import Normal

from probconserv import LinearConstraint, NonNegative, condition, from_samples, gaussian
from probconserv.errors import InvalidArgumentError

MEAN, STD = [1.0, 2.0, 4.0], [0.5, 0.0, 1.0]
LAW = LinearConstraint(torch.ones(1, 3), torch.tensor([8.0]))


class Labelled:
    """An array that is known by ``__array__`` alone, as those of JAX are."""

    def __init__(self, values: list[float]) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.values, dtype=dtype)


@pytest.mark.parametrize("kind", [list, tuple, np.array, pd.Series, Labelled, torch.DoubleTensor, np.ma.array])
def test_every_container_gives_the_same_update(kind: Any) -> None:
    posterior = condition(gaussian(kind(MEAN), kind(STD)), LAW)
    gain = torch.tensor([0.25, 0.0, 1.0], dtype=torch.float64) / 1.25  # s² / Σ s², total 7 moved to 8
    assert posterior.mean.dtype == torch.float64
    assert torch.allclose(posterior.mean, torch.tensor(MEAN).double() + gain, rtol=4 * torch.finfo(torch.float64).eps)
    assert float(posterior.mean[1]) == 2.0


@pytest.mark.parametrize(
    "kind", [list, np.array, pd.DataFrame, Labelled, lambda rows: [torch.tensor(row) for row in rows]]
)
def test_samples_from_every_container_are_those_of_a_tensor(kind: Any) -> None:
    rows = [MEAN, [2.0, 2.5, 3.0], [0.0, 1.0, 2.0]]
    wanted = condition(from_samples(torch.tensor(rows, dtype=torch.float64)), LAW)
    exact = 0.0 if kind in (list, np.array, pd.DataFrame, Labelled) else 1e-5  # the tensors are of single precision
    assert torch.allclose(condition(from_samples(kind(rows)), LAW).mean.double(), wanted.mean, rtol=exact, atol=exact)
    if hasattr(kind(rows), "__array__"):
        with pytest.warns(UserWarning, match=r"array \(3, 3\) is read as samples .*gaussian\(mean, std\)"):
            found = condition(kind(rows), LAW)
        assert torch.equal(found.mean, wanted.mean)


def test_a_mean_with_its_deviation_in_a_tuple_is_named() -> None:
    with pytest.raises(InvalidArgumentError, match=r"got tuple; gaussian\(mean, std\) makes a prior"):
        condition((MEAN, STD), LAW)  # type: ignore[call-overload]


def test_certain_values_stay_under_bounds_and_in_draws() -> None:
    posterior = condition(gaussian(MEAN, STD), LAW & NonNegative())
    draws = posterior.sample((20,), generator=torch.Generator().manual_seed(0))
    assert bool((draws[:, 1] == 2.0).all())
    assert float(posterior.variance[1]) == 0.0


def test_batches_precision_and_one_deviation_are_those_of_a_normal() -> None:
    mean = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    for std in (0.5, np.full(3, 0.5), torch.full((2, 1), 0.5)):
        given, wanted = condition(gaussian(mean, std), LAW), condition(Normal(mean, torch.full((2, 3), 0.5)), LAW)
        assert given.mean.dtype == torch.float32
        assert torch.equal(given.mean, wanted.mean)
        assert torch.equal(given.variance, wanted.variance)
    frame = pd.DataFrame([[0, 1, 2], [3, 4, 5]])
    assert torch.equal(condition(gaussian(frame, 0.5), LAW).mean, condition(gaussian(mean.double(), 0.5), LAW).mean)


def test_small_deviations_of_single_precision_do_not_underflow() -> None:
    mean = np.ones(3, dtype=np.float32)
    moved = condition(gaussian(mean, np.full(3, 1e-30, dtype=np.float32)), LAW).mean
    assert torch.allclose(moved, torch.full((3,), 8 / 3), rtol=2 * torch.finfo(torch.float32).eps)


def test_derivatives_reach_mean_and_deviation() -> None:
    mean, std = torch.tensor(MEAN, requires_grad=True), torch.tensor(STD, requires_grad=True)
    condition(gaussian(mean, std), LAW).mean[0].backward()
    assert mean.grad is not None
    assert std.grad is not None
    assert float(std.grad[2]) != 0.0


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (MEAN, [0.5, -0.5, 1.0], "must not be negative, got a smallest entry of -0.5"),
        (MEAN, [0.5, 0.5], r"std must be one number or broadcast to the mean \(3,\), got \(2,\)"),
        (MEAN, [[0.5] * 3] * 2, r"std must be one number or broadcast to the mean \(3,\), got \(2, 3\)"),
        ([1.0, float("nan"), 2.0], STD, "mean holds 1 NaN or infinite entries"),
        (MEAN, [1.0, float("inf"), 2.0], "std holds 1 NaN or infinite entries"),
        (1.0, 1.0, r"mean must be \(\*batch, n\), got one number"),
        (["a", "b", "c"], STD, "mean must hold numbers"),
        (pd.Series([1.0, None, "x"]), STD, "mean must hold numbers, got Series of object"),
        ([[1.0], [1.0, 2.0]], STD, "mean must be rows of equal length, got list"),
        (np.ones(3, dtype=complex), STD, "complex"),
        (np.ma.masked_invalid([1.0, float("nan"), 2.0]), STD, "masked entries"),
    ],
)
def test_invalid_arguments_raise_with_reason(mean: Any, std: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        gaussian(mean, std)


@pytest.mark.parametrize("full", [False, True])
def test_forecasts_under_their_sums_are_those_of_mint(full: bool) -> None:
    """ỹ = S (Sᵀ W⁻¹ S)⁻¹ Sᵀ W⁻¹ ŷ (Wickramasuriya et al. 2019, eq. 9); rounding is that of W, of condition < 1e3."""
    random = np.random.default_rng(1)
    summing = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1], *np.eye(4)])
    root = np.diag(random.uniform(1, 5, 7)) + (0.5 * random.standard_normal((7, 7)) if full else 0.0)
    W, forecast = root @ root.T, random.uniform(10, 20, 7)
    weighted = np.linalg.solve(W, summing).T
    wanted = summing @ np.linalg.solve(weighted @ summing, weighted @ forecast)
    law = LinearConstraint(np.hstack([np.eye(3), -summing[:3]]), np.zeros(3))
    prior = MultivariateNormal(torch.tensor(forecast), torch.tensor(W)) if full else gaussian(forecast, np.diag(root))
    found = condition(prior, law)
    assert np.allclose(found.mean, wanted, rtol=1e3 * np.finfo(float).eps * 7)
    assert np.allclose(found.covariance_matrix, summing @ np.linalg.inv(weighted @ summing) @ summing.T, atol=1e-11)


def test_laws_take_frames_and_series() -> None:
    frame, totals = pd.DataFrame([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), pd.Series([4.0, 3.0])
    law = LinearConstraint(frame, totals)
    assert torch.equal(law.rows, torch.tensor(frame.to_numpy()))
    posterior = condition(gaussian(MEAN, STD), law)
    assert torch.allclose(posterior.mean, torch.tensor([2.0, 2.0, 3.0]).double(), atol=1e-15)
