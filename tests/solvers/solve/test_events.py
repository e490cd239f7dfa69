"""Sources, coefficients and conductivities with events: found, or refused with the way out."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from solvers import (
    ESDIRK4,
    RKL2,
    SSPRK3,
    TRBDF2,
    Burgers,
    CellGrid,
    Diffusion,
    Dirichlet,
    LeastCost,
    Neumann,
    Outflow,
    Periodic,
    PorousMedium,
    ScalarLaw,
    solve,
)
from solvers.errors import InvalidArgumentError
from solvers.finite_volume.sides._side_data import SideData

GRID = CellGrid(0.0, 1.0, 30)
CLOSED = (Neumann(flux=0.0), Neumann(flux=0.0))


def heater(start, end=math.inf):
    return lambda u, _x, t: 0.0 * u + 1.0 * ((t >= start) & (t < end))


@pytest.mark.parametrize("breakpoints", [(), (0.377,)])
@pytest.mark.parametrize("stepper", [None, TRBDF2(), RKL2(), SSPRK3()])
@pytest.mark.parametrize("law", [Diffusion(1.0), PorousMedium(2.0)])
def test_a_source_sets_in_while_the_field_is_at_rest(law, stepper, breakpoints):
    """The jump is located to 1e-10 of the span."""
    result = solve(law, GRID, CLOSED, 0.0, [0.3, 1.0], source=heater(0.377), stepper=stepper, breakpoints=breakpoints)
    assert float(result.total[0]) == 0.0
    assert float(result.total[1]) == pytest.approx(0.623, abs=1e-9)
    assert float(result.imbalance.abs().max()) < 1e-14
    assert stepper == SSPRK3() or int(result.work.steps) < 200


def test_a_source_sets_in_beside_convection():
    sides = (Dirichlet(0.0), Outflow())
    result = solve(Burgers(), GRID, sides, 0.0, [1.0], source=heater(0.377))
    assert float(result.source_total) == pytest.approx(0.623, abs=1e-9)


@pytest.mark.parametrize("ramp", [(), (0.377,)])
def test_a_source_that_rises_from_a_kink(ramp):
    """u = (t − 0.377)²/2 is a parabola, which TR-BDF2 integrates exactly but for the step over the kink."""
    source = lambda u, _x, t: 0.0 * u + (t - 0.377).clamp(min=0.0)  # noqa: E731
    result = solve(Diffusion(1.0), GRID, CLOSED, 0.0, [1.0], source=source, breakpoints=ramp, stepper=TRBDF2())
    assert float(result.total) == pytest.approx(0.5 * 0.623**2, abs=1e-6)
    assert int(result.work.steps) < 200


@pytest.mark.parametrize("stepper", [TRBDF2(), ESDIRK4(), RKL2()])
def test_rates_are_evaluated_anew_at_a_break_point(stepper):
    """On both sides of the jump u is a line in time, which every step follows: none is too long.

    With the rate from before the jump, the estimated error of the next step is its length.
    """
    law = ScalarLaw(conductivity=lambda u: 1.0 + 0.0 * u, source=lambda u, t: 0.0 * u + (1.0 if t >= 0.377 else 0.0))
    result = solve(law, GRID, CLOSED, 0.0, [1.0], stepper=stepper, breakpoints=(0.377,))
    assert float(result.total) == pytest.approx(0.623, abs=1e-9)
    assert int(result.work.rejected) == 0
    assert int(result.work.steps) < 70


def test_a_smooth_heater_takes_the_same_steps_from_any_level():
    def heating(u, _x, t):
        return 0.0 * u + torch.exp(-(((t - 0.5) / 0.05) ** 2))

    runs = [solve(Diffusion(1.0), GRID, CLOSED, level, [1.0], source=heating) for level in (0.0, 0.5)]
    assert int(runs[0].work.steps) == int(runs[1].work.steps)
    np.testing.assert_allclose(runs[0].values + 0.5, runs[1].values, atol=1e-12)


@pytest.mark.parametrize("width", [0.05, 0.02, 0.005])
@pytest.mark.parametrize("start", [0.377, 0.5, 0.613])
def test_a_pulse_of_a_source_is_found(start, width):
    result = solve(Diffusion(1.0), GRID, CLOSED, GRID.points, [1.0], source=heater(start, start + width))
    assert float(result.source_total) == pytest.approx(width, rel=1e-6)


def test_a_pulse_of_a_compiled_source_is_found():
    law = ScalarLaw(conductivity=lambda u: 1.0 + 0.0 * u, source=lambda u, t: 1.0 if 0.377 <= t < 0.382 else 0.0 * u)
    assert float(solve(law, GRID, CLOSED, GRID.points, [1.0]).source_total) == pytest.approx(0.005, rel=1e-6)


def test_a_pulse_of_a_coefficient_is_found():
    """A short time of strong diffusion: the front is that of a run with break points."""
    law = Diffusion(lambda x, t: 1e-3 + 0.0 * x + 0.5 * ((t >= 0.377) & (t < 0.382)))
    given = law, GRID, (Dirichlet(1.0), Dirichlet(0.0)), 0.0, [0.5]
    found, stated = solve(*given), solve(*given, breakpoints=[0.377, 0.382])
    np.testing.assert_allclose(found.values, stated.values, atol=1e-4)
    assert float(found.total) > 2.0 * float(solve(Diffusion(1e-3), *given[1:]).total)


def test_rows_with_events_have_the_same_bits_in_any_company():
    starts = torch.tensor([0.2, 0.377, 0.9], dtype=torch.float64)

    def source(rows):
        return lambda u, _x, t: 0.0 * u + 1.0 * (t >= starts[rows, None])

    fields = GRID.points.expand(3, -1)
    together = solve(Diffusion(1.0), GRID, CLOSED, fields, [1.0], source=source([0, 1, 2]))
    for row in range(3):
        alone = solve(Diffusion(1.0), GRID, CLOSED, fields[row : row + 1], [1.0], source=source([row]))
        assert torch.equal(together.values[row], alone.values[0])


def narrow(u):
    return 0.01 + math.exp(-(((u - 0.5) / 0.002) ** 2))


def narrow_potential(u):
    return 0.01 * u + 0.001 * math.sqrt(math.pi) * math.erf((u - 0.5) / 0.002)


def test_a_narrow_peak_of_the_conductivity_needs_its_potential():
    ends = (Dirichlet(1.0), Dirichlet(0.0))
    with pytest.raises(InvalidArgumentError, match=r"between u = 0\.[45].* and 0\.5.* too fast .* as potential"):
        solve(ScalarLaw(conductivity=narrow), GRID, ends, 0.0, [0.2])
    potential = np.vectorize(narrow_potential)

    def rate(_, u):
        flux = np.empty(31)
        flux[1:-1] = -np.diff(potential(u)) * 30
        flux[0], flux[-1] = 60 * (potential(1.0) - potential(u[0])), 60 * (potential(u[-1]) - potential(0.0))
        return -np.diff(flux) * 30

    exact = solve_ivp(rate, (0.0, 0.2), np.zeros(30), "BDF", rtol=1e-8, atol=1e-10).y[:, -1]
    law = ScalarLaw(conductivity=narrow, potential=narrow_potential)
    found = solve(law, GRID, ends, 0.0, [0.2], stepper=TRBDF2(1e-5)).values[0]
    np.testing.assert_allclose(found, exact, atol=2e-3)


def test_a_failed_step_names_break_points_and_the_absolute_tolerance():
    from solvers.errors import SolverDivergedError

    def source(u, _x, t):
        return torch.where(t > 0.505, math.nan, 1.0) + 0.0 * u

    with pytest.raises(SolverDivergedError, match=r"breakpoints=; .* an absolute tolerance, atol="):
        solve(Diffusion(1.0), GRID, CLOSED, 0.0, [1.0], source=source)


def test_rows_of_different_steppers_have_walls_and_sources_in_time():
    """Rows are integrated in groups by stepper; what is known of the source is known of all rows."""
    k = torch.tensor([1e-3, 1.0, 50.0], dtype=torch.float64)
    size = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)

    def solved(k, size):
        wall = Dirichlet(lambda t: size * (1.0 + math.sin(20.0 * t))), Neumann(flux=0.0)
        source = lambda u, _x, t: 3.0 * u * (1.0 - u) * (t > 0.4)  # noqa: E731
        return solve(Diffusion(k), GRID, wall, 0.5, [0.5, 1.0], source=source, stepper=LeastCost())

    together = solved(k, size)
    assert len(together.work.steppers) == 2
    for row in range(3):
        assert torch.equal(solved(k[row], size[row]).values, together.values[row])


@pytest.mark.parametrize(
    ("law", "stepper", "asked"),
    [
        (Burgers(), SSPRK3(), lambda work: 2 * work.steps),
        (PorousMedium(2.0), TRBDF2(), lambda work: 3 * (work.steps + work.rejected)),
        (PorousMedium(2.0), RKL2(), lambda work: work.evaluations),  # a step of s stages has s + 1
    ],
)
def test_a_step_asks_for_data_once_per_stage_and_not_again_at_its_start(law, stepper, asked):
    times, span = [], (0.0, 0.2)

    def wall(t):
        times.append(t)
        return 1.0 + 0.1 * math.sin(t)

    SideData.build([(Dirichlet(wall), Outflow())], GRID, (), *span)
    examined = len(times)
    times.clear()
    last = Neumann(flux=0.0) if isinstance(law, PorousMedium) else Outflow()
    work = solve(law, GRID, (Dirichlet(wall), last), 0.5, span[1:], stepper=stepper).work
    assert len(times) - examined <= int(asked(work)) + 32  # 30 for the integral that the steps are compared with


@pytest.mark.parametrize("shape", [(30,), (6, 5)])
@pytest.mark.parametrize("stepper", [SSPRK3(largest_step=2e-3), TRBDF2(largest_step=2e-3), RKL2(largest_step=2e-3)])
def test_an_error_in_boundary_data_during_the_steps_comes_out(stepper, shape):
    left = [600]

    def constant(_):
        left[0] -= 1
        assert left[0] > 0, "the sensor is off"
        return 1.0

    grid = CellGrid((0.0,) * len(shape), (1.0,) * len(shape), shape)
    law = Burgers() if isinstance(stepper, SSPRK3) else PorousMedium(2.0)
    last = Outflow() if isinstance(stepper, SSPRK3) else Neumann(flux=0.0)
    sides = [(Dirichlet(constant), last)] + [(Periodic(), Periodic())] * (len(shape) - 1)
    with pytest.raises(AssertionError, match="the sensor is off"):
        solve(law, grid, sides if len(shape) > 1 else sides[0], 0.5, [1.0, 2.0], stepper=stepper)
