"""Slope, offset and variance of a law from cases: closed forms, a grid of all parameters, coverage, messages."""

import math
import statistics

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from probconserv import LinearConstraint, condition, scores
from probconserv.errors import IncompatibleQueryError, InvalidArgumentError
from probconserv.fields import block_means
from probconserv.fitted.law import fit_law

double = torch.float64


def cases(count, generator, noise=0.5, rows=1):
    """Fields over four points whose totals are 0.8 b + 2 + ε, with different variances of what is observed."""
    b = 10 * torch.rand(count, rows, dtype=double, generator=generator)
    variance = 0.2 + torch.rand(count, rows, dtype=double, generator=generator)
    error = (noise + variance).sqrt() * torch.randn(count, rows, dtype=double, generator=generator)
    share = torch.rand(count, 4 * rows, dtype=double, generator=generator)
    fields = share.unflatten(1, (rows, 4))
    total = 0.8 * b + 2 + error
    fields = fields + ((total - fields.sum(dim=-1)) / 4)[..., None]
    return b, variance, fields.flatten(1)


def row_of(rows):
    return torch.kron(torch.eye(rows, dtype=double), torch.ones(1, 4, dtype=double))


def test_without_variances_it_is_least_squares():
    b, _, fields = cases(30, torch.Generator().manual_seed(0))
    found = fit_law(LinearConstraint(row_of(1), b), fields)
    y, columns = fields.sum(dim=1).numpy(), np.hstack([b.numpy(), np.ones((30, 1))])
    (slope, offset), squares, *_ = np.linalg.lstsq(columns, y, rcond=None)
    noise = float(squares[0]) / 28
    covariance = noise * np.linalg.inv(columns.T @ columns)
    assert float(found.slope) == pytest.approx(slope, rel=1e-10)
    assert float(found.offset) == pytest.approx(offset, rel=1e-9)
    assert float(found.noise_variance) == pytest.approx(noise, rel=1e-9)
    assert np.allclose(found.covariance[0], covariance, rtol=1e-8)
    assert np.allclose(found.errors[0], [*np.sqrt(np.diag(covariance)), noise * math.sqrt(2 / 28)], rtol=1e-8)
    through = fit_law(LinearConstraint(row_of(1), b), fields, offset=False)
    assert float(through.slope) == pytest.approx(
        float((b[:, 0] * torch.as_tensor(y)).sum() / b.square().sum()), rel=1e-10
    )
    assert float(through.offset) == 0.0
    assert float(through.errors[0, 1]) == 0.0


def test_with_variances_it_is_the_best_of_a_grid_over_all_three_parameters():
    """The evidence of σ² by brute force: the likelihood summed over a grid of slopes and offsets."""
    b, variance, fields = cases(12, torch.Generator().manual_seed(1))
    observed = Normal(fields, (variance / 4).sqrt().expand(-1, 4))
    found = fit_law(LinearConstraint(row_of(1), b), observed)
    y, x, v = (part.numpy() for part in (fields.sum(dim=1), b[:, 0], variance[:, 0]))
    slopes, offsets = np.linspace(-0.2, 1.8, 601), np.linspace(-6, 10, 601)
    residual = y - slopes[:, None, None] * x - offsets[:, None]

    def log_evidence(noise):
        exponent = -0.5 * (residual**2 / (v + noise) + np.log(2 * np.pi * (v + noise))).sum(axis=-1)
        top = exponent.max()
        weight = np.exp(exponent - top)
        cell = (slopes[1] - slopes[0]) * (offsets[1] - offsets[0])
        means = [(weight * part).sum() / weight.sum() for part in (slopes[:, None], offsets)]
        return top + np.log(weight.sum() * cell), means

    best = float(found.noise_variance)
    assert best > 0
    at_best, (slope, offset) = log_evidence(best)
    assert float(found.log_evidence) == pytest.approx(at_best, rel=1e-6)
    assert float(found.slope) == pytest.approx(slope, abs=1e-5)
    assert float(found.offset) == pytest.approx(offset, abs=1e-4)
    assert all(log_evidence(best * factor)[0] < at_best for factor in (0.1, 0.5, 0.9, 0.99, 1.01, 1.1, 2, 10))
    weights, columns = np.diag(1 / (v + best)), np.stack([x, np.ones_like(x)], axis=1)
    projected = weights - weights @ columns @ np.linalg.inv(columns.T @ weights @ columns) @ columns.T @ weights
    assert float(found.errors[0, 2]) == pytest.approx((0.5 * np.trace(projected @ projected)) ** -0.5, rel=1e-8)


