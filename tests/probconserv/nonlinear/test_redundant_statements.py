"""Nonlinear laws that say what others, or the prediction, say already."""

from dataclasses import replace

import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from torch.distributions import Normal

from probconserv import Bounded, LinearConstraint, NonlinearLaw, NonNegative, condition, from_samples
from probconserv.errors import ConvergenceError, DependentConstraintsError

double = torch.float64
N = 6


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=double, generator=torch.Generator().manual_seed(seed))


def energy(value, factor=1.0):
    """factor (mean of u² − value) = 0."""
    return NonlinearLaw(residual_function=lambda u: factor * (u.square().mean(dim=-1, keepdim=True) - value), points=N)


def dense(mean, scale=1.0):
    root = random(N, N, seed=1)
    return MultivariateNormal(mean, scale**2 * (root @ root.mT / N + 0.1 * torch.eye(N)))


PRIORS = {
    "independent": lambda: Normal(1 + random(N), torch.linspace(0.5, 1.5, N, dtype=double)),
    "dense": lambda: dense(1 + random(N)),
    "members": lambda: from_samples(1 + random(10, N), shrinkage=0.0),
    "batch": lambda: Normal(1 + random(2, N), torch.ones(2, N, dtype=double)),
    "batch of one": lambda: dense(1 + random(1, N)),
    "float32": lambda: from_samples((1 + random(10, N)).float(), 0.1, shrinkage=0.0),
}


def same(found, expected):
    """To the tolerance of the search, in a few standard deviations; derivatives of the law enter the variance."""
    atol = 1e-5 if expected.mean.dtype == torch.float32 else 1e-8
    for a, b in zip(*((q.mode, q.mean, q.variance) for q in (found, expected)), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=atol)


@pytest.mark.parametrize("name", PRIORS)
def test_a_law_given_twice_is_the_law(name):
    prior, law = PRIORS[name](), energy(2.0)
    once = condition(prior, law)
    for again in (law, energy(2.0, factor=-3.0)):
        for found in (condition(prior, law & again), condition(once, again)):
            same(found, once)
            assert torch.allclose(found.misfit, once.misfit, rtol=1e-6, atol=1e-6)
            assert bool((found.search.converged > 0).all())


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("kind", ["independent", "dense", "members"])
@pytest.mark.parametrize("k", [1, 2])
def test_a_law_that_the_prediction_meets_changes_nothing(kind, unit, k):
    mean, rows = unit * random(2, N), random(k, N, seed=2)
    linear = LinearConstraint(rows, unit * random(2, k, seed=3))
    prior = {
        "independent": lambda: Normal(mean, unit * torch.linspace(0.5, 1.5, N, dtype=double).expand(2, N)),
        "dense": lambda: dense(mean, unit),
        "members": lambda: from_samples(unit * random(9, 2, N), 0.1 * unit**2, shrinkage=0.0),
    }[kind]()
    once = condition(prior, linear)
    plain = NonlinearLaw(residual_function=lambda u: u @ rows.mT - linear.b, points=N)
    met = condition(once, plain)
    for found in (met, condition(met, plain)):
        assert torch.allclose(found.mean, once.mean, rtol=0, atol=1e-9 * unit)
        assert torch.allclose(found.mode, once.mean, rtol=0, atol=1e-9 * unit)
        assert torch.allclose(found.variance, once.variance, rtol=0, atol=1e-9 * unit**2)
        assert torch.allclose(found.log_evidence, once.log_evidence, rtol=1e-9, atol=1e-9)
    assert float(linear.residual(met.rsample((5,))).abs().max()) <= 1e-10 * unit


@pytest.mark.parametrize("name", ["independent", "dense", "members", "batch of one"])
def test_what_is_met_stays_met_under_bounds(name):
    prior, law = PRIORS[name](), energy(2.0)
    total = LinearConstraint(torch.full((1, N), 1 / N, dtype=double), torch.ones(1))
    squared = NonlinearLaw(residual_function=lambda u: u.mean(dim=-1, keepdim=True) - 1.0, points=N)
    expected = condition(prior, law & total & NonNegative())
    for found in (
        condition(prior, law & law & total & squared & NonNegative()),
        condition(condition(condition(prior, total & NonNegative()), squared), law),
        condition(condition(condition(prior, law & total), NonNegative()), law & squared),
    ):
        assert torch.allclose(found.mode, expected.mode, rtol=0, atol=1e-7)
        assert float(law.residual(found.mode).abs().max()) <= 1e-8
        for u in (found.mode, found.rsample((5,))):
            assert float(u.min()) >= 0
            assert float(total.residual(u).abs().max()) <= 1e-12


