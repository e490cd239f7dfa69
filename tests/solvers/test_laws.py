"""Laws: potential and conductivity, flux and speed belong together, in NumPy and torch alike."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import Advection, Burgers, Diffusion, InvalidArgumentError, PorousMedium, Stefan

BATCH = torch.tensor([0.7, 2.0, 4.0], dtype=torch.float64)
DIFFUSIVE = [Diffusion(BATCH), PorousMedium(BATCH), Stefan(0.3, diffusivity=BATCH), Diffusion(2.0), PorousMedium(1.5)]
CONVECTIVE = [Advection(BATCH), Burgers()]


def states(seed, low=0.35):
    """States away from the kinks at 0 and u* = 0.3."""
    return low + torch.rand((3, 5), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(DIFFUSIVE), st.integers(0, 1000))
def test_conductivity_is_the_derivative_of_the_potential(law, seed):
    u = states(seed).requires_grad_()
    (slope,) = torch.autograd.grad(law.potential(u).sum(), u)
    assert torch.allclose(slope, law.conductivity(u).detach(), rtol=1e-12)
    assert torch.allclose(law.flux(u, 2.0 * u), -2.0 * law.conductivity(u) * u)


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(CONVECTIVE), st.integers(0, 1000))
def test_speed_is_the_derivative_of_the_flux(law, seed):
    u = states(seed, low=-0.5).requires_grad_()
    (slope,) = torch.autograd.grad(law.convective_flux(u).sum(), u)
    assert torch.allclose(slope, law.characteristic_speed(u).detach(), rtol=1e-12)
    assert torch.equal(law.flux(u, u), law.convective_flux(u))


@pytest.mark.parametrize("law", DIFFUSIVE)
def test_numpy_and_torch_agree(law):
    """Same operations in the same precision: a few units in the last place between the two libraries' powers."""
    u = states(3)
    assert np.allclose(law.potential(u.numpy()), law.potential(u).numpy(), rtol=1e-14)
    assert law.conductivity(u.float()).dtype == torch.float32


def test_values_by_hand():
    u = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    assert PorousMedium(2.0).potential(u).tolist() == pytest.approx([0.0, 0.0, 8.0 / 3.0])
    assert PorousMedium(2.0).conductivity(u).tolist() == [0.0, 0.0, 4.0]
    assert Stefan(0.5, 3.0).potential(u).tolist() == [0.0, 0.0, 4.5]
    assert Stefan(0.5, 3.0).conductivity(torch.tensor([0.4, 0.5, 0.6])).tolist() == [0.0, 3.0, 3.0]
    assert Burgers().convective_flux(u).tolist() == [0.5, 0.0, 2.0]
    assert (Advection(1.0).stationary_points(), Burgers().stationary_points()) == ((), (0.0,))


def test_a_parameter_may_carry_a_gradient():
    """∂(k u)/∂k = u; the check of the parameter leaves it attached."""
    k = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    Diffusion(k).potential(torch.tensor([3.0], dtype=torch.float64)).sum().backward()
    assert float(k.grad) == 3.0
    with pytest.raises(InvalidArgumentError, match="Diffusion: diffusivity must be finite and above 0"):
        Diffusion(torch.tensor(-1.0, requires_grad=True))


def test_messages():
    with pytest.raises(InvalidArgumentError, match="PorousMedium: exponent must be finite and above 0"):
        PorousMedium(0.0)
    with pytest.raises(InvalidArgumentError, match="Diffusion: diffusivity"):
        Diffusion(torch.tensor([1.0, -1.0]))
    with pytest.raises(InvalidArgumentError, match="Advection: speed must be finite"):
        Advection(float("nan"))
    with pytest.raises(InvalidArgumentError, match="Stefan: diffusivity"):
        Stefan(0.5, diffusivity=0.0)
