"""Conformal bands, scores of mixtures by their own distributions."""

import math
from typing import Literal

import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from hypothesis import given, settings
from torch.distributions import Normal

from probconserv import Bounded, Mixture, NonNegative, condition, fit_band, integral, scores, truncate
from probconserv.calibration import scaled
from probconserv.calibration.marginals import (
    calibration_error,
    cumulative_probability,
    marginal_crps,
    marginal_log_likelihood,
)
from probconserv.calibration.variance import variance_factor
from probconserv.errors import InvalidArgumentError
from solvers import NodeGrid
from tests.strategies import mixture, seeds

few = settings(deadline=None, max_examples=10)
GRID = NodeGrid(0.0, 1.0, 101)
X = GRID.points


def test_scores_of_small_half_precision_deviations() -> None:
    """A variance of 1e-8 is zero in float16; the deviation is not."""
    half = Normal(torch.zeros(3).half(), torch.full((3,), 1e-4).half())
    double = Normal(half.loc.double(), half.scale.double())
    u = torch.tensor([-1e-4, 5e-5, 2e-4], dtype=torch.float64)
    for prediction in (half, Mixture(Normal(half.loc[None], half.scale[None]))):
        torch.testing.assert_close(cumulative_probability(u, prediction), double.cdf(u))
        torch.testing.assert_close(marginal_crps(u, prediction), scores.crps(u, double.mean, double.variance))
    single = Normal(half.loc[None], half.scale[None])
    assert fit_band(single, u[None].half(), level=0.5, floor=1e-7).factor == pytest.approx(2, rel=1e-2)


