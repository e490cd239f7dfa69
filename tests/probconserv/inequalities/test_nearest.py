"""Rows, bounds, orders and inequalities between values together: an independent programme, corners, recorded graphs."""

import numpy as np
import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator.operators import DenseLinearOperator, DiagLinearOperator
from scipy.linalg import null_space
from scipy.optimize import nnls
from torch.distributions import Normal

from probconserv import (
    Bounded,
    LinearConstraint,
    LinearInequality,
    Monotone,
    NonNegative,
    ProbConserv,
    condition,
    from_samples,
    truncate,
)
from probconserv.errors import ConvergenceError
from probconserv.fields import block_means
from probconserv.inequalities import _ascent
from probconserv.nonlinear.projection import project
from tests.recording import records
from tests.strategies import positive_definite

double = torch.float64


def nearest_by_least_distance(x, scale, rows, b, noise, C, d):
    """argmin |(u − x)/s|² + Σ (G u − b)²/σ² with exact rows and C u ≥ d, by Lawson & Hanson's least distance."""
    free, noisy = scale > 0, noise > 0
    weighed = np.hstack([rows[:, free] * scale[free], np.diag(np.sqrt(noise))[:, noisy]])
    start = np.linalg.lstsq(weighed, b - rows @ x, rcond=None)[0]
    basis = null_space(weighed, rcond=1e-12) if len(rows) else np.eye(weighed.shape[1])
    A = np.hstack([C[:, free] * scale[free], np.zeros((len(C), noisy.sum()))])
    limits, A = d - C @ x - A @ start, A @ basis
    length = np.linalg.norm(A, axis=1)
    A, limits = A[length > 1e-12] / length[length > 1e-12, None], limits[length > 1e-12] / length[length > 1e-12]
    y = np.zeros(basis.shape[1])
    if (limits > 0).any():
        size = np.abs(limits).max()
        matrix, goal = np.vstack([A.T, limits / size]), np.append(np.zeros(A.shape[1]), 1.0)
        active = nnls(matrix, goal, maxiter=100 * len(A) + 1000)[0] > 0
        y = np.linalg.lstsq(A[active], limits[active], rcond=1e-11)[0]
    u = x.copy()
    u[free] += scale[free] * (start + basis @ y)[: free.sum()]
    return u


def problem(kind, seed):
    """Field, deviations, law, σ², inequalities, and C u ≥ d of them; a field that meets all has many values at 0."""
    rng = np.random.default_rng(1000 * seed + len(kind))
    n = int(rng.integers(6, 30))
    x, scale = 2 * rng.normal(size=n), 10.0 ** rng.uniform(-1, 0.5, n)
    inside = np.abs(rng.normal(size=n)) * (rng.random(n) < 0.6)
    rows, A, c, order = rng.normal(size=(2, n)), np.zeros((0, n)), np.zeros(0), np.zeros((0, n))
    if kind == "disjoint":
        label = np.append([0, 1, 2], rng.integers(0, 3, n - 3))
        rows = (label == np.arange(3)[:, None]) * rng.uniform(0.5, 1.0, n)
    elif kind == "overlapping":
        rows = np.stack([np.convolve(np.eye(n)[i], [1, 1, 1], "same") for i in range(0, n, 3)])
    elif kind == "ordered":
        inside, order = np.sort(inside), np.diff(np.eye(n), axis=0)
    elif kind == "channels":
        half = n // 2
        A, c = np.hstack([np.eye(half), -np.eye(half), np.zeros((half, n - 2 * half))]), np.zeros(half)
        inside[:half] = np.minimum(inside[:half], inside[half : 2 * half])
        rows = np.stack([np.arange(n) < half, np.arange(n) >= half]).astype(float)
    elif kind == "redundant":
        A = rng.normal(size=(5, n))
        A = np.vstack([A, A[:2], 2 * A[1:2]])
        c = A @ inside + np.repeat(np.maximum(rng.normal(size=4), 0), 2)[[0, 2, 4, 6, 7, 0, 2, 2]] * np.r_[[1] * 7, 2]
    elif kind == "concave":
        A, c = np.diff(np.eye(n), 2, axis=0), np.zeros(n - 2)
        inside, rows = 4 * np.linspace(0, 1, n) * np.linspace(1, 0, n), np.ones((1, n))
    noise = rng.uniform(0.01, 1, len(rows)) * (rng.random(len(rows)) < 0.3)
    if seed % 3 == 0:
        fixed = rng.random(n) < 0.2
        x[fixed], scale[fixed] = inside[fixed], 0.0
    C, d = np.vstack([np.eye(n), -A, order]), np.concatenate([np.zeros(n), -c, np.zeros(len(order))])
    return x, scale, (rows, rows @ inside, noise), (A, c, bool(len(order))), (C, d)


