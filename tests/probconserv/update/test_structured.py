"""Structured rows and covariances against dense matrices, in every path: disjoint, sparse, stacked, low rank."""

import pytest
import scipy.sparse
import torch
from gpytorch.distributions import MultivariateNormal
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_operator.operators import DiagLinearOperator, PsdSumLinearOperator, RootLinearOperator
from torch import nn
from torch.distributions import Normal

from probconserv import Bounded, LinearConstraint, NonNegative, condition, from_samples
from probconserv._linalg.rows import BlockRows, SparseRows, as_sparse_rows
from probconserv._linalg.structured import StructuredGain
from probconserv.errors import DependentConstraintsError, InfeasibleConstraintError, InvalidArgumentError
from probconserv.posterior import Posterior
from probconserv.prior import as_multivariate_normal
from tests.oracles import condition_densely
from tests.probconserv.update.structured_rows import ROWS, make_rows, take_large_paths
from tests.recording import records
from tests.strategies import seeds

# Few members under many rows, on purpose; test_members.py has the warning.
pytestmark = pytest.mark.filterwarnings("ignore:The law has .* rows and the ensemble")

few = settings(deadline=None, max_examples=25)


@pytest.fixture(autouse=True)
def _no_dense_shortcut(monkeypatch):
    take_large_paths(monkeypatch)


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
    return MultivariateNormal(normal(*batch, 24), covariance), LinearConstraint(
        G, normal(*batch, G.shape[-2]), noise_variance=noise
    )


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
    assert isinstance(posterior.gain, StructuredGain)
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
    posterior, dense = (
        condition(prior, law),
        condition(prior, LinearConstraint(law.rows, law.b, noise_variance=law.noise)),
    )
    generator = torch.Generator().manual_seed(seed)
    shape = (5, *posterior.batch_shape, *posterior.base_sample_shape)
    normals = torch.randn(shape, dtype=torch.float64, generator=generator)
    draws = posterior.rsample(base_samples=normals)
    assert torch.allclose(draws, dense.rsample(base_samples=normals), rtol=1e-11, atol=1e-11)
    if not bool(law.noise.any()):
        size = law.b.abs() + (law.rows.abs() @ draws.abs()[..., None])[..., 0]
        assert float((law.residual(draws).abs() / size).max()) <= 1e-12


@records
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
    law = LinearConstraint(
        law.G, law.residual(inside) + law.b, noise_variance=law.noise
    )  # totals of a field between the bounds
    projected = condition(prior, law & bounds)
    draws = projected.sample((3,), generator=torch.Generator().manual_seed(0))
    dense = condition(prior, LinearConstraint(law.rows, law.b, noise_variance=law.noise) & bounds)
    expected = dense.sample((3,), generator=torch.Generator().manual_seed(0))
    # Two different updates, each exact to round-off of solves with condition numbers up to 1e3.
    assert torch.allclose(projected.mode, dense.mode, rtol=1e-11, atol=1e-11)
    assert torch.allclose(draws, expected, rtol=1e-11, atol=1e-11)


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
    second = LinearConstraint(scipy.sparse.csr_matrix(torch.eye(24)[5:7].numpy()), torch.ones(2), noise_variance=0.5)
    joined = first & second
    assert isinstance(joined.G, SparseRows)
    assert joined.G.is_disjoint
    assert torch.equal(joined.rows, torch.cat([first.rows, second.rows]))
    assert joined.noise.tolist() == [0, 0, 0, 0.5, 0.5]
    assert not (joined & first).G.is_disjoint
    dense = LinearConstraint(torch.ones(2, 1, 24), torch.ones(2, 1))
    assert torch.equal((joined & dense).rows, torch.cat([joined.rows.expand(2, 5, 24), dense.rows], dim=1))


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


