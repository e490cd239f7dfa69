"""Set-ups that release 0.1 answered wrongly and in silence: each is solved, or refused with a reason."""

import math

import numpy as np
import pytest
import torch

from solvers import (
    Advection,
    Burgers,
    CellGrid,
    Diffusion,
    Dirichlet,
    Neumann,
    Outflow,
    Periodic,
    PorousMedium,
    Robin,
    Stefan,
    solve,
)
from solvers.errors import InvalidArgumentError
from tests.solvers.laws.users import BuckleyLeverett

GRID = CellGrid(0.0, 1.0, 100)
INSULATED = Neumann(flux=0.0)


def pulse(t):
    return math.exp(-(((t - 0.5) / 0.05) ** 2)) / (0.05 * math.sqrt(math.pi))


# S1: events in the boundary data


def test_a_pulse_of_flux_is_not_stepped_over():
    result = solve(Diffusion(1.0), GRID, (Neumann(flux=pulse), INSULATED), 0.0, [1.0])
    assert float(result.total[0]) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("outputs", [1, 50])
def test_a_rectangular_inflow_enters_in_full(outputs):
    boundary = (Dirichlet(lambda t: 1.0 if 0.05 <= t < 0.45 else 0.0), Outflow())
    times = [1.0] if outputs == 1 else np.linspace(0.02, 1.0, outputs)
    result = solve(Burgers(), GRID, boundary, 0.0, times)
    assert float(result.total[-1]) == pytest.approx(0.2, abs=2e-3)


# S2: the scale of the error control


def test_a_short_transient_does_not_set_the_scale_of_what_follows():
    def datum(t):
        return 1000.0 * math.exp(-t / 1e-4) + math.sin(20.0 * t)

    grid = CellGrid(0.0, 1.0, 200)
    result = solve(Diffusion(1.0), grid, (Dirichlet(datum), Dirichlet(0.0)), 0.0, [1.0])
    mode = np.exp(0) * np.sqrt(20j)
    x = grid.points.numpy()
    periodic = np.imag(np.sinh(mode * (1.0 - x)) / np.sinh(mode) * np.exp(20j))
    error = np.abs(result.values[0].numpy() - periodic).max()
    assert error < 5e-3 * np.abs(periodic).max()


@pytest.mark.parametrize("inflow", [1e-6, 0.01, 1.0])
def test_from_rest_the_scale_is_that_of_the_solution(inflow):
    # u → c u, t → c⁻² t maps one flux onto another for m = 2
    def run(tolerance=None):
        options = {} if tolerance is None else {"stepper": tolerance}
        return solve(PorousMedium(2.0), GRID, (Neumann(flux=inflow), INSULATED), 0.0, [0.05], **options).values[0]

    from solvers import TRBDF2

    usual, fine = run(), run(TRBDF2(tolerance=1e-6))
    assert float((usual - fine).abs().sum()) < 1.5e-2 * float(fine.abs().sum())


def test_a_datum_that_starts_at_zero():
    boundary = (Dirichlet(lambda t: math.sin(math.pi * t) ** 2), Dirichlet(0.0))
    result = solve(Diffusion(1.0), GRID, boundary, 0.0, [0.5])
    reference = solve(Diffusion(1.0), GRID, boundary, 0.0, np.linspace(0.01, 0.5, 50))
    assert float((result.values[-1] - reference.values[-1]).abs().max()) < 1e-3
    assert 0.4 < float(result.total[-1]) < 0.5


# S3: laws with inflection points


def buckley_leverett_error(cells):
    grid = CellGrid(-1.0, 1.0, cells)
    result = solve(BuckleyLeverett(), grid, (Dirichlet(1.0), Outflow()), (grid.points < 0).double(), [0.4])
    values = result.values[0]
    assert float(values.min()) >= -1e-12
    assert float(values.max()) <= 1.0 + 1e-12
    shock = 1.0 / math.sqrt(3.0)  # f(s)/s = f′(s) for the mobility ratio ½
    states = torch.linspace(shock, 1.0, 100_001, dtype=torch.float64)
    speeds = BuckleyLeverett().characteristic_speed(states)
    front = 0.4 * float(speeds[0])
    fan = np.interp(grid.points.numpy(), 0.4 * speeds.flip(0).numpy(), states.flip(0).numpy())
    x = grid.points.numpy()
    exact = np.where(x < 0, 1.0, np.where(x < front, fan, 0.0))
    return float(np.abs(values.numpy() - exact).sum() * grid.spacing[0])


def test_buckley_leverett_stays_a_saturation_and_converges():
    errors = [buckley_leverett_error(cells) for cells in (100, 200, 400)]
    assert errors[0] < 1e-2
    assert errors[2] < errors[0] / 2


# S4: Stefan's problem with a condition on the gradient


def test_stefan_with_a_robin_side_ends_in_a_few_steps():
    result = solve(Stefan(0.5), CellGrid(0.0, 1.0, 25), (INSULATED, Robin(1.0, 1.0, 0.0)), 1.0, [10.0])
    assert int(result.work.steps) + int(result.work.rejected) < 5000
    assert float(result.imbalance.abs().max()) < 1e-12


# S8: batches


def test_a_velocity_is_no_batch():
    square = CellGrid((0.0, 0.0), (1.0, 1.0), (8, 8))
    with pytest.raises(InvalidArgumentError, match="Transport"):
        solve(Advection([1.0, 0.5]), square, [(Periodic(), Periodic())] * 2, 1.0, [0.1])


def test_a_fast_mate_costs_the_others_nothing():
    boundary = (Periodic(), Periodic())
    wave = torch.sin(2.0 * math.pi * GRID.points)
    alone = solve(Advection(1.0), GRID, boundary, wave, [0.1]).work
    beside = solve(Advection(torch.tensor([1.0, 100.0])), GRID, boundary, wave, [0.1]).work
    assert int(beside.steps[0]) == int(alone.steps)
