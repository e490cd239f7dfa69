"""Conservation to round-off for every law, boundary condition, stepper and dimension; orders of the scheme."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import (
    ESDIRK4,
    SSPRK3,
    TRBDF2,
    BackwardEuler,
    Burgers,
    CellGrid,
    Diffusion,
    Dirichlet,
    Neumann,
    Periodic,
    PorousMedium,
    Robin,
    Stefan,
    solve,
)

DIFFUSIVE_LAWS = [
    Diffusion(torch.tensor([0.7, 2.0])),
    PorousMedium(torch.tensor([0.5, 3.0])),
    Stefan(np.array([0.3, 0.6])),
]


def side_condition(name, end, values):
    """A well-posed condition by name; values depend on the batch entry or on time."""
    outward = 1.0 if end == "last" else -1.0
    return {
        "dirichlet": Dirichlet(values),
        "time": Dirichlet(lambda t: values * (1.0 + t)),
        "gradient": Neumann(gradient=outward * (values - 0.5)),
        "flux": Neumann(flux=values - 0.5),
        "robin": Robin(1.0, outward * 0.4, values),
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


def unit_grid(shape):
    return CellGrid((0.0,) * len(shape), (1.0,) * len(shape), shape)


def assert_conserves(result, initial):
    """|total − (initial + boundary fluxes)| ≤ 1e-12 of ∫|u0| + Σ|flux|: round-off of at most some 10³ sums."""
    size = (initial.abs() * result.grid.weights).flatten(1).sum(-1)[:, None] + result.boundary_flux.abs().sum(-1)
    assert torch.isfinite(result.values).all()
    assert (result.imbalance.abs() <= 1e-12 * size).all()


@pytest.mark.parametrize("dimension", [1, 2])
@settings(deadline=None, max_examples=30)
@given(st.data(), st.sampled_from([TRBDF2(1e-2), ESDIRK4(1e-2), BackwardEuler(1e-1), SSPRK3()]))
def test_diffusive_laws_conserve(dimension, data, stepper):
    law, shape, boundary, initial = data.draw(diffusive_cases(dimension))
    result = solve(law, unit_grid(shape), boundary, initial, times=[0.0, 0.005, 0.01], stepper=stepper)
    assert result.values.shape == (2, 3, *shape)
    assert result.boundary_flux.shape == (2, 3, 2 * dimension)
    assert_conserves(result, initial)


def test_periodic_fluxes_are_the_same_number_on_both_sides():
    initial = torch.rand(7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for law in (PorousMedium(2.5), Burgers()):
        result = solve(law, CellGrid(0.0, 1.0, 7), (Periodic(), Periodic()), initial, [0.1])
        assert (result.boundary_flux[..., 0] == result.boundary_flux[..., 1]).all()


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