@pytest.mark.parametrize("seed", range(5))
def test_variances_where_rows_that_share_points_are_orthogonal(seed):
    """Sums and differences of the same points: S has zeros where its inverse has none."""
    n, k = 300, 100
    generator = torch.Generator().manual_seed(seed)
    places = torch.stack([torch.randperm(12, generator=generator)[:4] for _ in range(k)])
    places = (places + 3 * torch.arange(k)[:, None]) % n
    signs = torch.randint(0, 2, (k, 4), generator=generator).double() * 2 - 1
    index = torch.stack([torch.arange(k)[:, None].expand(k, 4).flatten(), places.flatten()])
    G = torch.sparse_coo_tensor(index, signs.flatten(), (k, n), check_invariants=True)
    rows = G.to_dense()
    assert ((rows @ rows.mT == 0) & (rows.abs() @ rows.mT.abs() > 0)).any()
    posterior = condition(Normal(torch.zeros(n).double(), torch.ones(n).double()), LinearConstraint(G, torch.zeros(k)))
    expected = 1 - (rows * torch.linalg.solve(rows @ rows.mT, rows)).sum(dim=0)
    assert float((posterior.variance - expected).abs().max()) <= 1e-12


def test_variances_where_the_factor_underflows():
    """A ring of rows: fill of the factor falls from row to row, to 0 after some hundred."""
    n, k = 20_000, 2_000
    index = torch.stack([torch.arange(k)[:, None].expand(k, 12), 10 * torch.arange(k)[:, None] + torch.arange(12)])
    index[1] %= n
    G = torch.sparse_coo_tensor(index.flatten(1), torch.ones(12 * k).double(), (k, n), check_invariants=True)
    posterior = condition(Normal(torch.zeros(n).double(), torch.ones(n).double()), LinearConstraint(G, torch.ones(k)))
    of_rows = posterior.variance.reshape(k, 10)
    assert float((of_rows - of_rows[0]).abs().max()) <= 1e-13, "all rows look alike"


def test_dependent_and_contradicting_rows_are_refused():
    prior = Normal(torch.zeros(24).double(), torch.ones(24).double())
    row = torch.zeros(1, 24).double()
    row[0, :4] = 1.0
    for second in (row, torch.roll(row, 2, dims=1)):
        law = LinearConstraint(torch.cat([row, second, row + second]).to_sparse(), torch.zeros(3))
        with pytest.raises(DependentConstraintsError, match="3 constraint rows are not independent"):
            Posterior(as_multivariate_normal(prior), law)
    pinned = Normal(torch.zeros(24).double(), (torch.arange(24) >= 4).double(), validate_args=False)
    with pytest.raises(DependentConstraintsError, match="give every row a point with variance"):
        condition(pinned, LinearConstraint(row.to_sparse(), torch.ones(1)))


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


def test_members_without_added_variance_leave_their_span_for_bounds():
    members = torch.randn(5, 2, 4096, dtype=torch.float64)
    assert bool((condition(from_samples(members), NonNegative()).mode >= 0).all())


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


@pytest.mark.parametrize("kind", ["overlapping", "stacked"])
@pytest.mark.parametrize("output", ["variance", "covariance_matrix"])
def test_overlapping_rows_refuse_derivatives_in_their_noise_alone(kind, output):
    rows = make_rows(kind, torch.Generator().manual_seed(0))
    noise = torch.full((rows.shape[-2],), 0.1, dtype=torch.float64, requires_grad=True)
    law = LinearConstraint(rows, torch.zeros(len(noise), dtype=torch.float64), noise_variance=noise)
    with pytest.raises(InvalidArgumentError, match="or their noise"):
        getattr(condition(Normal(torch.zeros(24).double(), torch.ones(24).double()), law), output)


@pytest.mark.parametrize("output", ["mean", "variance", "covariance_matrix", "log_evidence"])
@pytest.mark.parametrize("members", [False, True])
@pytest.mark.parametrize("kind", ["blocks", "dense"])
def test_a_look_without_gradients_does_not_cost_the_derivatives_of_later_results(kind, members, output):
    rows = make_rows("blocks", torch.Generator())
    law = LinearConstraint(
        rows.to_dense() if kind == "dense" else rows, torch.linspace(0, 1, 6).double(), noise_variance=0.1
    )
    fields = torch.randn(30, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def gradient(look):
        scale = torch.full((24,), 0.7, dtype=torch.float64, requires_grad=True)
        prior = from_samples(scale * fields, scale.square()) if members else Normal(fields[0], scale)
        posterior = condition(prior, law)
        if look:
            with torch.no_grad():
                getattr(posterior, output)
        return torch.autograd.grad(getattr(posterior, output).square().sum(), scale)[0]

    torch.testing.assert_close(gradient(True), gradient(False), rtol=1e-12, atol=1e-12)
