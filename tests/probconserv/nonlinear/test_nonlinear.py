"""Nonlinear constraints: closed forms, an independent minimiser, stationarity, order of the draws, messages."""

import functools
import itertools
import math
import operator
import pickle

import numpy as np
import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_operator.operators import DenseLinearOperator
from scipy.optimize import brentq, minimize
from torch.distributions import Normal

from probconserv import (
    Bounded,
    LinearConstraint,
    LinearInequality,
    Mixture,
    Monotone,
    NonlinearLaw,
    NonNegative,
    ProbConserv,
    condition,
    from_samples,
)
from probconserv._linalg.rows import SparseRows
from probconserv.errors import ConvergenceError, InvalidArgumentError
from probconserv.inequalities.inequality import Inequality
from probconserv.nonlinear._space import Space
from tests.strategies import positive_definite, seeds

few = settings(deadline=None, max_examples=20)
double = torch.float64


def energy(value):
    """g(u) = Σ u² − value."""
    return lambda u: (u.square().sum(dim=-1) - value)[..., None]


def under(prior, residual, **options):
    """The prediction under the law of a residual function."""
    return condition(prior, NonlinearLaw(residual_function=residual, points=prior.mean.shape[-1], **options))


def field(seed, n, batch=()):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*batch, n, dtype=double, generator=generator) + 0.5


# Exact


def test_linear_residuals_give_the_linear_update():
    mean, scale = field(0, 12, (3,)), field(1, 12, (3,))
    rows, b = field(2, 12, (2,)), torch.tensor([4.0, 5.0], dtype=double)
    actual = under(Normal(mean, scale), lambda u: u @ rows.mT - b, max_iterations=2)
    linear = condition(Normal(mean, scale), LinearConstraint(rows, b))
    assert torch.allclose(actual.mean, linear.mean, rtol=0, atol=1e-13)
    assert torch.allclose(actual.variance, linear.variance, rtol=0, atol=1e-13)


def test_equal_variances_project_onto_a_sphere():
    mean, value = field(3, 12, (3,)), torch.tensor([4.0, 12.0, 20.0], dtype=double)
    actual = under(Normal(mean, torch.full_like(mean, 0.3)), energy(value))
    nearest = mean * (value.sqrt() / torch.linalg.vector_norm(mean, dim=-1))[:, None]
    assert torch.allclose(actual.mean, nearest, rtol=0, atol=1e-10)  # the tolerance times the deviation 0.3


# Oracle


@few
@given(seeds, st.integers(2, 30), st.floats(0.8, 1.3))
def test_energy_agrees_with_the_root_of_the_secular_equation(seed, n, ratio):
    mean, scale = field(seed, n), 0.3 * field(seed + 1, n)
    value = float(ratio * mean.square().sum())
    actual = under(Normal(mean, scale), energy(value))
    # u = μ/(1 + 2νv) with ν such that Σu² = E, on the branch of the nearest field.
    m, v = mean.numpy(), scale.numpy() ** 2
    nu = brentq(lambda nu: np.sum((m / (1 + 2 * nu * v)) ** 2) - value, -0.49 / v.max(), 100 / v.min(), xtol=1e-15)
    assert np.allclose(actual.mean.numpy(), m / (1 + 2 * nu * v), rtol=0, atol=1e-8)


@settings(deadline=None, max_examples=10)
@given(seeds)
def test_the_mode_on_a_curve_is_the_best_of_all_its_points(seed):
    """The curve u₀⁴ + u₁⁴ + c u₀ u₁ = 1 by polar angles: the least objective of a fine grid is not below the mode's."""
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(2, dtype=double, generator=generator)
    scale = 0.1 + torch.rand(2, dtype=double, generator=generator)
    mixing = 2 * float(torch.rand((), generator=generator)) - 1
    mode = under(
        Normal(mean, scale), lambda u: (u**4).sum(-1, keepdim=True) + mixing * u.prod(-1, keepdim=True) - 1, starts=8
    ).search
    angle = torch.linspace(0, 2 * math.pi, 20_001, dtype=double)
    unit = torch.stack([angle.cos(), angle.sin()], dim=-1)
    # r⁴ a + r² b = 1
    a, b = (unit**4).sum(-1), mixing * unit.prod(-1)
    curve = unit * ((-b + (b**2 + 4 * a).sqrt()) / (2 * a)).sqrt()[:, None]
    least = float((((curve - mean) / scale) ** 2).sum(-1).min())
    assert least * (1 - 1e-5) - 1e-5 <= float(mode.objective) <= least * (1 + 1e-9)
    assert 1 <= int(mode.agreeing) <= int(mode.converged)


