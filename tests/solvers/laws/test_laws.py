"""Laws: potential and conductivity, flux and speed belong together, in NumPy and torch alike."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import (
    Advection,
    Burgers,
    CellGrid,
    ConvectionDiffusion,
    ConvectiveLaw,
    Diffusion,
    Field,
    Logistic,
    PorousMedium,
    Stefan,
)
from solvers.errors import InvalidArgumentError
from solvers.finite_volume.laws.coefficients import FaceVelocity
from solvers.finite_volume.laws.laws import Transport, align

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


@pytest.mark.parametrize("of", [torch.tensor, np.array])
def test_parameters_stay_fractions_for_fields_of_integers(of):
    u = of([1, 2, 3])
    expected = {
        Diffusion(0.5).potential: [0.5, 1.0, 1.5],
        Diffusion(np.array([0.5])).conductivity: [0.5, 0.5, 0.5],
        Diffusion(Field([0.5, 0.25, 1.0])).potential: [0.5, 0.5, 3.0],
        PorousMedium(0.5).conductivity: [1.0, 2**0.5, 3**0.5],
        Stefan(0.5).potential: [0.5, 1.5, 2.5],
        Advection(0.5).convective_flux: [0.5, 1.0, 1.5],
    }
    for formula, values in expected.items():
        assert formula(u).tolist() == pytest.approx(values, rel=1e-6)
    assert Logistic(0.5)(u, u, 0.0).tolist() == [0.0, -1.0, -3.0]
    assert align(0.5, u).dtype == (torch.get_default_dtype() if of is torch.tensor else np.float64)
    assert align(0.5, 1j * u).dtype == (1j * u).dtype


def test_a_parameter_may_carry_a_gradient():
    """∂(k u)/∂k = u; the check of the parameter leaves it attached."""
    k = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    Diffusion(k).potential(torch.tensor([3.0], dtype=torch.float64)).sum().backward()
    assert float(k.grad) == 3.0
    with pytest.raises(InvalidArgumentError, match="Diffusion: diffusivity must be finite and above 0"):
        Diffusion(torch.tensor(-1.0, requires_grad=True))


def test_invalid_arguments_raise_with_reason():
    with pytest.raises(InvalidArgumentError, match="PorousMedium: exponent must be finite and above 0"):
        PorousMedium(0.0)
    with pytest.raises(InvalidArgumentError, match="Diffusion: diffusivity"):
        Diffusion(torch.tensor([1.0, -1.0]))
    with pytest.raises(InvalidArgumentError, match="Advection: speed must be finite"):
        Advection(float("nan"))
    with pytest.raises(InvalidArgumentError, match="Stefan: diffusivity"):
        Stefan(0.5, diffusivity=0.0)


LINE = CellGrid(0.0, 1.0, 4)
PLANE = CellGrid((0.0, -1.0), (1.0, 1.0), (3, 4))


def test_a_field_is_the_coefficient_of_its_cells():
    k = 1.0 + torch.rand((2, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u = torch.full((2, 4), 3.0, dtype=torch.float64)
    for law in (Diffusion(Field(k)), Diffusion(Field(k)).at(LINE)):
        assert torch.equal(law.potential(u), 3.0 * k)
    assert torch.equal(Advection(Field(k)).convective_flux(u), 3.0 * k)
    assert torch.equal(Logistic(Field(k))(0.5 * u / 3.0, LINE.points, 0.0), 0.25 * k)
    assert Diffusion(Field(k)).varies_in_space
    assert not Diffusion(k[:, 0]).varies_in_space


def test_diffusivities_on_faces_are_harmonic_means():
    """Two layers in series conduct like one with the harmonic mean; a side has the value of its cell."""
    law = Stefan(Field([0.0, 0.2, 0.4, 0.6]), Field([1.0, 3.0, 3.0, 1.0]))
    open_sides, ring = law.at(LINE, axis=0), law.at(LINE, axis=0, periodic=True)
    assert open_sides.diffusivity.values.tolist() == [1.0, 1.5, 3.0, 1.5, 1.0]
    assert ring.diffusivity.values.tolist() == [1.0, 1.5, 3.0, 1.5, 1.0]
    assert open_sides.threshold.values.tolist() == pytest.approx([0.0, 0.1, 0.3, 0.5, 0.6])
    assert ring.threshold.values.tolist() == pytest.approx([0.3, 0.1, 0.3, 0.5, 0.3])


def test_functions_are_evaluated_on_cells_for_conductivities_and_on_faces_for_speeds():
    x = LINE.points
    law = Diffusion(lambda x: 1.0 + x).at(LINE, axis=0)
    left, right = 1.0 + x[:-1], 1.0 + x[1:]
    assert torch.allclose(law.diffusivity.values[1:-1], 2.0 * left * right / (left + right), rtol=1e-15)
    assert torch.equal(law.diffusivity.values[[0, -1]], 1.0 + LINE.faces[0][[0, -1]])
    assert torch.equal(Advection(lambda x: x * x).at(LINE, axis=0).speed.values, LINE.faces[0] ** 2)
    times = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    moving = Advection(lambda x, t: x * t)
    assert moving.varies_in_time
    assert torch.equal(moving.at(LINE, times, axis=0).speed.values, LINE.faces[0] * times)
    plane = Diffusion(lambda x: 2.0 + x[..., 0] * x[..., 1]).at(PLANE)
    assert torch.equal(plane.diffusivity.values, 2.0 + PLANE.points[..., 0] * PLANE.points[..., 1])


@dataclass(frozen=True)
class Traffic(ConvectiveLaw):
    """A user's law: f = c u (1 − u)."""

    fastest: object

    def convective_flux(self, u):
        return align(self.fastest, u) * u * (1.0 - u)

    def characteristic_speed(self, u):
        return align(self.fastest, u) * (1.0 - 2.0 * u)


