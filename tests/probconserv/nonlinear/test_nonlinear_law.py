"""Nonlinear laws of many rows: sparse Jacobians, projections against an oracle and SciPy, bounds, messages."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator.operators import DenseLinearOperator, DiagLinearOperator, PsdSumLinearOperator, RootLinearOperator
from scipy.optimize import minimize
from torch import Tensor
from torch.distributions import Normal

from probconserv import Bounded, LinearConstraint, LinearInequality, Monotone, NonlinearLaw, NonNegative, condition
from probconserv._linalg.rows import SparseRows
from probconserv.errors import ConvergenceError, IncompatibleQueryError, InvalidArgumentError
from probconserv.inequalities.projected import Projected
from probconserv.nonlinear.projection import project

CELLS, TIMES = 21, 9
POINTS = CELLS * TIMES


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def upwind(u: Tensor) -> Tensor:
    """Burgers' equation by Godunov's flux: u_i′ − u_i + ½ (F_{i+½} − F_{i−½}), all steps and inner cells."""
    u = u.reshape(len(u), TIMES, CELLS)
    flux = 0.5 * u[:, :, :-1].clamp_min(0).square() + 0.5 * u[:, :, 1:].clamp_max(0).square()
    return (u[:, 1:, 1:-1] - u[:, :-1, 1:-1] + 0.5 * flux[:, :-1].diff(dim=-1)).flatten(1)


def initial(start: Tensor) -> LinearConstraint:
    return LinearConstraint(torch.eye(CELLS, POINTS, dtype=torch.float64), start)


def front() -> Tensor:
    return 1 / (1 + torch.exp((torch.linspace(0, 1, CELLS, dtype=torch.float64) - 0.5) / 0.1))


def covariance(rank: int, n: int) -> Any:
    diagonal = DiagLinearOperator(0.5 + random(n, seed=1).square())
    return PsdSumLinearOperator(RootLinearOperator(random(n, rank, seed=2)), diagonal) if rank else diagonal


def jacobian(function: Callable[[Tensor], Tensor], u: Tensor) -> Tensor:
    return torch.stack([torch.autograd.functional.jacobian(lambda v: function(v[None])[0], entry) for entry in u])


# Jacobians


def test_the_jacobian_is_that_of_automatic_differentiation() -> None:
    law, fields = NonlinearLaw(residual_function=upwind, points=POINTS), random(3, POINTS)
    values, rows = law.linearise(fields)
    assert torch.equal(values, upwind(fields))
    assert torch.allclose(rows.to_dense(), jacobian(upwind, fields), rtol=0, atol=1e-15)
    assert len(rows.row) <= 4 * values.shape[-1]


def test_entries_that_were_zero_by_chance_are_found_later() -> None:
    law = NonlinearLaw(residual_function=upwind, points=POINTS)
    positive = 1 + random(2, POINTS).abs()
    few = len(law.linearise(positive)[1].row)
    rows = law.linearise(-positive)[1]
    assert len(rows.row) > few
    assert torch.allclose(rows.to_dense(), jacobian(upwind, -positive), rtol=0, atol=1e-15)


def test_local_laws_cost_few_backward_passes_however_many_there_are() -> None:
    def colours(cells: int) -> int:
        law = NonlinearLaw(residual_function=lambda u: u[:, 1:] * u[:, :-1] - 1, points=cells)
        law.linearise(random(1, cells))
        return int(law._found[0].colours.max()) + 1

    assert colours(10) == colours(300) == 2


# Projections


@pytest.mark.parametrize("rank", [0, 3])
def test_projections_are_the_modes_of_the_dense_search(rank: int) -> None:
    n = 12

    def residual(u: Tensor) -> Tensor:
        return torch.stack([u.square().mean(-1) - 1.1, (u[..., 1:] * u[..., :-1]).mean(-1) - 0.9], dim=-1)

    fields, metric = 1 + 0.2 * random(4, n, seed=3), covariance(rank, n)
    actual = project(fields.requires_grad_(), metric, NonlinearLaw(residual_function=residual, points=n))
    assert not actual.requires_grad, "no derivatives rather than those of the last step"
    fields = fields.detach()
    prior = MultivariateNormal(fields, DenseLinearOperator(metric.to_dense().expand(4, n, n)))
    modes = condition(prior, NonlinearLaw(residual_function=residual, points=n, starts=1)).mode
    # A step of 1e-6 of the field's largest value, 1.6, ends the search; steps shrink by a tenth at least.
    assert torch.allclose(actual, modes, rtol=0, atol=1.6e-5)


def test_start_and_flux_rows_of_a_batch_are_met_to_round_off() -> None:
    starts = torch.stack([front(), front().flip(-1), 0.5 * front()])
    law = NonlinearLaw(residual_function=upwind, points=POINTS) & initial(starts)
    fields = starts.repeat(1, TIMES) + 0.1 * random(3, POINTS)
    for rank in (0, 4):
        actual = project(fields, covariance(rank, POINTS), law)
        assert float(law.residual(actual).abs().max()) <= 1e-13 * 4  # 1e-13 of |J| |u|, with |J| ≤ 3.5


def test_fields_far_from_a_curved_law_are_projected_where_linearisations_alone_go_astray() -> None:
    """A common factor, and an energy far below that of the fields: stationary in their own metric, and no saddle."""
    n, value = 40, 4.0
    metric = PsdSumLinearOperator(RootLinearOperator(random(n, 4, seed=2)), DiagLinearOperator(torch.full((n,), 0.05)))
    fields = 0.5 + 0.1 * random(3, n)
    actual = project(fields, metric, NonlinearLaw(residual_function=energy(value), points=n))
    assert float((actual.square().sum(-1) - value).abs().max()) <= 1e-12 * value
    dense = metric.to_dense().double()
    force = torch.linalg.solve(dense, (fields - actual).mT).mT
    multiplier = (force * actual).sum(dim=-1, keepdim=True) / value
    assert torch.allclose(force, multiplier * actual, rtol=0, atol=1e-4 * float(force.abs().max()))  # steps of 1e-6
    # Σ⁻¹ + λ I is positive definite at the nearest point of a sphere (Moré & Sorensen 1983).
    assert bool((torch.linalg.eigvalsh(torch.linalg.inv(dense)).min() + multiplier > 0).all())


@pytest.mark.parametrize("size", [6, 12])
def test_a_field_is_found_without_recording_derivatives(size: int) -> None:
    prior, law = Normal(torch.linspace(0.5, 1.5, size).double(), 0.3), squares(8.0, size)
    with torch.no_grad():
        assert torch.allclose(condition(prior, law).mode, condition(prior, law).search.field, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rank", [0, 2])
def test_bounded_projections_are_minima_that_scipy_cannot_improve(rank: int) -> None:
    n = 6
    metric = covariance(rank, n)
    law = NonlinearLaw(residual_function=lambda u: (u + 0.1 * u**2).sum(-1, keepdim=True) - 4.2, points=n)
    law = law & Bounded(0.0, 0.9)
    fields = 0.6 + 0.3 * random(3, n, seed=7)
    actual = project(fields, metric, law)
    assert float(actual.min()) >= 0.0
    assert float(actual.max()) <= 0.9
    assert float(law.residual(actual).abs().max()) <= 1e-12
    precision = np.linalg.inv(metric.to_dense().numpy())
    for given, found in zip(fields.numpy(), actual.numpy(), strict=True):
        assert ((found == 0.0) | (found == 0.9)).any()  # the bounds matter in every one of these problems

        def distance(u: np.ndarray, given: np.ndarray = given) -> float:
            return (u - given) @ precision @ (u - given)

        best = minimize(
            distance,
            found,
            method="SLSQP",
            bounds=[(0.0, 0.9)] * n,
            constraints=[{"type": "eq", "fun": lambda u: u.sum() + 0.1 * u @ u - 4.2}],
            options={"ftol": 1e-14},
        )
        assert distance(found) <= best.fun * (1 + 1e-5) + 1e-8


@pytest.mark.parametrize("unit", [1e-12, 1e9])
@pytest.mark.parametrize("rank", [0, 2])
def test_bounded_projections_do_not_depend_on_the_unit(unit: float, rank: int) -> None:
    n = 12
    fields, parts = 0.4 + 0.5 * random(3, n, seed=3), (0.5 + random(n, seed=1).square(), random(n, rank, seed=2))

    def projected(scale: float) -> Tensor:
        law = NonlinearLaw(residual_function=lambda u: (u / scale).square().sum(-1, keepdim=True) - 3.0, points=n)
        metric = DiagLinearOperator(scale**2 * parts[0])
        metric = PsdSumLinearOperator(RootLinearOperator(scale * parts[1]), metric) if rank else metric
        return project(scale * fields, metric, law & NonNegative()) / scale

    expected = projected(1.0)
    assert bool((expected == 0).any(dim=-1).all())
    torch.testing.assert_close(projected(unit), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("unit", [1.0, 1e-8])
def test_fields_that_mix_are_refused_in_any_unit(unit: float) -> None:
    law = NonlinearLaw(residual_function=lambda u: (u - u.mean()).square().sum(-1, keepdim=True) - unit**2, points=6)
    with pytest.raises(InvalidArgumentError, match="Fields of a batch must not mix"):
        project(unit * (random(2, 6) + 3 * torch.arange(2)[:, None]), covariance(0, 6), law)


def test_start_fluxes_and_bounds_hold_together() -> None:
    law = NonlinearLaw(residual_function=upwind, points=POINTS) & initial(front()) & Bounded(0.0, 1.0)
    fields = front().repeat(2, TIMES) + 0.1 * random(2, POINTS)
    actual = project(fields, covariance(0, POINTS), law)
    assert float(fields.min()) < -0.1
    assert float(actual.min()) >= 0.0
    assert float(actual.max()) <= 1.0
    assert float(law.residual(actual).abs().max()) <= 1e-12


def test_projections_that_active_sets_do_not_find_are_found_by_the_programme(monkeypatch: pytest.MonkeyPatch) -> None:
    law = NonlinearLaw(residual_function=lambda u: (u + 0.1 * u**2).sum(-1, keepdim=True) - 4.2, points=6)
    law, fields, metric = law & Bounded(0.0, 0.9), 0.6 + 0.3 * random(3, 6, seed=7), covariance(2, 6)
    usual = project(fields, metric, law)
    monkeypatch.setattr("probconserv.nonlinear._fields._ACTIVE_SETS", 0)
    found = project(fields, metric, law)
    assert torch.allclose(found, usual, rtol=0, atol=2e-6)  # steps end below 1e-6 of the largest value
    assert float(law.residual(found).abs().max()) <= 1e-12
    assert float(found.min()) >= 0.0
    assert float(found.max()) <= 0.9


def test_a_law_is_met_that_leaves_no_field_within_bounds_once_it_is_linearised() -> None:
    """The tangent of an energy at the mean asks for more than positive values of this total can have."""
    n, rank = 12, 4
    x = torch.linspace(0, 1, n, dtype=torch.float64)
    waves = torch.stack([0.5**k * torch.cos(k * torch.pi * x) for k in range(rank)], dim=-1)
    metric = PsdSumLinearOperator(RootLinearOperator(0.5 * waves), DiagLinearOperator(torch.full_like(x, 1e-5)))
    mean = 0.8 * torch.exp(-(((x - 0.4) / 0.15) ** 2)) + 0.5 * waves @ random(rank) - 0.05
    energy = NonlinearLaw(residual_function=lambda u: u.square().mean(-1, keepdim=True) - 0.08, points=n, starts=1)
    total = LinearConstraint(torch.full((1, n), 1 / n, dtype=torch.float64), torch.tensor([0.15], dtype=torch.float64))
    found = condition(MultivariateNormal(mean, metric), energy & total & NonNegative()).search.field
    assert float(found.min()) >= -1e-12
    assert float((found.mean() - 0.15).abs()) <= 1e-14
    assert float((found.square().mean() - 0.08).abs()) <= 1e-10
    precision = np.linalg.inv(metric.to_dense().numpy())
    away = found.numpy() - mean.numpy()
    best = minimize(
        lambda u: (u - mean.numpy()) @ precision @ (u - mean.numpy()) / (away @ precision @ away),
        found.numpy(),
        method="SLSQP",
        bounds=[(0.0, None)] * n,
        constraints=[
            {"type": "eq", "fun": lambda u: u.mean() - 0.15},
            {"type": "eq", "fun": lambda u: u @ u / n - 0.08},
        ],
        options={"ftol": 1e-14, "maxiter": 300},
    )
    assert best.fun >= 1 - 1e-6


# Conditioning


def energy(value: Any) -> Callable[[Tensor], Tensor]:
    return lambda u: u.square().sum(-1, keepdim=True) - value


def squares(value: Any, points: int = 6) -> NonlinearLaw:
    return NonlinearLaw(residual_function=energy(value), points=points)


def total(value: Tensor, points: int = 6) -> LinearConstraint:
    return LinearConstraint(torch.ones(1, points, dtype=torch.float64), value)


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_a_law_with_linear_rows_conditions_as_its_function_after_these_rows(batch: tuple[int, ...]) -> None:
    prior = Normal(1 + 0.1 * random(*batch, 6), 0.3 + 0.1 * random(*batch, 6, seed=1).abs())
    rows = total(6.5 + 0.1 * random(*batch, 1, seed=2))
    actual = condition(prior, squares(7.5) & rows)
    expected = condition(condition(prior, rows), squares(7.5))
    assert torch.allclose(actual.mean, expected.mean, rtol=0, atol=1e-8)
    assert torch.allclose(actual.variance, expected.variance, rtol=0, atol=1e-8)
    assert float(rows.residual(actual.rsample(torch.Size([5]))).abs().max()) <= 1e-12


@pytest.mark.long
def test_many_rows_of_one_field_are_conditioned_on_with_sparse_rows() -> None:
    steps = NonlinearLaw(residual_function=upwind, points=POINTS, starts=1)
    law = steps & initial(front())
    prior = Normal(front().repeat(TIMES) + 0.05 * random(POINTS), 0.5 + random(POINTS, seed=1).abs())
    actual = condition(prior, law)
    assert isinstance(actual.constraint.G, SparseRows)
    assert float(law.residual(actual.mean).abs().max()) <= 1e-9
    after = condition(condition(prior, initial(front())), steps)
    assert torch.allclose(actual.mean, after.mean, rtol=0, atol=1e-8)


def test_bounds_of_a_law_and_of_a_prediction_hold_together() -> None:
    prior = condition(Normal(0.5 + 0.5 * random(6), 1.0), NonNegative())
    law = squares(2.0) & Bounded(-1.0, 0.9)
    actual = condition(prior, law)
    assert isinstance(actual, Projected)
    assert float(actual.mode.min()) >= 0.0
    assert float(actual.mode.max()) <= 0.9
    assert float(law.residual(actual.mode).abs().max()) <= 1e-9
    assert torch.equal(actual.search.field, actual.mode)


@pytest.mark.parametrize("batch", [(), (1,), (2,)])
def test_under_bounds_of_correlated_values_the_mode_meets_a_curved_law_to_round_off(batch: tuple[int, ...]) -> None:
    x = torch.linspace(0, 1, 12, dtype=torch.float64)
    metric = 0.1 * torch.exp(-((x[:, None] - x).square() / 0.04)) + 1e-8 * torch.eye(12, dtype=torch.float64)
    prior = MultivariateNormal((0.5 + x.mul(6).sin()).expand(*batch, 12), metric.expand(*batch, 12, 12))
    stated = replace(squares(5.0, points=12), starts=1) & LinearConstraint(torch.ones(1, 12), torch.tensor([6.5]))
    given = condition(prior, stated & Bounded(0.1, 1.0))
    assert isinstance(given, Projected)
    for actual in (given, given.with_draws(9)):
        mode = actual.mode
        assert float(mode.min()) <= 0.1 + 1e-15
        assert float(mode.max()) >= 1.0 - 1e-15, "both bounds matter"
        assert float(Bounded(0.1, 1.0).joined().violation(mode).max()) == 0.0
        assert float(stated.residual(mode).abs().max()) <= 1e-14 * 12
        assert mode.shape == (*batch, 12)
        assert torch.equal(pickle.loads(pickle.dumps(actual)).mode, mode)


def test_derivatives_in_what_a_law_depends_on_agree_with_a_difference() -> None:
    prior = Normal(1 + 0.1 * random(6), torch.full((6,), 0.3, dtype=torch.float64))
    value = torch.tensor(8.0, dtype=torch.float64, requires_grad=True)
    (actual,) = torch.autograd.grad(condition(prior, squares(value)).mean[0], value)
    above, below = (condition(prior, squares(8.0 + step)).mean[0] for step in (1e-4, -1e-4))
    assert float(actual) == pytest.approx(float((above - below) / 2e-4), rel=1e-5)  # 1e-10 / 1e-4, and h²


# Messages


@pytest.mark.parametrize(
    ("law", "error", "message"),
    [
        (squares(1.0, points=7), IncompatibleQueryError, "acts on 7 points but the prediction has 6"),
        (
            squares(1.0) & total(torch.ones(3, 1)),
            IncompatibleQueryError,
            r"for a batch \(3,\) but the prediction has the batch \(2,\)",
        ),
        (NonlinearLaw(residual_function=lambda u: u.sum(-1), points=6), InvalidArgumentError, r"turn \(2, 6\) into"),
    ],
)
def test_laws_that_do_not_fit_a_prediction_are_refused(law: NonlinearLaw, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        condition(Normal(torch.ones(2, 6), 0.1), law)


@pytest.mark.parametrize("missing", [float("nan"), float("inf")])
@pytest.mark.parametrize("law", [None, initial(front()), NonNegative()], ids=["alone", "linear", "bounds"])
def test_priors_that_are_not_finite_are_refused(law: Any, missing: float) -> None:
    mean, variance = torch.ones(2, 3 * CELLS).double(), torch.ones(2, 3 * CELLS).double()
    matrix = torch.diag_embed(variance)
    stated = NonlinearLaw(residual_function=lambda u: u.square().mean(dim=-1, keepdim=True) - 2.0, points=3 * CELLS)
    if isinstance(law, LinearConstraint):
        law = LinearConstraint(law.rows[:, : 3 * CELLS], law.b)
    stated = stated if law is None else stated & law
    mean[1, 2] = missing
    with pytest.raises(InvalidArgumentError, match="The prior must be finite"):
        condition(Normal(mean, variance, validate_args=False), stated)
    with pytest.raises(InvalidArgumentError, match="The prior must be finite"):
        condition(Normal(torch.ones_like(mean), mean, validate_args=False), stated)
    matrix[1, 0, 1] = matrix[1, 1, 0] = missing
    with pytest.raises(InvalidArgumentError, match=r"The (covariance of the prior|prior covariance) holds"):
        condition(MultivariateNormal(torch.ones_like(mean), DenseLinearOperator(matrix)), stated)


def test_residuals_of_fields_of_another_size_are_refused() -> None:
    with pytest.raises(IncompatibleQueryError, match=r"acts on 6 points but the fields are \(2, 7\)"):
        squares(1.0).residual(torch.ones(2, 7))


@pytest.mark.parametrize(
    ("law", "error", "message"),
    [
        (lambda: NonlinearLaw(residual_function=energy(-1.0), points=6), ConvergenceError, "has a largest"),
        (lambda: NonlinearLaw(residual_function=energy(1.0), points=7), IncompatibleQueryError, "6 and 7"),
        (
            lambda: NonlinearLaw(residual_function=lambda u: u.sum(-1), points=6),
            InvalidArgumentError,
            r"turn \(2, 6\) into \(\*batch, k\)",
        ),
        (
            lambda: NonlinearLaw(residual_function=lambda u: u.square().mean(dim=(0, 1)).expand(2, 1) - 1, points=6),
            InvalidArgumentError,
            "Fields of a batch must not mix",
        ),
        (
            lambda: NonlinearLaw(residual_function=energy(9.0), points=6) & Bounded(0.0, 1.0),
            ConvergenceError,
            "did not converge",
        ),
        (
            lambda: (
                NonlinearLaw(residual_function=energy(1.0), points=6)
                & LinearConstraint(torch.ones(1, 5), torch.ones(1))
            ),
            IncompatibleQueryError,
            "6 points but the linear rows on 5",
        ),
        (
            lambda: (
                NonlinearLaw(residual_function=energy(1.0), points=6)
                & LinearConstraint(torch.ones(1, 6), torch.ones(1), noise_variance=0.1)
            ),
            InvalidArgumentError,
            "must be exact",
        ),
        (
            lambda: NonlinearLaw(residual_function=energy(1.0), points=6) & Monotone(),
            InvalidArgumentError,
            "without an order",
        ),
        (
            lambda: (
                NonlinearLaw(residual_function=energy(1.0), points=6)
                & LinearInequality(torch.eye(6)[:1] - torch.eye(6)[1:2], torch.zeros(1))
            ),
            InvalidArgumentError,
            "without a LinearInequality",
        ),
        (
            lambda: NonlinearLaw(residual_function=lambda u: (u.sum(-1, keepdim=True) - 99).sqrt(), points=6),
            ConvergenceError,
            "not finite",
        ),
    ],
)
def test_what_cannot_be_met_is_refused(law: Callable[[], Any], error: type, message: str) -> None:
    fields = 0.5 + 0.1 * random(2, 6)
    with pytest.raises(error, match=message):
        project(fields, DiagLinearOperator(torch.ones(6, dtype=torch.float64)), law())
