"""A given flux where there is convection and diffusion: it is that of both terms together."""

import numpy as np
import pytest
import torch

from solvers import (
    SSPRK3,
    TRBDF2,
    WENO,
    Advection,
    BackwardEuler,
    Burgers,
    CellGrid,
    ConvectionDiffusion,
    Diffusion,
    Dirichlet,
    Neumann,
    PorousMedium,
    Robin,
    Rusanov,
    solve,
)
from tests.solvers.laws.users import Traffic
from tests.solvers.terms.manufactured import assert_order

GRID = CellGrid(0.0, 1.0, 20)
WIND = ConvectionDiffusion(Advection(1.0), Diffusion(0.1))
FRONTS = ConvectionDiffusion(Burgers(), PorousMedium(2.0))
STEPPERS = [TRBDF2(), BackwardEuler(), SSPRK3()]
ROUND_OFF = 1e-13


TRAFFIC = ConvectionDiffusion(Traffic(), Diffusion(0.1))


@pytest.mark.parametrize("stepper", STEPPERS)
@pytest.mark.parametrize("law", [WIND, FRONTS, TRAFFIC], ids=["wind", "fronts", "traffic"])
@pytest.mark.parametrize("options", [{}, {"reconstruction": WENO()}, {"flux": Rusanov()}], ids=["", "WENO", "Rusanov"])
def test_the_given_flux_passes_the_side(law, options, stepper):
    """Constant on the first side, one per batch entry, and linear in time on the last."""
    first = torch.tensor([0.2, -0.1], dtype=torch.float64)
    sides = Neumann(flux=first), Neumann(flux=lambda t: 0.4 * t)
    result = solve(law, GRID, sides, 0.6, [0.1, 0.25], stepper=stepper, **options)
    expected = torch.stack((first[:, None] * result.times, (0.2 * result.times**2).expand(2, 2)), dim=-1)
    quadrature = 2e-3 if isinstance(stepper, BackwardEuler) else ROUND_OFF  # first order; the others take ramps exactly
    assert torch.allclose(result.boundary_flux[..., 0], expected[..., 0], rtol=0.0, atol=ROUND_OFF)
    assert torch.allclose(result.boundary_flux[..., 1], expected[..., 1], rtol=0.0, atol=quadrature)
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
