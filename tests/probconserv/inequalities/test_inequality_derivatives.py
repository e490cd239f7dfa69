"""Inequalities with a law: derivatives and messages."""

import itertools
import math

import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator.operators import DenseLinearOperator, DiagLinearOperator
from torch.distributions import Normal

from probconserv import (
    Bounded,
    LinearConstraint,
    LinearInequality,
    Monotone,
    NonNegative,
    condition,
    from_samples,
    integral,
    truncate,
)
from probconserv.errors import ConvergenceError, IncompatibleQueryError, InfeasibleConstraintError, InvalidArgumentError
from probconserv.inequalities import _ascent as ascent
from probconserv.inequalities.inequality import JoinedConstraint
from probconserv.inequalities.projected import Projected
from solvers import NodeGrid
from tests.strategies import INEQUALITIES, positive_definite, projection_problem

double = torch.float64


# Derivatives


@pytest.mark.parametrize("shape", INEQUALITIES)
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_derivatives_of_the_search_for_one_number(shape, noise):
    mean, scale, weights, total = projection_problem(13, 9, (2,), spread=1)
    inputs = [part.requires_grad_() for part in (mean, scale, weights, total)]

    def mode(mean, scale, weights, total):
        law = LinearConstraint(weights[None], total[..., None], noise_variance=noise)
        return condition(Normal(mean, scale), law & shape).mode

    assert torch.autograd.gradcheck(mode, inputs, atol=1e-6)
    assert torch.autograd.gradgradcheck(mode, inputs, atol=1e-5)


def test_derivatives_of_the_quadratic_programme_and_of_bounds():
    n = 6
    mean, scale, weights, total = projection_problem(14, n)
    root = torch.linalg.cholesky(positive_definite(n, torch.Generator().manual_seed(3)))
    lower = torch.full((n,), -0.2, dtype=double)
    inputs = [part.requires_grad_() for part in (mean, root, weights, 0.5 * total.detach(), lower)]

    def fields(mean, root, weights, total, lower):
        prior = MultivariateNormal(mean, DenseLinearOperator(root @ root.mT))
        joined = LinearConstraint(weights[None], total[None]) & Bounded(lower)
        actual = condition(prior, joined)
        return (
            truncate(prior, joined).mode,
            actual.mode,
            actual.rsample(torch.Size([2]), generator=torch.Generator().manual_seed(0)),
        )

    def bounded(mean, lower):
        return condition(Normal(mean, scale), LinearConstraint(weights[None], total[None]) & Bounded(lower)).mode

    assert torch.autograd.gradcheck(fields, inputs, atol=1e-6)
    assert torch.autograd.gradcheck(bounded, (inputs[0], inputs[4]), atol=1e-6)


def test_moments_made_without_gradients_are_made_again_with_them():
    mean, scale, weights, total = projection_problem(15, 9)
    mean.requires_grad_()
    actual = condition(Normal(mean, scale), LinearConstraint(weights[None], total[None]) & NonNegative()).with_draws(30)
    with torch.no_grad():
        first = (actual.mode, actual.mean, actual.variance)
    assert not any(part.requires_grad for part in first)
    for part, again in zip(first, (actual.mode, actual.mean, actual.variance), strict=True):
        assert torch.equal(part, again)
        (slope,) = torch.autograd.grad(again.square().sum(), mean, retain_graph=True)
        assert bool(slope.any())


# Messages


def test_infeasible_totals_name_the_feasible_ones():
    prior = Normal(torch.zeros(2, 11), torch.ones(2, 11))
    grid = NodeGrid(0.0, 1.0, 11)
    with pytest.raises(InfeasibleConstraintError, match=r"asks for -0\.1 \(batch entry \(1,\)\).*between 0 and inf"):
        condition(prior, integral(grid, torch.tensor([0.2, -0.1])) & NonNegative())
    for shape in (Bounded(0.25, 2.0), Bounded(0.25, 2.0) & Monotone()):
        with pytest.raises(InfeasibleConstraintError, match=r"asks for 2\.5 .*between 0\.25 and 2;"):
            condition(prior, integral(grid, 2.5) & shape)
    assert condition(prior, integral(grid, -0.1, 0.01) & NonNegative()).mode.shape == (2, 11)


def test_values_known_beyond_the_bounds_or_out_of_order_are_refused():
    mean = torch.tensor([0.0, 0.5, -0.1], dtype=double)
    scale = torch.tensor([1.0, 0.0, 0.0], dtype=double)
    prior = Normal(mean, scale, validate_args=False)
    with pytest.raises(InfeasibleConstraintError, match=r"fixes the value -0\.1 at point 2 .*\[0, inf\]"):
        condition(prior, NonNegative())
    with pytest.raises(InfeasibleConstraintError, match="contradict each other"):
        condition(prior, Monotone())
    law = LinearConstraint(torch.tensor([[0.0, 1.0, 1.0]]), torch.tensor([1.0]))
    with pytest.raises(InfeasibleConstraintError, match=r"between 0\.4 and 0\.4"):
        condition(prior, law & Bounded(-1.0, 1.0))


