"""Displaced, tempered and context-calibrated predictions."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_operator.operators import DiagLinearOperator
from torch import Tensor
from torch.distributions import Normal

from probconserv import Context, LinearConstraint, Mixture, Query, condition, fit_band, scores
from probconserv.calibration import displaced, scaled
from probconserv.calibration.marginals import (
    calibration_error,
    cumulative_probability,
    marginal_crps,
    marginal_log_likelihood,
)
from probconserv.calibration.variance import (
    ContextCalibrated,
    NoisyContext,
    Tempered,
    standardised_squares,
    variance_factor,
)
from probconserv.errors import InvalidArgumentError
from probconserv.prediction import Prediction
from probconserv.surrogates.surrogate import Surrogate
from tests.strategies import positive_definite

PLACES = torch.linspace(0.0, 1.0, 401, dtype=torch.float64)


def gaussian(mean: Tensor, variance: Tensor | float) -> MultivariateNormal:
    return MultivariateNormal(mean, DiagLinearOperator(torch.as_tensor(variance, dtype=mean.dtype).expand(mean.shape)))


class Nearest(Surrogate):
    """Predicts the nearest observed value with a stated deviation; counts its calls."""

    def __init__(self, deviation: float) -> None:
        super().__init__()
        self.deviation = deviation
        self.calls = 0

    def predict(self, context: Context, query: Query) -> MultivariateNormal:
        self.calls += 1
        distance = torch.cdist(query.points, context.points)
        mean = context.values.gather(-1, distance.argmin(dim=-1))
        return gaussian(mean, self.deviation**2)


def line_context(slope: float, noise: float = 0.0) -> Context:
    """Ten observations of u = slope·x at t = 0, two functions."""
    x = torch.linspace(0.0, 1.0, 10, dtype=torch.float64)
    points = torch.stack((torch.zeros_like(x), x), dim=-1).expand(2, -1, -1)
    values = slope * x + noise * (-1.0) ** torch.arange(10)
    return Context(points, values.expand(2, -1))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31 - 1), st.floats(0.0, 0.3), st.booleans())
def test_displaced_moments_are_those_of_the_mixture_of_shifts(seed: int, deviation: float, single: bool) -> None:
    """Against shifting by NumPy's interpolation, one shift at a time."""
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.float32 if single else torch.float64
    positions = torch.linspace(-1.0, 2.0, 31, dtype=torch.float64)
    mean, variance = torch.randn(2, 3, 31, generator=generator, dtype=torch.float64).to(dtype)
    variance = variance.square() + 1e-3
    moved = displaced(gaussian(mean, variance), positions, deviation, shifts=7)
    standard = 5 * torch.arange(-3, 4, dtype=torch.float64) / 3
    shifts = deviation * standard
    weights = Normal(0.0, 1.0).log_prob(standard).exp()
    weights = weights[:, None, None] / weights.sum()

    def at(values: Tensor, shift: float) -> Tensor:
        position = ((positions - shift) - positions[0]).clamp(0, 3.0) / 0.1
        left = position.floor().clamp(max=29).long()
        return values[:, left] + (position - left) * (values[:, left + 1] - values[:, left])

    means = torch.stack([at(mean.double(), shift) for shift in shifts.tolist()])
    variances = torch.stack([at(variance.double(), shift) for shift in shifts.tolist()])
    tolerance = 1e-4 if single else 1e-9
    assert moved.mean.dtype == dtype
    assert torch.allclose(moved.mean.double(), (weights * means).sum(dim=0), atol=tolerance)
    expected = (weights * (variances + means.square())).sum(dim=0) - (weights * means).sum(dim=0).square()
    assert torch.allclose(moved.variance.double(), expected, atol=tolerance)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31 - 1), st.floats(0.01, 50.0))