@pytest.mark.parametrize("value", [0.1, 0.4, 2.0])
def test_energies_far_from_a_prior_with_unequal_variances(value):
    """Standard deviations from 0.02 to 1, the secular equation again: Gauss–Newton alone diverges here."""
    x = torch.linspace(0, 1, 31, dtype=double)
    mean, scale = torch.ones_like(x), 0.02 + x**4
    actual = under(Normal(mean, scale), lambda u: u.square().mean(-1, keepdim=True) - value, starts=2)
    m, v = mean.numpy(), scale.numpy() ** 2
    nu = brentq(lambda nu: np.mean((m / (1 + 2 * nu * v)) ** 2) - value, -0.49 / v.max(), 1e4 / v.min(), xtol=1e-15)
    assert np.allclose(actual.mean.numpy(), m / (1 + 2 * nu * v), rtol=0, atol=1e-7)


def test_one_row_is_searched_for_without_second_derivatives(monkeypatch):
    """From five starts at once; the Hessian is formed once, to see that the best of them is a minimum."""
    formed, hessian = [], Space.hessian
    monkeypatch.setattr(Space, "hessian", lambda *parts: formed.append(1) or hessian(*parts))
    mean, scale = field(5, 201), 0.3 * field(6, 201)
    mode = under(Normal(mean, scale), energy(1.2 * float(mean.square().sum()))).search
    multiplier = (mode.field - mean) / (scale**2 * mode.field)  # the same at all points
    assert torch.allclose(multiplier, multiplier.mean().expand(201), rtol=1e-7)
    assert (int(mode.converged), len(formed)) == (5, 1)


def test_one_start_on_a_symmetry_leaves_the_saddle():
    prior = Normal(torch.tensor([0.1, 0.0]).double(), torch.tensor([0.1, 1.0]).double())
    mode = under(prior, energy(1.0), starts=1).search
    assert float(mode.objective) < 1.0


@settings(deadline=None, max_examples=6)
@given(seeds, st.booleans())
def test_modes_under_inequalities_are_minima_that_scipy_cannot_improve(seed, dense):
    generator = torch.Generator().manual_seed(seed)
    n = 4
    mean = torch.rand(n, dtype=double, generator=generator) - 0.3
    covariance = positive_definite(n, generator)
    base = MultivariateNormal(mean, DenseLinearOperator(covariance))
    if not dense:
        covariance = torch.diag(covariance.diag())
        base = Normal(mean, covariance.diag().sqrt())
    found = under(condition(base, NonNegative()), energy(2.0), max_iterations=60, starts=3).search
    precision, centre = np.linalg.inv(covariance.numpy()), mean.numpy()
    nearby = minimize(
        lambda u: (u - centre) @ precision @ (u - centre),
        found.field.numpy(),
        jac=lambda u: 2 * precision @ (u - centre),
        method="SLSQP",
        bounds=[(0, None)] * n,
        constraints=[{"type": "eq", "fun": lambda u: u @ u - 2.0, "jac": lambda u: 2 * u}],
        options={"ftol": 1e-14, "maxiter": 300},
    )
    assert float(found.objective) <= nearby.fun * (1 + 1e-6) + 1e-8
    assert bool((found.field >= 0).all())
    assert float(found.field.square().sum()) == pytest.approx(2.0, abs=1e-8)


def test_many_local_laws_with_a_sparse_jacobian():
    """Products of neighbours, 999 laws of two values each; the dense Jacobian would take all 2,000 columns."""
    k = 1000
    prior = Normal(1 + 0.1 * field(0, 2 * k), field(1, 2 * k))

    def residual(u):
        return u[..., :k] * u[..., k:] - 1

    posterior = under(prior, residual, starts=1)
    assert isinstance(posterior.constraint.G, SparseRows)
    assert float(residual(posterior.mean).abs().max()) <= 1e-9
    few = Normal(prior.loc[::k], prior.scale[::k])
    alone = under(few, lambda u: u.prod(-1, keepdim=True) - 1)
    assert torch.allclose(posterior.mean[::k], alone.mean, rtol=1e-8)


# Invariants


