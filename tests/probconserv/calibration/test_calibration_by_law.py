"""Averages over displacements by evidence, conformal bands, scores of mixtures by their own distributions."""

import math

import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from hypothesis import given, settings
from linear_operator.operators import DenseLinearOperator, DiagLinearOperator
from torch.distributions import Normal

from probconserv import Bounded, LinearConstraint, Mixture, NonNegative, condition, fit_band, integral, scores, truncate
from probconserv.calibration import scaled
from probconserv.calibration.displacement import displaced_by_law
from probconserv.calibration.marginals import (
    calibration_error,
    cumulative_probability,
    marginal_crps,
    marginal_log_likelihood,
)
from probconserv.calibration.variance import variance_factor
from probconserv.errors import IncompatibleQueryError, InvalidArgumentError
from probconserv.law_evidence import evidence
from solvers import NodeGrid
from tests.strategies import seeds

few = settings(deadline=None, max_examples=10)
GRID = NodeGrid(0.0, 1.0, 101)
X = GRID.points


def step(front: float) -> torch.Tensor:
    return torch.sigmoid((front - X) / 0.005)


def predicted(mean: torch.Tensor, deviation: float = 0.002) -> Normal:
    return Normal(mean, torch.full_like(mean, deviation))


def law_of(front: torch.Tensor) -> LinearConstraint:
    return integral(GRID, front, noise_variance=1e-6)


def mixture(seed: int, components: int = 3, batch: int = 2) -> Mixture:
    generator = torch.Generator().manual_seed(seed)
    loc, scale = torch.rand(2, components, batch, 101, dtype=torch.float64, generator=generator)
    weights = torch.rand(components, batch, dtype=torch.float64, generator=generator)
    return Mixture(Normal(loc, 0.1 + scale), weights / weights.sum(dim=0))


def test_a_displaced_front_is_found_and_one_in_order_is_left() -> None:
    predictions = predicted(step(0.5).expand(2, -1))
    averaged = displaced_by_law(predictions, law_of(torch.tensor([0.56, 0.5005])), X)
    assert scores.mse(step(0.56), averaged.mean[0]) < 1e-3 < 0.04 < scores.mse(step(0.56), predictions.mean[0])
    plain = condition(predictions, integral(GRID, torch.tensor([0.56, 0.5005]))).mean[1]
    assert (averaged.mean[1] - plain).abs().max() < 0.02 * step(0.5).max()
    assert averaged.weights[0].tolist() == pytest.approx([0.0, 0.98], abs=0.02)  # H₀ of both functions


@pytest.mark.parametrize(
    ("truth", "factor"),
    [
        (torch.exp(-(((X - 0.5) / 0.05) ** 2)), 1.0),
        (1.1 * (1 + 0.3 * torch.sin(2 * math.pi * X)), 1 / 1.1),
        (0.2 * torch.sin(2 * math.pi * X) + 0.003, 1.0),
    ],
    ids=["a bump in its place", "a wave that is too low", "a wave with an offset"],
)
def test_what_ends_as_high_as_it_begins_is_conditioned_alone(truth: torch.Tensor, factor: float) -> None:
    """Its total hardly moves with it, whatever the residual says."""
    prior, total = predicted(factor * truth, 0.03), torch.trapezoid(truth, X)
    averaged = displaced_by_law(prior, integral(GRID, total + 1e-3, noise_variance=1e-8), X)
    conditioned = condition(prior, integral(GRID, total + 1e-3))
    assert averaged.weights.tolist() == [1.0]
    assert torch.allclose(averaged.mean, conditioned.mean, atol=1e-12)
    assert torch.allclose(averaged.variance, conditioned.variance, atol=1e-12)


def test_a_prediction_that_is_unsure_of_its_total_is_conditioned_alone() -> None:
    """Displacements move the total of a step of height 0.02 by less than its standard deviation of 0.01."""
    prior = predicted(0.02 * step(0.5), 0.1)
    assert displaced_by_law(prior, law_of(torch.tensor(0.012).double()), X).weights.tolist() == [1.0]


@few
@given(seeds)
def test_every_component_meets_the_exact_law_and_every_draw(seed: int) -> None:
    law = law_of(torch.tensor([0.4, 0.9], dtype=torch.float64))
    averaged = displaced_by_law(mixture(seed), law, X)
    assert law.residual(averaged.components.mean).abs().max() < 1e-12
    assert law.residual(averaged.sample(torch.Size([20]))).abs().max() < 1e-10
    assert torch.allclose(averaged.weights.sum(dim=0), torch.ones(2).double())


