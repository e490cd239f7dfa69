"""Redundant rows with inequalities: in every order the same prediction, which meets all that was stated."""

from functools import reduce
from itertools import permutations

import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator import to_linear_operator
from torch.distributions import Normal

from probconserv import (
    Bounded,
    LinearConstraint,
    LinearInequality,
    Mixture,
    Monotone,
    NonNegative,
    condition,
    from_samples,
    truncate,
)
from probconserv.errors import DependentConstraintsError, InfeasibleConstraintError
from probconserv.inequalities import _feasible

double = torch.float64
EPS = torch.finfo(double).eps
N = 6
MEAN = torch.full((1, N), 1 / N, dtype=double)
TOTAL, AGAIN = LinearConstraint(MEAN, torch.ones(1)), LinearConstraint(2 * MEAN, 2 * torch.ones(1))
VALUE = LinearConstraint(torch.eye(N)[1:2], torch.tensor([0.5]))
ROUGH = LinearConstraint(torch.linspace(-1, 1, N, dtype=double)[None], torch.tensor([0.2]), noise_variance=0.1)


def fields(count, seed=0):
    return 1 + torch.randn(count, N, dtype=double, generator=torch.Generator().manual_seed(seed))


def with_total(count):
    """Fields that all have the total, of which their Gaussian is certain."""
    members = fields(count)
    return members + 1 - members.mean(dim=-1, keepdim=True)


def singular(members):
    deviations = members - members.mean(dim=0)
    return MultivariateNormal(members.mean(dim=0), to_linear_operator(deviations.mT @ deviations / len(members)))


PRIORS = {
    "independent": lambda: Normal(fields(1)[0], torch.linspace(0.5, 1.5, N, dtype=double)),
    "members": lambda: from_samples(fields(10), shrinkage=0.0),
    "members with noise": lambda: from_samples(fields(4), 0.1, shrinkage=0.0),
    "members that agree": lambda: from_samples(with_total(12), shrinkage=0.0),
    "members of one batch": lambda: from_samples(fields(10)[:, None], shrinkage=0.0),
    "singular": lambda: singular(with_total(12)),
    "float32": lambda: from_samples(fields(10).float(), shrinkage=0.0),
}


@pytest.mark.parametrize("statements", [(TOTAL, AGAIN), (TOTAL, VALUE, AGAIN), (TOTAL & ROUGH, AGAIN)])
@pytest.mark.parametrize("name", PRIORS)
def test_every_order_gives_one_prediction(name, statements):
    prior = PRIORS[name]()
    expected = condition(prior, reduce(lambda a, b: a & b, statements) & NonNegative())
    single = prior.mean.dtype == torch.float32
    for order in permutations((*statements, NonNegative())):
        for found in (
            condition(prior, reduce(lambda a, b: a & b, order)),
            reduce(condition, order, prior),
            condition(condition(prior, order[0]), reduce(lambda a, b: a & b, order[1:])),
        ):
            assert torch.allclose(found.mode, expected.mode, rtol=0, atol=1e-5 if single else 1e-9)
            draws = found.rsample((5,))
            for u in (found.mode, draws, found.with_draws(10).mean, found.mean):
                assert float(u.min()) >= 0
                for law in statements:
                    missed = law.residual(u.double()).abs() * (law.noise == 0)
                    assert float(missed.max()) <= (1e2 if single else 1e3) * torch.finfo(u.dtype).eps
            assert bool(torch.isfinite(found.variance).all())


@pytest.mark.parametrize("name", PRIORS)
def test_what_a_prediction_is_certain_of_stays_true_in_every_order_of_three(name):
    """A redundant row that is left out of the update is not forgotten by a prediction that is conditioned again."""
    prior = PRIORS[name]()
    found = condition(condition(condition(condition(prior, TOTAL), VALUE), AGAIN), Bounded(0.2, None))
    precision = torch.finfo(prior.mean.dtype).eps
    for u in (found.mode, found.mean, found.rsample((5,))):
        assert float((TOTAL & VALUE & AGAIN).residual(u.double()).abs().max()) <= 1e3 * precision


