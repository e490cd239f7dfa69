"""Time steppers: orders in time, step control, and the error where no step succeeds."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from solvers import (
    ESDIRK4,
    RKL2,
    SSPRK3,
    TRBDF2,
    Burgers,
    CellGrid,
    ConvectionDiffusion,
    ConvectiveLaw,
    Diffusion,
    DiffusiveLaw,
    Dirichlet,
    LeastCost,
    Logistic,
    Neumann,
    Outflow,
    Periodic,
    PorousMedium,
    Rusanov,
    ScalarLaw,
    Source,
    Stefan,
    align,
    solve,
)
from solvers.errors import SolverDivergedError
from solvers.finite_volume.convection.schemes import Constant
from solvers.finite_volume.march import lines
from solvers.finite_volume.march.control import avoid_tiny_last_step

GRID = CellGrid(0.0, 1.0, 20)
PERIODIC = (Periodic(), Periodic())
ENDS = (Dirichlet(1.0), Dirichlet(0.0))
EVERY = [TRBDF2, ESDIRK4, RKL2, SSPRK3]


def bump(points):
    return 1.0 + 0.5 * torch.sin(2.0 * math.pi * points)


class Cubic(DiffusiveLaw):
    """k = 1 + u², a law without kernel."""

    def potential(self, u):
        return u + u * u * u / 3.0

    def conductivity(self, u):
        return 1.0 + u * u


class Imprecise(ConvectiveLaw):
    """Burgers whose flux is not a number beyond u = 2, which the initial data do not reach."""

    def convective_flux(self, u):
        return torch.where(u > 2.0, math.nan, 0.5 * u * u)

    def characteristic_speed(self, u):
        return u

    def stationary_points(self):
        return (0.0,)


class Failing(DiffusiveLaw):
    """Diffusion that is not a number beyond u = 2, which the initial data do not reach."""

    def potential(self, u):
        return torch.where(u > 2.0, math.nan, u)

    def conductivity(self, u):
        return torch.where(u > 2.0, math.nan, 1.0 + 0.0 * u)


@pytest.mark.parametrize(("stepper", "order"), [(TRBDF2, 2), (ESDIRK4, 4), (RKL2, 2)])
@pytest.mark.parametrize("law", [PorousMedium(2.0), Cubic()])
def test_orders_in_time(monkeypatch, stepper, order, law):
    """On 20 periodic cells; differences to the next finer step fall as Δt^order."""
    monkeypatch.setattr(lines, "NEWTON_TOLERANCE", 1e-9)
    values = []
    for steps in (10, 20, 40, 80, 160):
        method = stepper(math.inf, largest_step=0.02 / steps)
        values.append(solve(law, GRID, PERIODIC, bump, [0.02], stepper=method).values)
    changes = torch.tensor([float((a - b).abs().max()) for a, b in pairwise(values)])
    assert float(-changes.log2().diff()[-1]) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize(("stepper", "order"), [(TRBDF2, 2), (ESDIRK4, 4), (SSPRK3, 3)])
def test_orders_in_time_with_convection_and_a_source(monkeypatch, stepper, order):
    """Viscous Burgers with logistic growth, first-order upwinding: the additive schemes keep their order."""
    monkeypatch.setattr(lines, "NEWTON_TOLERANCE", 1e-9)
    law, values = ConvectionDiffusion(Burgers(), Diffusion(0.05)), []
    for steps in (40, 80, 160, 320):
        method = SSPRK3(1.0, math.inf, largest_step=0.2 / steps)
        if stepper is not SSPRK3:
            method = stepper(math.inf, largest_step=0.2 / steps)
        given = {"source": Logistic(3.0), "reconstruction": Constant(), "stepper": method}
        values.append(solve(law, GRID, PERIODIC, bump, [0.2], **given).values)
    changes = torch.tensor([float((a - b).abs().max()) for a, b in pairwise(values)])
    assert float(-changes.log2().diff()[-1]) == pytest.approx(order, abs=0.2)


def test_failed_newton_iteration_halves_the_step(monkeypatch):
    """Two iterations are too few for large steps, so steps shrink until they are enough; the result stays right."""
    usual = solve(PorousMedium(2.0), GRID, PERIODIC, bump, [0.02])
    monkeypatch.setattr(lines, "NEWTON_TOLERANCE", 1e-8)
    monkeypatch.setattr(lines, "NEWTON_ITERATIONS", 2)
    result = solve(PorousMedium(2.0), GRID, PERIODIC, bump, [0.02], stepper=TRBDF2(1e-3))
    assert torch.allclose(result.values, usual.values, atol=1e-3)
    assert int(result.work.rejected) > 0


@pytest.mark.long
@pytest.mark.parametrize("cells", [1, 2, 3, 16])
@pytest.mark.parametrize("stepper", EVERY)
def test_smaller_tolerance_gives_smaller_error(stepper, cells):
    """Against the exponential of the matrix of second differences, which is exact in time."""
    grid = CellGrid(0.0, 1.0, cells)
    eye = np.eye(cells)
    matrix = (np.roll(eye, 1, 0) - 2.0 * eye + np.roll(eye, -1, 0)) / grid.spacing[0] ** 2
    initial = np.random.default_rng(0).random(cells)
    exact = torch.from_numpy(expm(0.02 * matrix) @ initial)
    errors, scale = [], {SSPRK3: 100.0, ESDIRK4: 0.01}.get(stepper, 1.0)
    for tolerance in (1e-2, 1e-3, 1e-4, 1e-5):
        method = stepper(scale * tolerance)
        values = solve(Diffusion(1.0), grid, PERIODIC, initial, [0.02], stepper=method).values[0]
        errors.append(float((values - exact).abs().max()))
    assert errors[-1] < 1e-3
    assert cells < 16 or all(fine < coarse for coarse, fine in pairwise(errors))


@pytest.mark.parametrize("tolerance", [1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("stepper", [TRBDF2, RKL2])
def test_the_error_is_about_the_tolerance(stepper, tolerance):
    """Porous medium between walls: mean error against a run at 1e-7, relative to the spread 1, within 10 tolerances."""
    runs = [solve(PorousMedium(2.0), GRID, ENDS, bump, [0.1], stepper=stepper(each)) for each in (tolerance, 1e-7)]
    assert float((runs[0].values - runs[1].values).abs().mean()) < 10.0 * tolerance


@pytest.mark.parametrize("law", [Stefan(0.4), PorousMedium(2.0), Cubic()])
def test_steppers_agree(law):
    grid = CellGrid(0.0, 1.0, 25)
    boundary = (Dirichlet(1.0), Neumann(gradient=0.0))
    explicit = solve(law, grid, boundary, 0.0, [0.02], stepper=SSPRK3())
    for stepper in (TRBDF2(1e-6), RKL2(1e-6)):
        other = solve(law, grid, boundary, 0.0, [0.02], stepper=stepper)
        assert torch.allclose(explicit.values, other.values, atol=2e-3)


@pytest.mark.parametrize("stepper", EVERY)
@pytest.mark.parametrize("law", [PorousMedium(3.0), Stefan(0.6)])
def test_degenerate_fronts_stay_within_the_data(law, stepper):
    """The maximum principle, to the tolerance: nothing below 0 ahead of the front, nothing above the boundary value."""
    result = solve(law, CellGrid(0.0, 1.0, 50), ENDS, 0.0, [0.01, 0.1], stepper=stepper())
    assert float(result.values.min()) >= -1e-3
    assert float(result.values.max()) <= 1.0 + 1e-3


def test_no_tiny_step_is_left_before_the_end():
    almost = 0.3 * (1 + 1e-12)
    land = avoid_tiny_last_step.py_func
    assert [land(0.3, almost), land(0.3, 0.4), land(0.1, 0.4)] == [almost, 0.2, 0.1]


@pytest.mark.parametrize("stepper", EVERY)
def test_outputs_cost_no_steps_and_have_the_order_of_the_stepper(stepper):
    """Values between steps differ from those of a run of a hundredth of the tolerance by about the tolerance."""
    times = np.linspace(0.002, 0.1, 50)
    given = PorousMedium(2.0), GRID, (Dirichlet(lambda t: 1.0 + t), Dirichlet(0.0)), bump
    options = {"stepper": stepper(0.4)} if stepper is SSPRK3 else {"stepper": stepper(1e-3)}
    dense, single = solve(*given, times, **options), solve(*given, [0.1], **options)
    assert int(dense.work.steps) == int(single.work.steps)
    assert int(dense.work.evaluations) == int(single.work.evaluations)
    assert torch.equal(dense.values[-1], single.values[-1])
    assert float(dense.imbalance.abs().max()) < 1e-14
    reference = solve(*given, times, stepper=TRBDF2(1e-6, largest_step=0.001))
    assert float((dense.values - reference.values).abs().mean(-1).max()) < 5e-3


def test_outputs_within_steps_keep_most_of_the_order():
    """Outputs at odd places of the steps; differences between steps Δt and Δt/2 fall as Δt², as Δt³ with a cubic."""
    times = 0.02 * np.array([0.13, 0.37, 0.61, 0.89])
    for stepper, least in ((TRBDF2, 1.7), (RKL2, 1.7), (SSPRK3, 1.7), (ESDIRK4, 3.0)):
        values = []
        for steps in (10, 20, 40, 80, 160):
            explicit, largest = stepper is SSPRK3, 0.02 / steps
            method = SSPRK3(1.0, largest_step=largest) if explicit else stepper(math.inf, largest_step=largest)
            law, options = (Burgers(), {"reconstruction": Constant()}) if explicit else (Diffusion(1.0), {})
            values.append(solve(law, GRID, PERIODIC, bump, times, stepper=method, **options).values)
        changes = torch.tensor([float((a - b).abs().max()) for a, b in pairwise(values)])
        assert float(-changes.log2().diff().mean()) > least, stepper


def test_the_fourth_order_needs_fewer_steps_for_a_smaller_error():
    """As its documentation says, at a tolerance of 1e-6; linear and nonlinear, with a jump at the start and without."""
    sides = (Neumann(gradient=0.0), Dirichlet(0.0))
    for law, initial in ((Diffusion(1.0), bump), (Cubic(), bump), (Cubic(), 1.0)):
        exact = solve(law, GRID, sides, initial, [0.1], stepper=ESDIRK4(1e-10)).values
        runs = [solve(law, GRID, sides, initial, [0.1], stepper=method(1e-6)) for method in (TRBDF2, ESDIRK4)]
        errors = [float((run.values - exact).abs().mean()) for run in runs]
        assert errors[1] < 0.25 * errors[0]
        assert int(runs[1].work.steps) < 0.5 * int(runs[0].work.steps)


@pytest.mark.parametrize("stepper", EVERY)
def test_error_names_row_time_step_and_residual(stepper):
    boundary = (Dirichlet(lambda t: np.array([0.5, 0.5 + 200.0 * t])), Dirichlet(0.5))
    with pytest.raises(SolverDivergedError, match=r"row 1 failed at time 0\.00.* with length .*residual"):
        solve(Failing(), CellGrid(0.0, 1.0, 5), boundary, 0.5, [0.05], stepper=stepper())


def test_states_that_are_not_finite_are_never_returned():
    boundary = (Dirichlet(lambda t: 0.5 + 20.0 * t), Outflow())
    with pytest.raises(SolverDivergedError, match=r"row 0 failed at time 0\.0"):
        solve(Imprecise(), CellGrid(0.0, 1.0, 5), boundary, 0.5, [1.0], flux=Rusanov())


def test_the_stepper_of_the_lowest_estimate_is_taken_row_by_row():
    """Few explicit stages where diffusion is weak, implicit steps where it is strong; the report says so."""
    factor = torch.tensor([1e-3, 1e3])
    work = solve(Diffusion(factor), CellGrid(0.0, 1.0, 200), ENDS, 0.0, [1.0], stepper=LeastCost()).work
    names = [type(work.steppers[k]).__name__ for k in work.choice]
    assert names == ["RKL2", "TRBDF2"]
    assert set(work.estimates) == {"RKL2", "TRBDF2"}
    assert [min(work.estimates, key=lambda name: float(work.estimates[name][row])) for row in range(2)] == names
    assert solve(Diffusion(1.0), GRID, ENDS, 0.0, [0.1], stepper=RKL2()).work.estimates == {}


def test_strong_diffusion_beside_convection_is_implicit():
    law = ConvectionDiffusion(Burgers(), Diffusion(torch.tensor([1e-4, 0.1])))
    work = solve(law, CellGrid(0.0, 1.0, 64), (Dirichlet(1.0), Dirichlet(0.0)), 0.5, [0.3]).work
    assert [type(work.steppers[k]).__name__ for k in work.choice] == ["SSPRK3", "TRBDF2"]


@pytest.mark.parametrize("stepper", [None, SSPRK3(), RKL2()])
def test_a_solution_that_becomes_infinite_in_finite_time_is_an_error_with_the_time(stepper):
    """u' = u² from 1 is 1/(1 − t)."""
    arguments = (Diffusion(1.0), CellGrid(0.0, 1.0, 4), (Neumann(0.0),) * 2, 1.0)
    source = {"source": lambda u, *_: u * u, "stepper": stepper}
    before = solve(*arguments, [0.9], **source)
    assert before.values == pytest.approx(torch.full((1, 4), 10.0).numpy(), rel=1e-3)
    with pytest.raises(SolverDivergedError, match=r"cannot be continued past time (0\.9999|1\b|1\.0000)"):
        solve(*arguments, [2.0], **source)


