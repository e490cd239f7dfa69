"""The update: exactness, oracles, invariants, derivatives, precision and messages."""

import gpytorch
import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_operator.operators import DenseLinearOperator, DiagLinearOperator
from torch.distributions import Normal

from probconserv import LinearConstraint, condition, from_samples, integral
from probconserv.errors import (
    DependentConstraintsError,
    IncompatibleQueryError,
    InfeasibleConstraintError,
    InvalidArgumentError,
)
from probconserv.posterior import Posterior
from solvers import NodeGrid
from tests.oracles import condition_densely
from tests.strategies import COVARIANCES, conditioning_problems, make_covariance, positive_definite, seeds

FULL_RANK = tuple(kind for kind in COVARIANCES if kind != "low_rank")
few = settings(deadline=None, max_examples=30)


def relative_residual(constraint, u):
    """max |G u − b| / (|b| + Σ|G u|), the measure in which exactness is stated."""
    size = constraint.b.abs() + (constraint.rows.abs() @ u.double().abs()[..., None])[..., 0]
    return float((constraint.residual(u).abs() / size).detach().max())


def batched_oracle(prior, constraint):
    batch = torch.broadcast_shapes(prior.batch_shape, constraint.batch_shape)
    n, k = constraint.points, constraint.b.shape[-1]
    covariance = prior.lazy_covariance_matrix.to_dense().double().expand(*batch, n, n).reshape(-1, n, n)
    results = [
        condition_densely(*(part.numpy() for part in parts))
        for parts in zip(
            prior.mean.double().expand(*batch, n).reshape(-1, n),
            covariance,
            constraint.rows.expand(*batch, k, n).reshape(-1, k, n),
            constraint.b.expand(*batch, k).reshape(-1, k),
            constraint.noise.expand(*batch, k).reshape(-1, k),
            strict=True,
        )
    ]
    mean, reduced = (torch.stack([torch.as_tensor(r[i]) for r in results]) for i in (0, 1))
    return mean.reshape(*batch, n), reduced.reshape(*batch, n, n)


@few
@given(conditioning_problems(), seeds)
def test_mean_and_samples_meet_the_constraint_in_float64(problem, seed):
    posterior = condition(*problem)
    draws = posterior.rsample(torch.Size([7]), generator=torch.Generator().manual_seed(seed))
    assert relative_residual(problem[1], posterior.mean) <= 1e-12
    assert relative_residual(problem[1], draws) <= 1e-12


@few
@given(conditioning_problems(dtype=torch.float32))
def test_mean_and_samples_meet_the_constraint_in_float32(problem):
    posterior = condition(*problem)
    draws = posterior.rsample(torch.Size([7]))
    assert posterior.mean.dtype == posterior.variance.dtype == draws.dtype == torch.float32
    # Rounding the result to float32 moves each entry by half an ulp, 6e-8 relative.
    assert relative_residual(problem[1], posterior.mean) <= 1e-6
    assert relative_residual(problem[1], draws) <= 1e-6


@few
@given(conditioning_problems(noise_variance=0.3) | conditioning_problems())
def test_update_agrees_with_dense_matrices(problem):
    prior, constraint = problem
    posterior = condition(prior, constraint)
    mean, covariance = batched_oracle(prior, constraint)
    # Round-off of a k × k solve with a condition number up to ~1e4 relative to the largest entries.
    scale = float(prior.mean.abs().max() + constraint.b.abs().max())
    assert torch.allclose(posterior.mean, mean, rtol=1e-9, atol=1e-10 * scale)
    assert torch.allclose(posterior.covariance_matrix, covariance, rtol=1e-9, atol=1e-10)
    assert torch.allclose(posterior.variance, covariance.diagonal(dim1=-2, dim2=-1), rtol=1e-9, atol=1e-10)


@few
@given(conditioning_problems() | conditioning_problems(noise_variance=0.1))
def test_variance_never_grows_and_is_never_negative(problem):
    prior, constraint = problem
    variance = condition(prior, constraint).variance
    assert bool((variance >= 0).all())
    assert bool((variance <= prior.lazy_covariance_matrix.diagonal()).all())


