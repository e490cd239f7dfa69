"""Scores against closed forms, quadrature and naive double loops."""

import inspect
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy.stats import norm

from probconserv import LinearConstraint, integral, scores
from probconserv.errors import InvalidArgumentError
from solvers import NodeGrid
from tests.oracles import crps_by_quadrature
from tests.strategies import seeds

few = settings(deadline=None, max_examples=15)


def make_prediction(seed=0, batch=(3,), n=5):
    generator = torch.Generator().manual_seed(seed)
    u, mean, variance = torch.randn(3, *batch, n, dtype=torch.float64, generator=generator)
    return u, mean, variance.square() + 0.01


@few
@given(seeds)
def test_log_likelihood_mse_and_crps_agree_with_naive_forms(seed):
    u, mean, variance = make_prediction(seed)
    expected = norm.logpdf(u, mean, variance.sqrt()).mean(-1)
    np.testing.assert_allclose(scores.log_likelihood(u, mean, variance), expected, rtol=1e-12)
    np.testing.assert_allclose(scores.mse(u, mean), ((u - mean) ** 2).mean(-1), rtol=1e-14)
    first = zip(u[0].tolist(), mean[0].tolist(), variance[0].sqrt().tolist(), strict=True)
    by_quadrature = np.mean([crps_by_quadrature(*entry) for entry in first])
    # Trapezoid rule with a jump at u: first order in a spacing of about 1e-4.
    assert float(scores.crps(u, mean, variance)[0]) == pytest.approx(by_quadrature, abs=1e-4)
    torch.testing.assert_close(scores.crps(u, mean, 0 * variance), (u - mean).abs().mean(-1))


def test_variance_floor_bounds_the_likelihood():
    u = torch.tensor([-1.0, 1.0, -1.0, 1.0])  # of variance 1
    known = torch.zeros(4)
    assert float(scores.log_likelihood(u, u, known)) == pytest.approx(-0.5 * math.log(2 * math.pi * 1e-6))
    stated = scores.log_likelihood(u, u, known, variance_floor=1e-2)
    assert float(stated) == pytest.approx(-0.5 * math.log(2 * math.pi * 1e-2))
    of_points = scores.log_likelihood(u, u, known, torch.tensor([1.0, 1.0, 1e-4, 1e-4]))
    assert float(of_points) == pytest.approx(-0.5 * math.log(2 * math.pi * 1e-2))
    together = scores.log_likelihood(torch.stack([u, 1e6 * u]), torch.stack([u, 1e6 * u]), torch.zeros(2, 4))
    assert float(together[0]) == float(scores.log_likelihood(u, u, known)), "a field does not depend on its batch"
    for constant in (0.0, 3.0):
        field = torch.full((4,), constant)
        assert bool(torch.isfinite(scores.log_likelihood(field, field, known)))


UNITS = {
    torch.float64: [1e-12, 1e-9, 1e-8, 1e-6, 1e-3, 1e3, 1e9, 1e12],
    torch.float32: [1e-12, 1e-9, 1e-8, 1e-6, 1e-3, 1e3, 1e9, 1e12],
    torch.bfloat16: [2.0**-40, 2.0**-10, 2.0**30],
    torch.float16: [2.0**-3, 2.0**4],
}


@pytest.mark.parametrize(("dtype", "unit"), [(dtype, unit) for dtype, units in UNITS.items() for unit in units])
@pytest.mark.parametrize("known", [False, True], ids=["all uncertain", "some values known"])
def test_the_unit_of_the_field_enters_scores_as_it_should(dtype, unit, known):
    """Rounding of values and variances in float32, 6e-8 of each, moves a score by a few times that."""
    u, mean, variance = (part.to(dtype) for part in make_prediction(seed=5))
    if known:
        mean[:, 1], variance[:, 1] = u[:, 1], 0.0
    scaled = [(power * part.double()).to(dtype) for part, power in ((u, unit), (mean, unit), (variance, unit**2))]
    if dtype in (torch.float16, torch.bfloat16):
        assert all(torch.equal(part.double() / power, whole.double()) for part, power, whole in
                   zip(scaled, (unit, unit, unit**2), (u, mean, variance), strict=True))  # fmt: skip
    close = {"rtol": 1e-6, "atol": 1e-6}
    torch.testing.assert_close(scores.nll(*scaled) - math.log(unit), scores.nll(u, mean, variance), **close)
    torch.testing.assert_close(scores.crps(*scaled) / unit, scores.crps(u, mean, variance), **close)
    torch.testing.assert_close(scores.mse(*scaled[:2]) / unit**2, scores.mse(u, mean), **close)
    assert torch.equal(scores.coverage(*scaled, 0.5), scores.coverage(u, mean, variance, 0.5))