def test_a_law_that_is_kept_better_than_observed_has_no_variance_of_its_own():
    b, _, fields = cases(20, torch.Generator().manual_seed(2), noise=0.0)
    found = fit_law(LinearConstraint(row_of(1), b, noise_variance=100.0), fields)
    assert float(found.noise_variance) == 0.0
    exact = fields + ((b - fields.sum(dim=1, keepdim=True)) / 4)
    kept = fit_law(LinearConstraint(row_of(1), b), exact)
    assert float(kept.slope) == pytest.approx(1.0, rel=1e-12)
    assert float(kept.noise_variance) < 1e-25


def test_rows_are_fitted_one_by_one_and_structured_rows_are_the_same():
    b, variance, fields = cases(25, torch.Generator().manual_seed(3), rows=3)
    observed = Normal(fields, (variance / 4).sqrt().repeat_interleave(4, dim=1))
    together = fit_law(LinearConstraint(row_of(3), b), observed)
    blocks = fit_law(block_means(b / 4, (4,)), observed)
    assert torch.allclose(blocks.slope, together.slope, rtol=1e-8)
    assert torch.allclose(16 * blocks.noise_variance, together.noise_variance, rtol=1e-6)
    for row in range(3):
        part = slice(4 * row, 4 * row + 4)
        alone = fit_law(
            LinearConstraint(row_of(1), b[:, row : row + 1]), Normal(observed.loc[:, part], observed.scale[:, part])
        )
        assert torch.allclose(together.slope[row], alone.slope[0], rtol=1e-9)
        assert torch.allclose(together.errors[row], alone.errors[0], rtol=1e-6)


@pytest.mark.long
def test_errors_cover_the_truth_and_the_corrected_law_predicts_further_cases():
    generator = torch.Generator().manual_seed(4)
    inside = []
    for _ in range(200):
        b, variance, fields = cases(20, generator)
        found = fit_law(LinearConstraint(row_of(1), b, noise_variance=variance), fields)
        deviation = torch.tensor([float(found.slope) - 0.8, float(found.offset) - 2.0], dtype=double)
        inside.append((deviation / found.errors[0, :2]).abs() < 1.645)
    assert torch.stack(inside).double().mean(dim=0).tolist() == pytest.approx([0.9, 0.9], abs=0.07)
    b, variance, fields = cases(2000, generator)
    law = found.corrected(LinearConstraint(row_of(1), b, noise_variance=variance))
    expected = found.slope * b + found.offset
    assert torch.allclose(law.b, expected)
    z = (fields.sum(dim=1, keepdim=True) - law.b) / law.noise.sqrt()
    assert float(z.square().mean()) == pytest.approx(1.0, abs=0.35)
    plain = found.corrected(LinearConstraint(row_of(1), b, noise_variance=variance), level=None)
    terms = torch.cat([b[:1], torch.ones(1, 1, dtype=double)], dim=1)
    fit = (terms @ found.covariance[0] @ terms.mT)[0, 0]
    assert float(plain.noise[0, 0]) == pytest.approx(float(variance[0, 0] + found.noise_variance[0] + fit), rel=1e-10)


def replications(count, seed, rows=4000):
    """Right-hand sides and totals of past cases and of one new case, for many independent laws at once."""
    generator = torch.Generator().manual_seed(seed)
    b = torch.randn(count + 1, rows, dtype=double, generator=generator)
    error = torch.randn(count + 1, rows, dtype=double, generator=generator)
    return b, 1.3 * b + 0.2, error


def inside(law, totals, level):
    half_width = statistics.NormalDist().inv_cdf(0.5 + 0.5 * level)
    return float(((totals - law.b).abs() <= half_width * law.noise.sqrt()).double().mean())


@pytest.mark.parametrize("count", [3, 4, 5, 8, 15, 50])
@pytest.mark.parametrize("unit", [1.0, 1e-9, 1e9])
@pytest.mark.filterwarnings("ignore:A variance of few cases:UserWarning")
def test_intervals_of_a_corrected_law_hold_as_often_as_they_say_for_few_cases(count, unit):
    """A fraction of 4,000 has a standard error of 0.005 at 0.9 and 0.008 at 0.5, of which 4 are allowed."""
    b, expected, error = (unit * part for part in replications(count, seed=count))
    totals, G = expected + 0.5 * error, torch.eye(b.shape[1], dtype=double)
    found = fit_law(LinearConstraint(G, b[:count]), totals[:count])
    # traces of weights that are equal
    assert torch.allclose(found.degrees_of_freedom, torch.full_like(b[0], count - 2), rtol=1e-9)
    new = LinearConstraint(G, b[count])
    assert inside(found.corrected(new), totals[count], 0.9) == pytest.approx(0.9, abs=0.02)
    assert inside(found.corrected(new, level=0.5), totals[count], 0.5) == pytest.approx(0.5, abs=0.032)
    if count < 8:
        assert inside(found.corrected(new, level=None), totals[count], 0.9) < 0.85


