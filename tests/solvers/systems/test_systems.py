"""``solve_system``: exact solutions of shallow water, balance, lakes at rest, batches and users' laws."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.integrate import quad_vec
from scipy.optimize import brentq

from solvers import MUSCL, CellGrid, Dirichlet, Outflow, Periodic, Reflecting, ShallowWater, SystemLaw, solve_system
from solvers.errors import InvalidArgumentError, SolverDivergedError
from solvers.finite_volume.convection.schemes import Constant
from solvers.systems.laws import HLL, HLLC

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


@dataclass(frozen=True)
class UsersWater(SystemLaw):
    """Shallow water as a user would write it."""

    scale: float = 1.0

    def components(self, dimension):
        return ("h", "hu", "hv")[: dimension + 1]

    def flux(self, u, axis):
        return ShallowWater(G).flux(u, axis)

    def eigenvalues(self, u, axis):
        return self.scale * ShallowWater(G).eigenvalues(u, axis)

    def reflect(self, u, axis):
        return ShallowWater(G).reflect(u, axis)


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


def test_a_law_without_an_admissible_state_ends_in_an_error_that_names_the_place():
    @dataclass(frozen=True)
    class Bounded(UsersWater):
        def admissible(self, u):
            return torch.isfinite(u).all(1) & (u[:, 0] > 0.5)

    grid = CellGrid(0.0, 1.0, 20)
    initial = torch.stack([torch.where(grid.points < 0.5, 2.0, 1.0), torch.zeros(20)]).double()
    initial[1] = torch.where(grid.points < 0.5, -20.0, 20.0)
    message = r"Bounded has no admissible state in cell \(\d+,\), batch entry \(1,\)"
    with pytest.raises(SolverDivergedError, match=message):
        solve_system(Bounded(), grid, WALLS, torch.stack([initial.abs() * 0 + 1, initial]), [0.5])


def test_muscl_is_sharper_than_constant():
    grid = CellGrid(-10.0, 10.0, 100)
    exact = averages(lambda x: stoker(x, 1.5, 1.0, 0.2), grid)[0]
    errors = []
    for way in (MUSCL(), Constant()):
        result = solve_system(ShallowWater(G), grid, WALLS, dam(grid, 1.0, 0.2), [1.5], reconstruction=way)
        errors.append(float((result.values[0, 0] - exact).abs().mean()))
    assert 2 * errors[0] < errors[1]


@pytest.mark.parametrize("dimension", [1, 2])
def test_a_state_that_is_a_function_of_time_and_stays_is_a_constant_one(dimension):
    grid = CellGrid((0.0,) * dimension, (1.0,) * dimension, (20, 12)[:dimension])
    x = grid.points[..., 0] if dimension == 2 else grid.points
    bottom = 0.2 * torch.sin(6 * x) ** 2
    h = (0.4 - bottom).clamp(min=0.0) + 0.3 * (x > 0.6)
    initial = torch.stack([torch.stack([h, *[a * h] * dimension]) for a in (0.0, 0.3)])
    state = [0.5, 0.2, 0.1][: dimension + 1]
    results = []
    for value in (state, lambda _: state):
        boundary = ((Dirichlet(value), Outflow()), (Periodic(), Periodic()))[:dimension]
        results.append(
            solve_system(
                ShallowWater(G), grid, boundary, initial, [0.05, 0.1], bottom=bottom, flux=HLLC(), largest_step=0.01
            )
        )
    constant, changing = results
    assert (constant.values - changing.values).abs().max() < 1e-12
    assert (constant.boundary_flux - changing.boundary_flux).abs().max() < 1e-12
    assert (constant.source - changing.source).abs().max() < 1e-12
    assert torch.equal(constant.steps, changing.steps)
    assert constant.imbalance.abs().max() < 1e-13


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


@pytest.mark.parametrize("width", [0.02, 0.005, 0.0004])
def test_an_event_at_a_side_is_found_however_long_the_steps_may_be(width):
    depth = lambda t: 1.0 + 0.5 * float(np.exp(-(((t - 0.5005) / width) ** 2)))  # noqa: E731
    grid, initial = CellGrid(0.0, 1.0, 20), torch.tensor([[1.0], [0.0]]).double()
    side = Dirichlet(lambda t: [depth(t), 0.0])
    result = solve_system(ShallowWater(1.0), grid, (side, Outflow()), initial, [1.0])
    times = [0.5005 + 0.5 * k * width for k in range(-8, 9)]
    fine = solve_system(ShallowWater(1.0), grid, (side, Outflow()), initial, [1.0], breakpoints=times)
    assert result.boundary_flux[0, 0, 0] == pytest.approx(float(fine.boundary_flux[0, 0, 0]), rel=0.02)
    assert result.boundary_flux[0, 0, 0] > 0.1 * width


@pytest.mark.long
def test_an_event_too_short_to_be_seen_enters_by_a_short_span_around_it():
    """As ``largest_step`` says: the event of 2e-5 is between two of the 4,096 points that the span is looked at."""
    side = Dirichlet(lambda t: torch.tensor([501.0 if 0.50003 <= t < 0.50005 else 1.0, 0.0]))
    grid, initial = CellGrid(0.0, 10.0, 20), torch.tensor([[1.0], [0.0]]).double()
    before = solve_system(ShallowWater(), grid, (side, Outflow()), initial, [0.5])
    around = solve_system(ShallowWater(), grid, (side, Outflow()), before.values[0], [0.501], start=0.5)
    assert before.boundary_flux[0, 0, 0] == 0
    assert around.boundary_flux[0, 0, 0] > 0.1


def fill_basin(depth=None, inflow=None, **options):
    """``solve_system`` to t = 1 on 2 × 4 cells with walls, but a first side with depth (1) and momentum (0) of t."""
    one = torch.ones(4)
    side = Dirichlet(lambda t: torch.stack([depth(t) if depth else one, inflow(t) if inflow else 0 * one, 0 * one]))
    grid, initial = CellGrid((0.0, 0.0), (1.0, 1.0), (2, 4)), torch.zeros(3, 2, 4)
    initial[0] = 1.0
    options = {"largest_step": 0.01} | options
    return solve_system(ShallowWater(1.0), grid, [(side, Reflecting()), WALLS], initial, [1.0], **options)


@pytest.mark.parametrize("signs", [[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, -1.0, -1.0], [0.0, 0.0, 0.0, 1.0]])
@pytest.mark.parametrize("end", [0.373, 0.3715])
def test_an_event_that_cancels_in_the_mean_over_the_side_is_not_missed(signs, end):
    event = lambda t: 8.0 * torch.tensor(signs) * (0.371 < t < end)  # noqa: E731
    found, stated = fill_basin(inflow=event), fill_basin(inflow=event, breakpoints=[0.371, end])
    assert (found.values - stated.values).abs().max() < 1e-8  # jumps are located to 1e-10 of the span
    assert (found.values - fill_basin().values).abs().max() > 1e-4


def test_an_event_of_the_mean_is_not_hidden_by_slow_changes_that_cancel_in_it():
    slow = lambda t: 0.2 * t * torch.tensor([1.0, -1.0, 1.0, -1.0])  # noqa: E731
    inflow = lambda t: slow(t) + (0.371 < t < 0.373)  # noqa: E731
    found, stated = fill_basin(inflow=inflow), fill_basin(inflow=inflow, breakpoints=[0.371, 0.373])
    assert (found.values - stated.values).abs().max() < 1e-8
    assert (found.values - fill_basin(inflow=slow).values).abs().max() > 1e-4


def test_a_front_that_reaches_the_end_of_the_side_in_the_last_steps_is_no_missed_event():
    arrival = torch.tensor([0.2, 0.5, 0.8, 0.9935])
    assert fill_basin(depth=lambda t: 1.0 + 0.1 * (t > arrival)).boundary_flux.isfinite().all()


@pytest.mark.parametrize("write", [lambda *c: list(c), lambda *c: np.stack(np.broadcast_arrays(*c)), lambda *c: c])
def test_rows_with_sides_in_time_have_the_bits_that_they_have_alone(write):
    grid, x = CellGrid(0.0, 1.0, 40), CellGrid(0.0, 1.0, 40).points
    side = Dirichlet(lambda t: write(1.0 + 0.2 * np.sin(7.0 * t) + 0.3 * (t > 0.31), 0.1 * t))
    rows = torch.stack([torch.stack([1.0 + 0.05 * k * x, (0.3 if k % 2 else 3.0) * x]) for k in range(11)])
    together = solve_system(ShallowWater(1.0), grid, (side, Outflow()), rows, [0.2, 0.6])
    assert len(set(together.steps.tolist())) > 1
    for k in (0, 5, 10):
        alone = solve_system(ShallowWater(1.0), grid, (side, Outflow()), rows[k], [0.2, 0.6])
        assert torch.equal(alone.values, together.values[k])
        assert torch.equal(alone.boundary_flux, together.boundary_flux[k])
        assert alone.steps == together.steps[k]
    assert together.imbalance.abs().max() < 1e-13


def test_a_side_of_a_batch_in_time_is_called_for_all_rows_at_once():
    grid, amplitude = CellGrid(0.0, 1.0, 30), np.linspace(0.1, 0.3, 3)
    initial, calls = torch.tensor([[1.0], [0.0]]).double(), []

    def state(t):
        calls.append(np.shape(t))
        return np.stack([1.0 + amplitude * np.sin(3.0 * t), 0.0 * amplitude * t], axis=-1)

    together = solve_system(ShallowWater(1.0), grid, (Dirichlet(state), Outflow()), initial, [0.5])
    assert len(calls) < together.steps.max() + 100
    for k, a in enumerate(amplitude):
        one = Dirichlet(lambda t, a=a: [1.0 + a * float(np.sin(3.0 * t)), 0.0])
        alone = solve_system(ShallowWater(1.0), grid, (one, Outflow()), initial, [0.5])
        assert (alone.values - together.values[k]).abs().max() < 1e-13


def test_the_cost_of_sides_in_time_does_not_grow_with_a_fixed_number_of_steps():
    grid, initial = CellGrid(0.0, 1.0, 20), torch.tensor([[1.0], [0.0]]).double()
    fixed = solve_system(ShallowWater(1.0), grid, (Dirichlet([1.2, 0.0]), Outflow()), initial, [1.0])
    moving = solve_system(
        ShallowWater(1.0), grid, (Dirichlet(lambda t: [1.1 + 0.1 * t, 0.0]), Outflow()), initial, [1.0]
    )
    assert moving.steps < 1.5 * fixed.steps


def not_on(time):
    raise KeyError(f"no such tide at {time:g}")


@pytest.mark.parametrize(
    ("state", "kind", "message"),
    [
        (lambda t: [1.0, 0.0] if t < 0.5 else not_on(t), KeyError, "no such tide at 0"),
        (lambda t: [1.0, 0.0] if t < 0.5 else [[1.0, 0.0]] * 3, InvalidArgumentError, "states of one shape"),
        (lambda t: [1.0, float("nan") if t > 0.5 else 0.0], InvalidArgumentError, r"side is not finite at time 0\."),
    ],
)
def test_an_error_in_a_state_in_time_comes_out(state, kind, message):
    grid, initial = CellGrid(0.0, 1.0, 20), torch.tensor([[1.0], [0.0]]).double().expand(3, 2, 1)
    with pytest.raises(kind, match=message):
        solve_system(ShallowWater(1.0), grid, (Dirichlet(state), Outflow()), initial, [1.0])
