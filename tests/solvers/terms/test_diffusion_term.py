"""Diffusion on rows: compiled kernels and fluxes through faces, against naive formulas and dense algebra."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numba import njit

from solvers import CellGrid, Diffusion, DiffusiveLaw, Dirichlet, Neumann, Periodic, PorousMedium, Robin, Stefan
from solvers.conditions import per_axis
from solvers.finite_volume.diffusion._diffusion import DiffusionTerm
from solvers.finite_volume.diffusion.face_means import ArithmeticMean, HarmonicMean, IntegralMean
from solvers.finite_volume.laws._law_rows import LawRows
from solvers.finite_volume.laws._shipped_kernels import power
from solvers.finite_volume.march.drive import diffusion_steps
from solvers.finite_volume.sides._side_data import SideData
from tests.solvers.terms.stages import Stage, diffusion_rate, operator_of, radius, solve_stage

ROWS = 10
SHAPES = [(1,), (2,), (13,), (4, 3), (3, 5), (3, 2, 4)]
PERIODIC = (Periodic(), Periodic())
PAIRS = [
    (Dirichlet(0.8), Neumann(flux=0.3)),
    (Neumann(flux=-0.1), Robin(1.0, 0.5, 0.3)),
    (Neumann(gradient=-0.2), Dirichlet(0.3)),
    (Dirichlet(0.0), Dirichlet(1.0)),
]
LAWS = {
    "diffusion": Diffusion(torch.linspace(0.5, 2.0, ROWS)),
    "porous": PorousMedium(torch.tensor([1.0, 2.0, 3.0, 2.5, 0.5, 6.0, 1.5, 4.0, 1.0, 7.5])),
    "stefan": Stefan(torch.linspace(0.2, 0.8, ROWS), torch.linspace(1.0, 2.0, ROWS)),
}


class Quadratic(DiffusiveLaw):
    """Φ = u + u²/2 for u ≥ 0: a law without kernel."""

    def potential(self, u):
        return u + 0.5 * u * u

    def conductivity(self, u):
        return 1.0 + u


def make_term(law, shape, pairs, mean=None, rows=ROWS):
    grid = CellGrid((0.0,) * len(shape), tuple(1.0 + 0.5 * axis for axis in range(len(shape))), shape)
    conditions = per_axis(list(pairs), len(shape))
    sides = SideData.build(conditions, grid, (rows,), 0.0, 1.0)
    periodic = tuple(isinstance(pair[0], Periodic) for pair in conditions)
    law_rows = LawRows.build(law, (rows,), grid, periodic, 0.0)
    term = DiffusionTerm(law_rows, grid, sides, mean or IntegralMean())
    return term, sides.at(np.zeros((1, rows)))[0]


def random_cells(shape, seed, rows=ROWS):
    return 0.05 + np.random.default_rng(seed).random((rows, math.prod(shape)))


def some_pairs(shape, choice):
    pairs = [*PAIRS, PERIODIC] if min(shape) > 2 else PAIRS
    return [pairs[(choice + axis) % len(pairs)] for axis in range(len(shape))]


def make_stage(u, data, size=0.02, allowed=1e-10):
    rows = len(u)
    return Stage(u, np.linspace(0.5, 1.0, rows) * size, data, np.zeros(rows), u.copy(), np.full(rows, allowed))


@njit
def powers(x, p, out):
    for i in range(x.shape[0]):
        out[i] = power(x[i], p[i])


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6))
def test_powers_match_the_library_and_have_the_same_bits_in_every_place(seed):
    generator = np.random.default_rng(seed)
    x = np.concatenate((10.0 ** generator.uniform(-300, 300, 40), generator.uniform(0.5, 2.0, 21)))
    p = generator.uniform(0.1, 10.0, x.size)
    out, single = np.empty_like(x), np.empty(1)
    powers(x, p, out)
    for value, exponent, result in zip(x, p, out, strict=True):
        powers(np.array([value]), np.array([exponent]), single)
        assert single[0] == result
        size = exponent * math.log2(value)
        if abs(size) < 1021:
            assert abs(result / math.pow(value, exponent) - 1.0) < 1e-14
        elif abs(size) > 1025:
            assert result == (math.inf if size > 0 else 0.0)


def test_powers_at_the_ends_of_their_range():
    x = np.array([0.0, -0.0, -3.0, 1.0, math.nan, math.inf, 1e-310])
    out = np.empty_like(x)
    powers(x, np.full(x.size, 1.5), out)
    assert out[:4].tolist() == [0.0, 0.0, 0.0, 1.0]
    assert np.isnan(out[4:6]).all()
    assert out[6] == 0.0


def naive_rate(potential, grid, conditions, field):
    """Oracle for one row: fluxes face by face."""
    change, volume = np.zeros(grid.shape), math.prod(grid.spacing)
    through = np.zeros(2 * grid.dimension)
    for axis, h in enumerate(grid.spacing):
        n = grid.shape[axis]
        for cell in product(*(range(1 if other == axis else size) for other, size in enumerate(grid.shape))):
            line = [(*cell[:axis], i, *cell[axis + 1 :]) for i in range(n)]
            values = [potential(float(field[place])) for place in line]
            fluxes = [math.nan] + [(values[i - 1] - values[i]) / h for i in range(1, n)] + [math.nan]
            for end, condition in enumerate(conditions[axis]):
                edge, sign = float(field[line[-end]]), 1 - 2 * end
                outward = 2.0 / h
                if isinstance(condition, Periodic):
                    flux = (values[-1] - values[0]) / h
                elif isinstance(condition, Neumann) and condition.flux is not None:
                    flux = condition.flux
                else:
                    if isinstance(condition, Dirichlet):
                        state = condition.value
                    elif isinstance(condition, Neumann):
                        state = edge - sign * condition.gradient * h / 2
                    else:
                        a, b = condition.a, -sign * condition.b * outward
                        state = (condition.value + b * edge) / (a + b)
                    flux = sign * (potential(state) - values[-end]) * outward
                fluxes[-end] = flux
                through[2 * axis + end] += flux * volume / h
            for i, place in enumerate(line):
                change[place] -= (fluxes[i + 1] - fluxes[i]) / h
    return change.reshape(-1), through


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(sorted(LAWS)), st.sampled_from(SHAPES), st.integers(0, 4), st.integers(0, 1000))
def test_rates_match_fluxes_face_by_face(name, shape, choice, seed):
    pairs, law = some_pairs(shape, choice), LAWS[name]
    term, data = make_term(law, shape, pairs)
    u = random_cells(shape, seed)
    du, sides = diffusion_rate(term, u, data, np.zeros(ROWS))
    assert term.compiled_law
    for row in (0, 3, 9):
        part = term.law.take(np.array([row]))
        one = (1,) + (1,) * len(shape)

        def potential(value, part=part, one=one):
            return float(part.potential(torch.full(one, value, dtype=torch.float64)))

        expected, through = naive_rate(potential, term.grid, pairs, u[row].reshape(shape))
        np.testing.assert_allclose(du[row], expected, rtol=1e-11, atol=1e-11)
        np.testing.assert_allclose(sides[row], through, rtol=1e-11, atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from([*LAWS.values(), Quadratic()]),
    st.sampled_from(SHAPES),
    st.integers(0, 4),
    st.sampled_from([1e-4, 0.02, 0.3]),
    st.integers(0, 1000),
)
def test_stages_solve_their_equation_and_balance(law, shape, choice, size, seed):
    """Long stages of Stefan's problem may not converge where a Robin condition has a kink at the threshold."""
    term, data = make_term(law, shape, some_pairs(shape, choice))
    stage = make_stage(random_cells(shape, seed), data, size)
    solution = solve_stage(term, stage)
    assert np.array_equal(solution.u, stage.right + stage.s[:, None] * solution.du)
    volume = math.prod(term.grid.spacing)
    inflow = (solution.flow[:, :-1:2] - solution.flow[:, 1::2]).sum(1)
    scale = np.abs(solution.flow).sum(1) + volume * np.abs(solution.du).sum(1)
    assert (np.abs(volume * solution.du.sum(1) - inflow) <= 1e-13 * scale).all()
    rate, _ = diffusion_rate(term, solution.u, data, stage.t)
    left = np.abs(solution.u - stage.right - stage.s[:, None] * rate).mean(1)
    stiffness = 1.0 + stage.s * radius(term, solution.u, data)
    assert (left <= 1e-9 * stiffness)[solution.converged].all()
    if size < 0.1 or law is not LAWS["stefan"]:
        assert solution.converged.mean() >= 0.8