@pytest.mark.parametrize("stepper", [None, RKL2(), TRBDF2()])
def test_a_pulse_that_fills_a_field_of_zeros_is_no_blow_up(stepper):
    """A Gaussian flux of 1e-87 at the start; its steps begin as tiny ones that grow."""
    pulse = lambda t: 5.0 * math.exp(-0.5 * ((float(t) - 0.1) / 0.005) ** 2)  # noqa: E731
    sides = Neumann(flux=pulse), Neumann(flux=0.0)
    solution = solve(Stefan(threshold=0.5), GRID, sides, 0.0, [0.2], stepper=stepper)
    assert float(solution.total) == pytest.approx(5.0 * 0.005 * math.sqrt(2 * math.pi), rel=1e-3)


def neumann_matrix(n):
    """Second differences of n cells without flow through the ends."""
    matrix = np.diag(np.full(n, -2.0)) + np.diag(np.ones(n - 1), 1) + np.diag(np.ones(n - 1), -1)
    matrix[0, 0] = matrix[-1, -1] = -1.0
    return matrix * n**2


def uniform(_u, k):
    return k


LINEAR = Diffusion, lambda k: ScalarLaw(conductivity=uniform, parameters={"k": k})


@pytest.mark.parametrize(("rate", "k"), [(1e2, 1.0), (1e4, 1.0), (1e6, 1.0), (1e4, 1e-6)])
@pytest.mark.parametrize(("shape", "law"), [((30,), LINEAR[0]), ((7, 5), LINEAR[0]), ((7, 5), LINEAR[1])])
def test_stiff_relaxation_takes_as_many_steps_at_any_rate(rate, k, shape, law):
    """−λ (u − g) with the steady state of k ∇²u = λ (u − g), by dense algebra; explicit steps would be λ/4."""
    grid = CellGrid((0.0,) * len(shape), (1.0,) * len(shape), shape)
    goal = torch.sin(3.0 * (grid.points if len(shape) == 1 else grid.points.sum(-1)))
    sides, matrix = (Neumann(flux=0.0),) * 2, neumann_matrix(shape[0])
    if len(shape) > 1:
        sides, matrix = (sides, sides), np.kron(matrix, np.eye(5)) + np.kron(np.eye(7), neumann_matrix(5))
    result = solve(law(k), grid, sides, 0.0, [1.0], source=lambda u, _x, _t: -rate * (u - goal))
    expected = np.linalg.solve(rate * np.eye(len(matrix)) - k * matrix, rate * goal.numpy().ravel())
    np.testing.assert_allclose(result.values[0].flatten().numpy(), expected, atol=1e-9)
    assert int(result.work.steps) < 150
    assert float(result.imbalance.abs().max()) < 1e-13