def test_a_law_of_ones_own_may_vary_in_space():
    law = Traffic(Field([1.0, 3.0, 5.0, 7.0])).at(LINE, axis=0)
    flux = law.convective_flux(torch.full((5,), 0.5, dtype=torch.float64))
    assert flux.tolist() == [0.25, 0.5, 1.0, 1.5, 1.75]


@pytest.mark.parametrize("velocity", [(1.0, -2.0), lambda x: torch.stack((x[..., 1] ** 2, x[..., 0]), -1)])
def test_transport_has_the_normal_velocity_of_every_face(velocity):
    law = Transport(velocity)
    expected = {0: (1.0, lambda x, y: y**2), 1: (-2.0, lambda x, y: x)}  # noqa: ARG005 - one signature
    for axis, shape in ((0, (4, 4)), (1, (3, 5))):
        u = torch.ones(shape, dtype=torch.float64)
        values = law.at(PLANE, axis=axis).convective_flux(u)
        axes = [PLANE.faces[0] if axis == 0 else PLANE.axes[0], PLANE.faces[1] if axis == 1 else PLANE.axes[1]]
        x, y = torch.meshgrid(*axes, indexing="ij")
        number, formula = expected[axis]
        assert torch.allclose(values, number * u if isinstance(velocity, tuple) else formula(x, y), rtol=1e-15)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 1000))
def test_a_stream_function_gives_a_velocity_without_divergence(nx, ny, seed):
    grid = CellGrid((0.0, 0.0), (1.0, 3.0), (nx, ny))
    psi = torch.randn((2, nx + 1, ny + 1), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    velocity = FaceVelocity.from_stream_function(psi, grid)
    size = sum(float(part.abs().max()) / h for part, h in zip(velocity.values, grid.spacing, strict=True))
    assert float(velocity.divergence(grid).abs().max()) <= 4 * np.finfo(float).eps * size


def test_a_stream_function_turns_clockwise_about_its_minimum():
    """ψ = (x² + y²)/2 gives the velocity (y, −x), exactly since the differences of ψ along a face are."""
    corners = torch.meshgrid(*PLANE.faces, indexing="ij")
    velocity = FaceVelocity.from_stream_function(0.5 * (corners[0] ** 2 + corners[1] ** 2), PLANE)
    assert torch.allclose(velocity.values[0], PLANE.axes[1].expand(4, 4), atol=1e-15)
    assert torch.allclose(velocity.values[1], -PLANE.axes[0][:, None].expand(3, 5), atol=1e-15)
    assert torch.equal(Transport(velocity).at(PLANE, axis=1).speed.values, velocity.values[1])


def test_convection_and_diffusion_add_their_fluxes():
    u, gradient = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    law = ConvectionDiffusion(Burgers(), Diffusion(0.5))
    assert law.flux(u, gradient).tolist() == [0.5 - 1.5, 2.0 - 2.0]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Field(float("inf")), "Field is not finite"),
        (lambda: Field(2.0), r"Field: values must be \(\*batch, \*space\), got a single number"),
        (lambda: Field(torch.ones(4, requires_grad=True)), "Field requires a gradient"),
        (lambda: Field(np.ones(4, dtype=complex)), "Field must be real"),
        (lambda: Diffusion(Field([1.0, -1.0])), "Diffusion: diffusivity must be finite and above 0"),
        (lambda: Diffusion(lambda x: x - 0.5).at(LINE), "Diffusion: diffusivity must be finite and above 0"),
        (lambda: Diffusion(lambda x: x[:3]).at(LINE), r"Diffusion.diffusivity\(x\) must return .* got shape \(3,\)"),
        (lambda: Diffusion(lambda x, y, z: x).at(LINE), "takes x, or x and t, got .* 3 parameters"),  # noqa: ARG005
        (lambda: Diffusion(lambda x: x).potential(LINE.points), r"evaluate law.at\(grid, time\)"),
        (lambda: Transport(1.0), "velocity must be a tuple with one number per axis, a FaceVelocity, or a function"),
        (lambda: Transport((1.0, float("nan"))), "speed must be finite"),
        (lambda: Transport((1.0, 2.0)).at(PLANE), "give the axis of the faces"),
        (lambda: Transport((1.0,)).convective_flux(LINE.points), "another flux along every axis"),
        (lambda: FaceVelocity((torch.ones(4, 4), torch.ones(3, 4))), "one more entry along that axis, got shapes"),
        (lambda: FaceVelocity.from_stream_function(torch.ones(3, 4), PLANE), r"\(4, 5\), got shape \(3, 4\)"),
        (lambda: Logistic(float("nan")), "Logistic: rate must be finite"),
    ],
)
def test_messages_of_coefficients(build, message):
    with pytest.raises(InvalidArgumentError, match=message):
        build()
