"""solve: boundary conditions, batches, user-defined laws, totals and fronts."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from solvers import (
    ESDIRK4,
    RKL2,
    SSPRK3,
    TRBDF2,
    Advection,
    Burgers,
    CellGrid,
    ConvectionDiffusion,
    ConvectiveLaw,
    Diffusion,
    DiffusiveLaw,
    Dirichlet,
    Neumann,
    Outflow,
    Periodic,
    PorousMedium,
    Robin,
    Rusanov,
    Stefan,
    solve,
)
from solvers.conditions import per_axis, value_at
from solvers.errors import InvalidArgumentError
from solvers.finite_volume.diffusion.face_means import HarmonicMean
from solvers.finite_volume.laws.laws import align
from solvers.problems import exact

GRID = CellGrid(0.0, 1.0, 20)
FIXED = TRBDF2(float("inf"), largest_step=0.01)


@dataclass(frozen=True)
class Cubic(DiffusiveLaw):
    """A user's law: k = c (1 + u²)."""

    factor: object

    def potential(self, u):
        return align(self.factor, u) * (u + u * u * u / 3.0)

    def conductivity(self, u):
        return align(self.factor, u) * (1.0 + u * u)


@dataclass(frozen=True)
class Traffic(ConvectiveLaw):
    """A user's law: f = c u (1 − u)."""

    factor: object

    def convective_flux(self, u):
        return align(self.factor, u) * u * (1.0 - u)

    def characteristic_speed(self, u):
        return align(self.factor, u) * (1.0 - 2.0 * u)


@pytest.mark.parametrize(
    ("law", "initial", "value", "batch"),
    [
        (Diffusion(1.0), 0.5, 1.0, ()),
        (Diffusion(torch.tensor([1.0, 2.0])), 0.5, 1.0, (2,)),
        (Diffusion(1.0), np.ones((3, 20)), 1.0, (3,)),
        (Diffusion(1.0), torch.ones(3, 1), 1.0, (3,)),
        (Diffusion(1.0), torch.ones(20, dtype=torch.float32), torch.ones(4), (4,)),
        (Diffusion(torch.ones(2, 1)), 0.5, torch.ones(1, 3), (2, 3)),
        (Diffusion(np.ones((2, 3))), lambda x: x * x, 1.0, (2, 3)),
        (Cubic(torch.tensor([1.0, 2.0])), 0.5, 1.0, (2,)),
    ],
)
def test_batch_shape_is_the_broadcast_of_parameters_initial_and_boundary(law, initial, value, batch):
    result = solve(law, GRID, (Dirichlet(value), Dirichlet(0.0)), initial, [0.0, 0.01])
    assert result.values.shape == (*batch, 2, 20)
    assert result.total.shape == result.inflow.shape == result.imbalance.shape == (*batch, 2)
    assert result.boundary_flux.shape == (*batch, 2, 2)
    assert result.values.dtype == torch.float64


def test_a_law_of_ones_own_works_untouched():
    """Steady state of k = 1 + u² between 1 and 0: Φ(u) = u + u³/3 falls linearly from 4/3 to 0."""
    result = solve(Cubic(torch.tensor([1.0, 3.0])), GRID, (Dirichlet(1.0), Dirichlet(0.0)), 0.0, [5.0])
    potential = result.values + result.values**3 / 3.0
    assert torch.allclose(potential, 4.0 / 3.0 * (1.0 - GRID.points).expand(2, 1, 20), atol=1e-4)
    assert torch.allclose(result.imbalance, torch.zeros(2, 1, dtype=torch.float64), atol=1e-12)
    jam = solve(Traffic(torch.tensor([1.0, 2.0])), GRID, (Dirichlet(0.3), Outflow()), 0.3, [0.5], flux=Rusanov())
    assert torch.allclose(jam.values, torch.tensor(0.3, dtype=torch.float64))