@pytest.mark.parametrize("count", [4, 8, 15])
@pytest.mark.parametrize("observed", [0.25, 1.0])
@pytest.mark.filterwarnings("ignore:A variance of few cases:UserWarning")
def test_intervals_hold_at_least_as_often_where_observations_have_variances(count, observed):
    """Of totals and of observations of them; a standard error is 0.005, of which 4 are allowed."""
    b, expected, error = replications(count, seed=count)
    variance = observed * (0.5 + torch.rand(b.shape, dtype=double, generator=torch.Generator().manual_seed(0)))
    G = torch.eye(b.shape[1], dtype=double)
    totals = expected + (1.0 + variance).sqrt() * error
    found = fit_law(LinearConstraint(G, b[:count], noise_variance=variance[:count]), totals[:count])
    assert float(found.degrees_of_freedom.max()) <= (count - 2) * (1 + 1e-9)
    assert (
        inside(found.corrected(LinearConstraint(G, b[count], noise_variance=variance[count])), totals[count], 0.9)
        >= 0.88
    )
    exact = expected[count] + error[count]
    assert inside(found.corrected(LinearConstraint(G, b[count])), exact, 0.9) >= 0.86


def test_few_degrees_of_freedom_are_named():
    b, expected, error = replications(4, seed=0, rows=1)
    law = LinearConstraint(torch.ones(1, 1), b[:3])
    found = fit_law(law, (expected + error)[:3])
    with pytest.warns(UserWarning, match="has 1 degrees of freedom. Intervals of 90% .* those of 99% only 94%"):
        found.corrected(LinearConstraint(torch.ones(1, 1), b[3]))
    for level in (0.99, None):
        found.corrected(LinearConstraint(torch.ones(1, 1), b[3]), level=level)
    for level in (0.0, 1.0, 90):
        with pytest.raises(InvalidArgumentError, match="level must lie between 0 and 1"):
            found.corrected(law, level=level)


@pytest.mark.parametrize("size", [0.0, 1e-150, 1.0, 1e150])
def test_totals_of_any_size_have_finite_errors(size):
    """Also of totals that are all 0, which a slope of 0 explains."""
    b = torch.arange(6.0, dtype=double)[:, None]
    totals = size * torch.tensor([1.0, 3.0, 2.0, 5.0, 4.0, 6.0], dtype=double)[:, None]
    found, one = (fit_law(LinearConstraint(torch.ones(1, 1), b), each) for each in (totals, totals / (size or 1.0)))
    for name in ("slope", "offset", "noise_variance", "errors", "covariance", "log_evidence", "degrees_of_freedom"):
        assert bool(torch.isfinite(getattr(found, name)).all()), name
    assert torch.allclose(found.slope, size * one.slope, rtol=1e-9, atol=0)
    assert torch.allclose(found.errors[0, :2], (size or 1.0) * one.errors[0, :2], rtol=1e-6, atol=0)
    if not size:
        assert float(found.slope) == float(found.offset) == 0.0
        assert float(found.noise_variance) < 1e-50


def test_a_fitted_law_helps_where_the_exact_one_harms():
    """Totals of 0.8 b + 2 in the place of b: an energy balance that observations do not close."""
    generator = torch.Generator().manual_seed(5)
    b, _, fields = cases(200, generator)
    scale = torch.full_like(fields, 0.5)
    noisy = fields + scale * torch.randn(fields.shape, dtype=double, generator=generator)
    found = fit_law(LinearConstraint(row_of(1), b[:100]), fields[:100])
    exact = LinearConstraint(row_of(1), b[100:])
    prior = Normal(noisy[100:], scale[100:])
    error = [
        float(scores.mse(fields[100:], mean).mean())
        for mean in (prior.mean, condition(prior, exact).mean, condition(prior, found.corrected(exact)).mean)
    ]
    assert error[2] < error[0] < error[1]


@pytest.mark.parametrize(
    ("b", "fields", "kind", "message"),
    [
        (torch.rand(2, 1), torch.rand(2, 4), InvalidArgumentError, r"more than 2 cases.*got \(2,\) cases"),
        (torch.rand(1), torch.rand(4), InvalidArgumentError, "more than 2 cases"),
        (torch.ones(5, 1), torch.rand(5, 4), InvalidArgumentError, "same in all cases"),
        (torch.rand(5, 1), torch.full((5, 4), math.nan), InvalidArgumentError, "NaN or infinite"),
        (torch.rand(5, 1), torch.rand(6, 4), IncompatibleQueryError, "do not fit; give observations"),
        (torch.rand(5, 1), torch.rand(5, 3), IncompatibleQueryError, "acts on 4 points but the field has 3"),
    ],
)
def test_invalid_arguments_raise_with_reason(b, fields, kind, message):
    with pytest.raises(kind, match=message):
        fit_law(LinearConstraint(row_of(1), b), fields)