@few
@given(seeds, st.integers(8, 20), st.booleans())
def test_the_mean_is_feasible_and_stationary(seed, n, dense):
    mean = field(seed, n).expand(2, n)
    covariance = 0.02 * positive_definite(n, torch.Generator().manual_seed(seed), (2,))
    prior = MultivariateNormal(mean, DenseLinearOperator(covariance))
    if not dense:
        covariance = torch.diag_embed(covariance.diagonal(dim1=-2, dim2=-1))
        prior = Normal(mean, covariance.diagonal(dim1=-2, dim2=-1).sqrt())

    def functionals(u):
        return torch.stack([(u**3).mean(dim=-1), (u[..., 1:] * u[..., :-1]).mean(dim=-1)], dim=-1)

    def residual(u):
        return functionals(u) - 1.02 * functionals(mean[0])

    actual = under(prior, residual)
    u = actual.mean
    assert bool((residual(u).abs() <= 1e-9).all())
    jacobian = torch.stack([torch.autograd.functional.jacobian(residual, entry) for entry in u])
    force = torch.linalg.solve(covariance, (u - mean)[..., None])
    along = torch.linalg.lstsq(jacobian.mT, force).solution
    assert bool(((force - jacobian.mT @ along).abs() <= 1e-6 * force.abs().max()).all())
    assert bool((actual.variance <= covariance.diagonal(dim1=-2, dim2=-1)).all())


def test_a_conditioned_prediction_keeps_its_law():
    mean, scale = field(4, 15), 0.3 * field(5, 15)
    law = LinearConstraint(torch.ones(1, 15), mean.sum()[None] + 0.5)
    actual = under(condition(Normal(mean, scale), law), energy(float(mean.square().sum()) + 2.0))
    assert float(law.residual(actual.mean).abs()) <= 1e-12 * 15
    assert float(actual.mean.square().sum()) == pytest.approx(float(mean.square().sum()) + 2.0, abs=1e-9)
    assert float(law.residual(actual.rsample(torch.Size([5]))).abs().max()) <= 1e-12 * 15


def test_samples_and_float32_are_priors_too():
    samples = torch.stack([field(seed, 10) for seed in range(6)]).float()
    actual = under(from_samples(samples), energy(11.0))
    assert actual.mean.dtype == torch.float32
    assert not actual.mean.requires_grad
    assert float(actual.mean.square().sum()) == pytest.approx(11.0, rel=1e-6)  # ten entries, 6e-8 each


# Order


def test_draws_meet_the_constraint_to_first_order():
    mean = field(6, 20)
    spreads, errors = [0.2, 0.1, 0.05, 0.025], []
    for spread in spreads:
        actual = under(Normal(mean, torch.full_like(mean, spread)), energy(float(mean.square().sum())))
        draws = actual.rsample(torch.Size([200]), generator=torch.Generator().manual_seed(0))
        errors.append(float(energy(float(mean.square().sum()))(draws).abs().mean()))
    slopes = np.diff(np.log(errors)) / np.diff(np.log(spreads))
    assert np.allclose(slopes, 2.0, atol=0.2)


# Derivatives


@pytest.mark.long
def test_derivatives_agree_with_differences():
    mean, scale = field(7, 5, (2,)).requires_grad_(), (0.3 * field(8, 5, (2,))).requires_grad_()
    value = torch.tensor([4.0, 6.0], dtype=double, requires_grad=True)

    def conditioned(mean, scale, value):
        actual = under(Normal(mean, scale), energy(value), tolerance=1e-12)
        return actual.mean, actual.variance

    assert torch.autograd.gradcheck(conditioned, (mean, scale, value), atol=1e-6)
    fixed = under(Normal(mean.detach(), scale.detach()), energy(value))
    assert bool(torch.autograd.grad(fixed.mean.sum(), value)[0].all())


@pytest.mark.parametrize("tolerance", [1e-10, 1e-4, 1e-2])
def test_starts_that_end_at_one_mode_agree_whatever_the_tolerance(tolerance):
    found = under(
        Normal(torch.linspace(0, 1, 20).double(), torch.ones(20).double()), energy(10.0), tolerance=tolerance
    ).search
    assert (int(found.converged), int(found.agreeing)) == (5, 5)


# Messages


@pytest.mark.parametrize(
    ("residual", "error", "message"),
    [
        (lambda u: (u.square().sum(-1) + 1.0)[..., None], ConvergenceError, "the residual is .* standard deviations"),
        (lambda u: u.sum(-1), InvalidArgumentError, r"turn \(2, 5\) into \(\*batch, k\).*got \(2,\)"),
        (lambda u: torch.ones(len(u), 1), InvalidArgumentError, "do not depend on the field"),
        (
            lambda u: torch.stack([u[:, 0], torch.ones(2)], -1),
            ConvergenceError,
            "gradient of residual . of the nonlinear law is zero",
        ),
        (
            lambda u: (u - 1.0).square().sum(-1, keepdim=True),
            ConvergenceError,
            "gradient of residual . of the nonlinear law is zero",
        ),
        (lambda u: (u.sum(-1, keepdim=True) - 9.0).sqrt(), ConvergenceError, "not finite"),
    ],
)
def test_residuals_that_cannot_be_met_are_refused(residual, error, message):
    with pytest.raises(error, match=message):
        under(Normal(torch.ones(2, 5, dtype=double), 0.1), residual, max_iterations=20)