def test_two_dimensions_reproduce_one():
    """A field that does not vary along y, with zero flux through the y sides, solves the 1-D problem."""
    wall = (Neumann(flux=0.0), Neumann(flux=0.0))
    for law, last in ((PorousMedium(2.0), Dirichlet(0.1)), (Burgers(), Outflow())):
        along_x = (Dirichlet(1.0), last)
        options = {"stepper": FIXED} if isinstance(law, PorousMedium) else {}
        line = solve(law, GRID, along_x, lambda x: 1.0 - x, [0.05], **options)
        side = wall if isinstance(law, PorousMedium) else (Periodic(), Periodic())
        square = CellGrid((0.0, 0.0), (1.0, 2.0), (20, 3))
        sheet = solve(law, square, [along_x, side], (1.0 - GRID.points)[:, None], [0.05], **options)
        tolerance = 1e-6 if isinstance(law, PorousMedium) else 2e-2
        assert torch.allclose(sheet.values.mean(-1), line.values, atol=tolerance)
        assert torch.allclose(sheet.boundary_flux[:, :2], 2.0 * line.boundary_flux, atol=2 * tolerance)


def test_start_and_first_output_time():
    initial = torch.rand(20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    result = solve(Diffusion(1.0), GRID, (Periodic(), Periodic()), initial, [2.0, 2.1], start=2.0)
    assert torch.equal(result.values[0], initial)
    assert result.boundary_flux[0].tolist() == [0.0, 0.0]
    moved = solve(Diffusion(1.0), GRID, (Periodic(), Periodic()), initial, [0.1])
    assert torch.allclose(result.values[1], moved.values[0], atol=1e-12)


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.7])
def test_stefan_front_and_total(threshold):
    """Front within 1.5 cells, total within its truncation error: one cell's u* h, by a wide margin."""
    times = torch.linspace(0.01, 0.1, 10, dtype=torch.float64)
    grid = CellGrid(0.0, 1.0, 100)
    result = solve(Stefan(threshold), grid, (Dirichlet(1.0), Dirichlet(0.0)), 0.0, times)
    cells_behind = (result.values > 0.5 * threshold).sum(-1)
    front = exact.stefan_front(times, threshold) * 100
    assert ((cells_behind - front).abs() <= 1.5).all()
    assert torch.allclose(result.total, exact.stefan_total(times, threshold), atol=0.1 * threshold / 100)


@pytest.mark.parametrize("exponent", [1.0, 3.0, 6.0])
def test_porous_medium_front_total_and_flux(exponent):
    times = torch.tensor([0.25, 0.5, 0.9], dtype=torch.float64)
    grid = CellGrid(0.0, 1.0, 100)
    boundary = (Dirichlet(lambda t: exact.porous_medium_inflow(t, exponent)), Dirichlet(0.0))
    result = solve(PorousMedium(exponent), grid, boundary, 0.0, times)
    level = 0.05 * exact.porous_medium_inflow(times, exponent)
    position = times - level**exponent / exponent
    assert (((result.values > level[:, None]).sum(-1) - 100 * position).abs() <= 1.5).all()
    truncation = 3e-4  # second order: a few h²
    assert torch.allclose(result.total, exact.porous_medium_total(times, exponent), rtol=0, atol=truncation)
    assert torch.allclose(result.boundary_flux[:, 0], result.total, rtol=1e-12)
    assert float(result.boundary_flux[:, 1].abs().max()) == 0.0


def test_shock_and_contact_lie_within_a_cell_and_a_half():
    grid = CellGrid(-1.0, 1.0, 100)
    shock = solve(Burgers(), grid, (Dirichlet(3.0), Outflow()), lambda x: (-3.0 * x).clip(0.0, 3.0), [0.5, 0.6])
    behind = (shock.values > 1.5).sum(-1) * grid.spacing[0] - 1.0
    assert (behind - exact.burgers_front(torch.tensor([0.5, 0.6]), 3.0)).abs().max() <= 1.5 * grid.spacing[0]
    unit = CellGrid(0.0, 1.0, 100)
    step = solve(Advection(1.0), unit, (Dirichlet(1.0), Outflow()), lambda x: (x < 0.5) + 0.0 * x, [0.2])
    assert abs(int((step.values > 0.5).sum()) - 70) <= 1.5


def test_progress_bar_goes_to_standard_error(capsys):
    solve(Diffusion(1.0), GRID, (Dirichlet(1.0), Dirichlet(0.0)), 0.0, [0.1], progress=True)
    captured = capsys.readouterr()
    assert "solving" in captured.err
    assert captured.out == ""


