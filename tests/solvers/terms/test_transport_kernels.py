"""Compiled transport by velocities on faces: against whole fields, row by row, constants, marching."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numba import njit

from solvers import (
    MUSCL,
    WENO,
    Advection,
    CellGrid,
    Constant,
    Dirichlet,
    FaceVelocity,
    Field,
    Godunov,
    Neumann,
    Outflow,
    Periodic,
    Transport,
    solve,
)
from solvers.finite_volume.convection import reconstruction_kernels as limiters
from tests.solvers.terms.convection_terms import PAIRS, make_term, rate

ROWS = 3


class PlainGodunov(Godunov):
    """A flux that the kernels do not know."""


def term_of(law, grid, pair, reconstruction=None, flux=None):
    """A term with the same conditions along every axis."""
    return make_term(law, grid, [pair] * grid.dimension, ROWS, reconstruction or MUSCL(), flux)


def laws(shape, periodic):
    """Velocities per row, for all rows, per axis, and from speeds on cells."""
    random = np.random.default_rng(len(shape))

    def velocity(rows):
        parts = []
        for axis in range(len(shape)):
            part = random.standard_normal((rows, *(n + (axis == other) for other, n in enumerate(shape))))
            if periodic:
                np.moveaxis(part, 1 + axis, 0)[-1] = np.moveaxis(part, 1 + axis, 0)[0]
            parts.append(part)
        return Transport(FaceVelocity(tuple(parts)))

    along = tuple(torch.tensor([1.0, -2.0, 0.5]) * (1 + axis) for axis in range(len(shape)))
    return velocity(ROWS), velocity(1), Transport(along), Advection(Field(random.standard_normal((ROWS, *shape))))


@pytest.mark.parametrize("shape", [(9,), (7, 9), (3, 4, 5)])
@pytest.mark.parametrize("reconstruction", [Constant(), MUSCL(), WENO()], ids=repr)
def test_kernels_agree_with_operations_on_whole_fields_and_rows_are_alone(shape, reconstruction):
    d = len(shape)
    grid = CellGrid((0.0,) * d, tuple(1.0 + axis for axis in range(d)), shape)
    u = np.random.default_rng(3).standard_normal((ROWS, math.prod(shape)))
    for pair in PAIRS:
        for law in laws(shape, isinstance(pair[0], Periodic)):
            fast = term_of(law, grid, pair, reconstruction)
            plain = term_of(law, grid, pair, reconstruction, PlainGodunov())
            assert fast.kernel
            assert not plain.kernel
            together = rate(fast, u)
            for actual, expected in zip(together, rate(plain, u), strict=True):
                assert np.abs(actual - expected).max() <= 1e-14 * np.abs(expected).max()
            for rows in ([0], [2, 1]):
                alone = rate(fast.take(np.array(rows)).take(np.arange(len(rows))), u[rows])
                for part, whole in zip(alone, together, strict=True):
                    assert (part == whole[rows]).all()


def test_upwind_fluxes_by_hand():
    """Cells 1, 3, −1 of length ½, velocities 2, −1, 1, 4 on the faces, state 5 on the left, outflow on the right.

    Fluxes: 2·5, −1·3, 1·3, 4·(−1). Speed: 4/½.
    """
    law = Transport(FaceVelocity(([2.0, -1.0, 1.0, 4.0],)))
    term = term_of(law, CellGrid(0.0, 1.5, 3), (Dirichlet(5.0), Outflow()), Constant())
    change, sides, speed = rate(term, np.array([[1.0, 3.0, -1.0]] * ROWS))
    assert change.tolist() == [[26.0, -12.0, 14.0]] * ROWS
    assert sides.tolist() == [[10.0, -4.0]] * ROWS
    assert speed.tolist() == [8.0] * ROWS


def test_velocities_that_change_with_time_have_no_kernel():
    grid = CellGrid(0.0, 1.0, 5)
    assert not term_of(Transport(lambda x, t: x * t), grid, PAIRS[1]).kernel
    assert not term_of(Advection(lambda x, t: x * t), grid, PAIRS[1]).kernel


@pytest.mark.parametrize("pair", PAIRS[:2])
def test_constants_stay_through_all_steps_before_an_output(pair):
    """A flow without divergence that does not cross the walls, by ``solve``, which marches."""
    grid = CellGrid((0.0, 0.0), (1.0, 1.0), (12, 9))
    x, y = (torch.linspace(0.0, 1.0, n + 1, dtype=torch.float64) for n in grid.shape)
    psi = torch.sin(2.0 * math.pi * x)[:, None] * torch.sin(2.0 * math.pi * y)
    law = Transport(FaceVelocity.from_stream_function(psi, grid))
    level = torch.tensor([0.7, 3.0], dtype=torch.float64)[:, None, None]
    result = solve(law, grid, [pair, pair], level, [0.5, 1.0])
    assert float((result.values - level[:, None]).abs().max()) < 1e-12
    assert (result.work.steps > 20).all()


def test_marching_takes_the_steps_of_the_plain_scheme():
    grid = CellGrid((0.0, 0.0), (1.0, 1.0), (12, 9))
    psi = torch.from_numpy(np.random.default_rng(1).standard_normal((ROWS, 13, 10))) * 0.1
    law = Transport(FaceVelocity.from_stream_function(psi, grid))
    u = np.random.default_rng(2).standard_normal((ROWS, 12, 9))
    pairs = [(Dirichlet(1.0), Outflow()), (Neumann(flux=0.1), Outflow())]
    fast, plain = (solve(law, grid, pairs, u, [0.02, 0.1], flux=flux) for flux in (Godunov(), PlainGodunov()))
    assert torch.equal(fast.work.steps, plain.work.steps)
    assert float((fast.values - plain.values).abs().max()) < 1e-13
    assert float((fast.boundary_flux - plain.boundary_flux).abs().max()) < 1e-13


def test_a_passed_limiter_gives_what_a_shipped_one_gives():
    """``minmod`` compiled once more is not among those whose code is kept on disk."""
    cells = np.random.default_rng(5).standard_normal((ROWS, 20))
    for limiter in limiters.LIMITERS:
        again = njit(limiter.py_func)
        term = term_of(Advection(1.0), CellGrid(0.0, 1.0, 20), PAIRS[0], MUSCL(limiter))
        expected, actual = (rate(each, cells)[0] for each in (term, replace(term, reconstruction=MUSCL(again))))
        assert (actual == expected).all()
