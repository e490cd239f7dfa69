"""``Euler`` against exact solutions, strong waves, batches, and laws given as functions of numbers."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from solvers import CellGrid, Euler, Outflow, Periodic, PointwiseLaw, Reflecting, Rusanov, solve_system
from solvers.errors import InvalidArgumentError, SolverDivergedError
from solvers.finite_volume.convection.schemes import Constant
from solvers.systems import _law_kernels
from solvers.systems.laws import HLLC
from solvers.systems.pointwise import PointFunctions
from tests.solvers.systems.riemann import density_at

OPEN = (Outflow(), Outflow())
WALLS = (Reflecting(), Reflecting())

GAMMA = 1.4
# Toro, tables 4.1 and 10.1, and LeBlanc: left and right states (ρ, v, p), time, place of the membrane, γ.
TUBES = {
    "Sod": ((1.0, 0.75, 1.0), (0.125, 0.0, 0.1), 0.2, 0.3, 1.4),
    "double rarefaction": ((1.0, -2.0, 0.4), (1.0, 2.0, 0.4), 0.15, 0.5, 1.4),
    "left blast": ((1.0, 0.0, 1000.0), (1.0, 0.0, 0.01), 0.012, 0.5, 1.4),
    "collision": ((5.99924, 19.5975, 460.894), (5.99242, -6.19633, 46.0950), 0.035, 0.4, 1.4),
    "slow contact": ((1.0, -19.59745, 1000.0), (1.0, -19.59745, 0.01), 0.012, 0.8, 1.4),
    "LeBlanc": ((1.0, 0.0, 0.2 / 3), (1e-3, 0.0, 2e-10 / 3), 2.0 / 3, 1.0 / 3, 5.0 / 3),
}


def gas(density, speeds, pressure, gamma=GAMMA):
    """Conserved components from density, speeds and pressure."""
    energy = pressure / (gamma - 1) + 0.5 * density * sum(v * v for v in speeds)
    return torch.stack([density, *(density * v for v in speeds), energy])


def membrane(points, left, right, place, gamma=GAMMA):
    states = [torch.where(points < place, a, b).double() for a, b in zip(left, right, strict=True)]
    return gas(states[0], states[1:2], states[2], gamma)


def averages(left, right, grid, place, time, gamma=GAMMA):
    parts = ((np.arange(20) + 0.5) / 20 - 0.5) * grid.spacing[0]
    x = grid.points.numpy()[:, None] + parts
    return density_at(left, right, (x - place) / time, gamma).mean(-1)


@pytest.mark.parametrize("name", TUBES)
def test_strong_waves_stay_admissible_at_the_usual_step_and_converge_to_the_exact_solution(name):
    """L¹ errors over the mean density; order 1 at shocks, 2/3 at contacts, less while cold fans are under-resolved."""
    left, right, time, place, gamma = TUBES[name]
    errors = []
    for n in (100, 200, 400):
        grid = CellGrid(0.0, 1.0, n)
        initial = membrane(grid.points, left, right, place, gamma)
        result = solve_system(Euler(gamma), grid, OPEN, initial, [time])
        density, momentum, energy = result.values[0]
        assert density.min() > 0
        assert (energy - 0.5 * momentum**2 / density).min() > 0
        assert result.imbalance.abs().max() < 1e-12 * result.values.abs().max()
        exact = averages(left, right, grid, place, time, gamma)
        errors.append(float(np.abs(density.numpy() - exact).mean() / exact.mean()))
    assert errors[-1] < 0.06, errors
    assert errors[-1] < 0.75 * errors[0], errors


def test_slopes_shrink_where_a_state_would_not_be_admissible_and_steps_do_not():
    left, right, time, place, _ = TUBES["double rarefaction"]
    grid = CellGrid(0.0, 1.0, 200)
    initial = membrane(grid.points, left, right, place)
    fastest = 2.0 + (GAMMA * 0.4) ** 0.5
    steps = solve_system(Euler(), grid, OPEN, initial, [time]).steps
    assert steps < 1.3 * time * fastest / (0.4 * grid.spacing[0])
    sharp = solve_system(Euler(), grid, OPEN, initial, [time]).values[0, 0]
    flat = solve_system(Euler(), grid, OPEN, initial, [time], reconstruction=Constant()).values[0, 0]
    exact = averages(left, right, grid, place, time)
    assert np.abs(sharp.numpy() - exact).mean() < 0.5 * np.abs(flat.numpy() - exact).mean()


def wave_of_density(grid, shift):
    """Cell averages of 1 + 0.2 sin 2π(x − shift)."""
    ends = torch.cos(2 * torch.pi * (grid.faces[0] - shift))
    return 1.0 - 0.2 * ends.diff() / (2 * torch.pi * grid.spacing[0])


@pytest.mark.parametrize("options", [{}, {"flux": Rusanov()}])
def test_a_smooth_wave_of_density_converges(options):
    errors = []
    for n in (25, 50, 100):
        grid = CellGrid(0.0, 1.0, n)
        density = wave_of_density(grid, 0.0)
        one = torch.ones(n, dtype=torch.float64)
        result = solve_system(Euler(), grid, (Periodic(),) * 2, gas(density, [one], one), [0.5], **options)
        errors.append(float((result.values[0, 0] - wave_of_density(grid, 0.5)).abs().mean()))
    wanted = 2.7 if "reconstruction" in options else 1.8
    assert -np.polyfit(np.arange(3), np.log2(errors), 1)[0] > wanted, errors


def test_rows_of_a_batch_are_those_alone_bit_for_bit():
    grid = CellGrid(0.0, 1.0, 60)
    one = membrane(grid.points, *TUBES["left blast"][:2], 0.5)
    rows = torch.stack([one * (1.0 + 0.01 * k) for k in range(64)])
    together = solve_system(Euler(), grid, WALLS, rows, [0.01, 0.02])
    for k in (0, 31, 63):
        alone = solve_system(Euler(), grid, WALLS, rows[k], [0.01, 0.02])
        assert torch.equal(alone.values, together.values[k])
        assert torch.equal(alone.boundary_flux, together.boundary_flux[k])
        assert alone.steps == together.steps[k]


def test_a_blast_in_a_box_keeps_mass_energy_and_symmetry():
    grid = CellGrid((0.0, 0.0), (1.0, 1.0), (30, 30))
    dense = ((grid.points - 0.5) ** 2).sum(-1) < 0.04
    still = torch.zeros(30, 30, dtype=torch.float64)
    state = gas(torch.where(dense, 1.0, 0.125).double(), [still, still], torch.where(dense, 1.0, 0.1).double())
    result = solve_system(Euler(), grid, (WALLS, WALLS), state, [0.5])
    change = result.total[-1] - result.initial_total
    assert change[[0, 3]].abs().max() < 1e-13
    assert result.imbalance.abs().max() < 1e-13
    density = result.values[-1, 0]
    assert (density - density.T).abs().max() < 1e-12
    assert (density - density.flip(0)).abs().max() < 1e-12


def test_along_the_second_axis_waves_are_those_of_one_axis():
    line, plane = CellGrid(0.0, 1.0, 40), CellGrid((0.0, 0.0), (1.0, 1.0), (3, 40))
    left, right, time, place, _ = TUBES["Sod"]
    alone = solve_system(Euler(), line, OPEN, membrane(line.points, left, right, place), [time], largest_step=1e-3)
    state = membrane(plane.points[..., 1], left, right, place)
    state = torch.stack([state[0], 0.0 * state[0], state[1], state[2]])
    wide = solve_system(Euler(), plane, ((Periodic(),) * 2, OPEN), state, [time], largest_step=1e-3)
    assert (wide.values[0, [0, 2, 3], 1] - alone.values[0]).abs().max() < 1e-12


def test_the_functions_of_euler_agree_with_each_other():
    random = torch.Generator().manual_seed(0)
    for dimension in (1, 2):
        u = torch.rand(16, dimension + 2, generator=random, dtype=torch.float64) + 0.5
        u[:, -1] += 3.0
        for axis in range(dimension):
            given, jacobian = _law_kernels._at_points(Euler(), u, axis, dimension)
            true = torch.linalg.eigvals(jacobian).real.sort(1).values
            assert true[:, [0, -1]].numpy() == pytest.approx(given.numpy(), abs=1e-7)


# A law of a user's own: two waves.


def wave_flux(u, axis, speed):  # noqa: ARG001 - one axis only
    return speed * u[1], speed * u[0]


def wave_speeds(u, axis, speed):  # noqa: ARG001 - one axis only
    return -speed, speed + 0.0 * u[0]


@dataclass(frozen=True)
class Waves(PointwiseLaw):
    speed: float = 2.0
    flux: object = wave_flux
    eigenvalues: object = wave_speeds
    admissible: object = None
    reflect: object = None

    def components(self, dimension):  # noqa: ARG002 - one axis only
        return ("p", "q")

    def functions(self, dimension):  # noqa: ARG002 - one axis only
        return PointFunctions(
            flux=self.flux,
            eigenvalues=self.eigenvalues,
            admissible=self.admissible,
            reflect=self.reflect,
            parameters=(self.speed,),
        )


def start(n):
    grid = CellGrid(0.0, 1.0, n)
    p = torch.exp(-(((grid.points - 0.4) / 0.1) ** 2))
    return grid, torch.stack([torch.stack([p, 0.3 * p]), torch.stack([p, 0.0 * p])])


def mirror(u, axis, speed):  # noqa: ARG001 - one signature for all laws
    return u[0], -u[1]


@pytest.mark.parametrize(("options", "order"), [({}, 2.0), ({"flux": Rusanov(), "reconstruction": Constant()}, 1.0)])
def test_a_law_of_numbers_converges_to_its_exact_solution_at_a_wall(options, order):
    """d'Alembert: (p + q)/2 moves by +2t, (p − q)/2 by −2t; the wall at 0 mirrors p evenly and q oddly."""

    def wave(x, width=0.1):
        return torch.exp(-(((x - 0.4) / width) ** 2))

    errors, time = [], 0.3
    for n in (200, 400, 800, 1600):
        grid = CellGrid(0.0, 1.0, n)
        x = grid.faces[0][:-1, None] + (torch.arange(16, dtype=torch.float64) + 0.5) / 16 * grid.spacing[0]
        initial = torch.stack([wave(x).mean(1), torch.zeros(n, dtype=torch.float64)])
        result = solve_system(Waves(reflect=mirror), grid, (Reflecting(), Outflow()), initial, [time], **options)
        right = 0.5 * (wave(x - 2.0 * time) + wave(2.0 * time - x))
        left = 0.5 * wave(x + 2.0 * time)
        exact = torch.stack([(right + left).mean(1), (right - left).mean(1)])
        errors.append(float((result.values[0] - exact).abs().mean()))
        assert result.imbalance.abs().max() < 1e-14
    assert -np.polyfit(np.arange(4), np.log2(errors), 1)[0] == pytest.approx(order, abs=0.2), errors