@pytest.mark.parametrize("law", LINEAR)
def test_a_stiff_source_with_growth_in_a_plane_matches_a_fine_run(law):
    """Allen and Cahn's λ (u − u³), λ = 2000, from noise, against SciPy on the same cells."""
    grid, sides = CellGrid((0.0, 0.0), (1.0, 1.0), (7, 5)), ((Neumann(flux=0.0),) * 2,) * 2
    start = 0.5 * torch.from_numpy(np.random.default_rng(3).standard_normal((7, 5)))
    matrix = np.kron(neumann_matrix(7), np.eye(5)) + np.kron(np.eye(7), neumann_matrix(5))

    def rhs(_, u):
        return 0.1 * matrix @ u + 2e3 * (u - u**3)

    fine = solve_ivp(rhs, (0.0, 1.0), start.numpy().ravel(), "BDF", [1e-3, 1.0], rtol=1e-9, atol=1e-12)
    result = solve(law(0.1), grid, sides, start, [1e-3, 1.0], source=lambda u, _x, _t: 2e3 * (u - u**3))
    np.testing.assert_allclose(result.values.flatten(1).numpy(), fine.y.T, atol=2e-3)
    assert int(result.work.steps) < 300
    assert float(result.imbalance.abs().max()) < 1e-12


@dataclass(frozen=True)
class Decay(Source):
    rate: float | torch.Tensor

    def __call__(self, u, _x, _t):
        return -align(self.rate, u) * u