@few
@given(seeds)
def test_weights_are_those_of_the_stated_evidences(seed: int) -> None:
    """H₀ against a naive restatement, and H₁ as a sum over shifts and τ of scalar normal densities."""
    rough, law = mixture(seed, batch=1), law_of(torch.tensor([0.5], dtype=torch.float64))
    fronts = torch.stack([step(front)[None] for front in (0.49, 0.5, 0.505)])  # closer than they are moved
    prior = Mixture(Normal(fronts + 0.05 * rough.components.mean, 0.01 * rough.components.stddev), rough.weights)
    averaged = displaced_by_law(prior, law, X, deviation=0.02, prior_weight=0.3, shape_error=0.5)
    shifts = [0.005 * number for number in range(-12, 13)]
    prior_of = [math.exp(-0.5 * (shift / 0.02) ** 2) for shift in shifts]
    prior_of = [value / sum(prior_of) for value in prior_of]
    weight = law.rows[0]
    totals = []
    for shift in shifts:
        place = ((X - shift) * 100).clamp(0, 100)
        left = place.floor().long().clamp_max(99)
        mean = prior.mean[0]
        moved = mean[left] * (1 - (place - left)) + mean[left + 1] * (place - left)
        totals.append(float(weight @ moved))
    centre = sum(p * g for p, g in zip(prior_of, totals, strict=True))
    spread = math.sqrt(sum(p * (g - centre) ** 2 for p, g in zip(prior_of, totals, strict=True)))
    own = (prior.components.mean[:, 0] @ weight, (prior.components.variance[:, 0] * weight.square()).sum(dim=-1))
    mean_total = float((prior.weights[:, 0] * own[0]).sum())
    variance = float((prior.weights[:, 0] * (own[1] + (own[0] - mean_total) ** 2)).sum()) + 1e-6
    ends = math.log(1e-3), math.log(max(0.5 * spread, 1e-3))
    taus = [math.exp(ends[0] + (ends[1] - ends[0]) * number / 8) for number in range(9)]
    first = 0.0
    for p, g in zip(prior_of, totals, strict=True):
        density = [Normal(g, math.sqrt(variance + tau**2)).log_prob(torch.tensor(0.5).double()).exp() for tau in taus]
        first += p * float(sum(density)) / 9
    none = float(evidence(prior, law).log_evidence.exp())
    expected = 0.3 * first / (0.3 * first + 0.7 * none)
    assert float(averaged.weights[3:].sum()) == pytest.approx(expected, rel=1e-5)


def test_a_dense_covariance_gives_what_its_diagonal_form_gives() -> None:
    law, variance = law_of(torch.tensor(0.45, dtype=torch.float64)), torch.full((101,), 1e-4, dtype=torch.float64)
    first = displaced_by_law(MultivariateNormal(step(0.5), DiagLinearOperator(variance)), law, X)
    second = displaced_by_law(MultivariateNormal(step(0.5), torch.diag(variance)), law, X)
    assert torch.allclose(first.mean, second.mean, atol=1e-10)
    assert torch.allclose(first.variance, second.variance, atol=1e-10)


@pytest.mark.parametrize("gpytorch", [False, True])
@pytest.mark.parametrize("unit", [1e-3, 1e-9])
def test_averages_do_not_depend_on_units(unit: float, gpytorch: bool) -> None:
    def averaged(unit: float) -> Mixture:
        mean, deviation = unit * step(0.5), unit * (0.003 + 0.02 * torch.exp(-(((X - 0.5) / 0.05) ** 2)))
        normal = MultivariateNormal(mean, DiagLinearOperator(deviation.square()))
        law = integral(GRID, torch.tensor(0.53 * unit, dtype=torch.float64), noise_variance=(1e-3 * unit) ** 2)
        return displaced_by_law(normal if gpytorch else Normal(mean, deviation), law, X)

    first, second = averaged(1.0), averaged(unit)
    torch.testing.assert_close(second.weights, first.weights)
    torch.testing.assert_close(second.mean / unit, first.mean, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(second.variance / unit**2, first.variance, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("dense", [False, True])
def test_small_variances_of_large_values_stay(dense: bool) -> None:
    """Standard deviations of 1e-9 at values of 300, whose squares are known to 1e-11."""
    mean, variance = 300.0 + step(0.5), torch.full((101,), 1e-18, dtype=torch.float64)
    variance[0] = 0.0
    covariance = DenseLinearOperator(torch.diag(variance)) if dense else DiagLinearOperator(variance)
    law = law_of(torch.tensor(300.53, dtype=torch.float64))
    averaged = displaced_by_law(MultivariateNormal(mean, covariance), law, X)
    small = averaged.components.variance[:, :5]  # the profile is flat here
    assert small[0, 0] == 0
    assert small.min() >= 0
    torch.testing.assert_close(small.max(), variance[1], rtol=0.1, atol=0)


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
    with pytest.raises(InvalidArgumentError, match=r"got 1\.0, 1\.0 and 0\.001"):
        fit_band(prediction, values, level=1.0)
    with pytest.raises(InvalidArgumentError, match="one field per function"):
        fit_band(prediction, values[0], level=0.5)


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


def test_messages() -> None:
    prior, law = predicted(step(0.5)), law_of(torch.tensor(0.5, dtype=torch.float64))
    with pytest.raises(InvalidArgumentError, match="1 rows and a smallest variance of 0"):
        displaced_by_law(prior, integral(GRID, 0.5), X)
    with pytest.raises(InvalidArgumentError, match="2 rows"):
        displaced_by_law(prior, law & law, X)
    with pytest.raises(InvalidArgumentError, match=r"prior_weight between 0 and 1, got 0\.1, 0\.05 and 1\.0"):
        displaced_by_law(prior, law, X, deviation=0.1, prior_weight=1.0)
    with pytest.raises(InvalidArgumentError, match="equally spaced"):
        displaced_by_law(prior, law, X.square())
    with pytest.raises(InvalidArgumentError, match="give it the black box's prediction"):
        displaced_by_law(condition(prior, law), law, X)
    with pytest.raises(IncompatibleQueryError, match="one total per function"):
        displaced_by_law(prior, law_of(torch.tensor([0.5, 0.6], dtype=torch.float64)), X)
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
