"""States at the sides of systems that are functions of time: events, batches, cost, errors."""

import numpy as np
import pytest
import torch

from solvers import CellGrid, Dirichlet, Outflow, Periodic, Reflecting, ShallowWater, solve_system
from solvers.errors import InvalidArgumentError
from solvers.systems.laws import HLLC

G = 9.81
WALLS = (Reflecting(), Reflecting())


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
