"""Projection of given fields: the dense formula, the modes of conditioned predictions, messages."""

import math
from dataclasses import replace

import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator.operators import (
    DenseLinearOperator,
    DiagLinearOperator,
    LinearOperator,
    PsdSumLinearOperator,
    RootLinearOperator,
)
from torch import Tensor
from torch.distributions import Normal

from probconserv import Bounded, LinearConstraint, Monotone, NonlinearLaw, condition
from probconserv._linalg.gaussian import FieldGaussian
from probconserv.errors import (
    ConvergenceError,
    DependentConstraintsError,
    IncompatibleQueryError,
    InfeasibleConstraintError,
    InvalidArgumentError,
)
from probconserv.nonlinear.projection import project

N, FIELDS = 12, 5


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def covariances() -> dict[str, LinearOperator]:
    diagonal, root = 0.1 + random(N, seed=1).square(), random(N, 3, seed=2)
    low_rank = PsdSumLinearOperator(RootLinearOperator(root), DiagLinearOperator(diagonal))
    return {
        "diagonal": DiagLinearOperator(diagonal),
        "low rank": low_rank,
        "dense": DenseLinearOperator(low_rank.to_dense()),
    }


def sparse(rows: Tensor) -> Tensor:
    return rows.to_sparse_coo()


def overlapping() -> Tensor:
    """Rows of two or three neighbours each, which share points."""
    rows = torch.zeros(3, N, dtype=torch.float64)
    rows[0, :3], rows[1, 2:4], rows[2, 8:10] = 1.0, torch.tensor([1.0, -2.0]), 0.5
    return rows


def expected(fields: Tensor, covariance: Tensor, rows: Tensor, b: Tensor, noise: Tensor) -> Tensor:
    """The formula with dense matrices."""
    innovation = rows @ covariance @ rows.mT + torch.diag_embed(noise)
    missed = (rows @ fields[..., None])[..., 0] - b
    return fields - (covariance @ rows.mT @ torch.linalg.solve(innovation, missed[..., None]))[..., 0]


@pytest.mark.parametrize("kind", ["diagonal", "low rank", "dense"])
@pytest.mark.parametrize("store", [torch.clone, sparse])
def test_rows_project_by_the_dense_formula(kind: str, store: type) -> None:
    covariance, rows, fields = covariances()[kind], overlapping(), random(FIELDS, N)
    for b in (random(3), random(FIELDS, 3)):
        for noise in (torch.zeros(3).double(), torch.tensor([0.0, 0.3, 0.1]).double()):
            actual = project(fields, covariance, LinearConstraint(store(rows), b, noise_variance=noise))
            wanted = expected(fields, covariance.to_dense(), rows, b, noise)
            assert torch.allclose(actual, wanted, rtol=0, atol=1e-12)  # condition numbers below 1e3 times eps


def test_rows_of_their_own_for_every_field() -> None:
    covariance, rows, b = covariances()["low rank"], random(FIELDS, 2, N), random(FIELDS, 2)
    fields = random(FIELDS, N, seed=4)
    actual = project(fields, covariance, LinearConstraint(rows, b))
    wanted = expected(fields, covariance.to_dense().expand(FIELDS, N, N), rows, b, torch.zeros(2).double())
    assert torch.allclose(actual, wanted, rtol=0, atol=1e-12)


def test_inequalities_give_the_modes_of_priors_with_these_means() -> None:
    scale, fields = 0.3 + random(N).abs(), random(FIELDS, N, seed=5)
    law = LinearConstraint(torch.ones(1, N), random(FIELDS, 1)) & Bounded(-1.0, 1.0) & Monotone()
    actual = project(fields, DiagLinearOperator(scale.square()), law)
    modes = condition(Normal(fields, scale.expand(FIELDS, N)), law).mode
    assert torch.allclose(actual, modes, rtol=0, atol=1e-12)
    same = LinearConstraint(torch.ones(1, N), torch.ones(1)) & Bounded(-1.0, 1.0)
    assert torch.allclose(
        project(fields, DiagLinearOperator(scale.square()), same),
        condition(Normal(fields, scale.expand(FIELDS, N)), same).mode,
        rtol=0,
        atol=1e-12,
    )


