"""``solve_system``: exact solutions of shallow water, balance, lakes at rest, batches and users' laws."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.integrate import quad_vec
from scipy.optimize import brentq

from solvers import MUSCL, CellGrid, Dirichlet, Outflow, Periodic, PointwiseLaw, Reflecting, ShallowWater, solve_system
from solvers.errors import SolverDivergedError
from solvers.finite_volume.convection.schemes import Constant
from solvers.systems.laws import HLL, HLLC
from solvers.systems.pointwise import PointFunctions

G = 9.81
WALLS = (Reflecting(), Reflecting())


def observed_order(errors):
    """Slope of the errors on grids that double."""
    return -np.polyfit(np.arange(len(errors)), np.log2(errors), 1)[0]


def stoker(x, t, left, right):
    """Depth and momentum of the dam break from ``left`` to ``right`` > 0 at x = 0 (Stoker 1957)."""
    c_left = (G * left) ** 0.5

    def mismatch(h):
        rarefied = 2 * (c_left - (G * h) ** 0.5)
        return rarefied - (h - right) * (0.5 * G * (h + right) / (h * right)) ** 0.5

    h_mid = brentq(mismatch, right, left, xtol=1e-14)
    u_mid = 2 * (c_left - (G * h_mid) ** 0.5)
    shock = h_mid * u_mid / (h_mid - right)
    fan_h = (2 * c_left - x / t) ** 2 / (9 * G)
    fan_u = 2 / 3 * (c_left + x / t)
    tail = (u_mid - (G * h_mid) ** 0.5) * t
    h = torch.where(x < -c_left * t, left, torch.where(x < tail, fan_h, torch.where(x < shock * t, h_mid, right)))
    u = torch.where(x < -c_left * t, 0.0, torch.where(x < tail, fan_u, torch.where(x < shock * t, u_mid, 0.0)))
    return torch.stack([h, h * u])


def ritter(x, t, left):
    """Depth and momentum of the dam break onto a dry bed at x = 0 (Ritter 1892)."""
    c_left = (G * left) ** 0.5
    fan_h, fan_u = (2 * c_left - x / t) ** 2 / (9 * G), 2 / 3 * (c_left + x / t)
    wet, fan = x < 2 * c_left * t, x >= -c_left * t
    h = torch.where(wet, torch.where(fan, fan_h, left), 0.0)
    return torch.stack([h, h * torch.where(fan & wet, fan_u, 0.0)])


def averages(exact, grid, points=20):
    """Cell averages of a function of x by the midpoint rule on ``points`` parts of every cell."""
    offsets = (torch.arange(points, dtype=torch.float64) + 0.5) / points - 0.5
    x = grid.points[:, None] + grid.spacing[0] * offsets
    return exact(x).mean(-1)


def dam(grid, left, right):
    h = torch.where(grid.points < 0, left, right)
    return torch.stack([h, torch.zeros_like(h)])


@pytest.mark.parametrize("flux", [HLL(), HLLC()])
def test_a_wet_dam_break_converges_to_stokers_solution(flux):
    errors = []
    for n in (50, 100, 200, 400):
        grid = CellGrid(-10.0, 10.0, n)
        result = solve_system(ShallowWater(G), grid, WALLS, dam(grid, 1.0, 0.2), [1.5], flux=flux)
        exact = averages(lambda x: stoker(x, 1.5, 1.0, 0.2), grid)
        errors.append(float((result.values[0, 0] - exact[0]).abs().mean()))
    assert errors[-1] < 1.5e-3
    assert observed_order(errors) > 0.85  # order 1 at the shock and at the ends of the fan


def test_a_dry_dam_break_converges_to_ritters_solution_and_stays_positive():
    errors = []
    for n in (50, 100, 200, 400):
        grid = CellGrid(-10.0, 10.0, n)
        result = solve_system(ShallowWater(G), grid, WALLS, dam(grid, 1.0, 0.0), [0.5, 1.0])
        assert (result.values[:, 0] >= 0).all()
        assert result.imbalance[:, 0].abs().max() < 1e-12 * 10
        exact = averages(lambda x: ritter(x, 1.0, 1.0), grid)
        errors.append(float((result.values[-1, 0] - exact[0]).abs().mean()))
    assert errors[-1] < 1e-3
    assert observed_order(errors) > 0.85


def simple_wave(grid, t):
    """Cell averages of a wave to the right with u − 2c constant, c(ξ) = c₀ + a sin 2πξ, x = ξ + (u + c) t."""
    c_rest, amplitude = (G * 1.0) ** 0.5, 0.1

    def profile(xi):
        c = c_rest + amplitude * torch.sin(2 * torch.pi * xi)
        return c, 2 * (c - c_rest)

    def exact(x):
        xi = x - c_rest * t
        for _ in range(60):
            c, u = profile(xi)
            slope = 1 + 3 * amplitude * 2 * torch.pi * torch.cos(2 * torch.pi * xi) * t
            xi = xi - (xi + (u + c) * t - x) / slope
        c, u = profile(xi)
        assert ((xi + (u + c) * t - x).abs() < 1e-12).all()
        return torch.stack([c * c / G, c * c / G * u])

    # Four Gauss points in every cell.
    nodes = torch.tensor([-0.8611363115940526, -0.3399810435848563, 0.3399810435848563, 0.8611363115940526]).double()
    weights = torch.tensor([0.3478548451374538, 0.6521451548625461, 0.6521451548625461, 0.3478548451374538]).double()
    return (exact(grid.points[:, None] + 0.5 * grid.spacing[0] * nodes) * weights).sum(-1) / 2


def test_a_smooth_periodic_wave_has_order_two():
    errors, time = [], 0.2  # breaking at 1/(6 π 0.1) = 0.53
    for n in (50, 100, 200, 400):
        grid = CellGrid(0.0, 1.0, n)
        result = solve_system(ShallowWater(G), grid, (Periodic(), Periodic()), simple_wave(grid, 0.0), [time])
        errors.append(float((result.values[0] - simple_wave(grid, time)).abs().mean()))
        assert result.imbalance.abs().max() < 1e-12
    assert observed_order(errors) == pytest.approx(2.0, abs=0.2)


@pytest.mark.parametrize("level", [1.0, 0.3])
@pytest.mark.parametrize("dimension", [1, 2])
def test_a_lake_stays_at_rest_over_a_bottom_with_and_without_islands(dimension, level):
    grid = CellGrid((0.0,) * dimension, (1.0,) * dimension, (40, 30)[:dimension])
    x = grid.points if dimension == 2 else grid.points[:, None]
    bottom = 0.5 * torch.exp(-((x - 0.5) ** 2).sum(-1) / 0.02) + 0.1 * torch.sin(7 * x.sum(-1)) + 0.1
    h = (level - bottom).clamp(min=0.0)
    initial = torch.stack([h, *[torch.zeros_like(h)] * dimension])
    for sides in (WALLS, (Outflow(), Outflow())):
        result = solve_system(ShallowWater(1.0), grid, (sides,) * dimension, initial, [0.5, 2.0], bottom=bottom)
        assert (result.values - initial).abs().max() < 1e-14
        assert result.imbalance.abs().max() < 1e-14


def line_flux(u, axis):  # noqa: ARG001 - one axis only
    return u[1], u[1] * u[1] / u[0] + 0.5 * G * u[0] * u[0]


def plane_flux(u, axis):
    speed, pressure = u[1 + axis] / u[0], 0.5 * G * u[0] * u[0]
    return u[0] * speed, u[1] * speed + (1 - axis) * pressure, u[2] * speed + axis * pressure


def water_waves(u, axis):
    speed, wave = u[1 + axis] / u[0], math.sqrt(G * u[0])
    return speed - wave, speed + wave


def line_mirror(u, axis):  # noqa: ARG001 - one axis only
    return u[0], -u[1]


def plane_mirror(u, axis):
    return u[0], (2 * axis - 1) * u[1], (1 - 2 * axis) * u[2]


@dataclass(frozen=True)
class UsersWater(PointwiseLaw):
    """Shallow water as a user would write it."""

    admissible: object = None

    def components(self, dimension):
        return ("h", "hu", "hv")[: dimension + 1]

    def functions(self, dimension):
        return PointFunctions(
            flux=(line_flux, plane_flux)[dimension - 1],
            eigenvalues=water_waves,
            admissible=self.admissible,
            reflect=(line_mirror, plane_mirror)[dimension - 1],
        )


@pytest.mark.parametrize("flux", [HLL(), HLLC()])
def test_the_compiled_scheme_agrees_with_the_general_one(flux):
    grid = CellGrid((0.0, 0.0), (1.0, 1.0), (24, 20))
    x = grid.points
    h = 1 + 0.2 * torch.exp(-((x - 0.4) ** 2).sum(-1) / 0.02)
    initial = torch.stack([h, 0.3 * h, -0.2 * h * x[..., 0]])
    boundary = (WALLS, (Periodic(), Periodic()))
    ours = solve_system(ShallowWater(G), grid, boundary, initial, [0.1], reconstruction=Constant(), flux=flux)
    if isinstance(flux, HLL):
        theirs = solve_system(UsersWater(), grid, boundary, initial, [0.1], reconstruction=Constant(), flux=flux)
        # The speeds of the two schemes differ (Einfeldt's or the eigenvalues at the mean), by O(jump²).
        assert (ours.values - theirs.values).abs().max() < 2e-3
    assert ours.imbalance.abs().max() < 1e-13


def test_a_radial_dam_break_keeps_its_symmetries_and_balances():
    grid = CellGrid((-1.0, -1.0), (1.0, 1.0), (40, 40))
    h = torch.where((grid.points**2).sum(-1) < 0.25, 1.0, 0.2).double()
    initial = torch.stack([h, torch.zeros_like(h), torch.zeros_like(h)])
    result = solve_system(ShallowWater(1.0), grid, (WALLS, WALLS), initial, [0.3, 1.0])
    h, hu, hv = result.values[-1]
    assert (h - h.T).abs().max() < 1e-13
    assert (h - h.flip(0)).abs().max() < 1e-13
    assert (hu - hv.T).abs().max() < 1e-13
    assert (hu + hu.flip(0)).abs().max() < 1e-13
    assert result.imbalance.abs().max() < 1e-13
    assert result.boundary_flux[..., 0].abs().max() == 0  # no water through a wall
    assert (h - 0.2).abs().max() > 0.05


def test_momentum_over_a_bottom_is_accounted_with_the_force_of_the_bottom():
    grid = CellGrid(0.0, 1.0, 60)
    bottom = 0.3 * torch.sin(5 * grid.points) ** 2
    h = (0.5 - bottom).clamp(min=0) + 0.2 * (grid.points < 0.3)
    initial = torch.stack([h, 0.1 * h])
    result = solve_system(ShallowWater(G), grid, WALLS, initial, [0.05, 0.3], bottom=bottom)
    assert result.source[:, 1].abs().min() > 1e-3
    assert result.imbalance.abs().max() < 1e-13


def test_the_force_of_a_slope_is_that_of_the_water_above_it():
    # Still water accelerates at −g z′ where the surface is parallel to the bottom and has no ends.
    grid = CellGrid(0.0, 1.0, 50)
    bottom = 0.1 * grid.points
    initial = torch.stack([torch.ones(50), torch.zeros(50)]).double()
    result = solve_system(ShallowWater(G), grid, (Outflow(), Outflow()), initial, [1e-3], bottom=bottom)
    inside = result.values[0, 1, 10:40]
    assert inside == pytest.approx(torch.full_like(inside, -G * 0.1 * 1e-3).numpy(), rel=1e-6)


@pytest.mark.long
def test_result_independent_of_batch():
    grid = CellGrid(-1.0, 1.0, 40)
    x = grid.points
    slow = torch.stack([1 + 0.1 * torch.exp(-((x / 0.2) ** 2)), 0 * x])
    fast = torch.stack([torch.ones_like(x), 300 * torch.ones_like(x)])
    dry = torch.stack([(x < 0).double(), 0 * x])
    boundary = (Reflecting(), Outflow())
    for law in (ShallowWater(G), UsersWater()):
        entries = [slow, fast] if isinstance(law, UsersWater) else [slow, fast, dry]
        together = solve_system(law, grid, boundary, torch.stack(entries), [0.05, 0.2])
        assert together.steps[1] > 10 * together.steps[0]
        for k, entry in enumerate(entries):
            alone = solve_system(law, grid, boundary, entry, [0.05, 0.2])
            assert (alone.values - together.values[k]).abs().max() <= 1e-13 * alone.values.abs().max()
            assert alone.steps == together.steps[k]


@pytest.mark.long
def test_a_driven_side_lets_in_what_the_condition_says():
    # Supercritical inflow: the flux is that of the given state.
    grid = CellGrid(0.0, 10.0, 50)
    initial = torch.tensor([[0.1], [1.0]], dtype=torch.float64)

    def state(t):
        h = 0.1 + 0.05 * t
        return torch.tensor([h, 10.0 * h], dtype=torch.float64)

    result = solve_system(ShallowWater(G), grid, (Dirichlet(state), Outflow()), initial, [0.2, 0.5])
    entered, _ = quad_vec(lambda t: float(state(t)[1]), 0, 0.5)
    assert result.boundary_flux[1, 0, 0] == pytest.approx(entered, rel=1e-10)
    assert result.imbalance.abs().max() < 1e-12


def deep(u):
    return u[0] > 0.5


def test_a_law_without_an_admissible_state_ends_in_an_error_that_names_the_place():
    grid = CellGrid(0.0, 1.0, 20)
    initial = torch.stack([torch.where(grid.points < 0.5, 2.0, 1.0), torch.zeros(20)]).double()
    initial[1] = torch.where(grid.points < 0.5, -20.0, 20.0)
    message = r"UsersWater has no admissible state in cell \(\d+,\), batch entry \(1,\)"
    with pytest.raises(SolverDivergedError, match=message):
        solve_system(UsersWater(admissible=deep), grid, WALLS, torch.stack([initial.abs() * 0 + 1, initial]), [0.5])


def test_muscl_is_sharper_than_constant():
    grid = CellGrid(-10.0, 10.0, 100)
    exact = averages(lambda x: stoker(x, 1.5, 1.0, 0.2), grid)[0]
    errors = []
    for way in (MUSCL(), Constant()):
        result = solve_system(ShallowWater(G), grid, WALLS, dam(grid, 1.0, 0.2), [1.5], reconstruction=way)
        errors.append(float((result.values[0, 0] - exact).abs().mean()))
    assert 2 * errors[0] < errors[1]


def test_water_that_overflows_ends_in_an_error_not_in_nan():
    grid = CellGrid(0.0, 1.0, 20)
    initial = torch.ones(3, 2, 20, dtype=torch.float64)
    initial[2, 1, 7:] = 1e200
    with pytest.raises(
        SolverDivergedError, match=r"ShallowWater has no admissible state.*, batch entry \(2,\) after time 0"
    ):
        solve_system(ShallowWater(G), grid, WALLS, initial, [0.5])


def test_a_wave_runs_up_a_dry_beach_without_losing_water():
    grid = CellGrid((0.0, 0.0), (1.0, 1.0), (30, 20))
    x = grid.points
    bottom = 0.5 * x[..., 0] + 0.1 * torch.sin(9 * x[..., 1])
    h = (0.15 - bottom).clamp(min=0.0) + 0.2 * (x[..., 0] < 0.2)
    initial = torch.stack([h, 0 * h, 0 * h])
    result = solve_system(ShallowWater(G), grid, (WALLS, WALLS), initial, [0.1, 0.5, 2.0], bottom=bottom)
    assert result.values[:, 0].min() >= 0
    assert result.values[:, 0].max() < 1.0
    assert ((result.values[:, 0] == 0).sum((-1, -2)) > 0).any()
    assert result.imbalance.abs().max() < 1e-12
    assert result.steps < 5000  # thin layers do not run away