def test_crps_is_differentiable_where_some_values_are_known():
    u, mean, variance = make_prediction()
    assert torch.autograd.gradcheck(
        lambda *moments: scores.crps(u, *moments), [mean.requires_grad_(), variance.requires_grad_()]
    )
    deviation = torch.tensor([0.0, 1e-180, 1e-8, 1.0], dtype=torch.float64, requires_grad=True)
    mean = torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
    scores.crps(torch.zeros(4), mean, deviation.square()).backward()
    assert deviation.grad is not None
    assert mean.grad is not None
    assert bool(torch.isfinite(deviation.grad).all() and torch.isfinite(mean.grad).all())
    assert float(deviation.grad[0]) == 0
    # At no error dCRPS/dσ = 2φ(0) − 1/√π; the mean is over four places.
    assert float(deviation.grad[3]) == pytest.approx((math.sqrt(2) - 1) / math.sqrt(math.pi) / 4)


def test_sample_scores_equal_double_loops():
    generator = torch.Generator().manual_seed(1)
    samples = torch.randn(6, 2, 3, dtype=torch.float64, generator=generator)
    u = torch.randn(2, 3, dtype=torch.float64, generator=generator)
    s = len(samples)
    pairs = [(i, j) for i in range(s) for j in range(s) if i != j]
    absolute = torch.stack([(samples[i] - samples[j]).abs() for i, j in pairs]).mean(0)
    expected = ((samples - u).abs().mean(0) - 0.5 * absolute).mean(-1)
    assert torch.allclose(scores.crps_of_samples(u, samples), expected, rtol=1e-12)

    def size(v):
        return v.square().mean(-1).sqrt()

    apart = torch.stack([size(samples[i] - samples[j]) for i, j in pairs]).mean(0)
    assert torch.allclose(scores.energy_score(u, samples), size(samples - u).mean(0) - 0.5 * apart, rtol=1e-12)


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_coverage_of_a_calibrated_prediction_is_its_level(level):
    n = 40_000
    u = torch.randn(n, generator=torch.Generator().manual_seed(4)).double()
    fraction = float(scores.coverage(u, torch.zeros(n).double(), torch.ones(n).double(), level))
    assert fraction == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / n))


def test_conservation_error_is_signed_and_in_float64():
    grid = NodeGrid(0.0, 1.0, 201)
    law = integral(grid, torch.tensor([0.5, 0.25], dtype=torch.float64))
    error = scores.conservation_error(grid.points.expand(2, -1).float(), law)
    assert error.dtype == torch.float64
    # float32 places are off by at most 3e-8 each.
    assert torch.allclose(error, torch.tensor([0.0, 0.25]).double(), atol=3e-8)
    with pytest.raises(InvalidArgumentError, match="one law, got 2 rows"):
        scores.conservation_error(torch.zeros(4), LinearConstraint(torch.eye(2, 4), torch.zeros(2)))


def test_shock_position_is_the_first_place_at_or_below_the_threshold():
    points = torch.tensor([0.0, 0.1, 0.3, 0.7])
    samples = torch.tensor([[[3.0, 1, 0, 2], [0, 1, 1, 1]], [[3, 2, 1, -1], [1, 1, 1, 1]]])
    assert torch.equal(scores.shock_position(samples, points), torch.tensor([[0.3, 0.0], [0.7, 0.7]]))
    assert torch.equal(scores.has_shock(samples), torch.tensor([[True, True], [True, False]]))
    assert torch.equal(scores.shock_position(samples, points, 1.0)[0], torch.tensor([0.1, 0.0]))
    per_function = torch.stack([points, 2 * points])
    assert torch.equal(scores.shock_position(samples, per_function)[:, 1], torch.tensor([0.0, 1.4]))


