"""Rows that depend on each other: redundant ones do not count, nearly dependent ones are used as far as they differ."""

import math
import pickle
from itertools import permutations

import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator import to_linear_operator
from linear_operator.operators import DiagLinearOperator
from torch import Tensor
from torch.distributions import Normal

from probconserv import LinearConstraint, Mixture, condition, from_samples
from probconserv.errors import DependentConstraintsError, InfeasibleConstraintError
from probconserv.fields import block_means
from probconserv.law_evidence import evidence

double = torch.float64
EPS = torch.finfo(double).eps
TRUTH = torch.rand(12, dtype=double, generator=torch.Generator().manual_seed(0))
ZONAL = torch.block_diag(*[torch.full((1, 4), 0.25, dtype=double)] * 3)
WEIGHTS = torch.tensor([0.2, 0.3, 0.5], dtype=double)
WHOLE = LinearConstraint((WEIGHTS @ ZONAL)[None], (WEIGHTS @ ZONAL @ TRUTH)[None])


def zones(structured: bool) -> LinearConstraint:
    return block_means(ZONAL @ TRUTH, (4,)) if structured else LinearConstraint(ZONAL, ZONAL @ TRUTH)


def prior_of(kind: str, scale: float = 1.0) -> Normal | MultivariateNormal:
    generator = torch.Generator().manual_seed(1)
    mean, root = (
        torch.rand(12, dtype=double, generator=generator),
        torch.randn(12, 12, dtype=double, generator=generator),
    )
    if kind == "normal":
        return Normal(mean, scale * (root[0].abs() + 0.1))
    if kind == "members":
        members = mean + max(scale, 1.0) * torch.randn(30, 12, dtype=double, generator=generator)
        return from_samples(members, shrinkage=0.0)
    if kind == "noisy members":
        return from_samples(mean + root[:5], noise_variance=scale**2 + 1, shrinkage=0.0)
    return MultivariateNormal(mean, scale**2 * (root @ root.mT + torch.eye(12)))


KINDS = ("normal", "members", "noisy members", "dense")


@pytest.mark.parametrize("structured", [False, True])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 10.0, 1e6])
@pytest.mark.parametrize("kind", KINDS)
def test_redundant_rows_do_not_enter_the_evidence_in_any_order(kind, scale, structured):
    prior, zonal = prior_of(kind, scale), zones(structured)
    row = LinearConstraint(torch.eye(12)[:1], TRUTH[:1])
    expected = condition(prior, zonal & row)
    for order in permutations((zonal, WHOLE, row)):
        law = order[0] & order[1] & order[2]
        at_once, in_turn = condition(prior, law), condition(condition(condition(prior, order[0]), order[1]), order[2])
        for found in (at_once, in_turn, condition(prior, law & law)):
            assert float(found.log_evidence) == pytest.approx(float(expected.log_evidence), rel=1e-10, abs=1e-10)
            assert float(found.misfit) == pytest.approx(float(expected.misfit), rel=1e-10, abs=1e-10)
            assert torch.allclose(found.mean, expected.mean, rtol=1e-9, atol=1e-9)
            assert float(law.residual(found.rsample((5,))).abs().max()) < 1e-12 * max(1.0, scale)
        assert float(evidence(prior, law).log_evidence) == pytest.approx(float(expected.log_evidence), rel=1e-10)
        assert evidence(prior, law).degrees_of_freedom == 4


def test_a_law_that_a_prediction_meets_already_has_no_evidence():
    fixed = Normal(TRUTH, torch.zeros(12, dtype=double), validate_args=False)
    posterior = condition(fixed, WHOLE)
    assert float(posterior.log_evidence) == float(posterior.misfit) == 0.0
    assert torch.equal(posterior.mean, TRUTH)
    assert torch.equal(posterior.rsample((3,)), TRUTH.expand(3, 12))
    assert float(posterior.variance.max()) == 0.0
    once = condition(prior_of("normal"), zones(False))
    assert float(condition(once, WHOLE).log_evidence) == pytest.approx(float(once.log_evidence), rel=1e-12)


def test_weights_of_a_mixture_and_of_batches_follow():
    means = torch.rand(3, 2, 12, dtype=double, generator=torch.Generator().manual_seed(2))
    scale = torch.tensor([0.5, 1.0, 30.0], dtype=double)[:, None, None].expand(3, 2, 12)
    mixture, zonal = Mixture(Normal(means, scale)), zones(False)
    expected = condition(mixture, zonal)
    for law in (zonal & WHOLE, WHOLE & zonal):
        found = condition(mixture, law)
        assert torch.allclose(found.weights, expected.weights, rtol=1e-10)
        assert torch.allclose(condition(condition(mixture, WHOLE), zonal).weights, expected.weights, rtol=1e-10)
        assert torch.allclose(evidence(mixture, law).chi_square, evidence(mixture, zonal).chi_square, rtol=1e-9)


def nearly_dependent(difference: float, n: int = 12) -> tuple[LinearConstraint, LinearConstraint]:
    """Two rows that differ by so much, and the same statements by independent rows."""
    generator = torch.Generator().manual_seed(0)
    first, second, field = torch.rand(3, n, dtype=double, generator=generator)
    rows = torch.stack([first, first + difference * second])
    clear = torch.stack([first, (rows[1] - rows[0]) / difference])
    return LinearConstraint(rows, rows @ field), LinearConstraint(clear, clear @ field)