KINDS = ("dense", "disjoint", "overlapping", "ordered", "channels", "redundant", "concave")


# In the last two, near and far rows meet in a corner, where steps once ended at a field that was not the nearest.
PROBLEMS = [*((kind, seed) for kind in KINDS for seed in range(6)), ("concave", 127), ("concave", 203)]


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(("kind", "seed"), PROBLEMS)
def test_every_structure_agrees_with_least_distance_programming(kind, seed, sparse):
    x, scale, law, (A, c, ordered), (C, d) = problem(kind, seed)
    expected = nearest_by_least_distance(x, scale, *law, C, d)
    rows, b, noise = (torch.as_tensor(part) for part in law)
    joined = LinearConstraint(rows.to_sparse() if sparse else rows, b, noise_variance=noise) & NonNegative()
    joined = joined & LinearInequality(torch.as_tensor(A), torch.as_tensor(c)) if len(c) else joined
    joined = joined & Monotone() if ordered else joined
    actual = condition(Normal(torch.as_tensor(x), torch.as_tensor(scale), validate_args=False), joined).mode
    assert np.abs(actual.numpy() - expected).max() <= 1e-8
    assert float(joined.violation(actual)) <= 1e-12
    size = b.abs() + rows.abs() @ actual
    assert bool((joined.law.residual(actual).abs()[noise == 0] <= 1e-14 * size[noise == 0]).all())


def test_a_search_that_does_not_end_is_an_error(monkeypatch):
    monkeypatch.setattr(_ascent, "_STEPS", 3)
    x, scale, (rows, b, _), (A, c, _), _ = problem("concave", 127)
    law = LinearConstraint(torch.as_tensor(rows), torch.as_tensor(b)) & NonNegative()
    law = law & LinearInequality(torch.as_tensor(A), torch.as_tensor(c))
    with pytest.raises(ConvergenceError, match=r"not found in 3 steps, which miss its conditions by 1 "):
        _ = condition(Normal(torch.as_tensor(x), torch.as_tensor(scale)), law).mode


def test_rows_that_share_no_point_are_found():
    law = LinearConstraint(torch.block_diag(*torch.ones(3, 1, 4, dtype=double)), torch.ones(3))
    assert (law & NonNegative()).division.apart == 3
    pairs = torch.cat([torch.eye(12), -torch.eye(12)], dim=1)
    totals = LinearConstraint(torch.block_diag(torch.ones(1, 12), torch.ones(1, 12)), torch.tensor([1.0, 2.0]))
    division = (totals & LinearInequality(pairs, torch.zeros(12))).division
    assert division.apart == 12
    assert division.places.tolist() == [*range(2, 14), 0, 1]


def test_fields_in_a_corner_of_many_dependent_rows():
    """One field alone: two totals, three bounds and rows that repeat what these say."""
    field = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.5], dtype=double)
    rows = torch.tensor([[1.0, 1, 1, 1, 1], [1.0, 2, 3, 4, 5]], dtype=double)
    A = torch.cat([-torch.eye(5)[1:4], torch.eye(5)[1:4], rows[1:], -rows[1:]]).to(double)
    joined = LinearConstraint(rows, rows @ field) & Bounded(0.0, field + 1) & LinearInequality(A, A @ field)
    actual = condition(Normal(torch.full((5,), 3.0, dtype=double), torch.linspace(0.1, 1, 5, dtype=double)), joined)
    assert torch.allclose(actual.mode, field, rtol=0, atol=1e-12)


