"""Inequalities with a law: exactness, oracles, invariants and draws."""

import numpy as np
import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_operator.operators import DenseLinearOperator, DiagLinearOperator
from scipy.optimize import isotonic_regression
from torch.distributions import Normal

from probconserv import (
    Bounded,
    LinearConstraint,
    Mixture,
    Monotone,
    NonNegative,
    ProbConserv,
    condition,
    from_samples,
    truncate,
)
from probconserv.errors import InvalidArgumentError
from probconserv.inequalities import projected as projected_module
from probconserv.inequalities.projected import Projected
from probconserv.prediction import Prediction
from probconserv.sampling import draw
from tests.oracles import most_probable_by_enumeration
from tests.strategies import INEQUALITIES, positive_definite, projection_problem, seeds

few = settings(deadline=None, max_examples=25)
double = torch.float64


def relative_residual(law, u):
    size = law.b.abs() + (law.rows.abs() @ u.double().abs()[..., None])[..., 0]
    return float((law.residual(u).abs() / size).max())


def require_in_set(u, joined):
    """Bounds and order hold exactly, without tolerance, in the precision of the field."""
    assert bool((u >= joined.lower.to(u.dtype)).all())
    assert bool((u <= joined.upper.to(u.dtype)).all())
    assert bool((joined.order * u.diff(dim=-1) >= 0).all())


def dense_inequalities(joined, n):
    """C and d of C u ≥ d in NumPy."""
    unit = np.eye(n)
    lower, upper = (np.broadcast_to(bound.numpy(), n) for bound in (joined.lower, joined.upper))
    order = joined.order * np.diff(unit, axis=0)[: n - 1 if joined.order else 0]
    rows = np.vstack([unit[np.isfinite(lower)], -unit[np.isfinite(upper)], order])
    return rows, np.concatenate([lower[np.isfinite(lower)], -upper[np.isfinite(upper)], np.zeros(len(order))])


# Exact


@pytest.mark.parametrize(
    ("weight", "total", "expected"),
    [
        (1.0, 1.2, [1.0, 0.2, 0.0, 0.0]),  # max(0, μ − λ) with λ = 0.4: (1.4 − 0.4) + (0.6 − 0.4) = 1.2
        (0.5, 1.55, [1.7, 0.9, 0.1, 0.4]),  # a variance of the row of exactly 1, and a value that leaves its bound
    ],
)
def test_equal_variances_and_weights_project_onto_the_simplex(weight, total, expected):
    law = LinearConstraint(torch.full((1, 4), weight), torch.tensor([total], dtype=double))
    actual = condition(Normal(torch.tensor([1.4, 0.6, -0.2, 0.1], dtype=double), 1.0), law & NonNegative())
    # Values up to 1.7 less a multiplier that comes of sums of four of them: some ten roundings.
    assert torch.allclose(actual.mode, torch.tensor(expected, dtype=double), rtol=0, atol=4e-15)


def test_pools_share_what_the_law_asks_for():
    # 3, 1 pool to 2 (equal variances), then all three rise by 1 to the total 11 = 3 + 3 + 5.
    law = LinearConstraint(torch.ones(1, 3), torch.tensor([11.0]))
    actual = condition(Normal(torch.tensor([3.0, 1.0, 4.0], dtype=double), 1.0), law & Monotone())
    assert torch.allclose(actual.mode, torch.tensor([3.0, 3.0, 5.0], dtype=double), rtol=0, atol=1e-14)