@pytest.mark.parametrize("shape", [(9,), (4, 3)])
@pytest.mark.parametrize("mean", [IntegralMean(), ArithmeticMean(), HarmonicMean()])
@pytest.mark.parametrize("pairs", [[PAIRS[0], PERIODIC], [PERIODIC, PAIRS[2]], [PAIRS[1], PAIRS[3]]])
def test_one_iteration_is_newtons_step_by_differences_of_the_rate(shape, mean, pairs):
    """Central differences of step 1e-6 are right to about 1e-9."""
    term, data = make_term(PorousMedium(1.5), shape, pairs[: len(shape)], mean, rows=2)
    u = 0.5 + random_cells(shape, 3, rows=2)
    stage = make_stage(u, data, 0.003, 1e-14)
    columns = []
    for shift in 1e-6 * np.eye(u.shape[1]):
        ahead, behind = (diffusion_rate(term, u + sign * shift, data, stage.t)[0] for sign in (1, -1))
        columns.append((ahead - behind) / 2e-6)
    jacobian = np.eye(u.shape[1]) - stage.s[:, None, None] * np.stack(columns, -1)
    residual = stage.right - u + stage.s[:, None] * diffusion_rate(term, u, data, stage.t)[0]
    expected = u + np.linalg.solve(jacobian, residual[..., None])[..., 0]
    np.testing.assert_allclose(
        solve_stage(term, stage, iterations=1).u, expected, atol=2e-7 if len(shape) == 1 else 2e-6
    )


