"""Convection on rows: kernels against plain formulas, sides, speeds, exact solutions."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from solvers import (
    MUSCL,
    SSPRK3,
    Advection,
    Burgers,
    CellGrid,
    ConvectiveLaw,
    Dirichlet,
    Field,
    Godunov,
    Neumann,
    Outflow,
    Periodic,
    Robin,
    Rusanov,
    solve,
)
from solvers.errors import InvalidArgumentError
from solvers.finite_volume._groups import drive
from solvers.finite_volume._operator import Operator
from solvers.finite_volume.convection.reconstruction_kernels import LIMITERS, monotonized_central
from solvers.finite_volume.convection.schemes import Constant
from solvers.finite_volume.laws.coefficients import FaceVelocity
from solvers.finite_volume.laws.laws import Transport
from tests.solvers.laws.users import BuckleyLeverett, Traffic
from tests.solvers.terms.convection_terms import (
    PAIRS,
    RECONSTRUCTIONS,
    integrate,
    make_term,
    random_cells,
    rate,
    rate_at,
)


class PlainGodunov(Godunov):
    """A flux that the kernels do not know."""


class ConcaveTraffic(Traffic):
    """Traffic that says that it has no inflection point."""

    def inflection_points(self):
        return ()


def test_rate_by_hand():
    """Burgers, cells 1, 3, −1 of length ½, state 2 on the left, outflow on the right, constant reconstruction.

    Fluxes: f(2) = 2, f(1) = ½, max(f(3), f(−1)) = 4.5, f(−1) = ½. Speed: 3/½.
    """
    term = make_term(Burgers(), CellGrid(0.0, 1.5, 3), [(Dirichlet(2.0), Outflow())], 1, Constant())
    change, sides, speed = rate(term, np.array([[1.0, 3.0, -1.0]]))
    assert change.tolist() == [[3.0, -8.0, 8.0]]
    assert sides.tolist() == [[2.0, 0.5]]
    assert speed.tolist() == [6.0]


def test_upwind_fluxes_by_hand():
    """Cells 1, 3, −1 of length ½, velocities 2, −1, 1, 4 on the faces, state 5 on the left, outflow on the right.

    Fluxes: 2·5, −1·3, 1·3, 4·(−1). Speed: 4/½.
    """
    law = Transport(FaceVelocity(([2.0, -1.0, 1.0, 4.0],)))
    term = make_term(law, CellGrid(0.0, 1.5, 3), [(Dirichlet(5.0), Outflow())], 1, Constant())
    change, sides, speed = rate(term, np.array([[1.0, 3.0, -1.0]] * 1))
    assert change.tolist() == [[26.0, -12.0, 14.0]] * 1
    assert sides.tolist() == [[10.0, -4.0]] * 1
    assert speed.tolist() == [8.0] * 1


def velocities(shape, periodic, rows=3):
    """Velocities per row, for all rows, per axis, and from speeds on cells."""
    random = np.random.default_rng(len(shape))

    def velocity(count):
        parts = []
        for axis in range(len(shape)):
            part = random.standard_normal((count, *(n + (axis == other) for other, n in enumerate(shape))))
            if periodic:
                np.moveaxis(part, 1 + axis, 0)[-1] = np.moveaxis(part, 1 + axis, 0)[0]
            parts.append(part)
        return Transport(FaceVelocity(tuple(parts)))

    along = tuple(torch.linspace(-2.0, 1.0, rows) * (1 + axis) for axis in range(len(shape)))
    return velocity(rows), velocity(1), Transport(along), Advection(Field(random.standard_normal((rows, *shape))))


@pytest.mark.parametrize("shape", [(1,), (2,), (3,), (17,), (7, 9), (3, 4, 5)])
@pytest.mark.parametrize("reconstruction", RECONSTRUCTIONS, ids=repr)
def test_kernels_agree_with_fluxes_in_tensors(shape, reconstruction):
    d = len(shape)
    grid = CellGrid((0.0,) * d, tuple(1.0 + axis for axis in range(d)), shape)
    u = random_cells(3, 3, math.prod(shape))
    for pair in PAIRS:
        periodic = isinstance(pair[0], Periodic)
        if periodic and min(shape) < reconstruction.ghosts:
            continue
        for law in (Advection(torch.tensor([1.3, -0.7, 0.2])), Burgers(), *velocities(shape, periodic)):
            fast, plain = (
                make_term(law, grid, [pair] * d, 3, reconstruction, flux) for flux in (Godunov(), PlainGodunov())
            )
            assert fast.compiled_law
            assert not plain.compiled_law
            for actual, expected in zip(rate(fast, u), rate(plain, u), strict=True):
                assert actual.shape == expected.shape
                np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("flux", [Godunov(), PlainGodunov(), Rusanov()], ids=repr)
@pytest.mark.parametrize("shape", [(19,), (7, 6)])
def test_a_row_does_not_see_the_others(flux, shape):
    grid = CellGrid((0.0,) * len(shape), (1.0,) * len(shape), shape)
    u = random_cells(4, 5, math.prod(shape)) * np.logspace(-6, 6, 5)[:, None]
    speeds = torch.linspace(-1.0, 2.0, 5, dtype=torch.float64)
    values = torch.linspace(0.0, 1.0, 5, dtype=torch.float64).reshape(-1, *[1] * (len(shape) - 1))
    laws = Advection(speeds), Burgers(), velocities(shape, False, 5)[0]
    for law, reconstruction in product(laws, (Constant(), MUSCL())):
        term = make_term(law, grid, [(Dirichlet(values), Outflow())] * len(shape), 5, reconstruction, flux)
        together = rate(term, u)
        for rows in ([0], [3], [4, 1]):
            alone = rate(term.take(np.array(rows)), u[rows])
            for part, whole in zip(alone, together, strict=True):
                assert (part == whole[rows]).all()


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 1000),
    st.sampled_from([Advection(-0.6), Burgers(), ConcaveTraffic()]),
    st.sampled_from(PAIRS),
    st.sampled_from(RECONSTRUCTIONS),
    st.sampled_from([Godunov(), Rusanov()]),
)
def test_the_total_changes_by_what_crosses_the_sides(seed, law, pair, reconstruction, flux):
    grid = CellGrid((0.0, 0.0), (1.0, 3.0), (5, 7))
    term = make_term(law, grid, [pair, PAIRS[1]], 2, reconstruction, flux)
    change, sides, _ = rate(term, random_cells(seed, 2, 35))
    net = sides[:, 0] - sides[:, 1] + sides[:, 2] - sides[:, 3]
    total = change.sum(-1) * grid.volume / 35
    assert np.abs(total - net).max() <= 1e-13 * (1.0 + np.abs(change).max())


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.sampled_from([Burgers(), ConcaveTraffic(), BuckleyLeverett()]))
def test_speed_bounds_the_states_between_neighbours_and_at_faces(seed, law):
    grid = CellGrid(0.0, 2.0, 12)
    u = np.random.default_rng(seed).uniform(0.0, 1.0, (1, 12))
    term = make_term(law, grid, [(Dirichlet(0.9), Outflow())], 1, MUSCL())
    states = np.concatenate(([0.9], u[0]))
    between = states[:-1] + (states[1:] - states[:-1]) * np.linspace(0.0, 1.0, 501)[:, None]
    assert rate(term, u)[2][0] >= np.abs(law.characteristic_speed(between)).max() / grid.spacing[0] - 1e-12


@pytest.mark.parametrize("law", [Advection(torch.tensor([1.0, -0.4])), Burgers()], ids=repr)
@pytest.mark.parametrize("reconstruction", [Constant(), MUSCL()], ids=repr)
def test_compiled_steps_combine_rates(law, reconstruction):
    """Oracle: the three stages by ``rate``; the total changes by the budget."""
    grid = CellGrid((0.0, 0.0), (1.0, 1.0), (8, 5))
    sides = [(Dirichlet(lambda t: math.sin(9.0 * t)), Outflow()), PAIRS[0]]
    term = make_term(law, grid, sides, 2, reconstruction)
    u, time, h = random_cells(1, 2, 40), np.full(2, 0.1), 0.005
    data = term.sides.at(time + h * np.array([[0.0], [1.0], [0.5]]))
    first, second = (
        rate_at(term, u, data[0], time),
        rate_at(term, u + h * rate_at(term, u, data[0], time)[0], data[1], time),
    )
    middle = 0.75 * u + 0.25 * (u + h * first[0] + h * second[0])
    third = rate_at(term, middle, data[2], time)
    course = drive(Operator(grid, term.sides, None, term, None), SSPRK3(courant=1.0), u, np.array([0.1 + h]), 0.1)
    end, budget = course.values[:, 0], course.budget[:, 0, :-1]
    assert course.steps.tolist() == [1, 1]
    np.testing.assert_allclose(end, u + h / 6.0 * (first[0] + second[0] + 4.0 * third[0]), rtol=0, atol=1e-14)
    np.testing.assert_allclose(budget, h / 6.0 * (first[1] + second[1] + 4.0 * third[1]), rtol=1e-13, atol=1e-15)
    net = budget[:, 0] - budget[:, 1] + budget[:, 2] - budget[:, 3]
    np.testing.assert_allclose((end - u).sum(-1) / 40, net, rtol=0, atol=1e-14)


def test_marching_takes_the_steps_of_the_plain_scheme():
    grid = CellGrid((0.0, 0.0), (1.0, 1.0), (12, 9))
    psi = torch.from_numpy(np.random.default_rng(1).standard_normal((3, 13, 10))) * 0.1
    law = Transport(FaceVelocity.from_stream_function(psi, grid))
    u = np.random.default_rng(2).standard_normal((3, 12, 9))
    pairs = [(Dirichlet(1.0), Outflow()), (Neumann(flux=0.1), Outflow())]
    fast, plain = (solve(law, grid, pairs, u, [0.02, 0.1], flux=flux) for flux in (Godunov(), PlainGodunov()))
    assert torch.equal(fast.work.steps, plain.work.steps)
    assert float((fast.values - plain.values).abs().max()) < 1e-13
    assert float((fast.boundary_flux - plain.boundary_flux).abs().max()) < 1e-13


def averages_of_wave(n, time):
    """Cell averages of sin 2π(x − t) on (0, 1)."""
    phase = 2.0 * math.pi * (np.linspace(0.0, 1.0, n + 1) - time)
    return -np.diff(np.cos(phase)) / np.diff(phase)


@pytest.mark.parametrize(("reconstruction", "order"), [(Constant(), 1), (MUSCL(), 2)])
def test_order_with_an_inflow_that_changes_with_time(reconstruction, order):
    """u = sin 2π(x − t) between Dirichlet states, mean error at t = 0.8; steps small enough to show the cells alone."""
    errors = []
    for n in (20, 40, 80, 160):
        pair = tuple(Dirichlet(lambda t, x=x: math.sin(2.0 * math.pi * (x - t))) for x in (0.0, 1.0))
        term = make_term(Advection(1.0), CellGrid(0.0, 1.0, n), [pair], 1, reconstruction)

        u = integrate(term, averages_of_wave(n, 0.0)[None], 0.8, courant=0.4 * (20 / n) ** (2 / 3))
        errors.append(np.abs(u[0] - averages_of_wave(n, 0.8)).mean())
    slope = np.log2(errors[0] / errors[-1]) / 3.0
    assert abs(slope - order) < 0.2, errors


@pytest.mark.parametrize("reconstruction", [MUSCL()], ids=repr)
def test_robin_inflow_is_of_first_order(reconstruction):
    """u − ½ u_x = g on the inflow side for u = sin 2π(x − t)."""

    def datum(time):
        phase = -2.0 * math.pi * time
        return math.sin(phase) - math.pi * math.cos(phase)

    errors = []
    for n in (40, 80, 160):
        outflow = Dirichlet(lambda t: math.sin(2.0 * math.pi * (1.0 - t)))
        term = make_term(Advection(1.0), CellGrid(0.0, 1.0, n), [(Robin(1.0, -0.5, datum), outflow)], 1, reconstruction)
        u = integrate(term, averages_of_wave(n, 0.0)[None], 0.8)
        errors.append(np.abs(u[0] - averages_of_wave(n, 0.8)).mean())
    assert np.log2(errors[-2] / errors[-1]) > 0.8, errors


@pytest.mark.parametrize("reconstruction", [Constant(), MUSCL(), MUSCL(monotonized_central)], ids=repr)
def test_a_jump_that_enters_stays_between_its_states(reconstruction):
    for law, states in ((Advection(1.0), (0.0, 1.0)), (Burgers(), (0.0, 1.0)), (Burgers(), (0.5, 1.0))):
        outside, inside = states[1], states[0]
        term = make_term(law, CellGrid(0.0, 1.0, 50), [(Dirichlet(outside), Outflow())], 1, reconstruction)
        u = np.full((1, 50), inside)
        for _ in range(20):
            u = integrate(term, u, 0.02)
            excess = max(u.max() - states[1], states[0] - u.min())
            assert excess <= 1e-14, law


def riemann(left, right, xi):
    """Exact solution of Burgers at x/t."""
    if left > right:
        return np.where(xi < 0.5 * (left + right), left, right)
    return np.clip(xi, left, right)


@pytest.mark.parametrize(("left", "right"), [(1.0, 0.0), (0.0, 1.0), (-1.0, 1.0), (1.0, -0.5), (-0.3, -1.0)])
@pytest.mark.parametrize("reconstruction", [MUSCL()], ids=repr)
def test_riemann_problems(left, right, reconstruction):
    """Mean error falls with the cells; h is the error of one cell in a shock of size 1."""
    errors = []
    for n in (50, 100, 200):
        grid = CellGrid(-1.0, 1.0, n)
        term = make_term(Burgers(), grid, [(Dirichlet(left), Dirichlet(right))], 1, reconstruction)
        x = grid.points.numpy()
        u = integrate(term, np.where(x < 0, left, right)[None], 0.5)[0]
        exact = riemann(left, right, CellGrid(-1.0, 1.0, 20 * n).points.numpy() / 0.5).reshape(n, 20).mean(-1)
        errors.append(np.abs(u - exact).mean())
    assert errors[-1] < 1.1 / 200
    assert errors[-1] < 0.7 * errors[0]


def test_invalid_arguments_raise_with_reason():
    grid = CellGrid(0.0, 1.0, 2)
    with pytest.raises(InvalidArgumentError, match=r"MUSCL needs at least 2 cells.*got 1 along axis 0"):
        make_term(Burgers(), CellGrid(0.0, 1.0, 1), [PAIRS[0]], 1, MUSCL())

    class Unstated(ConvectiveLaw):
        def convective_flux(self, u):
            return u**3

        def characteristic_speed(self, u):
            return 3.0 * u**2

    term = make_term(Unstated(), grid, [PAIRS[1]], 1, MUSCL())
    with pytest.raises(InvalidArgumentError, match=r"needs Unstated\.stationary_points"):
        rate(term, np.zeros((1, 2)))
    assert rate(replace(term, flux=Rusanov()), np.ones((1, 2)))[0].tolist() == [[0.0, 0.0]]


def test_a_passed_limiter_gives_what_a_shipped_one_gives():
    """``minmod`` compiled once more is not among those whose code is kept on disk."""
    cells = np.random.default_rng(5).standard_normal((2, 20))
    for limiter in LIMITERS:
        again = njit(limiter.py_func)
        term = make_term(Advection(1.0), CellGrid(0.0, 1.0, 20), [PAIRS[0]], 2, MUSCL(limiter))
        expected, actual = (rate(each, cells)[0] for each in (term, replace(term, reconstruction=MUSCL(again))))
        assert (actual == expected).all()
