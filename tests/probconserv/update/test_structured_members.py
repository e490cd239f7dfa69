"""Members under structured rows to all digits, and parts, batches and derivatives of lazy covariances."""

from dataclasses import replace

import mpmath
import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator import to_dense
from linear_operator.operators import DiagLinearOperator, PsdSumLinearOperator, RootLinearOperator
from torch.distributions import Normal

from probconserv import LinearConstraint, condition, from_samples
from probconserv._linalg import structured
from probconserv._linalg.covariance import covariance_of
from probconserv._linalg.rows import BlockRows, as_sparse_rows
from probconserv.errors import DependentConstraintsError, InvalidArgumentError
from tests.probconserv.update.structured_rows import make_rows, take_large_paths
from tests.recording import records

# Few members under many rows, on purpose; test_members.py has the warning.
pytestmark = pytest.mark.filterwarnings("ignore:The law has .* rows and the ensemble")


@pytest.fixture(autouse=True)
def _no_dense_shortcut(monkeypatch):
    take_large_paths(monkeypatch)


def precise_update(prior, law):
    """Mean, variances and log-evidence under exact rows in 60 digits."""
    with mpmath.workdps(60):
        metric, root = covariance_of(prior.lazy_covariance_matrix).split()
        R, G, mean, b = (mpmath.matrix(part.tolist()) for part in (root, law.rows, prior.mean[:, None], law.b[:, None]))
        covariance = R.T * R + mpmath.diag(metric.tolist())
        residual, cross = G * mean - b, covariance * G.T
        innovation = G * cross
        inverse = mpmath.inverse(innovation)
        moved, removed = mean - cross * inverse * residual, cross * inverse * cross.T
        variance = [covariance[j, j] - removed[j, j] for j in range(24)]
        square = (residual.T * inverse * residual)[0] + len(b) * mpmath.log(2 * mpmath.pi)
        peak = -(mpmath.log(mpmath.det(innovation)) + square) / 2
        return *(torch.tensor([float(x) for x in part], dtype=torch.float64) for part in (moved, variance)), float(peak)


@pytest.mark.parametrize("noise", [1e-2, 1e-6, 1e-10])
@pytest.mark.parametrize("members", [4, 9, 20])  # fewer than rows, one more, and many more
@pytest.mark.parametrize("kind", ["blocks", "overlapping"])
def test_members_with_little_noise_lose_no_digits(kind, members, noise):
    generator = torch.Generator().manual_seed(0)
    fields = 1e3 + 10 * torch.randn(members, 24, dtype=torch.float64, generator=generator)
    G = make_rows(kind, generator)
    law = LinearConstraint(G, LinearConstraint(G, torch.zeros(G.shape[-2])).residual(0.6 * fields[0] + 0.4 * fields[1]))
    prior = from_samples(fields, noise)
    posterior = condition(prior, law)
    mean, variance, peak = precise_update(prior, law)
    # Round-off of fields of 1e3, and of variances of 1e2 with pivots of 1e-4.
    assert float((posterior.mean - mean).abs().max()) <= 1e-11
    assert float((posterior.variance - variance).abs().max()) <= 1e-10
    assert torch.allclose(posterior.covariance_matrix.diagonal(), variance, rtol=0, atol=1e-10)
    # With fewer members than rows a residual that the members explain is a small difference.
    assert posterior.log_evidence.item() == pytest.approx(peak, abs=1e-10 if members > 8 else max(1e-10, 1e-14 / noise))


