"""Reaction and diffusion of several unknowns: against a fine run by SciPy, closed forms, and the balance."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from solvers import TRBDF2, CellGrid, Diffusion, Dirichlet, Neumann, Periodic, ReactionDiffusion, solve, solve_system
from solvers.errors import InvalidArgumentError, SolverDivergedError
from solvers.problems.reactions import brusselator, fitzhugh_nagumo, gray_scott

INSULATED, CIRCLE = (Neumann(flux=0.0),) * 2, (Periodic(), Periodic())
GRID = CellGrid(0.0, 1.0, 40)


def bump(grid):
    square = (grid.points - 0.4) ** 2
    near = torch.exp(-50.0 * (square.sum(-1) if grid.dimension > 1 else square))
    return torch.stack([1.0 - 0.5 * near, 0.3 * near])


def reference(law, start, time, periodic):
    """The same cells in time by LSODA at a tight tolerance."""
    spread, f = np.array(law.diffusivities)[:, None] / GRID.spacing[0] ** 2, law.reaction.py_func

    def rhs(_, y):
        u = y.reshape(2, -1)
        ends = (u[:, -1:], u[:, :1]) if periodic else (u[:, :1], u[:, -1:])
        wide = np.concatenate((ends[0], u, ends[1]), 1)
        return (np.array(f(tuple(u), *law.parameters)) + spread * np.diff(wide, 2)).reshape(-1)

    return solve_ivp(rhs, (0.0, time), start.numpy().ravel(), "LSODA", rtol=1e-9, atol=1e-12).y[:, -1].reshape(2, -1)


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize(
    ("law", "time"), [(gray_scott(), 100.0), (fitzhugh_nagumo(diffusivities=(1e-3, 0.0)), 20.0), (brusselator(), 8.0)]
)
def test_examples_match_a_fine_run_and_balance(law, time, periodic):
    sides = CIRCLE if periodic else INSULATED
    result = solve_system(law, GRID, sides, bump(GRID), [0.5 * time, time], tolerance=1e-5)
    expected = reference(law, bump(GRID), time, periodic)
    assert np.abs(result.values[-1].numpy() - expected).mean() < 1e-3 * max(1.0, np.ptp(expected))
    assert float(result.imbalance.abs().max()) < 1e-13
    assert int(result.steps) < 400


def test_the_error_follows_the_tolerance():
    """Second order: a tenth of the error at about a thirtieth of the tolerance, with the cube root of steps."""
    expected = reference(brusselator(), bump(GRID), 4.0, False)
    errors = []
    for tolerance in (1e-4, 3e-6):
        result = solve_system(brusselator(), GRID, INSULATED, bump(GRID), [4.0], tolerance=tolerance)
        errors.append(np.abs(result.values[0].numpy() - expected).mean())
    assert errors[1] < 0.2 * errors[0]


def test_stiff_relaxation_costs_the_same_at_any_rate():
    """Both unknowns are drawn to their mean at a rate; the mean stays, and steps do not grow with the rate."""

    def exchange(u, rate):
        return rate * (u[1] - u[0]), rate * (u[0] - u[1])

    counts = []
    for rate in (1e2, 1e4, 1e6):
        law = ReactionDiffusion(reaction=exchange, diffusivities=(0.1, 0.1), parameters=(rate,))
        result = solve_system(law, GRID, INSULATED, bump(GRID), [5.0])
        mean = float(bump(GRID).mean())
        assert torch.allclose(result.values[-1], torch.full_like(result.values[-1], mean), atol=1e-3)
        assert torch.allclose(result.total.sum(-1), torch.tensor(2.0 * mean, dtype=torch.float64), atol=1e-12)
        counts.append(int(result.steps))
    assert max(counts) < 2 * min(counts)


def test_planes_batches_and_given_sides():
    """An entry is the same alone and in a batch; what comes through the sides is in the account."""
    grid = CellGrid((0.0, 0.0), (1.0, 1.0), (12, 10))
    start = torch.stack([bump(grid), 0.5 * bump(grid)])
    sides = ((Dirichlet([[1.0], [0.2]]), Neumann(flux=0.01)), CIRCLE)
    result = solve_system(gray_scott(diffusivities=(1e-2, 5e-3)), grid, sides, start, [1.0, 4.0])
    alone = solve_system(gray_scott(diffusivities=(1e-2, 5e-3)), grid, sides, start[1], [1.0, 4.0])
    assert torch.equal(result.values[1], alone.values)
    assert result.boundary_flux.shape == (2, 2, 4, 2)
    assert torch.allclose(result.boundary_flux[:, -1, 1], torch.tensor(0.04, dtype=torch.float64))
    assert float(result.imbalance.abs().max()) < 1e-13


@pytest.mark.slow
def test_the_set_up_of_pdebench_matches_a_fine_run():
    """PDEBench's FitzHugh–Nagumo in a square without flow, from noise, against DOP853 on the same cells up to t = 5."""

    def reaction(u, k):
        return u[0] - u[0] ** 3 - k - u[1], u[0] - u[1]

    grid = CellGrid((-1.0, -1.0), (1.0, 1.0), (32, 32))
    law = ReactionDiffusion(reaction=reaction, diffusivities=(1e-3, 5e-3), parameters=(5e-3,))
    start = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 32, 32)))
    spread, times = np.array(law.diffusivities)[:, None, None] / grid.spacing[0] ** 2, [1.0, 5.0]

    def rhs(_, y):
        u = y.reshape(2, 32, 32)
        wide = np.pad(u, ((0, 0), (1, 1), (1, 1)), mode="edge")
        laplacian = np.diff(wide, 2, axis=1)[:, :, 1:-1] + np.diff(wide, 2, axis=2)[:, 1:-1]
        return (np.array(reaction(u, 5e-3)) + spread * laplacian).ravel()

    fine = solve_ivp(rhs, (0.0, 5.0), start.numpy().ravel(), "DOP853", times, rtol=1e-10, atol=1e-12)
    expected = torch.from_numpy(fine.y.T.reshape(2, 2, 32, 32))
    errors = []
    for tolerance in (1e-4, 1e-5):
        result = solve_system(law, grid, (INSULATED, INSULATED), start, times, tolerance=tolerance)
        errors.append(float((result.values - expected).abs().max()))
        assert float(result.imbalance.abs().max()) < 1e-12
    assert errors[0] < 5e-3
    assert errors[1] < 0.4 * errors[0]