@few
@given(seeds)
def test_one_component_scores_as_its_gaussian(seed: int) -> None:
    part = mixture(seed, components=1)
    gaussian = Normal(part.components.mean[0], part.components.stddev[0])
    u = torch.rand(2, 101, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    for prediction in (part, gaussian):
        assert torch.allclose(marginal_crps(u, prediction), scores.crps(u, gaussian.mean, gaussian.variance))
        likelihood = scores.log_likelihood(u, gaussian.mean, gaussian.variance)
        assert torch.allclose(marginal_log_likelihood(u, prediction), likelihood)
        assert torch.allclose(cumulative_probability(u, prediction), gaussian.cdf(u))


def test_calibration_error() -> None:
    assert calibration_error(torch.linspace(0.0, 1.0, 100_001, dtype=torch.float64)) < 1e-4
    assert calibration_error(torch.full((5,), 0.5)) == pytest.approx(
        math.sqrt(sum((i / 20) ** 2 for i in range(1, 20)) / 19)
    )
    with pytest.raises(InvalidArgumentError, match="got 0 and 19"):
        calibration_error(torch.empty(0))


def test_the_factor_of_a_band_has_the_stated_rank() -> None:
    prediction = Normal(torch.zeros(9, 4), torch.ones(9, 4))
    values = torch.arange(1.0, 10.0)[:, None] * torch.tensor([0.1, -0.2, 0.3, 1.0])
    assert fit_band(prediction, values, level=0.9).factor == 9.0
    assert fit_band(prediction, values, level=0.5).factor == 5.0
    assert fit_band(prediction, values, level=0.5, inside=0.75).factor == pytest.approx(1.5)
    assert (
        fit_band(prediction, values, level=0.5, inside=1e-12).factor
        == fit_band(prediction, values, level=0.5, inside=0.25).factor
    )
    with pytest.raises(InvalidArgumentError, match="needs at least 11 validation functions, got 9"):
        fit_band(prediction, values, level=0.91)
    with pytest.raises(InvalidArgumentError, match=r"got 1\.0, 1\.0 and None"):
        fit_band(prediction, values, level=1.0)
    with pytest.raises(InvalidArgumentError, match=r"needs fields of n points, \(functions, n\)"):
        fit_band(prediction, values[0], level=0.5)


def test_maps_are_flattened_by_the_user_since_their_rows_are_no_fields() -> None:
    prediction, values = Normal(torch.zeros(20, 4, 5), torch.ones(20, 4, 5)), torch.ones(20, 4, 5)
    with pytest.raises(InvalidArgumentError, match=r"of \(20, 4, 5\) and .* by \.flatten\(1\)"):
        fit_band(prediction, values, level=0.9)


@pytest.mark.parametrize("kind", ["pointwise", "field"])
def test_a_band_follows_the_units_of_the_field(kind: Literal["pointwise", "field"]) -> None:
    """Deviations from 1e-5 to 1e-4, as of humidity in kg/kg, and a thousand times as large, in g/kg."""
    generator, deviation = torch.Generator().manual_seed(0), torch.logspace(-5, -4, 9).double().expand(99, 9)
    values = deviation * torch.randn(99, 9, generator=generator, dtype=torch.float64)
    first, second = (
        fit_band(Normal(0 * values, unit * deviation), unit * values.numpy(), level=0.9, kind=kind)
        for unit in (1.0, 1e3)
    )
    assert second.factor == pytest.approx(first.factor, rel=1e-12)
    assert second.floor == pytest.approx(1e3 * first.floor, rel=1e-12)


def test_the_factor_of_a_pointwise_band_has_its_rank_among_all_values() -> None:
    """Of 9 · 4 values the ⌈10 · 4 · level⌉-th smallest."""
    prediction = Normal(torch.zeros(9, 4), torch.ones(9, 4))
    values = torch.randperm(36, generator=torch.Generator().manual_seed(0)).reshape(9, 4) * -0.5 - 0.5
    for level, rank in ((0.9, 36), (0.5, 20), (0.51, 21)):
        band = fit_band(prediction, values, level=level, kind="pointwise")
        assert (band.factor, band.kind) == (0.5 * rank, "pointwise")
    with pytest.raises(InvalidArgumentError, match="needs at least 11 validation functions, got 9"):
        fit_band(prediction, values, level=0.91, kind="pointwise")
    with pytest.raises(InvalidArgumentError, match=r"without inside; got 'pointwise' and inside=0\.9"):
        fit_band(prediction, values, level=0.5, kind="pointwise", inside=0.9)
    with pytest.raises(InvalidArgumentError, match="got 'values'"):
        fit_band(prediction, values, level=0.5, kind="values")


@pytest.mark.parametrize("correlated", [False, True])
@pytest.mark.parametrize("n", [8, 64, 201])
def test_each_kind_of_band_holds_its_level_on_calibrated_gaussians(n: int, correlated: bool) -> None:
    """90 % of the values, or of the fields, of 100 new functions, by 40 bands fitted on 99 functions each.

    The mean of a band's coverage is 0.9 to within 0.01, its standard deviation √(0.9 · 0.1 (1/99 + 1/100)) = 0.042 at
    most, so that the mean of 40 is within 0.01 + 3 · 0.042/√40 = 0.03.
    """
    generator = torch.Generator().manual_seed(n)
    fields = torch.randn(40, 199, n, dtype=torch.float64, generator=generator)
    if correlated:
        fields = fields.cumsum(dim=-1) / torch.arange(1, n + 1).sqrt()
    scale = torch.linspace(0.5, 2.0, n, dtype=torch.float64)
    held = {"pointwise": 0.0, "field": 0.0}
    for split in fields * scale:
        seen, new = (Normal(torch.zeros_like(part), scale.expand_as(part)) for part in (split[:99], split[99:]))
        for kind in held:
            lower, upper = fit_band(seen, split[:99], level=0.9, kind=kind).ends(new)
            inside = (lower <= split[99:]) & (split[99:] <= upper)
            held[kind] += float((inside if kind == "pointwise" else inside.all(dim=-1)).double().mean()) / 40
    assert held["pointwise"] == pytest.approx(0.9, abs=0.03)
    assert held["field"] == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize("lawful", [False, True])
def test_bands_cover_new_functions_as_often_as_they_say(lawful: bool) -> None:
    """200 splits of 19 validation functions and one new: at least 0.9, up to sampling; the law narrows the band."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(200, 20, 101, dtype=torch.float64, generator=generator)
    prior = Normal(torch.zeros_like(truth), 0.5 * torch.ones_like(truth))
    prediction = condition(prior, integral(GRID, truth @ integral(GRID, 0.0).rows[0])) if lawful else prior
    held = 0
    for split in range(200):
        parts = [
            Normal(prediction.mean[split, part], prediction.variance[split, part].sqrt()) for part in (slice(19), 19)
        ]
        lower, upper = fit_band(parts[0], truth[split, :19], level=0.9).ends(parts[1])
        held += bool(((truth[split, 19] >= lower) & (truth[split, 19] <= upper)).all())
    assert held / 200 == pytest.approx(0.9, abs=0.06)


@pytest.mark.parametrize("update", [condition, truncate])
@pytest.mark.parametrize("mixed", [False, True])
def test_bands_end_at_the_bounds_of_the_prediction(update, mixed: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(30, 6, dtype=torch.float64, generator=generator).round()  # on the bounds
    prior = Normal(values + 0.3 * torch.randn(30, 6, dtype=torch.float64, generator=generator), 0.3 + 0 * values)
    if mixed:
        prior = Mixture(Normal(torch.stack([prior.loc, prior.loc]), torch.stack([prior.scale, prior.scale])))
    prediction = update(prior, Bounded(0.0, 1.0), **({"keep_weights": True} if mixed else {}))
    band = fit_band(prediction, values, level=0.9)
    lower, upper = band.ends(prediction)
    width = band.factor * prediction.variance.sqrt().clamp_min(band.floor)
    assert float((prediction.mean - width).min()) < 0
    assert (float(lower.min()), float(upper.max())) == (0.0, 1.0)
    assert torch.equal(lower, (prediction.mean - width).clamp_min(0.0))
    assert torch.equal(upper, (prediction.mean + width).clamp_max(1.0))
    held = ((values >= lower) & (values <= upper)).all(dim=-1)
    assert float(held.double().mean()) >= 0.9


def test_invalid_arguments_raise_with_reason() -> None:
    # Half of the draws of a projected Gaussian lie on the bound; its moments say nothing of that.
    prior = Normal(torch.full((5,), -0.1, dtype=torch.float64), torch.full((5,), 0.1, dtype=torch.float64))
    u = torch.full((5,), 0.01, dtype=torch.float64)
    for prediction in (condition(prior, NonNegative()), truncate(prior, NonNegative())):
        for score in (
            lambda prediction: cumulative_probability(u, prediction),
            lambda prediction: marginal_log_likelihood(u, prediction),
            lambda prediction: marginal_crps(u, prediction),
            lambda prediction: variance_factor(prediction, u),
        ):
            with pytest.raises(InvalidArgumentError, match="under inequalities is no Gaussian; score its draws"):
                score(prediction)


# Scaled variances


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("factor", [2.0, 100.0, torch.tensor([0.5, 4.0])])
def test_draws_of_a_scaled_prediction_keep_its_law(factor, noise):
    prior = MultivariateNormal(torch.zeros(2, 101).double(), torch.diag_embed(1.0 + torch.stack([X, X.square()])))
    law = integral(GRID, torch.tensor([0.3, 0.4]), noise_variance=noise)
    posterior = condition(prior, law)
    stretched = scaled(posterior, factor)
    torch.testing.assert_close(stretched.mean, posterior.mean, rtol=0, atol=1e-13)
    expected = torch.as_tensor(factor).reshape(-1, 1, 1) * posterior.covariance_matrix
    torch.testing.assert_close(stretched.covariance_matrix, expected, rtol=0, atol=1e-12)
    if not noise:
        assert float(law.residual(stretched.rsample(torch.Size([50]))).abs().max()) <= 1e-13