def test_members_too_large_for_their_noise_are_refused():
    fields = torch.randn(9, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = BlockRows(counts=(6,), sizes=(4,), entries=torch.ones(24).double())
    law = LinearConstraint(rows, torch.zeros(6))
    for prior in (from_samples(fields, 1e-30), from_samples(fields.index_fill(1, torch.tensor([3]), torch.nan), 0.1)):
        with pytest.raises(InvalidArgumentError, match=r"low rank .* not finite, or is so large .* noise_variance"):
            condition(prior, law)
        assert bool(condition(prior, law, validate=False).mean.isnan().any())


def test_few_rows_without_variance_of_their_own_follow_the_members(monkeypatch):
    fields = torch.randn(9, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = BlockRows(counts=(6,), sizes=(4,), entries=torch.ones(24).double())
    noise = (torch.arange(24) >= 4).double()
    law = LinearConstraint(rows, torch.arange(6.0))
    with pytest.raises(DependentConstraintsError, match="a point with variance of its own"):
        condition(from_samples(fields, noise), law)
    monkeypatch.setattr(structured, "_DENSE", 24 * 6)
    actual = condition(from_samples(fields, noise), law)
    expected = condition(from_samples(fields, noise), LinearConstraint(law.rows, law.b))
    assert torch.allclose(actual.mean, expected.mean, rtol=0, atol=1e-12)
    assert torch.allclose(actual.variance, expected.variance, rtol=0, atol=1e-12)
    assert torch.allclose(actual.mean[:4].sum(), law.b[0], rtol=0, atol=1e-12)


@records
def test_members_vectorise_and_compile():
    torch._dynamo.reset()
    generator = torch.Generator().manual_seed(1)
    law = LinearConstraint(make_rows("blocks", generator), torch.full((6,), 0.3).double())
    fields = torch.randn(3, 9, 24, dtype=torch.float64, generator=generator)

    def update(fields):
        posterior = condition(from_samples(fields, 1e-9), law)
        return posterior.mean, posterior.variance

    expected = [torch.stack(part) for part in zip(*map(update, fields), strict=True)]
    compiled = torch.compile(update, fullgraph=True, backend="eager")
    for way in (
        torch.func.vmap(update),
        lambda fields: [torch.stack(p) for p in zip(*map(compiled, fields), strict=True)],
    ):
        for actual, value in zip(way(fields), expected, strict=True):
            torch.testing.assert_close(actual, value, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # by linear_operator, of points that are selected
@pytest.mark.parametrize("kind", ["blocks", "weighted blocks", "overlapping"])
@pytest.mark.parametrize("members", [0, 4])
def test_parts_of_a_lazy_covariance_are_those_of_the_dense_one(kind, members):
    generator = torch.Generator().manual_seed(5)
    G = make_rows(kind, generator)
    if kind == "overlapping":  # rows of their own along one of two batch axes
        G = as_sparse_rows(G)
        G = replace(G, entries=G.entries * torch.rand(2, 1, len(G.row), dtype=torch.float64, generator=generator))
    law = LinearConstraint(G, torch.zeros(2, 3, G.shape[-2]))
    mean, variance = torch.rand(2, 2, 3, 24, dtype=torch.float64, generator=generator) + 0.1
    covariance = DiagLinearOperator(variance)
    if members:
        root = torch.randn(2, 3, 24, members, dtype=torch.float64, generator=generator)
        covariance = PsdSumLinearOperator(RootLinearOperator(root), covariance)
    prior = MultivariateNormal(mean, covariance)
    posterior, dense = condition(prior, law), condition(prior, LinearConstraint(law.rows, law.b)).covariance_matrix

    def is_close(part, expected):
        return part.shape == expected.shape and torch.allclose(to_dense(part), expected, rtol=1e-12, atol=1e-12)

    lazy = posterior.lazy_covariance_matrix
    assert is_close(lazy, dense)
    picked = torch.tensor([2, 0])
    for index in (
        1,
        (slice(1, 2), 2),
        (slice(None), picked),
        (..., slice(3, 7), slice(0, 9)),
        (1, 2, 5),
        (0, picked, 1),
    ):
        assert is_close(lazy[index], dense[index])
    assert is_close(lazy.repeat(2, 2, 1, 1)[3, 4], dense[1, 1])
    assert is_close(lazy.expand(4, 2, 3, 24, 24), dense.expand(4, 2, 3, 24, 24))
    assert is_close(lazy.permute(1, 0, 2, 3), dense.permute(1, 0, 2, 3))
    assert is_close(lazy.unsqueeze(1)[1, 0, 2], dense[1, 2])
    assert is_close((posterior + 1.0)[1].covariance_matrix, dense[1])


@pytest.mark.parametrize("kind", ["blocks", "overlapping"])
def test_a_batch_of_totals_shares_one_prior(kind):
    generator = torch.Generator().manual_seed(6)
    G = make_rows(kind, generator)
    scale = torch.rand(24, dtype=torch.float64, generator=generator) + 0.5
    b = torch.randn(3, 2, G.shape[-2], dtype=torch.float64, generator=generator)
    for prior in (
        Normal(torch.zeros(24).double(), scale),
        from_samples(scale * torch.randn(4, 24, generator=generator), 1),
    ):
        posterior, law = condition(prior, LinearConstraint(G, b)), LinearConstraint(G, b[2, 1])
        single = condition(prior, law)
        assert torch.allclose(posterior.mean[2, 1], single.mean, rtol=1e-13, atol=1e-14)
        assert torch.allclose(posterior.variance[2, 1], single.variance, rtol=1e-13)
        assert torch.allclose(posterior.log_evidence[2, 1], single.log_evidence, rtol=1e-13)
        assert float((posterior.sample((5,)) @ posterior.constraint.rows.mT - b).abs().max()) <= 1e-12


def test_low_rank_plus_diagonal_keeps_its_structure_however_it_was_added():
    n = 100_000  # a dense matrix of it would take 80 GB
    members = torch.randn(n, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    root, diagonal = RootLinearOperator(members), DiagLinearOperator(torch.full((n,), 0.5, dtype=torch.float64))
    law = LinearConstraint(torch.ones(1, n, dtype=torch.float64).to_sparse(), torch.zeros(1))
    mean = torch.ones(n, dtype=torch.float64)
    first, *others = (
        condition(MultivariateNormal(mean, covariance), law)
        for covariance in (PsdSumLinearOperator(root, diagonal), root + diagonal, diagonal + root)
    )
    for other in others:
        torch.testing.assert_close(other.mean, first.mean)
        torch.testing.assert_close(other.variance, first.variance)
        expected = float(first.log_prob(first.mean))
        assert float(other.log_prob(first.mean)) == pytest.approx(expected, rel=1e-10)  # sums of n terms: n ε