@pytest.mark.parametrize("shape", [(40,), (9, 8)])
def test_linear_stages_take_one_iteration(shape):
    term, data = make_term(LAWS["diffusion"], shape, [PAIRS[1], PAIRS[0]][: len(shape)])
    solution = solve_stage(term, make_stage(random_cells(shape, 1), data, 5.0))
    assert solution.iterations.tolist() == [1] * ROWS
    assert solution.converged.all()


def superstep(term, u, h):
    """Cells and account ``(rows, 2d)`` after a time h by RKL2."""
    states, diffuse = diffusion_steps(operator_of(term))
    states[:] = u
    return states, diffuse(0.0, h)[0].T


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(sorted(LAWS)), st.sampled_from(SHAPES), st.integers(0, 4), st.integers(1, 30))
def test_supersteps_follow_their_recursion_and_balance(name, shape, choice, size):
    """Oracle: the recursion of Meyer, Balsara and Aslam by calls of the rate, on cells and account together."""
    term, data = make_term(LAWS[name], shape, some_pairs(shape, choice))
    u = random_cells(shape, size)
    h = 0.02 * size**2 / max(radius(term, u, data).max(), 1.0)
    end, account = superstep(term, u, h)
    stages = np.ceil(0.5 * (np.sqrt(9.0 + 8.0 * 1.05 * radius(term, u, data) * h) - 1.0))
    stages = np.maximum(stages + 1 - stages % 2, 3)

    def b(k):
        return 1 / 3 if k < 2 else (k * k + k - 2) / (2 * k * (k + 1))

    w = (4 / (stages**2 + stages - 2) * h)[:, None]
    start, slope = np.hstack((u, np.zeros_like(account))), np.hstack(diffusion_rate(term, u, data, np.zeros(ROWS)))
    before, now = start, start + w / 3 * slope
    for j in range(2, int(stages.max()) + 1):
        mu, nu = (2 * j - 1) / j * b(j) / b(j - 1), -(j - 1) / j * b(j) / b(j - 2)
        new = np.hstack(diffusion_rate(term, np.ascontiguousarray(now[:, : u.shape[1]]), data, np.zeros(ROWS)))
        following = mu * now + nu * before + (1 - mu - nu) * start + mu * w * new - (1 - b(j - 1)) * mu * w * slope
        waits = (j > stages)[:, None]
        before, now = np.where(waits, before, now), np.where(waits, now, following)
    np.testing.assert_allclose(np.hstack((end, account)), now, rtol=1e-10, atol=1e-11)
    net = (account[:, ::2] - account[:, 1::2]).sum(1)
    np.testing.assert_allclose(math.prod(term.grid.spacing) * (end - u).sum(1), net, atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(sorted(LAWS)), st.sampled_from([(13,), (4, 3)]), st.integers(0, 4), st.integers(0, 1000))
