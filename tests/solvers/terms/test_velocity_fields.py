"""Convection by velocities that vary in space and time, against closed forms and constant velocities."""

import math

import numpy as np
import torch

from solvers import MUSCL, Advection, CellGrid, Dirichlet, Outflow
from solvers.finite_volume.laws.coefficients import FaceVelocity
from solvers.finite_volume.laws.laws import Transport
from tests.solvers.terms.convection_terms import PAIRS, RECONSTRUCTIONS, integrate, make_term, random_cells, rate


def test_constants_stay_constant_in_a_divergence_free_velocity():
    grid = CellGrid((0.0, 0.0), (1.0, 1.0), (12, 9))
    corners = torch.from_numpy(random_cells(2, 13, 10))
    velocity = FaceVelocity.from_stream_function(corners, grid)
    largest = max(float(part.abs().max()) for part in velocity.values)
    for reconstruction in RECONSTRUCTIONS:
        term = make_term(Transport(velocity), grid, [(Outflow(), Outflow()), PAIRS[1]], 2, reconstruction)
        change, _, speed = rate(term, np.array([[0.7], [3.0]]) * np.ones((2, 108)))
        assert np.abs(change).max() <= 1e-14 * largest * 12 * 4
        assert (speed <= 2 * largest * 12).all()


def test_transport_by_a_constant_velocity_is_advection_along_each_axis():
    grid, u = CellGrid((0.0, 0.0), (1.0, 1.0), (8, 6)), random_cells(6, 2, 48)
    for pair in PAIRS:
        actual = rate(make_term(Transport((0.8, 0.8)), grid, [pair, pair], 2, MUSCL()), u)
        expected = rate(make_term(Advection(0.8), grid, [pair, pair], 2, MUSCL()), u)
        for part, whole in zip(actual, expected, strict=True):
            np.testing.assert_allclose(part, whole, rtol=1e-12, atol=1e-12)


def test_rotation_brings_a_profile_back():
    """A solid body rotates by 2π; the mean error of a smooth hill falls at second order."""
    errors = []
    for n in (16, 32, 64):
        grid = CellGrid((-1.0, -1.0), (1.0, 1.0), (n, n))
        x, y = grid.points.unbind(-1)
        hill = torch.exp(-30.0 * ((x - 0.3) ** 2 + y**2)).numpy().reshape(1, -1)
        turn = Transport(lambda p: torch.stack((-p[..., 1], p[..., 0]), -1))
        term = make_term(turn, grid, [PAIRS[1], PAIRS[1]], 1, MUSCL())
        errors.append(np.abs(integrate(term, hill, 2.0 * math.pi, courant=0.8) - hill).mean())
    assert np.log2(errors[1] / errors[2]) > 1.6, errors


def test_speeds_that_vary_in_space_and_time():
    """u_t + (a u)_x = 0 with a = x on (1, 2): u = e^{−t} u₀(x e^{−t}); with a = cos t: u₀(x − sin t)."""
    errors = []
    for n in (40, 80, 160):
        grid = CellGrid(1.0, 2.0, n)
        x = grid.points.numpy()
        pair = (Dirichlet(lambda t: math.exp(-t) * math.cos(math.exp(-t))), Outflow())
        term = make_term(Advection(lambda x: x), grid, [pair], 1, MUSCL())
        error = integrate(term, np.cos(x)[None], 0.5)[0] - np.exp(-0.5) * np.cos(x * np.exp(-0.5))
        term = make_term(Advection(lambda x, t: torch.cos(t) + 0.0 * x), grid, [PAIRS[0]], 1, MUSCL())
        turned = integrate(term, np.sin(2.0 * math.pi * x)[None], 1.0)[0]
        errors.append((np.abs(error).mean(), np.abs(turned - np.sin(2.0 * math.pi * (x - math.sin(1.0)))).mean()))
    slopes = np.log2(np.array(errors[-2]) / np.array(errors[-1]))
    assert (slopes > 1.7).all(), errors