GAUSSIAN_SCORES = {
    "log_likelihood": scores.log_likelihood,
    "nll": scores.nll,
    "mse": lambda u, mean, variance: scores.mse(u, mean),  # noqa: ARG005 - one signature
    "crps": scores.crps,
    "coverage": lambda u, mean, variance: scores.coverage(u, mean, variance, 0.9),
}
SAMPLE_SCORES = {
    "crps_of_samples": scores.crps_of_samples,
    "coverage_of_samples": lambda u, samples: scores.coverage_of_samples(u, samples, 0.5),
    "energy_score": scores.energy_score,
}


@pytest.mark.parametrize("name", GAUSSIAN_SCORES)
def test_a_channel_axis_is_refused_and_other_broadcasting_is_not(name):
    score = GAUSSIAN_SCORES[name]
    u, mean, variance = make_prediction(batch=(3,))
    for operands in ((u[:, None], mean, variance), (u, mean[:, None], variance[:, None])):
        with pytest.raises(InvalidArgumentError, match=r"truth .*mean .*to \(3, 3, 5\)"):
            score(*operands)
    with pytest.raises(InvalidArgumentError, match=r"do not fit together: truth \(2, 5\), mean \(3, 5\)"):
        score(u[:2], mean, variance)
    expected = torch.stack([score(u[0], *moments) for moments in zip(mean, variance, strict=True)])
    for truth in (u[0], u[:1], u[:1].expand(3, 5)):
        torch.testing.assert_close(score(truth, mean, variance), expected)
    torch.testing.assert_close(score(u[:1, None], mean, variance), expected[None])
    expected = torch.stack([score(truth, mean[0], torch.ones(5)) for truth in u])
    torch.testing.assert_close(score(u, mean[0], torch.ones(())), expected)
    torch.testing.assert_close(score(u, mean[:1], torch.ones(1)), expected)