def test_harmonic_mean_locks_the_front_of_a_law_with_a_threshold():
    """A cell that does not conduct lets nothing in, so from u = 0 nothing ever enters past the first cell."""
    result = solve(Stefan(0.5), GRID, (Dirichlet(1.0), Dirichlet(0.0)), 0.0, [0.02], face_mean=HarmonicMean())
    assert (result.values[..., 1:] == 0.0).all()


def test_per_axis_accepts_a_pair_or_one_pair_per_axis():
    pair = (Dirichlet(0.0), Neumann(0.0))
    assert per_axis(pair, 1) == per_axis([pair], 1) == (pair,)
    assert per_axis([pair, (Periodic(), Periodic())], 2) == (pair, (Periodic(), Periodic()))
    assert per_axis([pair, Periodic()], 2) == (pair, (Periodic(), Periodic()))
    assert per_axis([Periodic()], 1) == ((Periodic(), Periodic()),)


def test_robin_takes_numbers_of_numpy_too():
    assert Robin(np.float32(1.0), np.int64(2)).b == 2


def test_robin_takes_one_number_per_batch_entry():
    assert np.shape(Robin(torch.ones(3), np.array([1.0, 2.0, -1.0])).a) == (3,)


def test_values_may_be_numbers_arrays_or_functions_of_time():
    assert value_at(2.0, 0.0).item() == 2.0
    assert value_at(np.array([1.0, 2.0]), 0.0).tolist() == [1.0, 2.0]
    assert value_at(lambda t: torch.tensor([t, 2 * t]), 1.5).tolist() == [1.5, 3.0]
    assert value_at(torch.tensor(1.0), 0.0).dtype == torch.float64


def test_invalid_arguments_raise_with_reason():
    with pytest.raises(InvalidArgumentError, match="gradient or a flux, not both"):
        Neumann(gradient=0.0, flux=0.0)
    with pytest.raises(InvalidArgumentError, match="use Dirichlet for b = 0"):
        Robin(1.0, 0.0)
    with pytest.raises(InvalidArgumentError, match="periodic on one side only"):
        per_axis((Periodic(), Dirichlet(0.0)), 1)
    with pytest.raises(InvalidArgumentError, match=r"axis 0 must be a \(first, last\) pair of .*, got Dirichlet"):
        per_axis([Dirichlet(0.0)], 1)
    with pytest.raises(InvalidArgumentError, match="pair for each of 2 axes"):
        per_axis([(Dirichlet(0.0), Dirichlet(0.0))], 2)
    with pytest.raises(InvalidArgumentError, match="axis 0 must be a"):
        per_axis((Dirichlet(0.0), 1.0), 1)
    with pytest.raises(InvalidArgumentError, match=r"axis 0 must be a \(first, last\) pair .* got Dirichlet"):
        per_axis((Dirichlet(0.0), Dirichlet(0.0)), 2)
    with pytest.raises(InvalidArgumentError, match=r"must be a \(first, last\) pair .* got Dirichlet\(value=0.0\)"):
        per_axis(Dirichlet(0.0), 1)
    with pytest.raises(InvalidArgumentError, match=r"one such pair per axis, got \(\)"):
        per_axis((), 1)
    with pytest.raises(InvalidArgumentError, match="only the value may be a function of time"):
        per_axis((Robin(lambda time: time, 1.0, 0.0), Dirichlet(0.0)), 1)
    with pytest.raises(InvalidArgumentError, match=r"Robin takes numbers .* b=\[1.0, 2.0\]"):
        Robin(1.0, [1.0, 2.0])
    with pytest.raises(InvalidArgumentError, match="Robin needs finite a and b with b ≠ 0"):
        Robin(1.0, torch.tensor([1.0, 0.0]))
    with pytest.raises(InvalidArgumentError, match="Robin needs finite a and b"):
        Robin(np.array([1.0, np.nan]), 1.0)
    with pytest.raises(InvalidArgumentError, match="requires a gradient"):
        value_at(torch.ones(2, requires_grad=True), 0.0)
    with pytest.raises(InvalidArgumentError, match="must be a number, an array or a tensor"):
        value_at(lambda _: "warm", 0.0)
    with pytest.raises(InvalidArgumentError, match="not finite at time 2"):
        value_at(lambda t: t * float("nan"), 2.0)
    with pytest.raises(InvalidArgumentError, match="is missing"):
        value_at(None, 0.0)


