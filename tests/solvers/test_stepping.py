"""Time steppers: orders in time, step control, and the error where no step succeeds."""

import math
from itertools import pairwise

import pytest
import torch

from solvers import (
    SSPRK3,
    TRBDF2,
    BackwardEuler,
    Burgers,
    CellGrid,
    Constant,
    ConvectiveLaw,
    Diffusion,
    DiffusiveLaw,
    Dirichlet,
    InvalidArgumentError,
    Neumann,
    Newton,
    Periodic,
    PorousMedium,
    Rusanov,
    SolverDivergedError,
    Stefan,
    solve,
)
from solvers.finite_volume.stepping import _landing

TIGHT = Newton(tolerance=1e-9)


def bump(points):
    return 1.0 + 0.5 * torch.sin(2.0 * math.pi * points)


class Linear(ConvectiveLaw):
    """Advection whose reported speed is wrong by a factor, so that the steps may exceed the stable ones."""

    def __init__(self, factor):
        self.factor = factor

    def convective_flux(self, u):
        return u

    def characteristic_speed(self, u):
        return self.factor + 0.0 * u


class Broken(DiffusiveLaw):
    """A law that cannot be evaluated."""

    def potential(self, u):
        return u * float("nan")

    def conductivity(self, u):
        return u * float("nan")


@pytest.mark.parametrize(("stepper", "order"), [(BackwardEuler, 1), (TRBDF2, 2)])
def test_implicit_orders_in_time(stepper, order):
    """Porous medium on 20 periodic cells; differences to the next finer step fall as Δt^order."""
    grid = CellGrid(0.0, 1.0, 20)
    values = []
    for steps in (10, 20, 40, 80, 160):
        method = stepper(math.inf, largest_step=0.02 / steps, newton=TIGHT)
        values.append(solve(PorousMedium(2.0), grid, (Periodic(), Periodic()), bump, [0.02], stepper=method).values)
    changes = torch.tensor([float((a - b).abs().max()) for a, b in pairwise(values)])
    assert float(-changes.log2().diff()[-1]) == pytest.approx(order, abs=0.2)


def test_explicit_order_in_time():
    """Smooth Burgers on 20 periodic cells with first-order upwinding (smooth in u > 0): order 3 in the step."""
    grid = CellGrid(0.0, 1.0, 20)
    values = []
    for courant in (0.8, 0.4, 0.2, 0.1):
        result = solve(
            Burgers(), grid, (Periodic(), Periodic()), bump, [0.1], stepper=SSPRK3(courant), reconstruction=Constant()
        )
        values.append(result.values)
    changes = torch.tensor([float((a - b).abs().max()) for a, b in pairwise(values)])
    assert float(-changes.log2().diff()[-1]) == pytest.approx(3.0, abs=0.3)


@pytest.mark.parametrize("stepper", [TRBDF2, BackwardEuler])
def test_smaller_tolerance_gives_smaller_error(stepper):
    """sin on a periodic axis decays by e^{−λt}, λ = 4 sin²(h/2)/h² of the discrete Laplacian, exactly."""
    grid = CellGrid(0.0, 2.0 * math.pi, 16)
    decay = math.exp(-4.0 * math.sin(grid.spacing[0] / 2) ** 2 / grid.spacing[0] ** 2)
    errors = []
    for tolerance in (1e-2, 1e-3, 1e-4, 1e-5):
        result = solve(Diffusion(1.0), grid, (Periodic(), Periodic()), torch.sin, [1.0], stepper=stepper(tolerance))
        errors.append(float((result.values[0] - decay * grid.points.sin()).abs().max()))
    assert all(fine < coarse for coarse, fine in pairwise(errors))
    assert errors[-1] < 1e-2


def test_implicit_and_explicit_steppers_agree():
    grid = CellGrid(0.0, 1.0, 25)
    boundary = (Dirichlet(1.0), Neumann(gradient=0.0))
    explicit = solve(Stefan(0.4), grid, boundary, 0.0, [0.02], stepper=SSPRK3())
    implicit = solve(Stefan(0.4), grid, boundary, 0.0, [0.02], stepper=TRBDF2(1e-6))
    assert torch.allclose(explicit.values, implicit.values, atol=2e-3)


@pytest.mark.parametrize("stepper", [TRBDF2(), BackwardEuler()])
@pytest.mark.parametrize("law", [PorousMedium(3.0), Stefan(0.6)])
def test_degenerate_fronts_stay_within_the_data(law, stepper):
    """The maximum principle: no undershoot below 0 ahead of the front, none above the boundary value."""
    result = solve(law, CellGrid(0.0, 1.0, 50), (Dirichlet(1.0), Dirichlet(0.0)), 0.0, [0.01, 0.1], stepper=stepper)
    assert float(result.values.min()) >= 0.0
    assert float(result.values.max()) <= 1.0


def test_no_tiny_step_is_left_before_an_output_time():
    assert _landing(0.3, 0.3 * (1 + 1e-12)) == (0.3 * (1 + 1e-12), True)
    assert _landing(0.3, 0.4) == (0.2, False)
    assert _landing(0.1, 0.4) == (0.1, False)


def test_failed_newton_iteration_halves_the_step():
    """One iteration is too few for large steps, so steps shrink until one is enough; the result stays right."""
    grid = CellGrid(0.0, 1.0, 20)
    hurried = TRBDF2(1e-4, newton=Newton(tolerance=1e-4, iterations=2))
    result = solve(PorousMedium(2.0), grid, (Periodic(), Periodic()), bump, [0.02], stepper=hurried)
    usual = solve(PorousMedium(2.0), grid, (Periodic(), Periodic()), bump, [0.02])
    assert torch.allclose(result.values, usual.values, atol=1e-3)


@pytest.mark.parametrize("stepper", [TRBDF2(), BackwardEuler(), SSPRK3()])
def test_error_names_time_step_and_residual(stepper):
    with pytest.raises(SolverDivergedError, match=r"failed at time 0 with step .*residual"):
        solve(Broken(), CellGrid(0.0, 1.0, 5), (Dirichlet(1.0), Dirichlet(0.0)), 0.0, [1.0], stepper=stepper)


def test_states_that_are_not_finite_are_never_returned():
    with pytest.raises(SolverDivergedError, match="SSPRK3 failed at time"):
        solve(Linear(float("inf")), CellGrid(0.0, 1.0, 5), (Periodic(), Periodic()), bump, [1.0], flux=Rusanov())


def test_messages():
    with pytest.raises(InvalidArgumentError, match=r"courant must be in \(0, 1\]"):
        SSPRK3(1.5)
    with pytest.raises(InvalidArgumentError, match="must be positive"):
        TRBDF2(tolerance=0.0)
    with pytest.raises(InvalidArgumentError, match="must be positive"):
        BackwardEuler(largest_step=-1.0)