@pytest.mark.parametrize(("tolerance", "iterations"), [(0.0, 5), (math.nan, 5), (1e-8, 0)])
def test_bad_settings_are_refused(tolerance, iterations):
    with pytest.raises(InvalidArgumentError, match="tolerance must be positive"):
        under(Normal(torch.ones(2), 1.0), energy(1.0), tolerance=tolerance, max_iterations=iterations)


def test_derivatives_that_do_not_exist_are_refused():
    mean = torch.ones(3, dtype=double, requires_grad=True)
    prior = condition(Normal(mean, torch.ones(3, dtype=double)), NonNegative())
    upper = torch.ones((), dtype=double, requires_grad=True)
    bounded = condition(Normal(mean.detach(), torch.ones(3, dtype=double)), Bounded(0.0, upper))
    for base in (prior, bounded):
        with pytest.raises(InvalidArgumentError, match="have no derivatives"):
            under(base, energy(1.0))


def test_a_mixture_is_refused_by_name():
    mixture = Mixture(Normal(torch.ones(2, 3, dtype=double), 0.1))
    with pytest.raises(InvalidArgumentError, match="condition its components"):
        under(mixture, energy(1.0))


# Joined statements


STATEMENTS = {
    "rows": LinearConstraint(torch.ones(1, 6), torch.tensor([7.0])),
    "noisy rows": LinearConstraint(torch.eye(6)[:1], torch.tensor([1.5]), noise_variance=0.01),
    "bounds": Bounded(0.0, 1.9),
    "order": Monotone(),
    "inequality": LinearInequality(torch.eye(6)[:1] - 0.9 * torch.eye(6)[5:], torch.zeros(1)),
}


@pytest.mark.parametrize("names", [*itertools.combinations(STATEMENTS, 1), *itertools.combinations(STATEMENTS, 2)])
def test_statements_join_in_any_order_and_one_after_the_other(names):
    prior = Normal(torch.linspace(0.8, 1.6, 6).double(), torch.linspace(0.2, 0.4, 6).double())
    law = NonlinearLaw(residual_function=energy(9.3), points=6)
    others = [STATEMENTS[name] for name in names]
    results = [
        condition(prior, functools.reduce(operator.and_, statements)) for statements in ([law, *others], [*others, law])
    ]
    results.append(functools.reduce(condition, [law, *others], prior))
    results.append(functools.reduce(condition, [*others, law], prior))
    for result in results:
        field = result.mode
        assert float(law.residual(field).abs()) <= 1e-8
        assert torch.allclose(field, results[0].mode, rtol=0, atol=1e-7)  # tolerances of 1e-10 of deviations, a few
        assert torch.allclose(field, result.search.field, rtol=0, atol=1e-8)
        for other in others:
            if isinstance(other, Inequality):
                assert float(other.joined().violation(field)) <= 1e-12
            elif not other.noise.any():
                assert float(other.residual(field).abs()) <= 1e-9


@pytest.mark.parametrize("copied", [lambda q: pickle.loads(pickle.dumps(q)), lambda q: q.expand((1,))[0]])
def test_a_copy_keeps_its_mode_and_is_not_conditioned_on_its_tangent(copied):
    posterior = under(Normal(torch.linspace(0.8, 1.6, 6).double(), torch.full((6,), 0.3).double()), energy(9.0))
    copy = copied(posterior)
    assert torch.allclose(copy.mode, posterior.mode, rtol=0, atol=1e-15)
    with pytest.raises(InvalidArgumentError, match="has lost the function of the law"):
        condition(copy, STATEMENTS["rows"])


@pytest.mark.parametrize("order", [1, -1])
def test_two_nonlinear_laws_join(order):
    prior = Normal(torch.linspace(0.8, 1.6, 6).double(), torch.full((6,), 0.3).double())
    squares, cubes = (
        NonlinearLaw(residual_function=lambda u, p=p: (u**p).sum(-1, keepdim=True) - 10.0, points=6) for p in (2, 3)
    )
    first, second = (squares, cubes)[::order]
    joint, after = condition(prior, first & second), condition(condition(prior, first), second)
    for law in (squares, cubes):
        assert float(law.residual(joint.mode).abs()) <= 1e-9
    assert torch.allclose(joint.mode, after.mode, rtol=0, atol=1e-9)


def test_the_layer_takes_a_nonlinear_law():
    mean = field(9, 6, (2,))
    law = NonlinearLaw(residual_function=energy(7.0), points=6)
    layer = ProbConserv(lambda mean: Normal(mean, torch.full_like(mean, 0.3)), law)
    assert float(law.residual(layer(mean).mode).abs().max()) <= 1e-9