@example("stefan", (13,), 3, 171)
def test_radius_bounds_the_spectrum(name, shape, choice, seed):
    term, data = make_term(LAWS[name], shape, some_pairs(shape, choice))
    u = 0.1 + random_cells(shape, seed)
    columns = []
    for shift in 1e-7 * np.eye(u.shape[1]):
        columns.append(
            (
                diffusion_rate(term, u + shift, data, np.zeros(ROWS))[0]
                - diffusion_rate(term, u, data, np.zeros(ROWS))[0]
            )
            / 1e-7
        )
    spectrum = np.abs(np.linalg.eigvals(np.stack(columns, -1))).max(1)
    if name != "stefan":
        assert (radius(term, u, data) >= spectrum * (1 - 1e-5)).all()
    frozen = sum(h**-2.0 for h in term.grid.spacing)  # where nothing conducts the spectrum is 0
    assert (radius(term, u, data) <= 1e3 * np.maximum(spectrum, frozen)).all()


@pytest.mark.parametrize(
    ("law", "pair", "start"),
    [
        (Stefan(0.5), (Neumann(flux=0.0), Robin(1.0, 1.0, 0.0)), 1.0),
        (Stefan(0.5), (Neumann(gradient=-0.5), Dirichlet(0.0)), 0.499),
        (PorousMedium(6.0), (Neumann(flux=1.0), Dirichlet(0.0)), 0.0),
        (PorousMedium(3.0), (Robin(1.0, -0.2, 1.0), Robin(1.0, 0.3, 0.2)), 0.0),
    ],
)
def test_newton_copes_with_sides_that_degenerate(law, pair, start):
    """From rest to t = 10 by steps that grow by 1.3 to 0.05; a few may fail, but the steps do not become small."""
    term, data = make_term(law, (25,), [pair], rows=1)
    u, time, step, failures, smallest = np.full((1, 25), start), 0.0, 1e-4, 0, 1.0
    while time < 10.0 and failures < 20:
        solution = solve_stage(
            term, Stage(u, np.array([step]), data, np.zeros(1), u.copy(), np.array([1e-7])), iterations=25
        )
        if solution.converged[0]:
            u, time, step = solution.u, time + step, min(1.3 * step, 0.05)
        else:
            failures, step = failures + 1, 0.5 * step
            smallest = min(smallest, step)
    assert time >= 10.0
    assert failures < 10


def test_rows_that_fail_say_so_and_leave_the_others_alone():
    for law in (PorousMedium(2.5), Quadratic()):
        term, data = make_term(law, (12,), [PAIRS[0]])
        stage = make_stage(random_cells((12,), 3), data)
        good = solve_stage(term, stage)
        broken = stage.right.copy()
        broken[4, 3] = math.nan
        bad = solve_stage(term, stage._replace(right=broken))
        assert np.flatnonzero(~bad.converged).tolist() == [4]
        others = np.arange(ROWS) != 4
        assert np.array_equal(bad.u[others], good.u[others])
        hurried = solve_stage(term, stage._replace(allowed=np.full(ROWS, 1e-12)), iterations=1)
        assert not hurried.converged.any()
