"""Conservation to round-off for every law, boundary condition, stepper and dimension; orders of the scheme."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import (
    MUSCL,
    SSPRK3,
    TRBDF2,
    WENO,
    Advection,
    ArithmeticMean,
    BackwardEuler,
    Burgers,
    CellGrid,
    Constant,
    Diffusion,
    Dirichlet,
    Godunov,
    HarmonicMean,
    IntegralMean,
    InvalidArgumentError,
    Neumann,
    Outflow,
    Periodic,
    PorousMedium,
    Robin,
    Rusanov,
    Stefan,
    solve,
)
from solvers.finite_volume._semi_discretisation import ConvectiveScheme, DiffusiveScheme, divergence, side_fluxes
from solvers.finite_volume._sides import make_sides

DIFFUSIVE_LAWS = [
    Diffusion(torch.tensor([0.7, 2.0])),
    PorousMedium(torch.tensor([0.5, 3.0])),
    Stefan(np.array([0.3, 0.6])),
]
CONVECTIVE_LAWS = [Advection(torch.tensor([0.8, -1.5])), Burgers()]


def side_condition(name, end, values):
    """A well-posed condition by name; values depend on the batch entry or on time."""
    outward = 1.0 if end == "last" else -1.0
    return {
        "dirichlet": Dirichlet(values),
        "time": Dirichlet(lambda t: values * (1.0 + t)),
        "gradient": Neumann(gradient=outward * (values - 0.5)),
        "flux": Neumann(flux=values - 0.5),
        "robin": Robin(1.0, outward * 0.4, values),
        "outflow": Outflow(),
        "periodic": Periodic(),
    }[name]


@st.composite
def axis_conditions(draw, names, values):
    """A pair of conditions, periodic on both sides or any two others."""
    if draw(st.booleans()) and draw(st.booleans()):
        return Periodic(), Periodic()
    first, last = draw(st.sampled_from(names)), draw(st.sampled_from(names))
    return side_condition(first, "first", values), side_condition(last, "last", values)


@st.composite
def diffusive_cases(draw, dimension):
    law = draw(st.sampled_from(DIFFUSIVE_LAWS))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    values = torch.rand((2,) + (1,) * (dimension - 1), generator=generator, dtype=torch.float64)
    names = ["dirichlet", "time", "gradient", "flux", "robin"]
    shape = tuple(draw(st.integers(4, 9)) for _ in range(dimension))
    boundary = [draw(axis_conditions(names, values)) for _ in range(dimension)]
    return law, shape, boundary, torch.rand((2, *shape), generator=generator, dtype=torch.float64)


@st.composite
def convective_cases(draw, dimension):
    law = draw(st.sampled_from(CONVECTIVE_LAWS))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    values = torch.rand((2,) + (1,) * (dimension - 1), generator=generator, dtype=torch.float64)
    names = ["dirichlet", "time", "gradient", "flux", "outflow"]
    shape = tuple(draw(st.integers(4, 9)) for _ in range(dimension))
    boundary = [draw(axis_conditions(names, values)) for _ in range(dimension)]
    return law, shape, boundary, torch.randn((2, *shape), generator=generator, dtype=torch.float64)


def unit_grid(shape):
    return CellGrid((0.0,) * len(shape), (1.0,) * len(shape), shape)


def assert_conserves(result, initial):
    """|total − (initial + boundary fluxes)| ≤ 1e-12 of ∫|u0| + Σ|flux|: round-off of at most some 10³ sums."""
    size = (initial.abs() * result.grid.weights).flatten(1).sum(-1)[:, None] + result.boundary_flux.abs().sum(-1)
    assert torch.isfinite(result.values).all()
    assert (result.imbalance.abs() <= 1e-12 * size).all()


@settings(deadline=None, max_examples=40)
@given(diffusive_cases(dimension=1), st.sampled_from([TRBDF2(), BackwardEuler(1e-2), SSPRK3()]))
def test_diffusive_laws_conserve_in_one_dimension(case, stepper):
    law, shape, boundary, initial = case
    result = solve(law, unit_grid(shape), boundary, initial, times=[0.0, 0.01, 0.02], stepper=stepper)
    assert result.values.shape == (2, 3, *shape)
    assert result.boundary_flux.shape == (2, 3, 2)
    assert_conserves(result, initial)


@settings(deadline=None, max_examples=20)
@given(diffusive_cases(dimension=2), st.sampled_from([TRBDF2(1e-2), BackwardEuler(1e-1), SSPRK3()]))
def test_diffusive_laws_conserve_in_two_dimensions(case, stepper):
    law, shape, boundary, initial = case
    result = solve(law, unit_grid(shape), boundary, initial, times=[0.005, 0.01], stepper=stepper)
    assert result.boundary_flux.shape == (2, 2, 4)
    assert_conserves(result, initial)


@settings(deadline=None, max_examples=30)
@given(diffusive_cases(dimension=1), st.sampled_from([ArithmeticMean(), HarmonicMean()]))
def test_other_face_means_conserve(case, face_mean):
    _, shape, boundary, initial = case
    law = PorousMedium(torch.tensor([1.0, 2.0]))
    stepper = TRBDF2(1e-2)
    result = solve(law, unit_grid(shape), boundary, 0.2 + initial, times=[0.01], face_mean=face_mean, stepper=stepper)
    assert_conserves(result, 0.2 + initial)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 2).flatmap(lambda dimension: convective_cases(dimension=dimension)),
    st.sampled_from([Godunov(), Rusanov()]),
    st.sampled_from([Constant(), MUSCL(), WENO()]),
)
def test_convective_laws_conserve(case, flux, reconstruction):
    law, shape, boundary, initial = case
    result = solve(law, unit_grid(shape), boundary, initial, [0.02, 0.1], flux=flux, reconstruction=reconstruction)
    assert_conserves(result, initial)


def test_periodic_fluxes_are_the_same_number_on_both_sides():
    initial = torch.rand(7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for law in (PorousMedium(2.5), Burgers()):
        result = solve(law, CellGrid(0.0, 1.0, 7), (Periodic(), Periodic()), initial, [0.1])
        assert (result.boundary_flux[..., 0] == result.boundary_flux[..., 1]).all()


def test_divergence_and_side_fluxes_match_loops():
    """Oracle: the sums written out cell by cell."""
    grid = CellGrid((0.0, 0.0), (1.0, 3.0), (2, 3))
    generator = torch.Generator().manual_seed(1)
    along_x = torch.randn(4, 3, 3, generator=generator, dtype=torch.float64)
    along_y = torch.randn(4, 2, 4, generator=generator, dtype=torch.float64)
    actual = divergence((along_x, along_y), grid)
    sides = side_fluxes((along_x, along_y), grid)
    for b in range(4):
        for i in range(2):
            for j in range(3):
                expected = (along_x[b, i + 1, j] - along_x[b, i, j]) / 0.5 + (along_y[b, i, j + 1] - along_y[b, i, j])
                assert actual[b, i, j] == pytest.approx(float(expected), rel=1e-14)
        expected = [
            along_x[b, 0].sum() * 1.0,
            along_x[b, 2].sum() * 1.0,
            along_y[b, :, 0].sum() * 0.5,
            along_y[b, :, 3].sum() * 0.5,
        ]
        assert sides[b].tolist() == pytest.approx([float(value) for value in expected], rel=1e-14)


@pytest.mark.parametrize("face_mean", [IntegralMean(), ArithmeticMean(), HarmonicMean()])
@pytest.mark.parametrize("last", [Dirichlet(0.3), Neumann(gradient=0.4), Robin(1.0, 0.5, 0.8), Neumann(flux=0.2)])
def test_face_flux_derivatives_match_differences(face_mean, last):
    """Oracle: central differences of the fluxes, error O(ε²) with ε = 1e-6, so 1e-8 is ample."""
    grid = CellGrid(0.0, 1.0, 4)
    scheme = DiffusiveScheme(
        PorousMedium(1.7), grid, make_sides(((Neumann(gradient=-0.6), last),), grid.spacing), face_mean
    )
    u = torch.tensor([0.9, 0.7, 0.8, 0.4], dtype=torch.float64)
    (faces,) = scheme.linearise(u, 0.0)
    for i in range(4):
        shift = torch.zeros(4, dtype=torch.float64)
        shift[i] = 1e-6
        (ahead,), _ = scheme.fluxes(u + shift, 0.0)
        (behind,), _ = scheme.fluxes(u - shift, 0.0)
        slope = (ahead - behind) / 2e-6
        assert slope[i] == pytest.approx(float(faces.by_right[i]), abs=1e-8)
        assert slope[i + 1] == pytest.approx(float(faces.by_left[i + 1]), abs=1e-8)


def stated(name, u, slope, end):
    """The condition of the name that a field with these values and slopes on the side meets."""
    weight = 0.7 * end
    return {
        "dirichlet": Dirichlet(u),
        "gradient": Neumann(gradient=slope),
        "flux": Neumann(flux=lambda t: -slope(t)),
        "robin": Robin(1.0, weight, lambda t: u(t) + weight * slope(t)),
    }[name]


@pytest.mark.parametrize("name", ["dirichlet", "gradient", "flux", "robin"])
@pytest.mark.parametrize("stepper", [TRBDF2, BackwardEuler])
def test_order_of_every_condition_on_smooth_diffusion(name, stepper):
    """u = e^{−t} sin(x + 0.3) solves u_t = u_xx; time steps shrink with h (TR-BDF2) or h² (Euler): order 2."""

    def value(x):
        return lambda t: math.exp(-t) * math.sin(x + 0.3)

    def slope(x):
        return lambda t: math.exp(-t) * math.cos(x + 0.3)

    errors = []
    for n in (10, 20, 40, 80):
        grid = CellGrid(0.0, 2.0, n)
        boundary = tuple(stated(name, value(x), slope(x), end) for x, end in ((0.0, -1.0), (2.0, 1.0)))
        step = 1.0 / n if stepper is TRBDF2 else 4.0 / n**2
        average = -(torch.cos(grid.faces[0] + 0.3)).diff() / grid.spacing[0]
        result = solve(Diffusion(1.0), grid, boundary, average, [0.5], stepper=stepper(math.inf, largest_step=step))
        errors.append(float((result.values[0] - math.exp(-0.5) * average).abs().mean()))
    slopes = np.diff(np.log2(errors)) * -1
    assert abs(slopes[-1] - 2.0) < 0.2, errors


def test_steady_robin_profile_is_exact():
    """u = 1 + 2x is linear, so every difference is exact: u − u_x = −1 at x = 0, u + u_x = 5 at x = 1."""
    grid = CellGrid(0.0, 1.0, 10)
    start = 1.0 + 2.0 * grid.points
    result = solve(Diffusion(1.0), grid, (Robin(1.0, -1.0, -1.0), Robin(1.0, 1.0, 5.0)), start, [1.0])
    assert torch.allclose(result.values[0], start, rtol=0, atol=1e-12)
    assert result.boundary_flux[0].tolist() == pytest.approx([-2.0, -2.0], rel=1e-12)


def test_messages():
    grid = CellGrid(0.0, 1.0, 10)
    with pytest.raises(InvalidArgumentError, match=r"Outflow is for convective laws"):
        solve(Diffusion(1.0), grid, (Dirichlet(0.0), Outflow()), 0.0, [1.0])
    with pytest.raises(InvalidArgumentError, match=r"a \+ b·c₀"):
        solve(Diffusion(1.0), grid, (Robin(20.0, 1.0, 0.0), Dirichlet(0.0)), 0.0, [1.0])
    with pytest.raises(InvalidArgumentError, match="at least 3 cells"):
        solve(Diffusion(1.0), CellGrid(0.0, 1.0, 2), (Periodic(), Periodic()), 0.0, [1.0])
    with pytest.raises(InvalidArgumentError, match="last side is missing"):
        solve(Diffusion(1.0), grid, (Dirichlet(1.0), Neumann()), 0.0, [1.0])


@pytest.mark.parametrize("lengths", [(1.0,), (1.0, 3.0)])
def test_rate_of_a_diffusive_scheme_is_that_at_which_a_cell_empties(lengths):
    # A cell empties through two faces per axis, each k/h² of it per time.
    grid = CellGrid(*((0.0, 1.0, 8) if len(lengths) == 1 else ((0.0, 0.0), lengths, (8, 12))))
    sides = make_sides(((Periodic(), Periodic()),) * len(lengths), grid.spacing)
    scheme = DiffusiveScheme(Diffusion(0.7), grid, sides, ArithmeticMean())
    _, rate = scheme.fluxes(torch.rand(grid.shape, dtype=torch.float64), 0.0)
    assert rate == pytest.approx(sum(2 * 0.7 / h**2 for h in grid.spacing), rel=1e-12)


@pytest.mark.parametrize("speed", [1.5, -1.5])
def test_a_dirichlet_value_is_the_outer_state_of_its_own_face_only(speed):
    grid = CellGrid(0.0, 1.0, 8)
    inflow = (Dirichlet(5.0), Outflow()) if speed > 0 else (Outflow(), Dirichlet(5.0))
    scheme = ConvectiveScheme(Advection(speed), grid, make_sides((inflow,), grid.spacing), Godunov(), Constant())
    u = torch.arange(1.0, 9.0, dtype=torch.float64)
    (flux,), rate = scheme.fluxes(u, 0.0)
    upwind = torch.cat((torch.tensor([5.0]), u) if speed > 0 else (u, torch.tensor([5.0]))).double()
    assert torch.equal(flux, speed * upwind)
    assert rate == pytest.approx(1.5 * 8)


def test_a_stated_flux_passes_its_own_face_at_its_own_time():
    sides = make_sides(((Neumann(flux=lambda t: 3.0 * t), Neumann(flux=lambda t: -t)),), (0.125,))
    scheme = ConvectiveScheme(Burgers(), CellGrid(0.0, 1.0, 8), sides, Godunov(), Constant())
    u = torch.arange(1.0, 9.0, dtype=torch.float64)
    (flux,), _ = scheme.fluxes(u, 2.0)
    assert torch.equal(flux[1:-1], 0.5 * u[:-1] ** 2)
    assert flux[[0, -1]].tolist() == [6.0, -2.0]


def test_what_leaves_a_periodic_axis_at_one_end_enters_at_the_other():
    sides = make_sides(((Periodic(), Periodic()),), (0.125,))
    scheme = ConvectiveScheme(Advection(2.0), CellGrid(0.0, 1.0, 8), sides, Godunov(), Constant())
    u = torch.arange(1.0, 9.0, dtype=torch.float64)
    (flux,), _ = scheme.fluxes(u, 0.0)
    assert torch.equal(flux, 2.0 * torch.cat((u[-1:], u)))


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_flux_through_a_side_is_the_sum_over_its_faces_for_any_batch(batch):
    grid = CellGrid((0.0, 0.0), (1.0, 3.0), (4, 6))
    generator = torch.Generator().manual_seed(0)
    along_x = torch.rand(*batch, 5, 6, dtype=torch.float64, generator=generator)
    along_y = torch.rand(*batch, 4, 7, dtype=torch.float64, generator=generator)
    expected = [0.5 * along_x[..., 0, :].sum(-1), 0.5 * along_x[..., -1, :].sum(-1)]
    expected += [0.25 * along_y[..., 0].sum(-1), 0.25 * along_y[..., -1].sum(-1)]
    assert torch.allclose(side_fluxes((along_x, along_y), grid), torch.stack(expected, -1), rtol=1e-14)


def test_three_cells_are_enough_for_a_periodic_axis_of_a_diffusive_law():
    sides = make_sides(((Periodic(), Periodic()),), (1 / 3,))
    DiffusiveScheme(Diffusion(1.0), CellGrid(0.0, 1.0, 3), sides, ArithmeticMean())
    with pytest.raises(InvalidArgumentError, match="at least 3 cells here, got 2"):
        DiffusiveScheme(Diffusion(1.0), CellGrid(0.0, 1.0, 2), sides, ArithmeticMean())


def test_diffusive_fluxes_on_a_periodic_axis_are_central_differences_in_float64():
    grid = CellGrid(0.0, 0.3, 7)  # 1/h is no float32
    scheme = DiffusiveScheme(
        Diffusion(0.7), grid, make_sides(((Periodic(), Periodic()),), grid.spacing), ArithmeticMean()
    )
    u = torch.rand(7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    around = torch.cat((u[-1:], u, u[:1]))
    (face,) = scheme.linearise(u, 0.0)
    torch.testing.assert_close(face.value, -0.7 * around.diff() / (0.3 / 7), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(face.by_left, torch.full((8,), 0.7 * 7 / 0.3, dtype=torch.float64), rtol=1e-13, atol=0)


def test_the_rate_does_not_depend_on_the_size_of_a_stated_flux():
    grid, u = CellGrid(0.0, 1.0, 8), torch.full((8,), 0.5, dtype=torch.float64)
    rates = []
    for flux in (0.1, 100.0):
        sides = make_sides(((Neumann(flux=flux), Neumann(flux=0.0)),), grid.spacing)
        rates.append(DiffusiveScheme(PorousMedium(2.0), grid, sides, ArithmeticMean()).fluxes(u, 0.0)[1])
    assert rates[0] == rates[1]