def test_nodes_without_variance_stay_and_split_the_order():
    mean = torch.tensor([0.9, 0.2, 0.7, 0.5, 0.6, 0.1], dtype=double)
    scale = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 1.0], dtype=double)
    law = LinearConstraint(torch.ones(1, 6), torch.tensor([3.2], dtype=double))
    actual = condition(Normal(mean, scale, validate_args=False), law & Monotone(decreasing=True) & Bounded(0.0, 1.0))
    # 0.2 and 0.7 pool to 0.45, 0.6 stays at the known 0.5; raising the pool and the last by 0.1 makes the total 3.2.
    expected = torch.tensor([0.9, 0.55, 0.55, 0.5, 0.5, 0.2], dtype=double)
    assert torch.allclose(actual.mode, expected, rtol=0, atol=1e-14)
    fields = [actual.mode, *actual.rsample(torch.Size([20]), generator=torch.Generator().manual_seed(0))]
    for u in fields:
        assert torch.equal(u[[0, 3]], mean[[0, 3]])
        require_in_set(u, Monotone(decreasing=True) & Bounded(0.0, 1.0))
        assert relative_residual(law, u) <= 1e-12


@pytest.mark.parametrize("dense", [False, True])
def test_a_total_at_the_end_of_the_feasible_ones_leaves_one_field(dense):
    mean, scale, weights, _ = projection_problem(1, 12)
    covariance = DenseLinearOperator(torch.diag(scale**2)) if dense else DiagLinearOperator(scale**2)
    prior = MultivariateNormal(mean, covariance)
    empty = LinearConstraint(weights[None], torch.zeros(1)) & NonNegative()
    full = LinearConstraint(weights[None], weights.sum()[None]) & Bounded(0.0, 1.0)
    assert torch.equal(condition(prior, empty).mode, torch.zeros(12, dtype=double))
    # The sum of weights and the total differ by the order of summation, at most 12 eps.
    assert torch.allclose(condition(prior, full).mode, torch.ones(12, dtype=double), rtol=0, atol=1e-13)


# Oracles


@few
@given(seeds, st.sampled_from(INEQUALITIES), st.booleans())
def test_mode_agrees_with_enumeration_of_active_sets(seed, shape, dense):
    n = 4
    mean, scale, weights, total = projection_problem(seed, n, spread=1)
    joined = LinearConstraint(weights[None], total[None]) & shape
    covariance = torch.diag(scale**2)
    if dense:
        covariance = positive_definite(n, torch.Generator().manual_seed(seed))
    prior = MultivariateNormal(mean, DenseLinearOperator(covariance)) if dense else Normal(mean, scale)
    rows, limits = dense_inequalities(joined, n)
    law = weights.numpy()[None], total.numpy()[None]
    oracle = most_probable_by_enumeration(mean.numpy(), covariance.numpy(), *law, rows, limits)
    assert np.allclose(truncate(prior, joined).mode.numpy(), oracle, rtol=0, atol=1e-9)
    # A projection is in the metric of the variances, after the law in that of Σ.
    centre, variances = condition(prior, joined.law).mean.numpy(), np.diag(covariance.diagonal().numpy())
    oracle = most_probable_by_enumeration(centre, variances, *law, rows, limits)
    assert np.allclose(condition(prior, joined).mode.numpy(), oracle, rtol=0, atol=1e-9)


@few
@given(seeds, st.integers(2, 60))
def test_monotone_field_without_a_law_is_isotonic_regression(seed, n):
    mean, scale, _, _ = projection_problem(seed, n, spread=2)
    actual = condition(Normal(mean, scale), Monotone(decreasing=True) & Bounded(-0.3, 0.6)).mode
    oracle = isotonic_regression(mean.numpy(), weights=(scale**-2).numpy(), increasing=False).x.clip(-0.3, 0.6)
    assert np.allclose(actual.numpy(), oracle, rtol=0, atol=1e-12)


@few
@given(
    seeds, st.integers(2, 25), st.sampled_from(INEQUALITIES), st.sampled_from([0.0, 0.05]), st.sampled_from([(), (3,)])
)
def test_search_for_one_number_agrees_with_quadratic_programming(seed, n, shape, noise, batch):
    mean, scale, weights, total = projection_problem(seed, n, batch, spread=1)
    joined = LinearConstraint(weights[None], total[..., None], noise_variance=noise) & shape
    dense = MultivariateNormal(mean.expand(*batch, n), DenseLinearOperator(torch.diag_embed(scale**2)))
    assert torch.allclose(truncate(dense, joined).mode, condition(Normal(mean, scale), joined).mode, rtol=0, atol=1e-10)


