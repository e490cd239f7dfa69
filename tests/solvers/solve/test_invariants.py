"""What a solution keeps: range and total of the data, scale, a constant; at break points and outputs within steps."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import (
    RKL2,
    SSPRK3,
    TRBDF2,
    Advection,
    Burgers,
    CellGrid,
    Diffusion,
    Dirichlet,
    Neumann,
    PorousMedium,
    Stefan,
    solve,
)
from solvers.finite_volume.diffusion.face_means import ArithmeticMean, IntegralMean

EPSILON = float(np.finfo(np.float64).eps)
ROUND_OFF = 1e4 * EPSILON
"""Of max |u|, accumulated over the steps of a run in which the solver allows 100 ε in each."""


STEP = torch.tensor([0.0, 1.0, 1.0, 0.3, 0.2, 0.7, 0.9, 0.1, 0.0, 0.4, 0.6, 0.6], dtype=torch.float64)
GRID = CellGrid(0.0, 1.0, 12)
LAWS = {
    "diffusion": Diffusion(0.3),
    "Stefan": Stefan(0.4),
    "porous medium": PorousMedium(2.0),
    "advection": Advection(-0.7),
    "Burgers": Burgers(),
}
PACE = {"porous medium": 2.0, "Burgers": 1.0}
"""The law acts faster by cᵖ on states c times as large; p = 0 for the others."""


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(sorted(LAWS)), st.integers(0, 1000))
def test_solutions_keep_to_the_range_of_the_data(name, seed):
    """Up to the tolerance; and the total balances."""
    random = np.random.default_rng(seed)
    first, last, rate = random.random(3)
    sides = Dirichlet(lambda t: first * (1.0 + np.sin(40.0 * rate * t)) / 2.0), Dirichlet(last)
    initial = random.random((2, 12)) if seed % 2 else (GRID.points.numpy() < first) * random.random((2, 1))
    solution = solve(LAWS[name], GRID, sides, initial, [0.05, 0.2])
    low, high = min(initial.min(), 0.0, last), max(initial.max(), first, last)
    tolerance = max(stepper.tolerance for stepper in solution.work.steppers)
    assert solution.values.min() >= low - tolerance * (high - low)
    assert solution.values.max() <= high + tolerance * (high - low)
    assert solution.imbalance.abs().max() <= 1e-12


@pytest.mark.parametrize("factor", [2.0**-27, 2.0**27, 1e-8, 1e8])
@pytest.mark.parametrize("name", LAWS)
def test_a_factor_changes_nothing(name, factor):
    """u → c u with time in proportion; a power of two changes no rounding except in powers."""

    def run(c):
        law, pace = Stefan(0.4 * c) if name == "Stefan" else LAWS[name], c ** PACE.get(name, 0.0)
        sides = Dirichlet(0.8 * c), Dirichlet(lambda t: c * 0.5 * (1.0 + np.sin(9.0 * t * pace)))
        return solve(law, GRID, sides, c * STEP, [0.05 / pace, 0.2 / pace]).values / c

    assert torch.allclose(run(factor), run(1.0), rtol=0.0, atol=1e-11)


@pytest.mark.parametrize("constant", [-1e3, 1.0, 1e6])
@pytest.mark.parametrize("name", ["diffusion", "Stefan", "advection"])
def test_a_constant_changes_nothing(name, constant):
    def run(c):
        law = Stefan(0.4 + c) if name == "Stefan" else LAWS[name]
        sides = Dirichlet(0.8 + c), Dirichlet(lambda t: c + 0.5 * (1.0 + np.sin(9.0 * t)))
        return solve(law, GRID, sides, c + STEP, [0.05, 0.2]).values - c

    assert torch.allclose(run(constant), run(0.0), rtol=0.0, atol=ROUND_OFF * (1.0 + abs(constant)))


@pytest.mark.parametrize("law", [Diffusion(0.3), PorousMedium(1.0), Burgers()])
def test_steps_end_at_break_points(law):
    """A datum that jumps at a break point gives what two runs give, one with each value."""
    first, last = Dirichlet(lambda t: 0.2 if t < 0.07 else 0.9), Dirichlet(0.1)
    stepper = SSPRK3(courant=0.02) if isinstance(law, Burgers) else TRBDF2(tolerance=1e-6)
    whole = solve(law, GRID, (first, last), STEP, [0.07, 0.2], breakpoints=[0.07], stepper=stepper)
    before = solve(law, GRID, (Dirichlet(0.2), last), STEP, [0.07], stepper=stepper)
    after = solve(law, GRID, (Dirichlet(0.9), last), before.values[-1], [0.2], start=0.07, stepper=stepper)
    assert torch.allclose(whole.values[0], before.values[0], rtol=0.0, atol=3e-5)
    assert torch.allclose(whole.values[1], after.values[0], rtol=0.0, atol=3e-5)


def test_a_given_flux_that_jumps_at_a_break_point_is_integrated_exactly():
    sides = Neumann(flux=lambda t: 2.0 if 0.03 <= t < 0.05 else 0.0), Neumann(flux=0.0)
    solution = solve(Diffusion(1.0), GRID, sides, 0.0, [0.02, 0.03, 0.05, 1.0], breakpoints=[0.03, 0.05])
    assert solution.total.numpy() == pytest.approx([0.0, 0.0, 0.04, 0.04], abs=1e-14)


@pytest.mark.parametrize("stepper", [TRBDF2(), RKL2(), SSPRK3()])
@pytest.mark.parametrize("law", [PorousMedium(1.0), PorousMedium(3.0), Stefan(0.5)])
def test_outputs_within_steps_keep_to_the_range_of_the_data(law, stepper):
    """At fronts on many cells too, where a parabola through the states of a step is far out; totals still balance."""
    grid = CellGrid(0.0, 1.0, 300)
    times = (5e-4 * np.arange(1, 9)).tolist()
    solution = solve(law, grid, (Dirichlet(1.0), Dirichlet(0.0)), 0.0, times, stepper=stepper)
    assert solution.values.min() >= -stepper.tolerance
    assert solution.values.max() <= 1.0 + stepper.tolerance
    assert solution.imbalance.abs().max() <= 1e-14


@pytest.mark.parametrize("mean", [IntegralMean(), ArithmeticMean()])
def test_stages_of_stabilised_steps_do_not_move_the_total(mean):
    """Rounding is that of the deviations from the start of a step: a constant stays, far from 0 the total balances."""
    walls = Neumann(flux=0.0), Neumann(flux=0.0)
    options = {"stepper": RKL2(largest_step=2e-4), "face_mean": mean}
    rest = solve(Diffusion(1.0), CellGrid(0.0, 1.0, 100), walls, 1.0 / 3.0, [0.02], **options)
    assert (rest.values == 1.0 / 3.0).all()
    far = solve(Diffusion(1.0), CellGrid(0.0, 1.0, 100), walls, lambda x: 100.0 + (x < 0.3).double(), [0.02], **options)
    assert far.imbalance.abs().max() <= 20.0 * EPSILON * 100.0