def test_scaling_keeps_the_mean_and_multiplies_the_variance(seed: int, factor: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    mean, spread = torch.randn(2, 4, 3, 5, generator=generator, dtype=torch.float64)
    mixture = Mixture(gaussian(mean, spread.square() + 1e-3))
    single = gaussian(mean[0], spread[0].square() + 1e-3)
    for prediction in (mixture, single):
        stretched = scaled(prediction, factor)
        assert isinstance(stretched, type(prediction))
        assert torch.allclose(stretched.mean, prediction.mean, atol=1e-12)
        assert torch.allclose(stretched.variance, factor * prediction.variance, rtol=1e-10, atol=1e-12)


def as_normal(mean: Tensor, deviation: Tensor) -> Normal:
    return Normal(mean, deviation, validate_args=False)


def as_gpytorch(mean: Tensor, deviation: Tensor) -> MultivariateNormal:
    return gaussian(mean, deviation.square())


@pytest.mark.parametrize("built", [as_normal, as_gpytorch])
@pytest.mark.parametrize("unit", [1e-3, 1e-9])
def test_variances_do_not_depend_on_units(built: Callable[[Tensor, Tensor], Prediction], unit: float) -> None:
    """gpytorch raises variances below 1e-10 to that number, whatever the unit."""
    mean, deviation = torch.sigmoid((0.5 - PLACES) / 0.02), 0.003 + 0.02 * PLACES.square()
    small = built(unit * mean, unit * deviation)
    first, second = displaced(built(mean, deviation), PLACES, 0.05), displaced(small, PLACES, 0.05)
    torch.testing.assert_close(second.mean / unit, first.mean)
    torch.testing.assert_close(second.variance / unit**2, first.variance)
    torch.testing.assert_close(standardised_squares(small, unit * (mean + deviation)), torch.ones_like(mean))
    tempered = scaled(gaussian(unit * mean, (unit * deviation).square()), 0.25)
    mixture = scaled(Mixture(gaussian(unit * mean.expand(2, -1), (unit * deviation).square())), 0.25)
    for prediction in (tempered, mixture):
        torch.testing.assert_close(prediction.variance, (0.5 * unit * deviation).square())


def test_values_without_variance_keep_none() -> None:
    """None at all of a Gaussian; of a mixture, squares of the rounding of its mean, a few ε of values up to 1."""
    certain = torch.zeros(401, dtype=torch.float64)
    sure = gaussian(PLACES, certain)
    rounding = (10 * torch.finfo(torch.float64).eps) ** 2
    assert float(displaced(gaussian(certain + 1, certain), PLACES, 0.1).variance.max()) <= rounding
    assert torch.equal(scaled(sure, 3.0).variance, certain)
    assert float(scaled(Mixture(gaussian(PLACES.expand(2, -1), certain)), 3.0).variance.max()) <= 9 * rounding
    assert torch.equal(standardised_squares(sure, PLACES), certain)
    assert bool(torch.isinf(standardised_squares(sure, PLACES + 1)).all())


def test_scaling_a_conditioned_prediction_leaves_no_negative_variance() -> None:
    """Every second value is pinned, so that its variance is the difference of two equal numbers."""
    generator = torch.Generator().manual_seed(0)
    prior = MultivariateNormal(torch.zeros(12).double(), positive_definite(12, generator))
    pinned = scaled(condition(prior, LinearConstraint(torch.eye(12).double()[::2], torch.zeros(6))), 2.0)
    assert bool((pinned.variance >= 0).all())
    assert float(pinned.variance[::2].max()) <= 1e-14


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bands_around_displaced_predictions_do_not_depend_on_the_precision(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    normals = torch.randn(30, 401, dtype=torch.float64, generator=generator)
    mean = torch.sin(3 * PLACES).expand(30, -1)
    prediction = displaced(as_normal(mean.to(dtype), torch.full_like(mean, 1e-4).to(dtype)), PLACES, 0.0)
    factor = fit_band(prediction, (mean + 2e-4 * normals).to(dtype), level=0.5, floor=1e-8).factor
    expected = (2 * normals).abs().amax(dim=-1).sort().values[15]
    # float32 values of order one are rounded by 6e-8, 6e-4 of their deviation.
    assert factor == pytest.approx(float(expected), rel=1e-3)


def test_tempering_with_the_held_out_factor_standardises_the_residuals() -> None:
    context = line_context(slope=2.0)
    query = Query(context.points + 0.03)
    values = 2.0 * query.points[..., 1]
    model = Nearest(deviation=0.001)
    factor = variance_factor(model.predict(context, query), values)
    assert factor > 100
    tempered = Tempered(model, factor).predict(context, query)
    assert float(standardised_squares(tempered, values).mean()) == pytest.approx(1.0, rel=1e-9)


def test_context_calibration_finds_what_the_context_contradicts() -> None:
    """Neighbours differ by slope/9; a deviation of 0.1 explains slope 0.9 and not slope 9."""
    model = ContextCalibrated(Nearest(deviation=0.1), folds=5)
    mild, steep = line_context(0.9), line_context(9.0)
    query = Query(mild.points)
    assert torch.equal(model.factor(mild), torch.ones(2, dtype=torch.float64))
    assert torch.allclose(model.factor(steep), torch.full((2,), 100.0, dtype=torch.float64), rtol=1e-9)
    assert torch.allclose(model.predict(mild, query).variance, torch.full((2, 10), 0.01, dtype=torch.float64))
    assert torch.allclose(model.predict(steep, query).variance, torch.full((2, 10), 1.0, dtype=torch.float64))


def test_noisy_contexts_add_the_noise_to_the_variance() -> None:
    model = NoisyContext(Nearest(deviation=0.1), standard_deviation=0.5, draws=4000)
    context = line_context(1.0)
    prediction = model.predict(context, Query(context.points))
    # Mean and variance over 4,000 draws: five standard errors of each.
    assert torch.allclose(prediction.mean, context.values, atol=5 * 0.5 / 4000**0.5)
    assert torch.allclose(
        prediction.variance, torch.full((2, 10), 0.26, dtype=torch.float64), rtol=5 * (2 / 4000) ** 0.5
    )
    again = model.predict(context, Query(context.points))
    assert torch.equal(prediction.mean, again.mean)
    small = NoisyContext(Nearest(1e-7), standard_deviation=0.0, draws=2).predict(context, Query(context.points))
    torch.testing.assert_close(small.variance, torch.full((2, 10), 1e-14, dtype=torch.float64))


class LeftOut(Nearest):
    """Notes which places it is asked about, and that it has not seen them."""

    def __init__(self) -> None:
        super().__init__(deviation=0.1)
        self.asked: list[list[float]] = []

    def predict(self, context: Context, query: Query) -> MultivariateNormal:
        positions = query.points[0, :, 1].tolist()
        assert not set(positions) & set(context.points[0, :, 1].tolist())
        self.asked.append(positions)
        return super().predict(context, query)


def test_context_calibration_leaves_every_observation_out_once_in_random_folds() -> None:
    context = line_context(9.0)
    state = torch.get_rng_state()
    folds = []
    for seed in (0, 0, 1):
        model = LeftOut()
        factor = ContextCalibrated(model, folds=4, seed=seed).factor(context)
        assert sorted(len(fold) for fold in model.asked) == [2, 2, 3, 3]
        assert sorted(itertools.chain(*model.asked)) == context.points[0, :, 1].tolist()
        folds.append((model.asked, factor.tolist()))
    assert folds[0] == folds[1]
    assert folds[0][0] != folds[2][0]
    # Neither every fourth observation nor neighbours: observations often come sorted.
    positions = context.points[0, :, 1].tolist()
    assert folds[0][0] != [positions[i::4] for i in range(4)]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("low", "high", "count"), [(0.0, 1.0, 201), (-1.0, 2.0, 301), (100.0, 101.0, 101)])
def test_displacement_takes_the_places_of_linspace_in_float32(low: float, high: float, count: int) -> None:
    single, double = (torch.linspace(low, high, count, dtype=dtype) for dtype in (torch.float32, torch.float64))
    step = gaussian((double < (low + high) / 2).double(), 1e-6)
    moved, expected = displaced(step, single, 0.1), displaced(step, double, 0.1)
    # The spacing differs by the rounding of the two ends.
    assert torch.allclose(moved.mean, expected.mean, atol=1e-4)
    assert torch.allclose(moved.variance, expected.variance, atol=1e-4)
    unequal = single.clone()
    unequal[count // 3] += 0.01 * (high - low) / count
    with pytest.raises(InvalidArgumentError, match=f"points must be {count} increasing, equally spaced numbers"):
        displaced(step, unequal, 0.1)


def test_bad_calibrations_are_refused() -> None:
    prior = gaussian(torch.zeros(401, dtype=torch.float64), 1.0)
    for positions in (PLACES.square(), PLACES[1:], PLACES.flip(-1), torch.zeros_like(PLACES), PLACES[None]):
        with pytest.raises(InvalidArgumentError, match="points must be 401 increasing, equally spaced numbers, at l"):
            displaced(prior, positions, 0.1)
    with pytest.raises(InvalidArgumentError, match="points must be 1 increasing, equally spaced numbers, at least 2"):
        displaced(gaussian(torch.zeros(1, dtype=torch.float64), 1.0), PLACES[:1], 0.1)
    for deviation, shifts in ((-1.0, 41), (math.inf, 41), (math.nan, 41), (0.1, 2)):
        with pytest.raises(
            InvalidArgumentError,
            match=f"deviation must be finite and not negative and shifts at least 3, got {deviation} and {shifts}",
        ):
            displaced(prior, PLACES, deviation, shifts)
    with pytest.raises(InvalidArgumentError, match="factor must be finite and not negative, got -2"):
        scaled(prior, -2.0)
    for factor in (-2.0, math.inf, math.nan):
        with pytest.raises(InvalidArgumentError, match=f"factor must be finite and not negative, got {factor}"):
            Tempered(Nearest(0.1), factor)
    with pytest.raises(InvalidArgumentError, match="folds must be at least 2, got 1"):
        ContextCalibrated(Nearest(0.1), folds=1)
    with pytest.raises(InvalidArgumentError, match="fewer than the 11 folds"):
        ContextCalibrated(Nearest(0.1), folds=11).factor(line_context(1.0))
    for deviation, draws in ((0.1, 0), (-0.1, 5), (math.nan, 5)):
        with pytest.raises(
            InvalidArgumentError,
            match=f"draws must be at least 1 and standard_deviation not negative, got {draws} and {deviation}",
        ):
            NoisyContext(Nearest(0.1), deviation, draws=draws)


POINTWISE: list[Callable[[Prediction, Tensor], Tensor]] = [
    lambda prediction, u: standardised_squares(prediction, u),
    lambda prediction, u: cumulative_probability(u, prediction),
    lambda prediction, u: marginal_log_likelihood(u, prediction),
    lambda prediction, u: marginal_crps(u, prediction),
]


@pytest.mark.parametrize("score", POINTWISE)
@pytest.mark.parametrize("mixed", [False, True])
def test_truths_meet_their_own_predictions_only(score: Callable[[Prediction, Tensor], Tensor], mixed: bool) -> None:
    """Components, predictions and truths are three each, so that every wrong alignment has the right shape."""
    u, mean, spread = torch.randn(3, 3, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def predicted(function: int | slice) -> Prediction:
        if mixed:
            return Mixture(Normal(mean[:, function], spread[:, function].abs()), torch.tensor([0.2, 0.3, 0.5]))
        return gaussian(mean[0, function], spread[0, function].square())

    every, one = predicted(slice(None)), predicted(0)
    with pytest.raises(InvalidArgumentError, match=r"truth \(3, 1, 5\), prediction \(3, 5\) fit only if each is rep"):
        score(every, u[0, :, None])
    torch.testing.assert_close(score(one, u[0]), torch.stack([score(one, truth) for truth in u[0]]))
    torch.testing.assert_close(score(every, u[0, 0]), torch.stack([score(predicted(i), u[0, 0]) for i in range(3)]))
    torch.testing.assert_close(score(every, u), torch.stack([score(every, truth) for truth in u]))


def test_a_channel_axis_does_not_enter_the_variance_factor() -> None:
    u = torch.randn(8, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    prediction = gaussian(u + 0.1, 0.01)
    assert variance_factor(prediction, u) == pytest.approx(1.0)
    with pytest.raises(InvalidArgumentError, match=r"truth \(8, 1, 50\), prediction \(8, 50\) .*\(u\[:, 0\] drops"):
        variance_factor(prediction, u[:, None])


def test_missing_values_stay_missing() -> None:
    u = torch.randn(4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    prediction = gaussian(torch.zeros_like(u), 1.0)
    probability = cumulative_probability(u, prediction)
    assert math.isfinite(calibration_error(probability))
    u[0, 0] = math.nan
    missing = cumulative_probability(u, prediction)
    assert bool(missing[0, 0].isnan())
    assert torch.equal(missing.flatten()[1:], probability.flatten()[1:])
    assert math.isnan(calibration_error(missing))
    assert math.isnan(variance_factor(prediction, u))


@pytest.mark.parametrize("name", ["values", "mean", "deviation"])
@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize("inside", [1.0, 0.9])
def test_bands_are_not_fitted_on_missing_values(name: str, number: float, inside: float) -> None:
    tensors = {"values": torch.zeros(9, 20), "mean": torch.ones(9, 20), "deviation": torch.ones(9, 20)}
    tensors[name][3, 5] = number
    prediction = Normal(tensors["mean"], tensors["deviation"], validate_args=False)
    with pytest.raises(InvalidArgumentError, match=f"The {name} of the functions .* holds 1 NaN"):
        fit_band(prediction, tensors["values"], level=0.5, inside=inside)


@pytest.mark.parametrize(("components", "percent"), [(1, 1e-9), (100, 1.0), (150, 2.3), (151, 0.12), (4000, 0.12)])
def test_coincident_components_score_as_one(components: int, percent: float) -> None:
    mean, deviation = torch.zeros(components, 1).double(), torch.ones(components, 1).double().requires_grad_()
    score = marginal_crps(mean[0], Mixture(as_normal(mean, deviation)))
    (slope,) = torch.autograd.grad(score, deviation)
    exact = math.sqrt(2 / math.pi) - 1 / math.sqrt(math.pi)  # the score is proportional to the deviation
    assert [float(score.detach()), float(slope.sum())] == pytest.approx([exact, exact], rel=percent / 100)


@pytest.mark.parametrize(("components", "rounding"), [(30, 5e-3), (300, 1e-3)])
def test_the_score_of_many_components_is_that_of_all_their_pairs(
    monkeypatch: pytest.MonkeyPatch, components: int, rounding: float
) -> None:
    monkeypatch.setattr("probconserv.calibration.marginals._VALUES", 100_000)  # five of the 14 points at a time
    mean, spread, share = torch.rand(
        3, components, 2, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    share, variance = share[..., :1] / share[..., :1].sum(dim=0), (0.01 + spread.square()).square()

    def distance(error: Tensor, variance: Tensor) -> Tensor:
        gaussian = scores.crps(error[..., None], torch.zeros_like(error)[..., None], variance[..., None])
        return gaussian + (variance / math.pi).sqrt()

    within = distance(mean[:, None] - mean, variance[:, None] + variance)
    expected = (share * distance(mean - 0.3, variance)).sum(dim=0) - 0.5 * (share[:, None] * share * within).sum((0, 1))
    score = marginal_crps(torch.full((2, 7), 0.3).double(), Mixture(as_normal(mean, variance.sqrt()), share[..., 0]))
    torch.testing.assert_close(score, expected.mean(dim=-1), rtol=rounding, atol=0)


UNITS = [(torch.float64, unit) for unit in (1e-12, 1e-9, 1e-8, 1e-6, 1e6, 1e12)]
UNITS += [(torch.float32, unit) for unit in (1e-12, 1e-9, 1e-8, 1e-6, 1e6, 1e12)]
UNITS += [(torch.float16, 2.0**-4), (torch.float16, 2.0**4), (torch.bfloat16, 2.0**-40), (torch.bfloat16, 2.0**40)]


@pytest.mark.parametrize(("dtype", "unit"), UNITS)
@pytest.mark.parametrize("mixed", [False, True])
def test_marginal_scores_do_not_depend_on_the_unit(dtype: torch.dtype, unit: float, mixed: bool) -> None:
    """Rounding of values and deviations in float32, 6e-8 of each, moves a score by a few times that."""
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(2, 6, generator=generator).to(dtype)
    mean = torch.randn(3, 2, 6, generator=generator).to(dtype)
    deviation = (0.1 + torch.rand(3, 2, 6, generator=generator)).to(dtype)
    mean[:, :, 1], deviation[:, :, 1] = u[:, 1], 0.0
    found = []
    for scale in (1.0, unit):
        truth, *moments = ((scale * part.double()).to(dtype) for part in (u, mean, deviation))
        normal = torch.distributions.Normal(*moments, validate_args=False)
        first = torch.distributions.Normal(*(part[0] for part in moments), validate_args=False)
        prediction = Mixture(normal) if mixed else first
        found.append(
            (
                marginal_crps(truth, prediction) / scale,
                marginal_log_likelihood(truth, prediction) + math.log(scale),
                cumulative_probability(truth, prediction),
            )
        )
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_a_value_predicted_without_deviation_is_a_step(offset: float) -> None:
    """Whatever it lies at: up to rounding at the truth, or beyond it."""
    double = torch.float64
    mean = torch.tensor([[0.3, 0.3, 0.3]], dtype=double) + offset
    u = mean + torch.tensor([0.0, 1e-6, -1e-6], dtype=double)
    exact = torch.distributions.Normal(mean, torch.zeros(1, 3, dtype=double), validate_args=False)
    assert torch.allclose(cumulative_probability(u, exact), torch.tensor([0.5, 1.0, 0.0], dtype=double), atol=1e-12)
    # E|X − u| of a step, up to the rounding 4 ε |u| that it has as deviation
    rounding = 8 * torch.finfo(double).eps * (offset + 1)
    assert torch.allclose(marginal_crps(u, exact), (u - mean).abs().mean(dim=-1), rtol=0, atol=rounding)