@few
@given(conditioning_problems(batches=((), (3,))), seeds)
def test_conditioning_in_turn_equals_conditioning_at_once(problem, seed):
    prior, first = problem
    normal = torch.randn(3, first.points, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    second = LinearConstraint(normal[:2], normal[2, :2], noise_variance=0.2)
    in_turn, at_once = condition(condition(prior, first), second), condition(prior, first & second)
    # An independent second step: the oracle, applied to the dense result of the first.
    halfway = condition(prior, first)
    dense = MultivariateNormal(halfway.mean, DenseLinearOperator(halfway.covariance_matrix))
    mean, covariance = batched_oracle(dense, second)
    scale = float(prior.mean.abs().max() + first.b.abs().max() + 1)
    for posterior in (in_turn, at_once):
        assert torch.allclose(posterior.mean, mean, rtol=1e-8, atol=1e-9 * scale)
        assert torch.allclose(posterior.covariance_matrix, covariance, rtol=1e-8, atol=1e-9)


@few
@given(conditioning_problems(kinds=FULL_RANK, batches=((),)), seeds)
def test_error_in_the_metric_of_the_prior_never_grows_when_the_truth_meets_the_law(problem, seed):
    prior, constraint = problem
    n = constraint.points
    truth = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    law = LinearConstraint(constraint.G, constraint.rows @ truth)
    covariance = prior.lazy_covariance_matrix.to_dense()

    def weighted_error(mean):
        return float((mean - truth) @ torch.linalg.solve(covariance, mean - truth))

    before = weighted_error(prior.mean)
    assert weighted_error(condition(prior, law).mean) <= before * (1 + 1e-10)


@pytest.mark.parametrize("kind", COVARIANCES)
def test_scaling_of_rows_changes_nothing(kind):
    generator = torch.Generator().manual_seed(0)
    prior = MultivariateNormal(torch.arange(12.0).double(), make_covariance(kind, 12, generator))
    rows, b = torch.randn(2, 12, dtype=torch.float64, generator=generator), torch.tensor([0.3, -2.0]).double()
    factor = torch.tensor([1e-9, 1e7], dtype=torch.float64)
    plain = condition(prior, LinearConstraint(rows, b))
    scaled = condition(prior, LinearConstraint(factor[:, None] * rows, factor * b))
    # Only rounding of the scaled rows differs.
    assert torch.allclose(plain.mean, scaled.mean, rtol=1e-12, atol=1e-12)
    assert torch.allclose(plain.variance, scaled.variance, rtol=1e-11, atol=1e-13)


def test_cancellation_against_a_large_prior_mean_is_repaired():
    # |μ| = 1e9 and a total of 1e-3: one application of the update leaves eps · 1e9, 1e-4 of the total.
    n = 50
    prior = Normal(1e9 * torch.ones(n, dtype=torch.float64), torch.ones(n, dtype=torch.float64))
    law = LinearConstraint(torch.ones(1, n, dtype=torch.float64), torch.tensor([1e-3], dtype=torch.float64))
    assert relative_residual(law, condition(prior, law).mean) <= 1e-12


@few
@given(seeds, st.sampled_from([((), ()), ((4,), ()), ((), (4,)), ((2, 3), (3,)), ((1,), (3,))]))
def test_batches_of_prior_and_constraint_broadcast(seed, batches):
    generator = torch.Generator().manual_seed(seed)
    n, (prior_batch, law_batch) = 8, batches
    prior = MultivariateNormal(
        torch.randn(*prior_batch, n, dtype=torch.float64, generator=generator),
        positive_definite(n, generator, prior_batch),
    )
    law = LinearConstraint(
        torch.randn(1, n, dtype=torch.float64, generator=generator),
        torch.randn(*law_batch, 1, dtype=torch.float64, generator=generator),
    )
    posterior = condition(prior, law)
    mean, covariance = batched_oracle(prior, law)
    assert posterior.mean.shape == posterior.variance.shape == mean.shape
    assert torch.allclose(posterior.mean, mean, rtol=1e-10, atol=1e-12)
    assert torch.allclose(posterior.covariance_matrix, covariance, rtol=1e-10, atol=1e-12)
    assert posterior.rsample(torch.Size([5])).shape == (5, *mean.shape)


@pytest.mark.parametrize("kind", ["diagonal", "dense"])
def test_nodes_without_variance_are_left_alone(kind):
    generator = torch.Generator().manual_seed(3)
    n = 9
    mean = torch.randn(n, dtype=torch.float64, generator=generator)
    covariance = positive_definite(n, generator)
    if kind == "diagonal":
        covariance = torch.diag(covariance.diagonal())
    covariance[[0, -1]] = 0.0
    covariance[:, [0, -1]] = 0.0
    operator = DiagLinearOperator(covariance.diagonal()) if kind == "diagonal" else DenseLinearOperator(covariance)
    law = integral(NodeGrid(0.0, 1.0, n), torch.tensor(0.7).double())
    posterior = condition(MultivariateNormal(mean, operator), law)
    ends = mean[[0, -1]]
    assert torch.equal(posterior.mean[[0, -1]], ends)
    assert torch.equal(posterior.variance[[0, -1]], torch.zeros(2, dtype=torch.float64))
    draws = posterior.rsample(torch.Size([6]))
    assert torch.equal(draws[:, [0, -1]], ends.expand(6, 2))
    assert relative_residual(law, draws) <= 1e-12


def test_one_fixed_node_by_hand():
    # Independent unit variances, u_0 + u_1 = 2, mean 0: both move by one and share variance ½.
    posterior = condition(
        Normal(torch.zeros(3).double(), torch.ones(3).double()),
        LinearConstraint(torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([2.0])),
    )
    assert torch.allclose(posterior.mean, torch.tensor([1.0, 1.0, 0.0]).double(), atol=1e-15)
    assert torch.allclose(posterior.variance, torch.tensor([0.5, 0.5, 1.0]).double(), atol=1e-15)


def test_shrinkage_keeps_variances_and_scales_correlations():
    samples = torch.randn(4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    plain, shrunk = from_samples(samples), from_samples(samples, shrinkage=0.25)
    expected = 0.75 * plain.covariance_matrix + 0.25 * plain.covariance_matrix.diagonal().diag()
    assert torch.allclose(shrunk.covariance_matrix, expected, rtol=1e-13, atol=1e-14)
    with pytest.raises(InvalidArgumentError, match=r"shrinkage must lie in \[0, 1\] or be \"auto\", got 2"):
        from_samples(samples, shrinkage=2)


def test_a_lazily_evaluated_kernel_of_more_than_800_points_is_exact():
    # Above 800 points gpytorch and linear_operator would switch to iterative solvers.
    n = 900
    points = torch.linspace(0, 1, n, dtype=torch.float64)
    kernel = gpytorch.kernels.MaternKernel(0.5).double()
    law = integral(points, 0.25)
    posterior = condition(MultivariateNormal(torch.ones(n).double(), kernel(points[:, None])), law)
    draws = posterior.rsample(torch.Size([2]))
    assert relative_residual(law, posterior.mean) <= 1e-12
    assert relative_residual(law, draws) <= 1e-12


def _prior(n=6, **changes):
    values = {"mean": torch.zeros(n).double(), "variance": torch.ones(n).double(), **changes}
    return MultivariateNormal(values["mean"], DiagLinearOperator(values["variance"]))


ONE = LinearConstraint(torch.ones(1, 6).double(), torch.ones(1).double())


@pytest.mark.parametrize("kind", COVARIANCES)
def test_the_same_exact_law_twice_is_refused_with_another_total(kind):
    generator = torch.Generator().manual_seed(6)
    law = LinearConstraint(torch.ones(1, 12).double(), torch.ones(1).double())
    prior = MultivariateNormal(torch.zeros(12).double(), make_covariance(kind, 12, generator))
    posterior = condition(prior, law)
    rounded = MultivariateNormal(posterior.mean.float(), DenseLinearOperator(posterior.covariance_matrix.float()))
    again = MultivariateNormal(posterior.mean, posterior.lazy_covariance_matrix)
    for conditioned in (posterior, again, rounded):
        with pytest.raises((DependentConstraintsError, InfeasibleConstraintError)):
            condition(conditioned, LinearConstraint(law.G, law.b + 1))
        again = condition(conditioned, law)
        assert torch.allclose(again.mean.double(), posterior.mean, atol=1e-5)


@pytest.mark.parametrize("factor", [1e-12, 1.0, 1e12])
def test_dependent_rows_are_refused_whatever_their_scale(factor):
    rows = torch.rand(2, 6, dtype=torch.float64)
    dependent = torch.cat([rows, factor * (rows[:1] + 2 * rows[1:])])
    with pytest.raises(DependentConstraintsError, match="3 constraint rows are not independent"):
        Posterior(_prior(), LinearConstraint(dependent, torch.zeros(3).double()))


def test_members_that_already_share_a_total_cannot_be_conditioned_on_another():
    samples = torch.rand(5, 6, dtype=torch.float64)
    samples = samples / samples.sum(-1, keepdim=True)
    with pytest.raises(DependentConstraintsError, match=r"certain of row 0 .* misses it by 1"):
        condition(from_samples(samples), LinearConstraint(ONE.G, ONE.b + 1))


def test_messages_name_what_is_wrong():
    with pytest.raises(IncompatibleQueryError, match="has 5 points but the constraint acts on 6"):
        condition(_prior(5), ONE)
    with pytest.raises(
        IncompatibleQueryError, match=r"batch axes of the prediction \(2,\) and of the constraint \(3,\)"
    ):
        condition(_prior(mean=torch.zeros(2, 6).double()), LinearConstraint(ONE.G, torch.ones(3, 1).double()))
    with pytest.raises(InvalidArgumentError, match=r"variance must not be negative, got a smallest entry of -0\.5"):
        condition(_prior(variance=torch.tensor([1.0, 1, -0.5, 1, 1, 1]).double()), ONE)
    for bad in (torch.nan, torch.inf):
        entries = torch.tensor([0.0, bad, 0, 0, 0, 0]).double()
        with pytest.raises(InvalidArgumentError, match=r"mean of the prior .* not finite"):
            condition(_prior(mean=entries), ONE)
        with pytest.raises(InvalidArgumentError, match="covariance holds entries that are not finite"):
            condition(_prior(variance=1 + entries.abs()), ONE)
    with pytest.raises(InvalidArgumentError, match="members ≥ 2"):
        from_samples(torch.zeros(1, 6).double())
    with pytest.raises(InvalidArgumentError, match="got str"):
        condition("prior", ONE)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="noise_variance must not be negative"):
        from_samples(torch.zeros(2, 6), noise_variance=-1.0)


def test_an_indefinite_covariance_is_refused():
    covariance = torch.eye(3).double()
    covariance[0, 1] = covariance[1, 0] = 3.0
    posterior = condition(
        MultivariateNormal(torch.zeros(3).double(), DenseLinearOperator(covariance)),
        LinearConstraint(torch.tensor([[1.0, 0.0, 0.0]]), torch.zeros(1)),
    )
    with pytest.raises(InvalidArgumentError, match="not positive semi-definite"):
        posterior.variance  # noqa: B018 - evaluating it is the point
    with pytest.raises(InvalidArgumentError, match="smallest eigenvalue is -2"):
        posterior.rsample()


def test_a_difference_of_large_covariances_is_singular_to_their_round_off():
    """As Gaussian processes give it: a prior less what the data know of it, whose entries are rounded."""
    grid = NodeGrid(0.0, 1.0, 101)
    points, zeros, law = grid.points.double(), torch.zeros(101).double(), integral(grid, 0.1)
    prior = (-0.5 * ((points[:, None] - points) / 0.2) ** 2).exp()
    rounded = 1e-3 * prior + 1e-15 * torch.sin(1e3 * (points[:, None] + points))
    assert torch.linalg.eigvalsh(rounded)[0] < -2 * 101 * torch.finfo(torch.float64).eps * torch.linalg.norm(rounded, 2)
    draws = condition(MultivariateNormal(zeros, DenseLinearOperator(rounded)), law).rsample(torch.Size((5,)))
    assert law.residual(draws).abs().max() < 1e-13
    indefinite = DenseLinearOperator(rounded - 1e-8 * torch.eye(101))
    with pytest.raises(InvalidArgumentError, match="add its round-off to the diagonal"):
        condition(MultivariateNormal(zeros, indefinite), law).rsample()


@few
@given(seeds)
def test_round_off_never_makes_a_variance_negative(seed):
    # Half of the nodes become known exactly: their variance is the difference of two equal numbers.
    n = 12
    generator = torch.Generator().manual_seed(seed)
    prior = MultivariateNormal(torch.zeros(n).double(), DenseLinearOperator(positive_definite(n, generator)))
    pinned = condition(prior, LinearConstraint(torch.eye(n).double()[::2], torch.zeros(n // 2)))
    assert bool((pinned.variance >= 0).all())
    # Round-off of six terms of order one.
    assert float(pinned.variance[::2].max()) <= 1e-14
    assert float(pinned.variance[1::2].min()) > 1e-3