def test_none_is_no_bound():
    prior = Normal(torch.tensor([-1.0, 2.0]), 1.0)
    assert condition(prior, Bounded(None, 1.0)).mode.tolist() == [-1.0, 1.0]
    assert condition(prior, Bounded(0.0, None)).mode.tolist() == [0.0, 2.0]


def test_bounds_of_their_own_at_every_point_and_two_laws_together():
    n = 5
    mean, scale, weights, _ = projection_problem(3, n)
    lower = torch.linspace(-1.0, 0.0, n, dtype=double)
    rows = torch.stack([weights, torch.arange(n, dtype=double)])
    inside = torch.linspace(-0.4, 0.6, n, dtype=double)
    joined = LinearConstraint(rows, rows @ inside) & Bounded(lower, lower + 1.0) & Monotone()
    actual = condition(Normal(mean, scale), joined)
    C, d = dense_inequalities(joined, n)
    oracle = most_probable_by_enumeration(
        mean.numpy(), np.diag(scale.numpy() ** 2), rows.numpy(), (rows @ inside).numpy(), C, d
    )
    assert np.allclose(actual.mode.numpy(), oracle, rtol=0, atol=1e-10)
    require_in_set(actual.mode, joined)


# Invariants


@few
@given(seeds, st.integers(2, 80), st.sampled_from(INEQUALITIES), st.integers(0, 8), st.sampled_from([1e-4, 1.0, 1e5]))
def test_law_and_inequalities_hold_exactly(seed, n, shape, spread, far):
    mean, scale, weights, total = projection_problem(seed, n, (2,), spread)
    law = LinearConstraint(weights[None], total[:, None])
    joined = law & shape
    actual = condition(Normal(far * mean, scale), joined)
    draws = actual.rsample(torch.Size([5]), generator=torch.Generator().manual_seed(seed))
    assert draws.shape == (5, 2, n)
    for u in (actual.mode, draws, actual.with_draws(20).mean):
        require_in_set(u, joined)
        assert relative_residual(law, u) <= 1e-12


@pytest.mark.filterwarnings("ignore:The members cannot explain the law")  # random members and laws may be far apart
@few
@given(seeds, st.integers(4, 30), st.booleans())
def test_dense_priors_meet_law_and_inequalities(seed, n, with_samples):
    mean, _, weights, total = projection_problem(seed, n)
    generator = torch.Generator().manual_seed(seed)
    prior = MultivariateNormal(mean, DenseLinearOperator(positive_definite(n, generator)))
    if with_samples:
        prior = from_samples(torch.rand(5, n, dtype=double, generator=generator) - 0.3, noise_variance=1e-3)
    law = LinearConstraint(weights[None], total[None])
    for shape in (NonNegative(), Monotone() & Bounded(0.0, 1.0)):
        actual = condition(prior, law & shape)
        for u in (actual.mode, actual.rsample(torch.Size([3]), generator=generator), actual.with_draws(4).mean):
            require_in_set(u, law & shape)
            assert relative_residual(law, u) <= 1e-12


def test_conditioning_in_turn_equals_conditioning_at_once():
    mean, scale, weights, total = projection_problem(5, 20)
    prior, law = Normal(mean, scale), LinearConstraint(weights[None], total[None])
    at_once = condition(prior, law & NonNegative() & Monotone()).mode
    assert torch.equal(condition(condition(prior, law), NonNegative() & Monotone()).mode, at_once)
    assert torch.equal(condition(condition(condition(prior, NonNegative()), law), Monotone()).mode, at_once)
    assert torch.equal(condition(prior, Monotone() & (NonNegative() & law)).mode, at_once)


