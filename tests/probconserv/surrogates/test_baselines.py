"""HardC and SoftC."""

import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from hypothesis import given, settings
from linear_operator.operators import DiagLinearOperator
from torch import nn
from torch.distributions import Normal

from probconserv import LinearConstraint, condition, integral
from probconserv.baselines import project_uniformly, soft_penalty
from probconserv.errors import DependentConstraintsError, InvalidArgumentError
from solvers import Advection, Burgers, Diffusion, NodeGrid, PorousMedium, Stefan
from tests.strategies import conditioning_problems

LAWS = (Diffusion(1.3), PorousMedium(1.5), PorousMedium(3.0), Stefan(0.4), Advection(0.7), Burgers())
POINTS = torch.rand(4, 30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@settings(deadline=None, max_examples=25)
@given(conditioning_problems(kinds=("diagonal", "dense")))
def test_projection_is_the_closest_field_and_keeps_the_variance(problem):
    prior, law = problem
    projected = project_uniformly(prior, law)
    rows = law.rows
    residual = (rows @ prior.mean[..., None])[..., 0] - law.b
    step = (rows.mT @ torch.linalg.solve(rows @ rows.mT, residual[..., None]))[..., 0]
    scale = float(prior.mean.abs().max() + law.b.abs().max())
    assert torch.allclose(projected.mean, prior.mean - step, rtol=1e-9, atol=1e-10 * scale)
    assert torch.equal(projected.covariance_matrix, prior.covariance_matrix)


def test_projection_equals_the_update_of_equal_variances():
    law = integral(NodeGrid(0.0, 1.0, 9), torch.rand(2, dtype=torch.float64))
    prior = Normal(torch.rand(9, dtype=torch.float64), torch.full((9,), 0.3).double())
    assert torch.allclose(project_uniformly(prior, law).mean, condition(prior, law).mean, rtol=1e-12)
    assert project_uniformly(prior, law).variance.shape == (2, 9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_projection_keeps_variances_however_small(dtype):
    deviation = torch.tensor([0.0, 1e-7, 1e-4, 1.0], dtype=dtype)
    law = LinearConstraint(torch.ones(1, 4), torch.ones(1))
    for prior in (
        Normal(torch.zeros(4, dtype=dtype), deviation, validate_args=False),
        MultivariateNormal(torch.zeros(4, dtype=dtype), DiagLinearOperator(deviation.square())),
    ):
        projected = project_uniformly(prior, law)
        assert projected.variance.tolist() == deviation.square().tolist()
        assert projected.rsample().dtype == dtype


def test_penalty_vanishes_on_solutions():
    t, x = 0, 1
    waves = {
        Diffusion(1.3): lambda p: torch.exp(-1.3 * p[..., t]) * torch.sin(p[..., x]),
        Advection(0.7): lambda p: torch.sin(p[..., x] - 0.7 * p[..., t]),
        Burgers(): lambda p: p[..., x] / (1 + p[..., t]),
        # The travelling front u = (m (t − x))^(1/m), behind the front.
        PorousMedium(2.0): lambda p: (2.0 * (2 + p[..., t] - p[..., x])).sqrt(),
        Stefan(-10.0): lambda p: p[..., x].square() + 2 * p[..., t],
    }
    for law, solution in waves.items():
        assert float(soft_penalty(law, solution, POINTS).detach()) <= 1e-24, law


def test_penalty_of_fields_that_are_no_solutions_by_hand():
    # u = t + x²: u_t = 1, and F_x = −2 k (diffusion) or 2 a x (advection).
    def field(p):
        return p[..., 0] + p[..., 1].square()

    assert float(soft_penalty(Diffusion(2.0), field, POINTS).detach()) == pytest.approx(9.0, rel=1e-12)
    expected = (1 + 2 * 0.7 * POINTS[..., 1]).square().mean()
    with torch.no_grad():
        assert float(soft_penalty(Advection(0.7), field, POINTS)) == pytest.approx(float(expected), rel=1e-12)
    plane = soft_penalty(Diffusion(1.0), lambda p: p[..., 1:].square().sum(-1), torch.rand(10, 3).double())
    assert float(plane.detach()) == pytest.approx(16.0, rel=1e-12)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.73, 2.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_with_the_value_zero_have_the_derivatives_of_negative_ones(exponent, dtype):
    """k = u₊ᵐ and its derivatives are 0 there, although k″ grows without bound towards 0 if m < 2."""
    law = PorousMedium(torch.tensor([exponent], dtype=torch.float64))

    def gradient(level):
        weight = torch.ones((), dtype=dtype, requires_grad=True)
        penalty = soft_penalty(law, lambda p: weight * (p[..., 0] + p[..., 1]).to(dtype) + level, torch.zeros(1, 4, 2))
        return float(torch.autograd.grad(penalty, weight)[0])

    assert gradient(0.0) == gradient(-1.0) == 2.0  # of the mean of u_t², which is the square of the weight


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_penalty_trains_a_network_whatever_the_sign_of_its_output(law):
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1)).double()
    with torch.no_grad():
        # Negative as well as positive states, where a degenerate law conducts nothing.
        values = network(POINTS)
        network[2].bias -= values.mean()
    penalty = soft_penalty(law, lambda p: network(p)[..., 0], POINTS)
    penalty.backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    assert all(bool(torch.isfinite(g).all()) for g in gradients if g is not None)
    assert any(float(g.abs().max()) > 0 for g in gradients if g is not None)


def test_invalid_arguments_raise_with_reason():
    law = LinearConstraint(torch.ones(2, 4), torch.zeros(2))
    with pytest.raises(DependentConstraintsError, match="not independent"):
        project_uniformly(MultivariateNormal(torch.zeros(4), torch.eye(4)), law)
    with pytest.raises(InvalidArgumentError, match="columns t, x"):
        soft_penalty(Burgers(), lambda p: p[..., 0], torch.rand(5, 1))
    with pytest.raises(InvalidArgumentError, match=r"one value per point, \(5,\), got \(5, 2\)"):
        soft_penalty(Burgers(), lambda p: p, torch.rand(5, 2))
