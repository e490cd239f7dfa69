"""Structured rows and covariances against dense matrices, in every path: disjoint, sparse, stacked, low rank."""

import math
from dataclasses import replace

import mpmath
import pytest
import scipy.sparse
import torch
from gpytorch.distributions import MultivariateNormal
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_operator import to_dense
from linear_operator.operators import DiagLinearOperator, PsdSumLinearOperator, RootLinearOperator
from torch import nn
from torch.distributions import Normal

from probconserv import (
    Bounded,
    DependentConstraintsError,
    InfeasibleConstraintError,
    InvalidArgumentError,
    LinearConstraint,
    Monotone,
    NonNegative,
    condition,
    evidence,
    from_samples,
)
from probconserv._linalg import structured
from probconserv._linalg.rows import BlockRows, SparseRows, as_sparse_rows
from probconserv._linalg.structured import StructuredGain
from probconserv.inequalities import _structured
from probconserv.inequalities._structured import StructuredSet
from tests.oracles import condition_densely, log_density_on_surface, most_probable_by_enumeration
from tests.strategies import seeds

few = settings(deadline=None, max_examples=25)
ROWS = ("blocks", "weighted blocks", "regions", "overlapping", "stacked")


@pytest.fixture(autouse=True)
def _no_dense_shortcut(monkeypatch):
    """Small problems take the paths of large ones."""
    monkeypatch.setattr(structured, "_DENSE", 0)
    monkeypatch.setattr(_structured, "LARGE", 0)


def make_rows(kind, generator):
    """Rows over 24 points, as given to ``LinearConstraint``."""
    weights = torch.rand(24, dtype=torch.float64, generator=generator) + 0.2
    blocks = BlockRows(counts=(3, 2), sizes=(2, 2), entries=weights)
    if kind == "blocks":
        return BlockRows(counts=(3, 2), sizes=(2, 2), entries=torch.tensor(0.25, dtype=torch.float64))
    if kind == "weighted blocks":
        return blocks
    if kind == "stacked":
        total = LinearConstraint(torch.ones(1, 24).double(), torch.ones(1))
        return (LinearConstraint(blocks, torch.zeros(6)) & total).G
    label = torch.randint(-1, 4, (24,), generator=generator)
    label[:8] = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])  # with these the eight overlapping rows are independent
    dense = (label == torch.arange(4)[:, None]) * weights
    if kind == "overlapping":
        second = torch.roll(dense, 1, dims=1) * torch.randn(4, 24, dtype=torch.float64, generator=generator)
        dense = torch.cat([dense, second])
    return dense.to_sparse()