def decay(u):
    return -2.0 * u[0], -3.0 * u[1]


def test_sides_that_change_with_time_match_the_closed_form():
    """u = e^{−(r + Dk²)t} sin(kx + ½) of u_t = D u_xx − r u: a value on the left and a gradient on the right."""
    k, rates = 2.0, torch.tensor([2.0 + 0.1 * 4.0, 3.0 + 0.05 * 4.0]).double()
    law = ReactionDiffusion(reaction=decay, diffusivities=(0.1, 0.05))
    sides = (
        Dirichlet(lambda t: torch.exp(-rates * t) * np.sin(0.5)),
        Neumann(gradient=lambda t: torch.exp(-rates * t) * k * np.cos(k + 0.5)),
    )
    errors = []
    for n in (20, 40):
        grid = CellGrid(0.0, 1.0, n)
        exact = torch.exp(-rates * 1.0)[:, None] * torch.sin(k * grid.points + 0.5)
        start = torch.sin(k * grid.points + 0.5).expand(2, -1)
        result = solve_system(law, grid, sides, start, [1.0], tolerance=1e-6)
        errors.append(float((result.values[0] - exact).abs().max()))
        assert float(result.imbalance.abs().max()) < 1e-13
    assert errors[1] < 5e-5
    assert errors[1] < 0.35 * errors[0]


def test_a_side_that_jumps_is_seen_and_a_short_event_is_no_silent_error():
    """Against ``solve`` with the reaction as a source; a pulse that the scan misses is found by breakpoints."""
    law = ReactionDiffusion(reaction=lambda u: (-u[0],), diffusivities=(0.1,))
    sides = (Dirichlet(lambda t: np.where(t < 0.3, 0.0, 1.0)), Dirichlet(0.0))
    expected = solve(
        Diffusion(0.1),
        GRID,
        sides,
        torch.zeros(40),
        [1.0],
        source=lambda u, x, t: -u,  # noqa: ARG005
        stepper=TRBDF2(1e-7),
    ).values
    result = solve_system(law, GRID, sides, torch.zeros(1, 40), [1.0])
    assert float((result.values[0] - expected).abs().max()) < 2e-3
    pulse = (Neumann(flux=lambda t: np.where((t > 0.5) & (t < 0.5 + 1e-5), 1e5, 0.0)), Neumann(flux=0.0))
    seen = solve_system(law, GRID, pulse, torch.zeros(1, 40), [1.0], breakpoints=[0.5, 0.5 + 1e-5])
    assert float(seen.boundary_flux[-1, 0, 0]) == pytest.approx(1.0, rel=1e-6)


def test_one_field_may_stand_for_several_unknowns():
    field = bump(GRID)[1].expand(2, -1)
    result = solve_system(gray_scott(), GRID, INSULATED, field, [1.0])
    assert torch.equal(result.values, solve_system(gray_scott(), GRID, INSULATED, field.clone(), [1.0]).values)