def test_another_number_of_rows_is_refused():
    b, _, fields = cases(5, torch.Generator().manual_seed(6))
    found = fit_law(LinearConstraint(row_of(1), b), fields)
    with pytest.raises(IncompatibleQueryError, match="fitted with 1 rows, but this one has 2"):
        found.corrected(LinearConstraint(torch.eye(2), torch.ones(2)))


@pytest.mark.parametrize("offset", [True, False])
def test_covariates_enter_as_least_squares_has_them(offset):
    generator = torch.Generator().manual_seed(7)
    b, _, fields = cases(40, generator, rows=2)
    shared = 1e4 * torch.rand(40, 2, dtype=double, generator=generator) + 3e4
    own = torch.stack([shared, shared.flip(0)], dim=1)
    law = LinearConstraint(row_of(2), b)
    for z in (shared, own):
        found = fit_law(law, fields, covariates=z, offset=offset)
        for row in range(2):
            part = (z if z.ndim == 2 else z[:, row]).numpy()
            columns = np.column_stack([b[:, row].numpy(), *([np.ones(40)] if offset else []), part])
            y = fields.unflatten(1, (2, 4)).sum(dim=-1)[:, row].numpy()
            best, squares, *_ = np.linalg.lstsq(columns, y, rcond=None)
            noise = float(squares[0]) / (40 - columns.shape[1])
            got = [found.slope[row], *([found.offset[row]] if offset else []), *found.covariate_slopes[row]]
            errors = np.sqrt(np.diag(noise * np.linalg.inv(columns.T @ columns)))
            places = [0, *([1] if offset else []), 3, 4]
            assert np.allclose(got, best, rtol=1e-7)  # condition number 1e5 of the columns as they are
            assert float(found.noise_variance[row]) == pytest.approx(noise, rel=1e-8)
            assert np.allclose(found.errors[row, places], errors, rtol=1e-6)


def test_a_source_with_a_known_rate_is_no_misfit():
    """Totals b + rate · 3: fitted with the rate, new cases have no more variance than ε."""
    generator = torch.Generator().manual_seed(8)
    b, rate = (10 * torch.rand(400, 1, dtype=double, generator=generator) for _ in range(2))
    totals = b + 3 * rate + 0.1 * torch.randn(400, 1, dtype=double, generator=generator)
    fields = totals.expand(-1, 4) / 4
    law, new = (LinearConstraint(row_of(1), part) for part in (b[:200], b[200:]))
    blind, seeing = fit_law(law, fields[:200]), fit_law(law, fields[:200], covariates=rate[:200])
    assert float(blind.noise_variance) > 50
    assert float(seeing.noise_variance) == pytest.approx(0.01, rel=0.3)
    corrected = seeing.corrected(new, covariates=rate[200:])
    z = (totals[200:] - corrected.b) / corrected.noise.sqrt()
    assert float(z.square().mean()) == pytest.approx(1.0, abs=0.3)
    scaled = fit_law(law, fields[:200], covariates=1e6 * rate[:200])
    assert float(scaled.log_evidence - seeing.log_evidence) == pytest.approx(-math.log(1e6), abs=1e-8)


@pytest.mark.parametrize(
    ("covariates", "kind", "message"),
    [
        (torch.ones(9, 1), InvalidArgumentError, "Covariate 0 is the same in all cases"),
        (
            torch.arange(9.0)[:, None].expand(9, 2),
            InvalidArgumentError,
            "cannot be distinguished; leave a covariate out",
        ),
        (torch.rand(8, 1), IncompatibleQueryError, r"covariates must be \(cases, p\)"),
        (torch.full((9, 1), math.nan), InvalidArgumentError, "covariates hold 9 NaN"),
        (torch.rand(9, 7), InvalidArgumentError, "more than 9 cases"),
    ],
)
def test_covariates_that_do_not_fit_are_refused(covariates, kind, message):
    b, _, fields = cases(9, torch.Generator().manual_seed(9))
    with pytest.raises(kind, match=message):
        fit_law(LinearConstraint(row_of(1), b), fields, covariates=covariates)


def test_a_law_with_covariates_asks_for_those_of_new_cases():
    b, _, fields = cases(9, torch.Generator().manual_seed(10))
    law = LinearConstraint(row_of(1), b)
    found = fit_law(law, fields, covariates=torch.rand(9, 2, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(IncompatibleQueryError, match="fitted with 2 covariates, got 0; give covariates="):
        found.corrected(law)
