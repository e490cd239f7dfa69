"""Random set-ups: balance, range, independent rows, scaling, break points, outputs within steps, error in time."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from solvers import (
    RKL2,
    SSPRK3,
    TRBDF2,
    Advection,
    ArithmeticMean,
    Burgers,
    CellGrid,
    ConvectiveLaw,
    Diffusion,
    DiffusiveLaw,
    Dirichlet,
    IntegralMean,
    Neumann,
    PorousMedium,
    Stefan,
    solve,
)
from tests.solvers.solve.random_setups import closer, draw

EPSILON = float(np.finfo(np.float64).eps)
BALANCE = 1e-12
ROUND_OFF = 1e4 * EPSILON
"""Of max |u|, accumulated over the steps of a run in which the solver allows 100 ε in each."""


def space(field, grid):
    return tuple(range(field.ndim - grid.dimension, field.ndim))


def ends(field, grid):
    """Smallest and largest value over the cells."""
    return field.amin(space(field, grid)), field.amax(space(field, grid))


def imbalance(setup, solution):
    """max |imbalance| over the largest total that is possible plus what crossed the sides."""
    u, volume = solution.values, float(setup.grid.weights.sum())
    size = torch.maximum(u.abs().max(), setup.initial.abs().max())
    flows = solution.boundary_flux.abs().max() + solution.source_total.abs().max()
    return float(solution.imbalance.abs().max()), float(BALANCE * (volume * size + flows))


def overshoot(setup, solution):
    """Largest excess over the bounds of the maximum principle, and what is allowed, ``(*batch, t)``."""
    low, high = (torch.as_tensor(bound)[..., None] for bound in setup.bounds)
    smallest, largest = ends(solution.values, setup.grid)
    tolerance = max(stepper.tolerance for stepper in solution.work.steppers)
    allowed = tolerance * (high - low) + ROUND_OFF * torch.maximum(low.abs(), high.abs())
    return torch.maximum(largest - high, low - smallest), allowed


def relative_distance(setup, solution, reference):
    """Largest mean |difference| over ten tolerances of the present spread of cells and data; up to 1 is asked for.

    The steps of SSPRK3 follow from its Courant number, so that 10⁻³ stands for a tolerance there.
    """
    low, high = ends(reference.values, setup.grid)
    low = torch.minimum(low, torch.as_tensor(setup.data[0])[..., None])
    high = torch.maximum(high, torch.as_tensor(setup.data[1])[..., None])
    distance = (solution.values - reference.values).abs().mean(space(reference.values, setup.grid))
    stepper = solution.work.steppers[0]
    tolerance = max(stepper.tolerance, 1e-3) if isinstance(stepper, SSPRK3) else stepper.tolerance
    allowed = 10.0 * tolerance * (high - low) + ROUND_OFF * torch.maximum(low.abs(), high.abs())
    return float((distance / allowed.clamp(min=1e-300)).max())


@pytest.mark.long
@settings(deadline=None, max_examples=30)
@given(st.integers(0, 9999))
def test_totals_balance_and_solutions_keep_to_the_range_of_the_data(seed):
    setup = draw(seed)
    solution = setup.run()
    assert torch.isfinite(solution.values).all(), setup.label
    wrong, allowed = imbalance(setup, solution)
    assert wrong <= allowed, setup.label
    if setup.bounds is not None:
        excess, allowed = overshoot(setup, solution)
        assert (excess <= allowed).all(), setup.label


@pytest.mark.long
@settings(deadline=None, max_examples=12)
@given(st.integers(0, 9999))
@example(163)  # data of one row jump while those of another have a series
def test_a_row_is_the_same_alone_and_in_a_batch(seed):
    """To the last bit, whatever the other rows are."""
    setup = draw(seed)
    together = setup.run()
    for row in range(3 if setup.initial.ndim > setup.grid.dimension and len(setup.initial) == 3 else 0):
        alone = draw(seed, row).run()
        for name in ("values", "boundary_flux", "source_total"):
            assert torch.equal(getattr(alone, name)[0], getattr(together, name)[row]), setup.label


def exceptions(seeds):
    """Set-ups that are too far from a run at a hundredth of the tolerance, with the stepper that the solver chooses."""
    result = []
    for seed in seeds:
        setup = draw(seed)
        setup = replace(setup, options={name: value for name, value in setup.options.items() if name != "stepper"})
        solution = setup.run()
        ratio = relative_distance(setup, solution, closer(setup, solution.work.steppers[0]).run())
        if not ratio <= 1.0:
            steps = f"{type(solution.work.steppers[0]).__name__}, {int(solution.work.steps.max())} steps"
            result.append(f"{ratio:.1f} times what is asked for: {steps}, {setup.label}")
    return result


@pytest.mark.slow
def test_errors_are_at_most_ten_tolerances():
    """In 95 % of 200 set-ups.

    There are three kinds of exceptions. In a closed domain a solution may decay to 10⁻² of its initial spread and less:
    the error of every step is relative to the present spread, and those of a hundred steps add up. SSPRK3 may take
    fewer than ten steps on a few cells. And a Robin condition fills an empty porous medium only after a delay that
    depends on the smallest states, so that errors of steps move it.
    """
    missed = exceptions(range(200))
    assert len(missed) <= 10, "\n".join(missed)


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


STEPPERS = [
    (name, stepper)
    for name, law in LAWS.items()
    for stepper in (None, TRBDF2(), RKL2(), SSPRK3())
    if stepper is None or stepper.suits(isinstance(law, ConvectiveLaw), isinstance(law, DiffusiveLaw))
]


@pytest.mark.parametrize(("name", "stepper"), STEPPERS)
def test_outputs_within_steps_agree_with_runs_that_end_there(name, stepper):
    """Within the tolerance, and the totals balance there too."""
    law = LAWS[name]
    options = {} if stepper is None else {"stepper": stepper}
    sides = Dirichlet(lambda t: 0.5 * (1.0 + np.sin(9.0 * t))), Dirichlet(0.1)
    times = [0.013, 0.05, 0.12, 0.2]
    within = solve(law, GRID, sides, STEP, times, **options)
    assert within.imbalance.abs().max() <= 1e-14
    for k, time in enumerate(times):
        landed = solve(law, GRID, sides, STEP, [time], **options)
        error = (within.values[k] - landed.values[0]).abs().mean()
        assert error <= 10.0 * TRBDF2().tolerance, time


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