@pytest.mark.parametrize("inequality", [NonNegative(), Monotone(), LinearInequality(-torch.eye(N), torch.zeros(N))])
@pytest.mark.parametrize("name", ["independent", "members with noise", "members that agree"])
def test_truncation_takes_the_rows_that_conditioning_takes(name, inequality):
    prior = PRIORS[name]()
    once, again = truncate(prior, TOTAL & inequality), truncate(prior, TOTAL & AGAIN & inequality)
    assert torch.allclose(again.mode, once.mode, rtol=0, atol=1e-9)
    assert torch.allclose(again.mean, once.mean, rtol=0, atol=1e-9)
    in_turn = truncate(condition(prior, TOTAL), AGAIN & inequality)
    assert torch.allclose(in_turn.mode, once.mode, rtol=0, atol=1e-9)
    assert float(TOTAL.residual(in_turn.rsample((5,))).abs().max()) <= 1e3 * EPS


def test_components_and_batches_are_truncated_and_projected_too():
    components = Normal(fields(2), torch.ones(2, N, dtype=double))
    mixture = Mixture(components, torch.tensor([0.3, 0.7], dtype=double))
    for found, once in (
        (condition(mixture, TOTAL & AGAIN & NonNegative()), condition(mixture, TOTAL & NonNegative())),
        (
            truncate(mixture, TOTAL & AGAIN & NonNegative(), keep_weights=True),
            truncate(mixture, TOTAL & NonNegative(), keep_weights=True),
        ),
    ):
        assert torch.allclose(found.mean, once.mean, rtol=0, atol=1e-9)
        assert torch.allclose(found.weights, once.weights, rtol=1e-12, atol=0)


def test_rows_that_contradict_each_other_are_refused():
    other = LinearConstraint(MEAN, 1.5 * torch.ones(1))
    for name, make in PRIORS.items():
        for call in (condition, truncate):
            with pytest.raises((InfeasibleConstraintError, DependentConstraintsError), match=r"contradict|misses"):
                call(make(), TOTAL & other & NonNegative())
        with pytest.raises((InfeasibleConstraintError, DependentConstraintsError), match=r"contradict|misses"):
            condition(condition(make(), NonNegative() & TOTAL), other), name


def test_derivatives_do_not_change_by_a_redundant_row():
    scale = torch.linspace(0.5, 1.5, N, dtype=double)

    def gradient(law):
        mean = fields(1)[0].requires_grad_()
        condition(MultivariateNormal(mean, torch.diag(scale) + 0.1), law & NonNegative()).mode[0].backward()
        return mean.grad

    assert torch.allclose(gradient(TOTAL & AGAIN), gradient(TOTAL), rtol=0, atol=1e-9)


def test_members_that_cannot_explain_a_law_lose_their_correlations_in_both_orders():
    law, prior = LinearConstraint(torch.eye(N)[:1], torch.tensor([40.0])), from_samples(fields(5), shrinkage="auto")
    with pytest.warns(UserWarning, match="cannot explain the law"):
        expected = condition(prior, law & NonNegative())
    with pytest.warns(UserWarning, match="cannot explain the law"):
        found = condition(condition(prior, NonNegative()), law)
    assert torch.equal(found.mode, expected.mode)


@pytest.mark.parametrize("kind", ["independent", "members with noise", "singular"])
def test_the_set_of_feasible_fields_is_built_once(kind, monkeypatch):
    counted = []
    built = _feasible.feasible_set
    monkeypatch.setattr("probconserv.inequalities.projected.feasible_set", lambda *a: counted.append(a) or built(*a))
    found = condition(PRIORS[kind](), TOTAL & AGAIN & NonNegative())
    found.with_draws(5)
    assert len(counted) == 1