def test_float32_priors_give_float32_results():
    mean, scale, weights, total = (part.float() for part in projection_problem(6, 50, (3,)))
    law = LinearConstraint(weights[None], total[:, None])
    actual = condition(Normal(mean, scale), law & Bounded(0.1, 1.0))
    draws = actual.rsample(torch.Size([4]))
    for u in (actual.mode, draws, actual.mean):
        assert u.dtype == torch.float32
        require_in_set(u, law & Bounded(0.1, 1.0))
        assert relative_residual(law, u) <= 1e-6  # half an ulp of each entry, 6e-8
    assert actual.variance.dtype == torch.float32


# Draws and moments


def test_draws_are_draws_of_the_conditioned_gaussian_projected():
    mean, scale, weights, total = projection_problem(7, 25)
    prior, law = Normal(mean, scale), LinearConstraint(weights[None], total[None])
    conditioned = condition(prior, law).rsample(torch.Size([6]), generator=torch.Generator().manual_seed(1))
    onto = condition(Normal(conditioned, scale), law & NonNegative()).mode
    actual = condition(prior, law & NonNegative()).rsample(torch.Size([6]), generator=torch.Generator().manual_seed(1))
    assert torch.allclose(actual, onto, rtol=0, atol=1e-12)


def test_draws_of_a_noisy_law_spread_about_the_total():
    mean, scale, weights, total = projection_problem(8, 25)
    law = LinearConstraint(weights[None], total[None], noise_variance=0.01)
    draws = condition(Normal(mean + 20, scale), law & NonNegative()).rsample(
        torch.Size([4000]), generator=torch.Generator().manual_seed(2)
    )
    gaussian = condition(Normal(mean + 20, scale), law)
    spread = (law.rows @ gaussian.covariance_matrix @ law.rows.mT).sqrt()
    assert float(law.residual(draws).std()) == pytest.approx(float(spread), rel=0.05)  # 4 standard errors, 1/√(2·4000)


def test_moments_are_those_of_the_draws_with_number_and_seed(monkeypatch):
    mean, scale, weights, total = projection_problem(9, 10, (2,))
    actual = condition(Normal(mean, scale), LinearConstraint(weights[None], total[:, None]) & NonNegative())
    assert (actual.draws, actual.seed) == (500, 0)
    draws = actual.rsample(torch.Size([500]), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(actual.mean, draws.mean(dim=0), rtol=1e-13, atol=1e-15)
    assert torch.allclose(actual.variance, draws.var(dim=0), rtol=1e-12, atol=1e-15)
    assert torch.allclose(actual.stddev**2, actual.variance)
    assert not torch.equal(actual.with_draws(500, seed=1).mean, actual.mean)
    monkeypatch.setattr(projected_module, "_CHUNK", 20 * 7)
    generator = torch.Generator().manual_seed(0)
    chunks = torch.cat([actual.rsample(torch.Size([s]), generator=generator) for s in (7, 7, 6)])
    chunked = actual.with_draws(20)
    assert torch.allclose(chunked.mean, chunks.mean(dim=0), rtol=1e-13, atol=1e-15)
    assert torch.allclose(chunked.variance, chunks.var(dim=0), rtol=1e-12, atol=1e-15)


def test_mixtures_are_projected_component_by_component():
    mean, scale, weights, total = projection_problem(10, 15, (4, 2))
    law = LinearConstraint(weights[None], total[0][:, None])
    shares = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=double)
    mixed = condition(Mixture(Normal(mean, scale), shares), law & NonNegative(), keep_weights=True)
    assert mixed.batch_shape == (2,)
    single = condition(Normal(mean, scale), law & NonNegative())
    assert torch.allclose(mixed.mean, torch.tensordot(shares, single.mean, dims=1))
    draws = mixed.rsample(torch.Size([9]), generator=torch.Generator().manual_seed(0))
    for u in (mixed.mean, draws):
        assert bool((u >= 0).all())
        assert relative_residual(law, u) <= 1e-12
    with pytest.raises(InvalidArgumentError, match="no density"):
        mixed.log_prob(draws)


