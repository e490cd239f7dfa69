"""Face means, numerical fluxes, reconstructions, and a given flux where there is convection and diffusion."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import (
    ESDIRK4,
    MUSCL,
    SSPRK3,
    TRBDF2,
    Advection,
    Burgers,
    CellGrid,
    ConvectionDiffusion,
    ConvectiveLaw,
    Diffusion,
    Dirichlet,
    Godunov,
    Neumann,
    PorousMedium,
    Robin,
    Rusanov,
    Stefan,
    solve,
)
from solvers.errors import InvalidArgumentError
from solvers.finite_volume.convection.reconstruction_kernels import minmod, monotonized_central, van_leer
from solvers.finite_volume.convection.schemes import Constant, fastest
from solvers.finite_volume.diffusion.face_means import (
    ArithmeticMean,
    HarmonicMean,
    IntegralMean,
    conductivity_with_slope,
)
from tests.solvers.laws.users import Traffic
from tests.solvers.terms.convection_terms import face_states
from tests.solvers.terms.manufactured import assert_order

MEANS = [IntegralMean(), ArithmeticMean(), HarmonicMean()]


class Buckley(ConvectiveLaw):
    """f = u²/(u² + (1 − u)²), not convex; no stationary point inside (0, 1)."""

    def convective_flux(self, u):
        return u * u / (u * u + (1.0 - u) * (1.0 - u))

    def characteristic_speed(self, u):
        return 2.0 * u * (1.0 - u) / (u * u + (1.0 - u) * (1.0 - u)) ** 2


def test_face_means_by_hand():
    """k = u at u = 3, 1 over distance 1/2: ∫k = 4, mean (3+1)/2·2 = 4, harmonic 2·3/4·2 = 3, times 2."""
    cells, inverse = torch.tensor([3.0, 1.0], dtype=torch.float64), torch.tensor([2.0], dtype=torch.float64)
    fluxes = [float(mean.flux(PorousMedium(1.0), cells[:-1], cells[1:], inverse).value) for mean in MEANS]
    assert fluxes == pytest.approx([8.0, 8.0, 6.0], rel=1e-14)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.floats(0.1, 3.0))
def test_face_means_agree_where_the_conductivity_is_constant(seed, k):
    cells = torch.randn(6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    inverse = torch.full((5,), 3.0, dtype=torch.float64)
    for mean in MEANS:
        face = mean.flux(Diffusion(k), cells[:-1], cells[1:], inverse)
        assert torch.allclose(face.value, -3.0 * k * cells.diff(), atol=1e-12)
        assert torch.allclose(face.by_left, torch.full_like(inverse, 3.0 * k), atol=1e-12)
        assert torch.allclose(face.by_right, torch.full_like(inverse, -3.0 * k), atol=1e-12)


def test_harmonic_mean_locks_next_to_a_cell_that_does_not_conduct():
    cells, inverse = torch.tensor([1.0, 0.0], dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    assert float(HarmonicMean().flux(Stefan(0.5), cells[:-1], cells[1:], inverse).value) == 0.0
    assert float(IntegralMean().flux(Stefan(0.5), cells[:-1], cells[1:], inverse).value) == 0.5


def test_slope_of_the_conductivity_is_finite_where_the_law_degenerates():
    k, slope = conductivity_with_slope(PorousMedium(0.5), torch.tensor([0.0, 4.0], dtype=torch.float64))
    assert k.tolist() == [0.0, 2.0]
    assert slope.tolist() == [0.0, 0.25]


@settings(deadline=None, max_examples=40)
@given(st.sampled_from([Burgers(), Traffic()]), st.integers(0, 1000))
def test_godunov_flux_is_the_extremum_over_the_states_between(law, seed):
    """Oracle: 4001 states between; with |f″| ≤ 2 an extremum between two of them is missed by at most spacing²/4."""
    left, right = 2.0 * torch.randn((2, 20), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    between = left + (right - left) * torch.linspace(0.0, 1.0, 4001, dtype=torch.float64)[:, None]
    flux = law.convective_flux(between)
    expected = torch.where(left <= right, flux.amin(0), flux.amax(0))
    spread = ((right - left).abs() / 4000).square() / 4
    assert ((Godunov().flux(law, left, right) - expected).abs() <= spread + 1e-12).all()


@settings(deadline=None, max_examples=40)
@given(st.sampled_from([Advection(1.3), Advection(-0.7), Burgers()]), st.integers(0, 1000))
def test_fluxes_are_consistent_and_monotone(law, seed):
    """F(u, u) = f(u); F grows with the left state and falls with the right one."""
    left, right, more = torch.rand((3, 20), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.5
    assert torch.allclose(Godunov().flux(law, left, left), law.convective_flux(left), atol=1e-15)
    assert torch.allclose(Rusanov().flux(law, left, left), law.convective_flux(left), atol=1e-15)
    flux = Godunov().flux(law, left, right)
    assert (Godunov().flux(law, left + more.abs(), right) >= flux - 1e-14).all()
    assert (Godunov().flux(law, left, right + more.abs()) <= flux + 1e-14).all()


@pytest.mark.parametrize("reconstruction", [Constant(), MUSCL(), MUSCL(minmod), MUSCL(monotonized_central)])
def test_reconstructions_keep_constants_and_mirror(reconstruction):
    ghosts = reconstruction.ghosts
    constant = torch.full((2, 8 + 2 * ghosts), 3.0, dtype=torch.float64)
    left, right = face_states(reconstruction, constant)
    assert left.shape == right.shape == (2, 9)
    assert torch.allclose(left, constant[:, :9], rtol=1e-15)
    cells = torch.rand((2, 8 + 2 * ghosts), generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    left, right = face_states(reconstruction, cells)
    mirrored_left, mirrored_right = face_states(reconstruction, cells.flip(-1))
    assert torch.allclose(left, mirrored_right.flip(-1), rtol=1e-13)
    assert torch.allclose(right, mirrored_left.flip(-1), rtol=1e-13)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.sampled_from([van_leer, minmod, monotonized_central]))
def test_limited_states_stay_between_neighbours(seed, limiter):
    cells = torch.randn((3, 14), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    left, _ = face_states(MUSCL(limiter), cells)
    cell, before, after = cells[:, 1:12], cells[:, 0:11], cells[:, 2:13]
    assert (left <= torch.maximum(cell, torch.maximum(before, after)) + 1e-14).all()
    assert (left >= torch.minimum(cell, torch.minimum(before, after)) - 1e-14).all()


def test_order_on_smooth_monotone_data():
    """Face values of eˣ from its exact cell averages."""
    errors, reconstruction = [], MUSCL()
    for n in (10, 20, 40, 80):
        faces = torch.arange(-reconstruction.ghosts, n + reconstruction.ghosts + 1, dtype=torch.float64) / n
        left, _ = face_states(reconstruction, (faces.exp().diff() * n)[None])
        positions = torch.arange(n + 1, dtype=torch.float64) / n
        errors.append(float((left[0] - positions.exp()).abs().mean()))
    slopes = np.log2(errors[:-1]) - np.log2(errors[1:])
    assert abs(slopes[-1] - 2) < 0.25, slopes


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000))
def test_largest_speed_between_two_states(seed):
    """Oracle: 4001 states between, to their 1e-6. Samples miss a peak of f′ by less than the margin of 1.1 covers."""
    low = torch.rand(20, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    high = low + (1.0 - low) * torch.rand(20, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    between = low + (high - low) * torch.linspace(0.0, 1.0, 4001, dtype=torch.float64)[:, None]
    largest = Buckley().characteristic_speed(between).abs().amax(0)
    sampled = fastest(Buckley(), low, high)
    assert (sampled >= largest).all()
    assert (sampled <= 1.1 * largest * (1 + 1e-6)).all()
    exact = fastest(WithInflection(), low, high)
    assert ((exact - largest).abs() <= 1e-6).all()


class WithInflection(Buckley):
    """f′ is largest at ½."""

    def inflection_points(self):
        return (0.5,)


def test_rusanov_is_monotone_where_the_fastest_state_lies_between():
    """f′ of the law vanishes at both states 0 and 1 but is 2 at ½: the flux falls with the right state."""
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    assert float(Rusanov().flux(WithInflection(), one, zero)) == pytest.approx(0.5 + 0.5 * 2.0)


def test_a_limiter_must_be_compiled():
    with pytest.raises(InvalidArgumentError, match=r"limiter must be a function of two slopes compiled by numba\.njit"):
        MUSCL(max)


GRID = CellGrid(0.0, 1.0, 20)
WIND = ConvectionDiffusion(Advection(1.0), Diffusion(0.1))
FRONTS = ConvectionDiffusion(Burgers(), PorousMedium(2.0))
STEPPERS = [TRBDF2(), ESDIRK4(), SSPRK3()]
ROUND_OFF = 1e-13


TRAFFIC = ConvectionDiffusion(Traffic(), Diffusion(0.1))


@pytest.mark.parametrize("stepper", STEPPERS)
@pytest.mark.parametrize("law", [WIND, FRONTS, TRAFFIC], ids=["wind", "fronts", "traffic"])
@pytest.mark.parametrize("options", [{}, {"flux": Rusanov()}], ids=["", "Rusanov"])
def test_the_given_flux_passes_the_side(law, options, stepper):
    """Constant on the first side, one per batch entry, and linear in time on the last."""
    first = torch.tensor([0.2, -0.1], dtype=torch.float64)
    sides = Neumann(flux=first), Neumann(flux=lambda t: 0.4 * t)
    result = solve(law, GRID, sides, 0.6, [0.1, 0.25], stepper=stepper, **options)
    expected = torch.stack((first[:, None] * result.times, (0.2 * result.times**2).expand(2, 2)), dim=-1)
    assert torch.allclose(result.boundary_flux[..., 0], expected[..., 0], rtol=0.0, atol=ROUND_OFF)
    assert torch.allclose(result.boundary_flux[..., 1], expected[..., 1], rtol=0.0, atol=ROUND_OFF)
    assert float(result.imbalance.abs().max()) < ROUND_OFF


@pytest.mark.parametrize("stepper", STEPPERS)
@pytest.mark.parametrize("law", [WIND, TRAFFIC], ids=["wind", "traffic"])
def test_the_given_flux_passes_the_sides_of_a_plane(law, stepper):
    grid = CellGrid((0.0, 0.0), (1.0, 2.0), (8, 6))
    along = torch.linspace(-0.1, 0.2, 6, dtype=torch.float64)
    sides = [(Neumann(flux=along), Dirichlet(0.5)), (Neumann(flux=0.3), Neumann(flux=-0.2))]
    through = solve(law, grid, sides, 0.5, [0.1], stepper=stepper).boundary_flux[0]
    assert float(through[0]) == pytest.approx(float(along.mean()) * 2.0 * 0.1, rel=1e-12)
    assert through[2:].tolist() == pytest.approx([0.03, -0.02], rel=1e-12)


def layer(grid):
    """Averages of u = 1 − e^{10 (x − 1)}, for which u − u_x/10 = 1, u(1) = 0 and u_x(1) = −10."""
    x = grid.faces[0].numpy()
    return np.diff(x - 0.1 * np.exp(10.0 * (x - 1.0))) / np.diff(x)


@pytest.mark.parametrize(
    "sides",
    [
        (Neumann(flux=1.0), Dirichlet(0.0)),
        (Neumann(flux=1.0), Neumann(gradient=-10.0)),
        (Robin(1.0, -0.1, 1.0), Dirichlet(0.0)),
        (Dirichlet(1.0 - np.exp(-10.0)), Neumann(gradient=-10.0)),
    ],
    ids=["flux", "flux and gradient", "robin", "gradient"],
)
def test_the_steady_boundary_layer_is_of_second_order(sides):
    errors = []
    for n in (20, 40, 80):
        grid = CellGrid(0.0, 1.0, n)
        result = solve(WIND, grid, sides, 0.3, [8.0], stepper=TRBDF2(1e-5))
        errors.append(float(np.abs(result.values[0].numpy() - layer(grid)).mean()))
    assert errors[0] < 1e-2
    assert_order(errors, 2.0)


@pytest.mark.parametrize("stepper", STEPPERS)
def test_a_given_flux_enters_where_nothing_conducts(stepper):
    """From u = 0, where k = 0 and f′ = 0."""
    result = solve(FRONTS, GRID, (Neumann(flux=0.3), Neumann(flux=0.0)), 0.0, [0.2, 0.5], stepper=stepper)
    assert torch.allclose(result.total, 0.3 * result.times, rtol=1e-12)
    assert float(result.values.min()) > -1e-12
    assert float(result.values[..., -1].abs().max()) < 1e-12