def test_a_linear_residual_gives_the_linear_projection() -> None:
    rows, b, fields = random(3, 12), random(3), random(4, 12, seed=1)
    law = NonlinearLaw(residual_function=lambda u: u @ rows[:2].mT - b[:2], points=12)
    both = LinearConstraint(rows[2:], b[2:]) & law
    metric = covariances()["low rank"]
    actual = project(fields, metric, both)
    assert torch.allclose(actual, project(fields, metric, LinearConstraint(rows, b)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("bounds", [(), (Bounded(0.0, 0.9),)])
@pytest.mark.parametrize("root", [False, True])
def test_a_covariance_without_structure_gives_the_same_projections(root: bool, bounds: tuple[Bounded, ...]) -> None:
    structured, dense = (covariances()[name] for name in ("low rank", "dense"))
    metric = RootLinearOperator(torch.linalg.cholesky(dense.to_dense())) if root else dense
    law = NonlinearLaw(residual_function=lambda u: (u + 0.1 * u**2).sum(-1, keepdim=True) - 8.4, points=N)
    law = law & LinearConstraint(torch.eye(1, N), torch.tensor([[0.5], [0.6], [0.7]]))  # each field has its value
    for part in bounds:
        law = law & part
    fields = 0.6 + 0.3 * random(3, N, seed=7)
    actual = project(fields, metric, law)
    assert torch.allclose(actual, project(fields, structured, law), rtol=0, atol=1e-6)  # where its steps end
    assert float(law.residual(actual).abs().max()) <= 1e-12
    law = replace(law, linear=None)
    assert torch.equal(project(fields[1:2], metric, law), project(fields, metric, law)[1:2])
    assert project(fields[:0], metric, law).shape == (0, N)


def test_draws_of_a_correlated_prediction_are_projected_onto_its_law() -> None:
    """In single precision, in which this covariance has eigenvalues below zero."""
    x = torch.linspace(0, 1, 20)
    prior = MultivariateNormal(1 + x, DenseLinearOperator(0.05 * torch.exp(-((x[:, None] - x).square() / 0.1))))
    law = NonlinearLaw(residual_function=lambda u: u.square().sum(-1, keepdim=True) - 40.0, points=20)
    draws = condition(prior, law).sample(torch.Size([4]))
    assert float(law.residual(draws).abs().min()) > 1e-4
    projected = project(draws, prior.lazy_covariance_matrix, law)
    assert projected.dtype == torch.float32
    assert float(law.residual(projected).abs().max()) <= 40 * torch.finfo(torch.float32).eps  # u ± u eps / 2, squared
    assert float((projected - draws).abs().max()) < 0.2


def test_a_field_without_a_projection_in_a_dense_metric_is_named() -> None:
    law = NonlinearLaw(residual_function=lambda u: u.square().sum(-1, keepdim=True) - 1.0, points=3, starts=1)
    law = law & LinearConstraint(torch.eye(1, 3), torch.tensor([[0.5], [2.0]]))
    with pytest.raises(ConvergenceError, match="field 1 has a largest"):
        project(torch.full((2, 3), 0.6), DenseLinearOperator(torch.eye(3)), law)


def test_a_value_that_rounding_takes_across_a_bound_does_not_keep_the_law_from_being_met() -> None:
    """The nearest field with u₀ + u₁ = 1 has u₀ = −8e-13: inside up to rounding, and the law fails where it is cut."""
    fields = torch.tensor([[0.2, 1.2 + 1.6e-12]], dtype=torch.float64)
    total = NonlinearLaw(residual_function=lambda u: u.sum(dim=-1, keepdim=True) - 1.0, points=2)
    projected = project(fields, DiagLinearOperator(torch.ones(2, dtype=torch.float64)), total & Bounded(0.0, 2.0))
    assert float(projected.min()) >= 0.0
    assert float((projected.sum() - 1.0).abs()) <= 4e-16
    assert torch.allclose(projected, torch.tensor([[0.0, 1.0]], dtype=torch.float64), rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    "law",
    [
        LinearConstraint(torch.ones(1, N), torch.ones(1)),
        NonlinearLaw(residual_function=lambda u: u.square().sum(-1, keepdim=True) - 2.0, points=N),
    ],
)
def test_single_precision_comes_back_in_single_precision(law: LinearConstraint | NonlinearLaw) -> None:
    actual = project(random(FIELDS, N).float(), DiagLinearOperator(torch.ones(N)), law)
    assert actual.dtype == torch.float32
    assert float(law.residual(actual).abs().max()) <= 4 * N * 6e-8  # one rounding of every value


@pytest.mark.parametrize(
    ("fields", "law", "error", "message"),
    [
        (torch.ones(2, N), LinearConstraint(torch.ones(1, 7), torch.ones(1)), IncompatibleQueryError, "12 and 7"),
        (torch.ones(2, 7), Bounded(0.0, 1.0), IncompatibleQueryError, r"\(s, n\) on the n points .* got \(2, 7\)"),
        (
            torch.ones(2, N),
            LinearConstraint(torch.ones(1, N), torch.ones(3, 1)),
            IncompatibleQueryError,
            "the 2 fields",
        ),
        (torch.full((2, N), math.nan), Bounded(0.0, 1.0), InvalidArgumentError, "fields must be finite"),
        (
            torch.ones(2, N),
            LinearConstraint(torch.ones(1, N), torch.full((1,), 20.0)) & Bounded(0.0, 1.0),
            InfeasibleConstraintError,
            "between 0 and 12",
        ),
    ],
)
def test_what_does_not_fit_is_refused(fields: Tensor, law: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        project(fields, DiagLinearOperator(torch.ones(N, dtype=torch.float64)), law)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", covariances())
def test_rows_that_contradict_each_other_are_told_from_redundant_ones(name: str) -> None:
    covariance, rows = covariances()[name], overlapping()
    for kind in (rows, sparse(rows)):
        law = LinearConstraint(kind, torch.ones(3))
        for bounds in (None, Bounded(-9.0, 9.0)):
            contradicting, redundant = law & LinearConstraint(kind, torch.full((3,), 2.0)), law & law
            joined = contradicting if bounds is None else contradicting & bounds
            with pytest.raises(InfeasibleConstraintError, match="contradict each other"):
                project(random(2, N), covariance, joined)
            if bounds is None:
                with pytest.raises(DependentConstraintsError, match="Drop redundant rows"):
                    project(random(2, N), covariance, redundant)
            else:
                fields = random(2, N)
                once = project(fields, covariance, law & bounds)
                assert torch.allclose(project(fields, covariance, redundant & bounds), once, rtol=0, atol=1e-12)
            prior = FieldGaussian(random(N), covariance)
            with pytest.raises(InfeasibleConstraintError, match="contradict each other"):
                _ = condition(prior, joined).mean


def test_a_gradient_that_is_zero_is_not_called_a_redundant_row() -> None:
    law = NonlinearLaw(residual_function=lambda u: u.square().sum(dim=-1, keepdim=True) - 1, points=N)
    with pytest.raises(
        ConvergenceError, match=r"gradient of residual 0 of the nonlinear law is zero at a field \(there"
    ):
        project(torch.zeros(2, N, dtype=torch.float64), DiagLinearOperator(torch.ones(N, dtype=torch.float64)), law)