def test_projected_prediction_is_a_prediction_and_passes_through_the_layer():
    class Black(torch.nn.Module):
        def forward(self, mean):
            return Normal(mean, torch.ones_like(mean))

    mean, _, weights, total = projection_problem(11, 15)
    joined = LinearConstraint(weights[None], total[None]) & NonNegative()
    for constraint in (joined, lambda _: joined):
        actual = ProbConserv(Black(), constraint)(mean)
        assert isinstance(actual, Projected)
        assert isinstance(actual, Prediction)
        assert torch.equal(actual.mode, condition(Normal(mean, torch.ones_like(mean)), joined).mode)
    low, high = actual.confidence_region()
    assert torch.equal(low, (actual.mean - 2 * actual.stddev).clamp_min(0.0))
    assert torch.equal(high, actual.mean + 2 * actual.stddev)
    assert torch.equal(
        draw(actual, (3,), torch.Generator().manual_seed(0)),
        actual.sample(torch.Size([3]), generator=torch.Generator().manual_seed(0)),
    )


def test_batches_of_bounds_and_laws_broadcast():
    mean, scale, weights, _ = projection_problem(12, 8)
    upper = torch.tensor([[0.5], [1.0], [2.0]], dtype=double)
    actual = condition(Normal(mean, scale), LinearConstraint(weights[None], torch.ones(1)) & Bounded(0.0, upper))
    assert actual.mode.shape == (3, 8)
    draws = actual.rsample(torch.Size([2]), generator=torch.Generator().manual_seed(0))
    assert bool((actual.mode <= upper).all() & (draws <= upper).all())
    assert not torch.equal(draws[0, 1], draws[0, 2])
    alone = condition(Normal(mean, scale), LinearConstraint(weights[None], torch.ones(1)) & Bounded(0.0, 0.5))
    assert torch.allclose(actual.mode[0], alone.mode, rtol=0, atol=1e-15)


@pytest.mark.parametrize("inequality", [Bounded(0.0, 1.0), Bounded(0.0, 1.0) & Monotone()])
def test_rows_of_their_own_for_every_entry_of_a_batch(inequality):
    """As many entries as there are ends of an interval, and more."""
    mean, totals = torch.rand(3, 21, dtype=double), torch.tensor([[0.7], [0.25], [0.2]], dtype=double)
    rows = torch.tensor([[[2.0]], [[1.0]], [[1.0]]], dtype=double) / 21
    rows = rows * torch.arange(1, 22, dtype=double).sqrt() / 21**0.5
    scale = torch.ones(21, dtype=double)
    for count in (2, 3):
        law = LinearConstraint(rows[:count], totals[:count])
        together = condition(Normal(mean[:count], scale), law & inequality)
        assert float(law.residual(together.mode).abs().max()) <= 1e-14
        for entry in range(count):
            alone = condition(Normal(mean[entry], scale), LinearConstraint(rows[entry], totals[entry]) & inequality)
            torch.testing.assert_close(together.mode[entry], alone.mode, rtol=0, atol=1e-12)


def test_a_further_law_keeps_number_and_seed_of_the_draws():
    law = LinearConstraint(torch.ones(1, 6, dtype=torch.float64), torch.tensor([3.0], dtype=torch.float64))
    prior = Normal(torch.zeros(6, dtype=torch.float64), torch.ones(6, dtype=torch.float64))
    both = condition(condition(prior, NonNegative()).with_draws(7, seed=5), law)
    assert (both.draws, both.seed) == (7, 5)
    assert torch.equal(both.mean, condition(prior, law & NonNegative()).with_draws(7, seed=5).mean)


def test_covariances_that_are_not_finite_are_refused():
    matrix = torch.eye(4, dtype=double)
    matrix[0, 1] = matrix[1, 0] = float("nan")
    prediction = condition(MultivariateNormal(torch.zeros(4, dtype=double), DenseLinearOperator(matrix)), NonNegative())
    with pytest.raises(InvalidArgumentError, match="The covariance of the prior holds 2 NaN or infinite entries"):
        _ = prediction.mean