@pytest.mark.parametrize("stepper", [None, TRBDF2(1e-3), RKL2(1e-3)])
def test_the_estimated_error_is_the_error_made(stepper):
    """Against a run at 1e-9 on the same cells; nothing is estimated unless that is asked."""
    rates = torch.tensor([0.5, 1.0], dtype=torch.float64)
    given = Diffusion(rates), CellGrid(0.0, 1.0, 40), (Dirichlet(1.0), Dirichlet(0.0)), 0.0, [0.02, 0.1]
    exact = solve(*given, stepper=ESDIRK4(1e-9)).values
    result = solve(*given, stepper=stepper, estimate_error=True)
    ratio = result.error_estimate / (result.values - exact).abs().amax(-1)
    assert result.error_estimate.shape == (2, 2)
    assert bool(((ratio > 0.4) & (ratio < 2.5)).all())
    assert solve(*given, stepper=stepper).error_estimate is None


@pytest.mark.parametrize("stepper", [ESDIRK4(1e-3), RKL2(1.0, largest_step=5e-3), SSPRK3()])
def test_the_error_is_estimated_where_data_limit_the_steps(stepper):
    """Steps that see sin 30 t hardly follow the tolerance: the second run halves that limit, and a given one."""
    ends = Dirichlet(lambda t: torch.sin(torch.as_tensor(30.0 * t))), Neumann(flux=0.0)
    given = Diffusion(0.02), CellGrid(0.0, 1.0, 30), ends, 0.0, [0.3, 1.0]
    exact = solve(*given, stepper=ESDIRK4(1e-10, largest_step=1e-3)).values
    result = solve(*given, stepper=stepper, estimate_error=True)
    ratio = result.error_estimate / (result.values - exact).abs().amax(-1)
    assert bool(((ratio > 0.4) & (ratio < 2.5)).all()), ratio


def test_the_error_is_estimated_where_signals_limit_implicit_steps():
    """Convection is explicit in implicit steps, half a cell a step at most."""
    law = ConvectionDiffusion(Advection(5.0), Diffusion(0.1))
    grid = CellGrid(0.0, 1.0, 40)
    given = law, grid, (Periodic(), Periodic()), torch.sin(2 * torch.pi * grid.points), [0.1]
    exact = solve(*given, stepper=SSPRK3(0.02)).values
    result = solve(*given, stepper=TRBDF2(1e-2), estimate_error=True)
    ratio = float(result.error_estimate / (result.values - exact).abs().max())
    assert 0.4 < ratio < 2.5


@pytest.mark.long
def test_the_final_error_falls_as_the_square_of_the_steps_also_in_a_front():
    """As docs/speed.md says of TRBDF2: tolerance^(2/3), and the estimate knows the front's few cells."""
    grid, walls = CellGrid(0.0, 1.0, 400), (Neumann(flux=0.0), Neumann(flux=0.0))
    given = Diffusion(1e-3), grid, walls, 1.0 * (grid.points < 0.1), [0.3]
    source = lambda u, *_: 1e3 * u * (1.0 - u) * (u - 0.3)  # noqa: E731
    exact = solve(*given, source=source, stepper=ESDIRK4(1e-9)).values
    errors = []
    for tolerance in (1e-4, 1e-5, 1e-6, 1e-7):
        result = solve(*given, source=source, stepper=TRBDF2(tolerance), estimate_error=True)
        errors.append(float((result.values - exact).abs().max()))
        assert errors[-1] < 2.0 * float(result.error_estimate)
    slopes = np.diff(np.log10(errors))
    assert errors[0] > 50 * 1e-4
    assert ((slopes > -0.9) & (slopes < -0.5)).all(), errors


def test_a_solution_prints_one_line():
    solution = solve(Diffusion(1.0), GRID, [Periodic()], torch.zeros(3, GRID.shape[0]), [0.1, 0.2])
    assert repr(solution) == f"Solution(values (3, 2, {GRID.shape[0]}) at 2 times from 0.1 to 0.2 on {GRID})"