def test_stiff_rows_have_the_same_bits_beside_others():
    """Rates on both sides of the border between explicit and implicit sources."""
    grid, rates = CellGrid(0.0, 1.0, 30), torch.tensor([1.0, 1e4, 10.0, 300.0], dtype=torch.float64)

    def relaxed(rate):
        sides = (Dirichlet(1.0), Neumann(flux=0.0))
        return solve(PorousMedium(2.0), grid, sides, torch.cos(grid.points), [0.3, 1.0], source=Decay(rate))

    together = relaxed(rates)
    for row, rate in enumerate(rates):
        alone = relaxed(float(rate))
        assert torch.equal(alone.values, together.values[row])
        assert torch.equal(alone.source_total, together.source_total[row])
    assert float(together.imbalance.abs().max()) < 1e-13


@pytest.mark.parametrize(
    ("sides", "source"), [((Dirichlet(0.0),) * 2, None), ((Neumann(flux=0.0),) * 2, lambda u, _x, _t: -50.0 * u)]
)
def test_a_field_that_has_decayed_is_cheap(sides, source):
    result = solve(Diffusion(1.0), CellGrid(0.0, 1.0, 50), sides, 1.0, [1e8 if source is None else 1e2], source=source)
    assert int(result.work.steps) <= 500
    assert float(result.values.abs().max()) < 1e-10


@pytest.mark.parametrize(("stepper", "time"), [(RKL2(), 20.0), (None, 1e8)])
def test_a_field_that_has_decayed_in_a_plane_is_cheap(stepper, time):
    grid, cold = CellGrid((0.0, 0.0), (1.0, 1.0), (12, 10)), (Dirichlet(0.0),) * 2
    result = solve(Diffusion(1.0), grid, (cold, cold), 1.0, [time], stepper=stepper)
    assert int(result.work.steps) <= 300
    assert float(result.values.abs().max()) < 1e-10