@pytest.mark.parametrize("kind", KINDS[:3])
@pytest.mark.parametrize("exponent", range(4, 11))
def test_nearly_dependent_rows_are_used_down_to_rounding(exponent, kind):
    """Rows known to ε are known to ε / difference along what distinguishes them."""
    difference = 10.0**-exponent
    near, clear = nearly_dependent(difference)
    found, expected = condition(prior_of(kind), near), condition(prior_of(kind), clear)
    most = 1e3 * EPS / difference
    assert torch.allclose(found.mean, expected.mean, rtol=0, atol=most)
    assert torch.allclose(found.stddev, expected.stddev, rtol=0, atol=math.sqrt(most) * 0.01 + most)
    change = float(found.log_evidence - expected.log_evidence) + math.log(difference)
    assert abs(change) < 10 * most
    other = condition(prior_of(kind), LinearConstraint(near.G.flip(0), near.b.flip(0)))
    assert float(other.log_evidence) == pytest.approx(float(found.log_evidence), abs=10 * most)


def test_rows_that_a_dense_covariance_cannot_tell_apart_are_named():
    near, clear = nearly_dependent(1e-9)
    with pytest.warns(UserWarning, match=r"Rows [01] of the law are left out: what distinguishes"):
        found = condition(prior_of("dense"), near)
    assert torch.allclose(found.mean, condition(prior_of("dense"), LinearConstraint(near.rows[:1], near.b[:1])).mean)
    near, clear = nearly_dependent(1e-5)
    assert torch.allclose(condition(prior_of("dense"), near).mean, condition(prior_of("dense"), clear).mean, atol=1e-6)


def test_neighbouring_values_of_a_smooth_field_are_met_or_named():
    x = torch.linspace(0, 1, 201, dtype=double)
    covariance = torch.exp(-0.5 * ((x[:, None] - x) / 0.3) ** 2)
    prior = MultivariateNormal(torch.zeros_like(x), to_linear_operator(covariance))
    u = torch.sin(3 * x)
    for k in (3, 4, 5):
        rows = torch.eye(201, dtype=double)[100 : 100 + 2 * k : 2]
        assert float((rows @ condition(prior, LinearConstraint(rows, rows @ u)).mean - rows @ u).abs().max()) < 1e-12
    rows = torch.eye(201, dtype=double)[100:116:2]
    with pytest.warns(UserWarning, match="of the law are left out"):
        posterior = condition(prior, LinearConstraint(rows, rows @ u))
    assert float((rows @ posterior.mean - rows @ u).abs().max()) < 1e-3
    with pytest.raises(DependentConstraintsError, match="misses it by"):
        condition(prior, LinearConstraint(rows, rows @ u + 0.1 * torch.arange(8) ** 2))


@pytest.mark.parametrize("difference", [0.0, 1e-15, 1e-6])
@pytest.mark.parametrize("kind", KINDS[:3])
def test_rows_contradict_each_other_only_where_no_field_meets_them(difference, kind):
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, 12, dtype=double, generator=generator)
    law = LinearConstraint(torch.stack([first, first + difference * second]), torch.tensor([3.0, 3.0 + 1e-6]).double())
    if difference == 1e-6:
        assert float(law.residual(condition(prior_of(kind, 100.0), law).mean).abs().max()) < 1e-8
        return
    with pytest.raises((InfeasibleConstraintError, DependentConstraintsError)):
        condition(prior_of(kind, 100.0), law)


def test_single_precision_counts_its_rounding_as_no_difference():
    """Areas rounded to single precision make the global mean differ from the zonal ones by 6e-8, as totals do."""
    areas = TRUTH.flip(0) + 0.5
    zonal = torch.block_diag(*(part[None] / part.sum() for part in areas.split(4)))
    single = LinearConstraint(zonal.float(), zonal.float() @ TRUTH.float())
    whole = (areas / areas.sum())[None].float()
    law = single & LinearConstraint(whole, whole @ TRUTH.float())
    prior = Normal(torch.zeros(12), torch.ones(12))
    expected = condition(prior, single)
    with pytest.warns(UserWarning, match="Rows 3 of the law are left out"):
        found = condition(prior, law)
    assert torch.allclose(found.mean, expected.mean, atol=1e-6)


def test_gradients_through_nearly_dependent_rows():
    near, clear = nearly_dependent(1e-6)

    def mean(scale: Tensor, law: LinearConstraint) -> Tensor:
        return condition(MultivariateNormal(TRUTH, DiagLinearOperator(scale.square())), law).mean.square().sum()

    gradients = []
    for law in (near, clear):
        scale = (TRUTH + 0.5).requires_grad_()
        gradients.append(torch.autograd.grad(mean(scale, law), scale)[0])
    assert torch.allclose(*gradients, atol=1e-6)


def test_what_is_left_of_redundant_rows_is_expanded_indexed_shifted_and_pickled():
    fixed = Normal(TRUTH, torch.zeros(12, dtype=double), validate_args=False)
    for prior in (prior_of("normal"), fixed):
        posterior = condition(prior, zones(False) & WHOLE)
        assert posterior.stated.b.shape == (4,)
        several = posterior.expand(torch.Size([2]))
        for same in (several[0], posterior + 0.0, posterior * 1.0, pickle.loads(pickle.dumps(posterior))):
            assert torch.allclose(same.mean, posterior.mean)
            assert float(zones(False).residual(same.rsample((3,))).abs().max()) < 1e-12
            assert float(same.log_evidence) == pytest.approx(float(posterior.log_evidence), abs=1e-12)