def test_precipitation_that_freezes_is_no_more_than_all():
    n, generator = 40, torch.Generator().manual_seed(0)
    mean = torch.rand(3, 2 * n, dtype=double, generator=generator)
    unit = torch.eye(n, dtype=double)
    frozen = LinearInequality(torch.cat([unit, -unit], dim=1).to_sparse(), torch.zeros(n))
    totals = LinearConstraint(torch.block_diag(*torch.ones(2, 1, n, dtype=double)), torch.tensor([8.0, 20.0]))
    joined = totals & NonNegative() & frozen
    prior = Normal(mean, 0.2 + torch.rand(3, 2 * n, dtype=double, generator=generator))
    projected = condition(prior, joined)
    for u in (projected.mode, projected.rsample((7,), generator=generator), projected.with_draws(20).mean):
        assert float(joined.violation(u).max()) <= 1e-13
        assert float(totals.residual(u).abs().max()) <= 1e-13
    assert float(condition(prior, totals & NonNegative()).mode.unflatten(-1, (2, n)).diff(dim=-2).min()) < -0.1


@pytest.mark.parametrize("update", [condition, truncate], ids=["projected", "truncated"])
@pytest.mark.parametrize("correlated", [False, True])
def test_a_row_that_is_zero_in_some_entries_says_nothing_there(update, correlated):
    generator = torch.Generator().manual_seed(3)
    mean = torch.randn(3, 12, dtype=double, generator=generator)
    variance = positive_definite(12, generator) if correlated else torch.diag(torch.rand(12, dtype=double) + 0.5)
    A = torch.cat([torch.eye(6), -torch.eye(6)], dim=1).double().repeat(3, 1, 1)
    A[0, :2], A[1, 3:] = 0.0, 0.0
    law = LinearConstraint(torch.ones(1, 12), torch.ones(1))

    def prior(mean):
        operator = DenseLinearOperator(variance) if correlated else DiagLinearOperator(variance.diagonal())
        return MultivariateNormal(mean, operator.expand(*mean.shape[:-1], 12, 12))

    together = update(prior(mean), law & LinearInequality(A, torch.zeros(6)))
    for entry in range(3):
        rows = A[entry][A[entry].any(dim=-1)]
        alone = update(prior(mean[entry]), law & LinearInequality(rows, torch.zeros(len(rows))))
        # Newton's steps end at 1e-12 of values of size 1 to 3
        assert torch.allclose(together.mode[entry], alone.mode, rtol=0, atol=1e-11)
    assert float((A @ together.sample((5,))[..., None]).max()) <= 1e-12