def raises(u, axis, speed):  # noqa: ARG001 - one signature for all laws
    raise KeyError("no such gas")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flux": raises}, r"Waves: raises failed for u = .* KeyError: 'no such gas'. It takes the components as"),
        ({"flux": lambda u, axis: u}, r"failed for u = .* TypeError"),  # noqa: ARG005
        ({"flux": lambda u, axis, speed: (u[0],)}, r"must return a tuple of 2 numbers, one for each component"),  # noqa: ARG005
        ({"flux": lambda u, axis, speed: u[0]}, "must return a tuple of 2 numbers"),  # noqa: ARG005
        ({"flux": lambda u, axis, speed: (-u[1], u[0])}, "not hyperbolic at some initial states"),  # noqa: ARG005
        ({"eigenvalues": lambda u, axis, speed: 1.0}, "must return a tuple of one or more numbers"),  # noqa: ARG005
        ({"eigenvalues": lambda u, axis, speed: (-1.0, 1.0)}, r"eigenvalues\(u, axis=0\) must include the smallest"),  # noqa: ARG005
        ({"flux": lambda u, axis, speed: tuple(speed * x for x in (u[1], u[0]))}, "numba cannot compile"),  # noqa: ARG005
        ({"speed": torch.ones(20)}, "must return a tuple of one or more numbers, got"),
        ({"admissible": lambda u, speed: u[0] > 0.5}, r"initial is not admissible for Waves in cell \(0,\)"),  # noqa: ARG005
    ],
)
def test_a_wrong_law_of_numbers_is_refused(changes, message):
    grid, initial = start(20)
    with pytest.raises(InvalidArgumentError, match=message):
        solve_system(Waves(**changes), grid, OPEN, initial, [0.1])