def test_a_total_that_all_members_have_stays_true_under_a_nonlinear_law_and_bounds():
    members = 1 + random(12, N)
    members = members + 1 - members.mean(dim=-1, keepdim=True)
    total = LinearConstraint(torch.full((1, N), 1 / N, dtype=double), torch.ones(1))
    prior, law = from_samples(members, shrinkage=0.0), energy(1.6)
    for found in (
        condition(prior, law & total & NonNegative()),
        condition(condition(prior, total), law & NonNegative()),
        condition(condition(condition(prior, NonNegative()), total), law),
    ):
        for u in (found.mode, found.rsample((5,))):
            assert float(u.min()) >= 0
            assert float(total.residual(u).abs().max()) <= 1e-12


def test_values_that_are_certain_meet_a_law_or_are_refused():
    scale = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 1.0], dtype=double)
    prior = Normal(torch.ones(N, dtype=double), scale, validate_args=False)

    def law(value):
        return NonlinearLaw(residual_function=lambda u: u[..., :2].prod(dim=-1, keepdim=True) - value, points=N)

    found = condition(prior, law(1.0))
    assert torch.equal(found.mean, prior.loc)
    assert torch.equal(found.variance, scale)
    both = condition(prior, law(1.0) & energy(2.0))
    assert torch.allclose(both.mode, condition(prior, energy(2.0)).mode, rtol=0, atol=1e-9)
    with pytest.raises(DependentConstraintsError, match="Statement 0 of the nonlinear law is determined"):
        condition(prior, law(2.0))


@pytest.mark.parametrize("name", PRIORS)
def test_statements_that_contradict_each_other_are_refused(name):
    prior = PRIORS[name]()
    for make in (
        lambda: condition(prior, energy(2.0) & energy(3.0)),
        lambda: condition(condition(prior, energy(2.0)), energy(2.0 + 1e-3)),
        lambda: condition(prior, energy(2.0) & energy(3.0) & Bounded(-9.0, 9.0)),
    ):
        with pytest.raises(DependentConstraintsError, match="Statement 1 of the nonlinear law is determined"):
            make()


@pytest.mark.parametrize("name", ["independent", "dense"])
def test_curves_that_touch_are_no_redundant_statements(name):
    """A sphere and the plane that touches it have one field in common, which a tangent plane does not describe."""
    plane = LinearConstraint(torch.eye(N)[:1], torch.tensor([float(N) ** 0.5]))
    with pytest.raises((ConvergenceError, DependentConstraintsError)):
        condition(PRIORS[name](), replace(energy(1.0), starts=1, max_iterations=50) & plane)


def test_many_local_laws_given_twice_have_sparse_rows():
    n = 40
    law = NonlinearLaw(residual_function=lambda u: u[..., 1:].square() - u[..., :-1] * u[..., 1:] - 0.1, points=n)
    prior = Normal(1 + 0.1 * random(n), torch.full((n,), 0.1, dtype=double))
    once, twice = condition(prior, law), condition(prior, law & law)
    assert torch.allclose(twice.mode, once.mode, rtol=0, atol=1e-8)
    assert torch.allclose(twice.variance, once.variance, rtol=0, atol=1e-8)


def test_derivatives_do_not_change_by_a_redundant_statement():
    def gradient(law):
        mean = (1 + random(N)).requires_grad_()
        condition(Normal(mean, torch.linspace(0.5, 1.5, N, dtype=double)), law).mean[0].backward()
        return mean.grad

    assert torch.allclose(gradient(energy(2.0) & energy(2.0, factor=2.0)), gradient(energy(2.0)), rtol=0, atol=1e-8)
