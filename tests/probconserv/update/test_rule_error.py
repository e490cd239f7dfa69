"""Laws that know the error of their rule: the variance of a quadrature, the warning, the softened law."""

import math
import warnings

import pytest
import torch
from torch.distributions import Normal

from probconserv import LinearConstraint, Mixture, NonNegative, ProbConserv, condition, integral
from probconserv.constraints import quadrature_variance
from probconserv.errors import IncompatibleQueryError, InvalidArgumentError
from probconserv.fields import block_means
from solvers import NodeGrid
from tests.recording import records

double = torch.float64
GRID = NodeGrid(0.0, 1.0, 21)
X = GRID.points
FRONTS = torch.linspace(0.3, 0.7, 97, dtype=double)[:, None]
STEPS = (FRONTS > X).to(double)  # whose totals the trapezoid rule misses by up to half a spacing
RULE = quadrature_variance(integral(GRID, FRONTS[:, 0]), STEPS)


def sure(deviation: float, front: float = 0.51) -> Normal:
    """The true step, predicted with some standard deviation at every point."""
    return Normal((front > X).to(double), torch.full_like(X, deviation))


def total_deviation(deviation: float) -> float:
    return deviation * float(GRID.weights.square().sum().sqrt())


def test_the_variance_of_a_rule_is_that_of_what_true_fields_miss():
    missed = STEPS @ GRID.weights - FRONTS[:, 0]
    assert RULE.shape == (1,)
    assert float(RULE) == pytest.approx(float(missed.square().mean()), rel=1e-12)
    spacing = 1 / 20
    assert float(RULE) == pytest.approx((spacing / 2) ** 2 / 3, rel=0.1)  # uniform within half a spacing
    blocks = block_means(torch.zeros(5, 3), (7,))
    assert torch.allclose(quadrature_variance(blocks, torch.ones(5, 21)), torch.ones(3, dtype=double))


@pytest.mark.parametrize("share", [0.5, 2.0])
@pytest.mark.parametrize("kind", ["independent", "dense", "mixture", "bounded", "blocks"])
def test_the_warning_comes_where_the_prediction_knows_its_total_better_than_the_rule(share, kind):
    deviation = share * float(RULE.sqrt()) / total_deviation(1.0)
    law = integral(GRID, 0.51, rule_variance=RULE)
    prior = sure(deviation)
    if kind == "dense":
        prior = torch.distributions.MultivariateNormal(prior.loc, prior.variance.diag())
    if kind == "mixture":
        prior = Mixture(Normal(prior.loc.expand(3, -1), prior.scale.expand(3, -1)))
    constraint = law & NonNegative() if kind == "bounded" else law
    if kind == "blocks":
        constraint = block_means(torch.zeros(1), (21,)).with_rule_variance((deviation / share) ** 2 / 21)
    if share < 1:
        with pytest.warns(UserWarning, match=r"1 of 1 totals better than the rule .* 0.5 of the rule's error"):
            condition(prior, constraint)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            condition(prior, constraint)


def test_the_spread_of_components_counts():
    """Each component is sure of its total, but they differ."""
    sharp = Mixture(Normal(torch.stack([(front > X).to(double) for front in (0.33, 0.51, 0.72)]), 1e-6))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        condition(sharp, integral(GRID, 0.51, rule_variance=RULE))


def test_only_the_exact_law_harms_and_its_softened_form_does_not():
    truth = (X < 0.51).to(double)
    prior = Normal(truth + 1e-4 * torch.sin(9 * X), torch.full_like(X, 1e-4))
    law = integral(GRID, 0.51, rule_variance=RULE)
    with pytest.warns(UserWarning, match="better than the rule"):
        exact = condition(prior, law)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rough = condition(prior, law.softened())
        condition(prior, law, validate=False)
        condition(prior, integral(GRID, 0.51))  # knows nothing of its rule
        condition(prior, integral(GRID, 0.51, 2 * RULE, rule_variance=RULE))  # is rough already
    errors = [float((each.mean - truth).square().mean()) for each in (prior, exact, rough)]
    assert errors[1] > 100 * errors[0]
    assert errors[2] < 1.01 * errors[0]
    assert torch.equal(exact.mean, condition(prior, integral(GRID, 0.51)).mean)
    assert torch.equal(rough.mean, condition(prior, integral(GRID, 0.51, RULE)).mean)


def test_joined_laws_keep_the_variances_of_their_rules():
    first, second = integral(GRID, 0.5, rule_variance=0.1), integral(GRID, 0.6, 0.2)
    value = LinearConstraint(torch.eye(21)[:2], torch.ones(2)).with_rule_variance(torch.tensor([0.3, 0.4]))
    joined = first & second & value
    assert joined.rule_variance.tolist() == pytest.approx([0.1, 0.0, 0.3, 0.4])
    assert joined.softened().noise.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert joined.softened().rule_variance is None
    assert (integral(GRID, 0.5) & second).rule_variance is None
    blocks = block_means(torch.zeros(3), (7,)).with_rule_variance(0.5)
    assert (blocks & blocks).rule_variance.tolist() == [0.5] * 6
    several = integral(GRID, torch.tensor([0.5, 0.6]), rule_variance=torch.tensor([[0.1], [0.2]]))
    assert (several & first).rule_variance.flatten().tolist() == pytest.approx([0.1, 0.1, 0.2, 0.1])


@records
def test_a_layer_keeps_it_and_graphs_do_not_look():
    law = integral(GRID, 0.51, rule_variance=RULE)

    class Net(torch.nn.Module):
        def forward(self, x):
            return Normal(x, 1e-6 + 0 * x, validate_args=False)

    layer, field = ProbConserv(Net(), law), sure(1.0).loc
    with pytest.warns(UserWarning, match="better than the rule"):
        expected = layer(field).mean
    compiled = torch.compile(lambda x: layer(x).mean, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(field), expected)


def test_invalid_arguments_raise_with_reason():
    with pytest.raises(InvalidArgumentError, match=r"rule_variance must be finite and not negative, got .* -1"):
        integral(GRID, 0.5, rule_variance=-1.0)
    with pytest.raises(InvalidArgumentError, match=r"not negative, got .* nan"):
        integral(GRID, 0.5).with_rule_variance(math.nan)
    with pytest.raises(InvalidArgumentError, match=r"with k = 1, got \(2,\)"):
        integral(GRID, 0.5, rule_variance=torch.ones(2))
    with pytest.raises(InvalidArgumentError, match="no rule_variance to be softened by"):
        integral(GRID, 0.5).softened()
    with pytest.raises(InvalidArgumentError, match=r"fields must be \(cases, n\)"):
        quadrature_variance(integral(GRID, 0.5), STEPS[0])
    with pytest.raises(InvalidArgumentError, match="without NaN"):
        quadrature_variance(integral(GRID, 0.5), STEPS * math.nan)
    with pytest.raises(IncompatibleQueryError, match="acts on 21 points"):
        quadrature_variance(integral(GRID, 0.5), STEPS[:, :4])