def test_laws_that_no_field_of_a_dense_prior_meets_are_refused():
    samples = torch.stack([torch.linspace(0.0, 1.0, 6), torch.linspace(0.0, -1.0, 6)]).to(double)
    law = LinearConstraint(torch.ones(1, 6), torch.tensor([3.0]))
    with pytest.raises(InfeasibleConstraintError, match="determine a value that violates a bound"):
        _ = truncate(from_samples(samples), law & Bounded(-9.0, 0.9)).mode
    projected = condition(from_samples(samples), law & Bounded(-9.0, 0.9)).mode  # off the span of the samples
    assert float(projected.max()) <= 0.9
    assert float(law.residual(projected).abs()) <= 1e-14
    slopes = torch.stack([torch.linspace(-1.0, 1.0, 6), torch.linspace(1.0, -1.0, 6)]).to(double)
    with pytest.raises(InfeasibleConstraintError, match="No field of this prior meets"):
        _ = truncate(from_samples(slopes), Bounded(0.5, 9.0)).mode  # multiples of x alone: one end is negative
    twice = LinearConstraint(torch.ones(1, 6), torch.zeros(1)) & LinearConstraint(
        torch.arange(1.0, 7.0)[None], torch.ones(1)
    )
    with pytest.raises(InfeasibleConstraintError, match=r"asks for 1 .* between 0 and 0"):
        _ = condition(Normal(torch.zeros(6), torch.ones(6)), twice & NonNegative()).mode


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Bounded(0.0, 1.0) & Bounded(2.0, 3.0), "leave no field"),
        (lambda: Bounded(torch.zeros(3), torch.ones(4)), "do not broadcast"),
        (lambda: Monotone() & Monotone(decreasing=True), "is constant"),
        (lambda: NonNegative() & 3, "joins with a LinearConstraint"),
        (lambda: LinearInequality(torch.ones(2, 3), torch.ones(3)), r"got \(2, 3\) and \(3,\)"),
        (lambda: LinearInequality(torch.ones(3), torch.ones(1)), r"needs A \(\*batch, m, n\)"),
        (lambda: LinearInequality(torch.full((1, 3), math.nan), torch.ones(1)), "A of a LinearInequality holds 3 NaN"),
        (
            lambda: LinearInequality(torch.ones(1, 3), torch.full((1,), math.inf)),
            "c of a LinearInequality .* 1 NaN",
        ),
        (lambda: LinearInequality(torch.zeros(1, 3), torch.ones(1)), "row of A is zero"),
        (lambda: LinearInequality(torch.zeros(1, 30).to_sparse(), torch.ones(1)), "row of A is zero"),
        (
            lambda: LinearInequality(torch.eye(2)[..., None] * torch.ones(3), torch.full((2,), -1.0)),
            "zero in some entries of the batch, where its c must not be negative",
        ),
        (
            lambda: integral(NodeGrid(0.0, 1.0, 5), 1.0) & LinearInequality(torch.ones(1, 4), torch.ones(1)),
            "on 4 points but the law acts on 5",
        ),
        (
            lambda: (
                LinearInequality(torch.ones(1, 4), torch.ones(1)) & LinearInequality(torch.ones(1, 5), torch.ones(1))
            ),
            "join only on the same points, got 4 and 5",
        ),
        (lambda: integral(NodeGrid(0.0, 1.0, 5), 1.0) & Bounded(torch.zeros(4)), "on 4 points but the law acts on 5"),
        (lambda: integral(NodeGrid(0.0, 1.0, 5), 1.0) & Bounded(upper=torch.zeros(4)), "on 4 points but the law acts"),
        (lambda: Projected(from_samples(torch.rand(3, 5)), NonNegative().joined(), draws=1), "at least 2 draws"),
        (lambda: condition(Normal(torch.full((5,), math.nan), 1.0, validate_args=False), NonNegative()), "finite"),
        (
            lambda: condition(MultivariateNormal(torch.zeros(2), DiagLinearOperator(-torch.ones(2))), NonNegative()),
            "not",
        ),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(InvalidArgumentError, match=message):
        make()


def test_constraints_of_other_points_or_batches_are_refused():
    prior = Normal(torch.zeros(2, 5), torch.ones(2, 5))
    with pytest.raises(IncompatibleQueryError, match=r"\(5,\) points but the constraint acts on \[6\]"):
        condition(prior, integral(NodeGrid(0.0, 1.0, 6), 1.0) & NonNegative())
    with pytest.raises(IncompatibleQueryError, match="do not broadcast"):
        condition(prior, integral(NodeGrid(0.0, 1.0, 5), torch.ones(3)) & NonNegative())


def test_searches_that_do_not_settle_say_so(monkeypatch):
    prior = Normal(torch.zeros(5), torch.ones(5))
    joined = integral(NodeGrid(0.0, 1.0, 5), 1.0) & NonNegative()
    monkeypatch.setattr(ascent, "_TOLERANCE", -1.0)
    with pytest.raises(ConvergenceError, match="The law is missed by"):
        _ = condition(prior, joined).mode


def test_joined_constraint_says_what_it_holds():
    law = integral(NodeGrid(0.0, 1.0, 5), torch.ones(3))
    joined = law & NonNegative() & Bounded(-1.0, 4.0) & Monotone(decreasing=True)
    assert isinstance(joined, JoinedConstraint)
    assert (float(joined.lower), float(joined.upper), joined.order) == (0.0, 4.0, -1)
    assert joined.law is law
    assert joined.batch_shape == (3,)
    two = joined & integral(NodeGrid(0.0, 1.0, 5), 1.0)
    assert two.law is not None
    assert two.law.b.shape == (3, 2)
    assert all(a is not b for a, b in itertools.pairwise([joined, two]))