def test_a_law_of_numbers_without_a_mirror_image_has_no_walls():
    grid, initial = start(20)
    with pytest.raises(InvalidArgumentError, match=r"Reflecting\(\) needs a function reflect"):
        solve_system(Waves(), grid, WALLS, initial, [0.1])
    with pytest.raises(InvalidArgumentError, match=r"HLLC\(\) is for ShallowWater only"):
        solve_system(Waves(), grid, OPEN, initial, [0.1], flux=HLLC())


def test_a_law_that_becomes_nan_ends_in_an_error_with_the_time():
    broken = lambda u, axis, speed: (speed * u[1], speed * u[0] / (1.0 if u[1] < 0.9 else 0.0))  # noqa: ARG005, E731
    grid, initial = start(20)
    with pytest.raises(SolverDivergedError, match=r"Waves has no admissible state in cell \(\d+,\).* after time 0"):
        solve_system(Waves(flux=broken), grid, OPEN, initial + torch.tensor([[0.0], [0.5]]), [0.5])


@pytest.mark.parametrize("gamma", [1.0, 0.0, "1.4", float("nan")])
def test_gamma_is_a_number_above_1(gamma):
    with pytest.raises(InvalidArgumentError, match="Euler: gamma must be"):
        Euler(gamma)
    with pytest.raises(InvalidArgumentError, match="one or two space axes, got 3"):
        Euler().components(3)