def test_noisy_rows_of_a_correlated_prior_are_weighed_once():
    """With inequalities that hold already the projection of a draw is the draw, whatever the metric."""
    mean, generator = torch.full((6,), 20.0, dtype=double), torch.Generator().manual_seed(1)
    prior = MultivariateNormal(mean, DenseLinearOperator(positive_definite(6, generator)))
    law = LinearConstraint(
        torch.rand(2, 6, dtype=double, generator=generator), torch.tensor([50.0, 60.0]), noise_variance=0.1
    )
    draws = condition(prior, law).rsample((5,), generator=torch.Generator().manual_seed(2))
    projected = condition(prior, law & NonNegative())
    assert torch.allclose(projected.mode, condition(prior, law).mean, rtol=0, atol=1e-12)
    again = projected.project(draws)
    assert float((again - draws).abs().max()) > 1e-3  # a further update by the noisy rows, as for any field
    low_rank = from_samples(torch.rand(4, 6, dtype=double, generator=generator) - 0.2)
    bounded = condition(low_rank, LinearConstraint(torch.ones(1, 6), torch.ones(1)) & NonNegative())
    assert float(bounded.mode.min()) == 0
    assert float(bounded.mode.sum()) == pytest.approx(1.0, abs=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_of_every_structure(kind):
    x, scale, law, (A, c, ordered), _ = problem(kind, 1)
    rows, b, noise = (torch.as_tensor(part) for part in law)
    leaves = [torch.as_tensor(part).requires_grad_() for part in (x, scale, rows * 1.0, b, A, c + 0.01)]

    def mode(x, scale, rows, b, A, c):
        joined = LinearConstraint(rows, b, noise_variance=noise) & NonNegative()
        joined = joined & LinearInequality(A, c) if len(c) else joined
        joined = joined & Monotone() if ordered else joined
        return condition(Normal(x, scale), joined).mode

    leaves = leaves if len(c) else [*leaves[:4], leaves[4].detach(), leaves[5].detach()]
    assert torch.autograd.gradcheck(mode, leaves, atol=1e-5, fast_mode=True)


class Predictor(torch.nn.Module):
    def __init__(self, constraint):
        super().__init__()
        self.linear = torch.nn.Linear(24, 48).to(double)
        inner = torch.nn.Sequential()
        inner.forward = lambda x: Normal(self.linear(x)[..., :24], self.linear(x)[..., 24:].exp(), validate_args=False)
        self.layer = ProbConserv(inner, constraint)

    def forward(self, x):
        return self.layer(x).mode


PAIRS = torch.cat([torch.eye(12), -torch.eye(12)], dim=1)
RECORDED = {
    "one row": LinearConstraint(torch.ones(1, 24), torch.ones(1)) & NonNegative(),
    "found": LinearConstraint(torch.block_diag(torch.ones(1, 12), torch.ones(1, 12)), torch.ones(2)) & NonNegative(),
    "overlapping": LinearConstraint(torch.stack([torch.ones(24), torch.linspace(0, 1, 24)]), torch.tensor([1.0, 0.5]))
    & NonNegative(),
    "blocks": block_means(torch.ones(2, 3), (2, 2)) & Bounded(0.0, 2.0),
    "channels": LinearInequality(PAIRS, torch.zeros(12)) & LinearConstraint(torch.ones(1, 24), torch.ones(1)),
    "ordered": LinearConstraint(torch.ones(1, 24), torch.ones(1)) & Monotone(),
}


@pytest.mark.long
@records
@pytest.mark.parametrize("name", RECORDED)
def test_models_under_inequalities_are_recorded(name):
    torch.manual_seed(0)
    torch.compiler.reset()
    x, constraint = torch.randn(3, 24, dtype=double), RECORDED[name]
    model = Predictor(constraint if name != "overlapping" else lambda _: constraint)
    expected = model(x)
    slopes = torch.autograd.grad(expected.square().sum(), list(model.parameters()))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")(x)
    assert torch.allclose(compiled, expected, rtol=0, atol=1e-12)
    recorded = torch.autograd.grad(compiled.square().sum(), list(model.parameters()))
    for first, second in zip(slopes, recorded, strict=True):
        assert torch.allclose(first, second, rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        exported = torch.export.export(model, (x,)).module()(x)
    assert torch.allclose(exported, expected, rtol=0, atol=1e-12)


@pytest.mark.long
def test_truncation_meets_inequalities_between_values():
    A = torch.tensor([[1.0, -1.0, 0.0], [0.0, 1.0, 1.0]], dtype=double)
    inequality = LinearInequality(A, torch.tensor([0.0, 1.0])) & NonNegative()
    prior = Normal(torch.tensor([0.9, 0.3, 0.8], dtype=double), torch.ones(3, dtype=double))
    posterior = truncate(prior, inequality, draws=50)
    draws = posterior.sample((200,), generator=torch.Generator().manual_seed(0))
    assert float(inequality.violation(draws).max()) <= 1e-12
    # 0.9, 0.3 meet at 0.6, and with 0.8 the sum is too large by 0.4: by Lagrange's conditions 7/15, 7/15, 8/15.
    assert torch.allclose(posterior.mode, torch.tensor([7.0, 7.0, 8.0]).double() / 15, rtol=0, atol=1e-12)


def test_a_noisy_value_beyond_its_bound_leaves_it_to_the_other_rows() -> None:
    """What is asked of it goes to its noise, so that nothing but round-off is left to hold."""
    rows = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]], dtype=double)
    law = LinearConstraint(
        rows, torch.tensor([-0.0141, 0.18], dtype=double), noise_variance=torch.tensor([4e-4, 0.0], dtype=double)
    )
    fields = torch.tensor([[-0.0141, 0.3, 0.2, -0.05]], dtype=double)
    nearest = project(fields, DiagLinearOperator(torch.full((4,), 0.05, dtype=double)), law & NonNegative())
    assert torch.allclose(nearest, torch.tensor([[0.0, 0.39, 0.29, 0.04]], dtype=double), rtol=0, atol=1e-12)