def test_blow_up_is_named():
    law = ReactionDiffusion(reaction=lambda u: (u[0] * u[0],), diffusivities=(1e-3,))
    with pytest.raises(SolverDivergedError, match=r"past time (1|0\.99).*infinite in finite time"):
        solve_system(law, GRID, INSULATED, torch.ones(1, 40), [2.0])


def test_a_reaction_that_gives_nan_ends_with_an_error():
    """The rate 1 − u leaves where √(u − ½) is defined: NaN, where the steps must not go on for ever."""
    law = ReactionDiffusion(reaction=lambda u: (0.0 * np.sqrt(u[0] - 0.5) - u[0],), diffusivities=(1e-3,))
    with pytest.raises(SolverDivergedError, match=r"past time 0\.69.*"):
        solve_system(law, GRID, INSULATED, torch.ones(1, 40), [2.0])


def plain(u):
    return u


def solve_one(reaction):
    law = ReactionDiffusion(reaction=reaction, diffusivities=(1.0,))
    return solve_system(law, GRID, INSULATED, 1.0 - GRID.points[None], [1.0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ReactionDiffusion(reaction=plain, diffusivities=(-1.0,)), "must not be negative"),
        (lambda: ReactionDiffusion(reaction=plain, diffusivities=("a",)), "must be finite numbers"),
        (lambda: solve_system(gray_scott(), GRID, INSULATED, torch.ones(3, 40), [1.0]), "initial must have the shape"),
        (
            lambda: solve_system(gray_scott(), GRID, INSULATED, bump(GRID), [1.0], courant=0.3),
            "takes no option courant",
        ),
        (lambda: solve_one(lambda u: u[0]), "must return a tuple of 1 numbers"),
        (lambda: solve_one(lambda u: (u.sum(),)), "reaction failed for u"),
        (lambda: solve_system(gray_scott(), GRID, INSULATED, bump(GRID), [1.0], tolerance=0.0), "must be positive"),
        (lambda: solve_one(lambda u: (np.sqrt(u[0] - 0.5),)), r"not finite for u = \(0.4875.*cell 20 of initial"),
    ],
)
def test_invalid_arguments_raise_with_reason(call, message):
    with pytest.raises(InvalidArgumentError, match=message):
        call()


@pytest.mark.long
def test_few_active_cells_have_the_tolerance_that_all_would_have():
    """Waves that fill a fiftieth of the line, against a run at 1e-8: the error said is the error made."""
    grid = CellGrid(0.0, 10.0, 400)
    pulse = torch.exp(-(((grid.points - 2.0) / 0.1) ** 2))
    start = torch.stack((1.0 - 0.5 * pulse, 0.25 * pulse))
    given = gray_scott(0.04, 0.06, (2e-4, 1e-4)), grid, (Neumann(flux=0.0),) * 2, start, [200.0, 600.0]
    exact = solve_system(*given, tolerance=1e-8).values
    result = solve_system(*given, estimate_error=True)
    errors = (result.values - exact).abs().amax(-1)
    assert float(errors.max()) < 5e-3
    assert bool(((result.error_estimate / errors > 0.5) & (result.error_estimate / errors < 2.0)).all())
    assert float(result.imbalance.abs().max()) < 1e-12


def test_the_error_is_estimated_where_data_limit_the_steps():
    grid = CellGrid(0.0, 1.0, 20)
    start = torch.ones(2, 20, dtype=torch.float64)
    ends = Dirichlet(lambda t: 1.0 + 0.5 * np.sin(10.0 * t)), Neumann(flux=0.0)
    given = brusselator(diffusivities=(0.02, 0.02)), grid, ends, start, [1.0]
    exact = solve_system(*given, tolerance=1e-6).values
    result = solve_system(*given, tolerance=1e-2, estimate_error=True)
    ratio = result.error_estimate / (result.values - exact).abs().amax(-1)
    assert bool(((ratio > 0.4) & (ratio < 2.5)).all()), ratio


def test_steps_are_of_third_order():
    """Largest errors at fixed steps fall as h³, since a step and its halves are extrapolated."""
    errors, given = [], (brusselator(), CellGrid(0.0, 1.0, 20), (Neumann(flux=0.0),) * 2, bump(CellGrid(0.0, 1.0, 20)))
    exact = solve_system(*given, [1.0], tolerance=1e-10).values
    for step in (0.04, 0.02, 0.01, 0.005):
        values = solve_system(*given, [1.0], tolerance=1e6, largest_step=step).values
        errors.append(float((values - exact).abs().max()))
    assert np.log2(errors[-2] / errors[-1]) == pytest.approx(3.0, abs=0.3)