@st.composite
def problems(draw, kinds=ROWS, noises=(0.0, 0.3)):
    """A prior with independent values or members and noise, and a structured law, with or without batch axes."""
    generator = torch.Generator().manual_seed(draw(seeds))
    batch, shared = draw(st.sampled_from(((), (3,), (2, 2)))), draw(st.booleans())

    def normal(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    metric = DiagLinearOperator(normal(*(() if shared else batch), 24).square() + 0.05)
    covariance = metric.expand(*batch, 24, 24)
    if draw(st.booleans()):
        covariance = PsdSumLinearOperator(RootLinearOperator(normal(*batch, 24, 3)), covariance)
    G = make_rows(draw(st.sampled_from(kinds)), generator)
    noise = draw(st.sampled_from(noises))
    return MultivariateNormal(normal(*batch, 24), covariance), LinearConstraint(G, normal(*batch, G.shape[-2]), noise)


def entries_of(prior, law):
    """Mean, covariance, G, b and σ² of every batch entry, in NumPy."""
    batch, k = prior.batch_shape, law.b.shape[-1]
    parts = (
        prior.mean.reshape(-1, 24),
        prior.covariance_matrix.expand(*batch, 24, 24).reshape(-1, 24, 24),
        law.rows.expand(batch.numel(), k, 24),
        law.b.reshape(-1, k),
        law.noise.expand(*batch, k).reshape(-1, k),
    )
    return [tuple(part.numpy() for part in each) for each in zip(*parts, strict=True)]


@few
@given(problems())
def test_update_agrees_with_dense_matrices(problem):
    prior, law = problem
    posterior = condition(prior, law)
    assert isinstance(posterior._gain, StructuredGain)
    results = [condition_densely(*entry) for entry in entries_of(prior, law)]
    mean, covariance = (torch.stack([torch.as_tensor(result[i]) for result in results]) for i in (0, 1))
    shape = posterior.mean.shape
    # Round-off of solves with a condition number up to about 1e3.
    assert torch.allclose(posterior.mean, mean.reshape(shape), rtol=1e-12, atol=1e-12 * float(1 + mean.abs().max()))
    assert torch.allclose(posterior.covariance_matrix, covariance.reshape(*shape, 24), rtol=1e-12, atol=1e-12)
    assert torch.allclose(
        posterior.variance, covariance.diagonal(dim1=-2, dim2=-1).reshape(shape), rtol=1e-12, atol=1e-12
    )
    assert bool((posterior.variance >= 0).all() & (posterior.variance <= prior.variance).all())


@few
@given(problems(), seeds)
def test_draws_meet_exact_rows_and_are_those_of_dense_rows(problem, seed):
    prior, law = problem
    posterior, dense = condition(prior, law), condition(prior, LinearConstraint(law.rows, law.b, law.noise))
    generator = torch.Generator().manual_seed(seed)
    shape = (5, *posterior.batch_shape, *posterior.base_sample_shape)
    normals = torch.randn(shape, dtype=torch.float64, generator=generator)
    draws = posterior.rsample(base_samples=normals)
    assert torch.allclose(draws, dense.rsample(base_samples=normals), rtol=1e-11, atol=1e-11)
    if not bool(law.noise.any()):
        size = law.b.abs() + (law.rows.abs() @ draws.abs()[..., None])[..., 0]
        assert float((law.residual(draws).abs() / size).max()) <= 1e-12


@few
@given(problems(noises=(0.0,)))
def test_density_on_the_surface(problem):
    prior, law = problem
    posterior = condition(prior, law)
    u = posterior.sample()
    expected = [
        log_density_on_surface(field, *entry[:4])
        for field, entry in zip(u.reshape(-1, 24).numpy(), entries_of(prior, law), strict=True)
    ]
    actual = posterior.log_prob(u)
    assert torch.allclose(actual, torch.tensor(expected).reshape(actual.shape), rtol=1e-9, atol=1e-9)
    assert bool((posterior.log_prob(u + 1) == -math.inf).all())


@few
@given(problems(noises=(0.3,)))
def test_density_with_noise_and_evidence_are_those_of_dense_rows(problem):
    prior, law = problem
    posterior, dense = condition(prior, law), condition(prior, LinearConstraint(law.rows, law.b, law.noise))
    u = posterior.sample()
    assert torch.allclose(posterior.log_prob(u), dense.log_prob(u), rtol=1e-11, atol=1e-11)
    assert torch.allclose(posterior.log_evidence, dense.log_evidence, rtol=1e-11, atol=1e-11)
    standardised = evidence(prior, LinearConstraint(law.rows, law.b, law.noise)).standardised_residual
    assert torch.allclose(evidence(prior, law).standardised_residual, standardised, rtol=1e-12, atol=1e-12)


def precise_update(prior, law):
    """Mean, variances and log-evidence under exact rows in 60 digits."""
    with mpmath.workdps(60):
        metric, root = structured.split(prior.lazy_covariance_matrix)
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


@pytest.mark.parametrize("kind", ["blocks", "weighted blocks", "regions"])
def test_derivatives_of_the_covariance(kind):
    generator = torch.Generator().manual_seed(7)
    G = make_rows(kind, generator)
    variance = (torch.rand(2, 24, dtype=torch.float64, generator=generator) + 0.5).requires_grad_()

    def product(variance):
        prior = MultivariateNormal(torch.zeros(2, 24).double(), DiagLinearOperator(variance))
        return (
            condition(prior, LinearConstraint(G, torch.zeros(G.shape[-2]))).lazy_covariance_matrix
            @ torch.eye(24, 3).double()
        )

    assert torch.autograd.gradcheck(product, (variance,), fast_mode=True)


@pytest.mark.parametrize("low_rank", [False, True])
@pytest.mark.parametrize("kind", ROWS)
def test_derivatives_of_mean_variance_and_draws(kind, low_rank):
    generator = torch.Generator().manual_seed(0)
    G = make_rows(kind, generator)
    overlap = not as_sparse_rows(G).is_disjoint
    mean, variance = (torch.rand(2, 24, dtype=torch.float64, generator=generator) + 0.5 for _ in range(2))
    root = torch.randn(24, 3, dtype=torch.float64, generator=generator)
    b = torch.randn(G.shape[-2], dtype=torch.float64, generator=generator)

    def update(mean, variance, root, b):
        covariance = DiagLinearOperator(variance)
        if low_rank:
            covariance = PsdSumLinearOperator(RootLinearOperator(root.expand(2, 24, 3)), covariance)
        posterior = condition(MultivariateNormal(mean, covariance), LinearConstraint(G, b, 0.1))
        draws = posterior.rsample(base_samples=torch.ones(3, 2, *posterior.base_sample_shape, dtype=torch.float64))
        return (posterior.mean, draws) if overlap else (posterior.mean, draws, posterior.variance)

    leaves = tuple(part.requires_grad_() for part in (mean, variance, root, b))
    assert torch.autograd.gradcheck(update, leaves, fast_mode=True)
    if overlap:
        posterior = condition(Normal(mean, variance), LinearConstraint(G, b, 0.1))
        with pytest.raises(InvalidArgumentError, match="no derivatives in the prior variance"):
            posterior.variance  # noqa: B018 - evaluating it is the point


@pytest.mark.parametrize("kind", ["blocks", "weighted blocks", "regions"])
def test_disjoint_rows_compile_export_and_vectorise(kind):
    torch._dynamo.reset()
    generator = torch.Generator().manual_seed(1)
    law = LinearConstraint(make_rows(kind, generator), torch.tensor(0.3).double().expand(4 if kind == "regions" else 6))
    mean, scale = (torch.rand(3, 24, dtype=torch.float64, generator=generator) + 0.5 for _ in range(2))

    class Update(nn.Module):
        def forward(self, mean, scale):
            posterior = condition(Normal(mean, scale, validate_args=False), law)
            return posterior.mean, posterior.variance

    update = Update()
    expected = update(mean, scale)
    for way in (
        torch.export.export(update, (mean, scale)).module(),
        torch.compile(update, fullgraph=True, backend="eager"),
        torch.func.vmap(update),
    ):
        for actual, value in zip(way(mean, scale), expected, strict=True):
            torch.testing.assert_close(actual, value, rtol=1e-12, atol=1e-12)


@few
@given(problems(kinds=("blocks", "weighted blocks", "regions")), st.sampled_from([NonNegative(), Bounded(-0.3, 0.8)]))
def test_bounds_agree_with_dense_programmes(problem, bounds):
    prior, law = problem
    inside = condition(prior, bounds).mode
    law = LinearConstraint(law.G, law.residual(inside) + law.b, law.noise)  # totals of a field between the bounds
    projected = condition(prior, law & bounds)
    assert isinstance(projected._feasible, StructuredSet)
    draws = projected.sample((3,), generator=torch.Generator().manual_seed(0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_structured, "LARGE", 10**9)
        dense = condition(prior, LinearConstraint(law.rows, law.b, law.noise) & bounds)
        assert not isinstance(dense._feasible, StructuredSet)
        expected = dense.sample((3,), generator=torch.Generator().manual_seed(0))
        # Two different algorithms, each exact to round-off of solves with condition numbers up to 1e3.
        assert torch.allclose(projected.mode, dense.mode, rtol=1e-11, atol=1e-11)
        assert torch.allclose(draws, expected, rtol=1e-11, atol=1e-11)


def test_the_mode_is_the_best_of_all_active_sets():
    generator = torch.Generator().manual_seed(3)
    mean, noise = torch.randn(8, dtype=torch.float64, generator=generator), torch.full((8,), 0.3).double()
    root = torch.randn(8, 2, dtype=torch.float64, generator=generator)
    prior = MultivariateNormal(mean, PsdSumLinearOperator(RootLinearOperator(root), DiagLinearOperator(noise)))
    law = LinearConstraint(
        BlockRows(counts=(2,), sizes=(4,), entries=torch.ones(8).double()), torch.tensor([1.0, 0.3]).double()
    )
    expected = most_probable_by_enumeration(
        *(part.numpy() for part in (mean, prior.covariance_matrix, law.rows, law.b, torch.eye(8), torch.zeros(8)))
    )
    actual = condition(prior, law & NonNegative()).mode
    torch.testing.assert_close(actual, torch.as_tensor(expected), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("low_rank", [False, True])
def test_modes_under_bounds_have_derivatives(low_rank):
    generator = torch.Generator().manual_seed(4)
    mean, noise, b = (torch.rand(n, dtype=torch.float64, generator=generator) for n in (24, 24, 6))
    mean, root = mean - 0.4, torch.randn(24, 3, dtype=torch.float64, generator=generator)
    rows = BlockRows(counts=(3, 2), sizes=(2, 2), entries=torch.tensor(0.25).double())

    def mode(mean, noise, root, b):
        covariance = DiagLinearOperator(noise + 0.2)
        if low_rank:
            covariance = PsdSumLinearOperator(RootLinearOperator(root), covariance)
        return condition(MultivariateNormal(mean, covariance), LinearConstraint(rows, b + 0.1) & NonNegative()).mode

    leaves = tuple(part.requires_grad_() for part in (mean, noise, root, b))
    assert torch.autograd.gradcheck(mode, leaves, fast_mode=True)


def test_a_total_at_the_end_of_its_interval_fixes_its_block():
    law = LinearConstraint(
        BlockRows(counts=(3,), sizes=(4,), entries=torch.ones(12).double()), torch.tensor([0.0, 2.0, 4.0]).double()
    )
    prior = Normal(torch.zeros(5, 12).double(), torch.linspace(0.1, 1, 12).double().expand(5, 12))
    mode = condition(prior, law & Bounded(0.0, 1.0)).mode
    assert torch.equal(mode[:, :4], torch.zeros(5, 4).double())
    assert torch.equal(mode[:, 8:], torch.ones(5, 4).double())
    assert float(law.residual(mode).abs().max()) <= 1e-15


def test_points_of_no_row_and_points_without_variance():
    G = torch.zeros(2, 6).double()
    G[0, :2], G[1, 3:5] = 1.0, 2.0
    scale = torch.tensor([1.0, 1, 1, 0, 1, 1]).double()
    prior = Normal(torch.tensor([-1.0, 0.5, -2, 0.5, 0.2, 3]).double(), scale, validate_args=False)
    law = LinearConstraint(G.to_sparse(), torch.tensor([1.0, 3.0]).double())
    posterior = condition(prior, law)
    # By hand: each law is met by moving the points that can move by equal amounts.
    assert torch.allclose(posterior.mean, torch.tensor([-0.25, 1.25, -2, 0.5, 1, 3]).double(), atol=1e-15)
    assert torch.allclose(posterior.variance, torch.tensor([0.5, 0.5, 1, 0, 0, 1]).double(), atol=1e-15)
    mode = condition(prior, law & NonNegative()).mode
    assert torch.allclose(mode, torch.tensor([0.0, 1, 0, 0.5, 1, 3]).double(), atol=1e-15)


def test_joining_keeps_the_structure():
    first = LinearConstraint(torch.eye(24)[:3].to_sparse(), torch.zeros(3))
    second = LinearConstraint(scipy.sparse.csr_matrix(torch.eye(24)[5:7].numpy()), torch.ones(2), 0.5)
    joined = first & second
    assert isinstance(joined.G, SparseRows)
    assert joined.G.is_disjoint
    assert torch.equal(joined.rows, torch.cat([first.rows, second.rows]))
    assert joined.noise.tolist() == [0, 0, 0, 0.5, 0.5]
    assert not (joined & first).G.is_disjoint
    dense = LinearConstraint(torch.ones(2, 1, 24), torch.ones(2, 1))
    assert torch.equal((joined & dense).rows, torch.cat([joined.rows.expand(2, 5, 24), dense.rows], dim=1))


def test_single_precision():
    rows = BlockRows(counts=(8,), sizes=(8,), entries=torch.tensor(0.125).double())
    law = LinearConstraint(rows, torch.linspace(-1, 1, 8))
    posterior = condition(from_samples(torch.randn(5, 3, 64), 0.1), law)
    assert posterior.mean.dtype == posterior.variance.dtype == posterior.sample().dtype == torch.float32
    # Rounding the result to single precision.
    assert float(law.residual(posterior.mean).abs().max()) <= 1e-6


def test_large_structures_take_seconds_and_little_memory():
    n, k = 200_000, 2_000
    column = torch.arange(k)[:, None] * 100 + torch.arange(120)
    index = torch.stack([torch.arange(k)[:, None].expand(k, 120).flatten(), (column % n).flatten()])
    G = torch.sparse_coo_tensor(index, torch.ones(k * 120).double(), (k, n), check_invariants=True)
    law = LinearConstraint(G, torch.ones(k))
    posterior = condition(Normal(torch.zeros(n).double(), torch.ones(n).double()), law)
    assert float(law.residual(posterior.mean).abs().max()) <= 1e-13
    assert float(law.residual(posterior.sample()).abs().max()) <= 1e-11
    assert bool((posterior.variance > 0.9).all())
    with pytest.raises(InvalidArgumentError, match=r"would take 3\.2 GB as a dense matrix"):
        law.rows  # noqa: B018 - evaluating it is the point


def test_dependent_and_contradicting_rows_are_refused():
    prior = Normal(torch.zeros(24).double(), torch.ones(24).double())
    row = torch.zeros(1, 24).double()
    row[0, :4] = 1.0
    for second in (row, torch.roll(row, 2, dims=1)):
        law = LinearConstraint(torch.cat([row, second, row + second]).to_sparse(), torch.zeros(3))
        with pytest.raises(DependentConstraintsError, match="3 constraint rows are not independent"):
            condition(prior, law)
    pinned = Normal(torch.zeros(24).double(), (torch.arange(24) >= 4).double(), validate_args=False)
    with pytest.raises(DependentConstraintsError, match="give every row a point with variance"):
        condition(pinned, LinearConstraint(row.to_sparse(), torch.zeros(1)))


def test_bad_input_is_refused():
    rows = BlockRows(counts=(6,), sizes=(4,), entries=torch.ones(24).double())
    law = LinearConstraint(rows, torch.ones(6))
    with pytest.raises(InvalidArgumentError, match=r"mean of the prior .* not finite"):
        condition(Normal(torch.full((24,), torch.nan).double(), torch.ones(24).double(), validate_args=False), law)
    negative = MultivariateNormal(torch.zeros(24).double(), DiagLinearOperator(torch.full((24,), -1.0).double()))
    with pytest.raises(InvalidArgumentError, match="variance must not be negative"):
        condition(negative, law)
    assert bool(condition(negative, law, validate=False).mean.isnan().all())
    with pytest.raises(InvalidArgumentError, match="row of G is zero"):
        LinearConstraint(torch.zeros(2, 24).to_sparse(), torch.ones(2))
    with pytest.raises(InvalidArgumentError, match="G of the constraint holds 1 NaN"):
        LinearConstraint(torch.tensor([[torch.nan, 1.0]]).to_sparse(), torch.ones(1))
    prior = Normal(torch.zeros(24).double(), torch.ones(24).double())
    with pytest.raises(InfeasibleConstraintError, match=r"Row 0 of the law asks for -1 .* between 0 and inf"):
        condition(prior, LinearConstraint(rows, -torch.ones(6)) & NonNegative())
    overlapping = LinearConstraint(make_rows("overlapping", torch.Generator()), torch.ones(8))
    for joined in (law & Monotone(), overlapping & NonNegative()):
        with pytest.raises(InvalidArgumentError, match="rows that share no point"):
            condition(prior, joined)


def test_members_without_added_variance_are_refused_before_any_work():
    members = torch.randn(5, 32, 4096, dtype=torch.float64)
    with pytest.raises(InfeasibleConstraintError, match=r"span of 5 samples.*noise_variance"):
        condition(from_samples(members), NonNegative())


@pytest.mark.parametrize("kind", ["blocks", "weighted blocks", "regions"])
def test_tensors_stay_on_their_device(kind):
    # The meta device stands for any that is not the CPU: whatever leaves it raises.
    G = as_sparse_rows(make_rows(kind, torch.Generator())) if kind == "regions" else make_rows(kind, torch.Generator())
    law = LinearConstraint(G.to("meta"), torch.ones(G.shape[-2], device="meta"))
    members = torch.ones(5, 2, 24, dtype=torch.float64, device="meta")
    for prior in (Normal(members[0], members[0] + 1, validate_args=False), from_samples(members, 0.1)):
        posterior = condition(prior, law)
        assert posterior.mean.is_meta
        assert posterior.variance.is_meta
        assert posterior.rsample(torch.Size([3])).is_meta


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ROWS)
def test_the_gpu_gives_what_the_cpu_gives(kind):
    generator = torch.Generator().manual_seed(0)
    G = as_sparse_rows(make_rows(kind, generator))
    mean, scale = (torch.rand(3, 24, dtype=torch.float64, generator=generator) + 0.5 for _ in range(2))
    b = torch.rand(3, G.shape[-2], dtype=torch.float64, generator=generator)
    expected = condition(Normal(mean, scale), LinearConstraint(G, b))
    actual = condition(Normal(mean.cuda(), scale.cuda()), LinearConstraint(G.to("cuda"), b.cuda()))
    for first, second in zip((actual.mean, actual.variance), (expected.mean, expected.variance), strict=True):
        assert first.is_cuda
        torch.testing.assert_close(first.cpu(), second, rtol=1e-12, atol=1e-12)