@pytest.mark.parametrize("name", SAMPLE_SCORES)
def test_truths_are_aligned_with_the_batch_of_samples_not_with_the_draws(name):
    score = SAMPLE_SCORES[name]
    samples = torch.randn(3, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    u = make_prediction(1)[0]
    with pytest.raises(InvalidArgumentError, match=r"truth \(3, 1, 5\), draw \(3, 5\) fit only if each is repeated"):
        score(u[:, None], samples)
    expected = torch.stack([score(truth, samples[:, 0]) for truth in u])
    torch.testing.assert_close(score(u, samples[:, 0]), expected)
    torch.testing.assert_close(score(u, samples[:, :1]), expected)
    expected = torch.stack([score(u[0], draws) for draws in samples.unbind(dim=1)])
    torch.testing.assert_close(score(u[0], samples), expected)
    torch.testing.assert_close(score(u[:1, None], samples), expected[None])


@pytest.mark.parametrize("name", SAMPLE_SCORES)
@pytest.mark.parametrize("batch", [(), (3,)])
def test_swapped_truth_and_draws_are_refused(name, batch):
    samples, u = torch.randn(7, *batch, 5), torch.randn(*batch, 5)
    assert SAMPLE_SCORES[name](u, samples).shape == batch
    shapes = rf"truth \(7, {'3, ' if batch else ''}5\) and samples \({'3, 5' if batch else '5,'}\)"
    with pytest.raises(InvalidArgumentError, match=shapes):
        SAMPLE_SCORES[name](samples, u)


def operands_of(name):
    """Truth and moments of three functions, as many as the score takes, or truth and draws."""
    if name in SAMPLE_SCORES:
        draws = torch.randn(40, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        return SAMPLE_SCORES[name], [make_prediction(1)[0], draws]
    if name == "mse":
        return scores.mse, list(make_prediction()[:2])
    return GAUSSIAN_SCORES[name], list(make_prediction())


@pytest.mark.parametrize("name", [*GAUSSIAN_SCORES, *SAMPLE_SCORES])
def test_arrays_are_refused_whole_numbers_are_not_and_what_is_missing_stays_so(name):
    score, operands = operands_of(name)
    expected, whole = score(*operands), [(3 * values).round().abs() + 1 for values in operands]
    torch.testing.assert_close(score(*(values.long() for values in whole)), score(*whole))
    for position, values in enumerate(operands):
        spoilt = values.clone()
        (spoilt[7] if values.ndim == 3 else spoilt)[0, 2] = math.nan
        found = score(*operands[:position], spoilt, *operands[position + 1 :])
        assert bool(found[0].isnan())
        assert torch.equal(found[1:], expected[1:])
        with pytest.raises(InvalidArgumentError, match=r"must be a tensor, got ndarray; use torch\.as_tensor"):
            score(*operands[:position], values.numpy(), *operands[position + 1 :])
        if values.ndim == 3:
            assert [int(end.isnan().sum()) for end in scores.interval_of_samples(spoilt, 0.5)] == [1, 1]


def test_invalid_arguments_raise_with_reason():
    u = torch.zeros(3)
    with pytest.raises(InvalidArgumentError, match="level must lie strictly between 0 and 1, got 90"):
        scores.coverage(u, u, u, 90)
    for score in (scores.crps_of_samples, scores.energy_score):
        with pytest.raises(InvalidArgumentError, match="two samples are needed along the first axis, got 1"):
            score(u, torch.zeros(1, 3))
    u, mean, variance = make_prediction(batch=(3,))
    for score in (scores.log_likelihood, scores.crps, GAUSSIAN_SCORES["coverage"]):
        with pytest.raises(InvalidArgumentError, match=r"variance \(3, 1, 5\) fit only if each is repeated"):
            score(u, mean, variance[:, None])
    with pytest.raises(InvalidArgumentError, match=r"\(draws, \*batch, n\), draws first, got shape \(5,\)"):
        scores.interval_of_samples(torch.randn(5), 0.5)
    samples, points = torch.rand(4, 5), torch.arange(5)
    for front in (scores.has_shock, lambda samples: scores.shock_position(samples, points)):
        with pytest.raises(InvalidArgumentError, match="samples must be a tensor, got ndarray"):
            front(samples.numpy())


def test_means_with_a_channel_axis_are_not_held_to_every_law():
    law = LinearConstraint(torch.ones(1, 4), torch.tensor([[1.0], [2.0], [3.0]]))
    with pytest.raises(InvalidArgumentError, match=r"mean \(3, 1\), law \(3,\) fit only if each is repeated"):
        scores.conservation_error(torch.zeros(3, 1, 4), law)
    assert scores.conservation_error(torch.zeros(4), law).tolist() == [-1.0, -2.0, -3.0]
    assert scores.conservation_error(torch.zeros(2, 3, 4), law).shape == (2, 3)


def test_infinite_values_are_not_missing():
    u, mean = torch.tensor([math.inf, 0.0]), torch.zeros(2)
    assert float(scores.coverage(u, mean, torch.ones(2), 0.5)) == 0.5
    assert float(scores.coverage(u, mean, torch.full((2,), math.inf), 0.5)) == 1.0


def test_the_former_name_of_the_truth_warns():
    u, mean, variance = make_prediction()
    draws = torch.stack([u, mean])
    for name, arguments in {
        "crps": (mean, variance),
        "mse": (mean,),
        "nll": (mean, variance),
        "log_likelihood": (mean, variance),
        "crps_of_samples": (draws,),
        "energy_score": (draws,),
    }.items():
        score = getattr(scores, name)
        named = dict(zip(list(inspect.signature(score).parameters)[1:], arguments, strict=False))
        with pytest.warns(DeprecationWarning, match=f"u of {name} is truth since release 0.5"):
            assert torch.equal(score(u=u, **named), score(u, *arguments))
