"""Convection terms on rows, as the tests of them need them."""

import numpy as np

from solvers import MUSCL, WENO, Constant, Dirichlet, Godunov, Neumann, Outflow, Periodic, Robin
from solvers.finite_volume.convection._convection import ConvectionTerm
from solvers.finite_volume.convection.reconstruction_kernels import minmod, monotonized_central
from solvers.finite_volume.laws._law_rows import LawRows
from solvers.finite_volume.sides._side_data import SideData

RECONSTRUCTIONS = [Constant(), MUSCL(), MUSCL(minmod), MUSCL(monotonized_central), WENO()]
PAIRS = [
    (Periodic(), Periodic()),
    (Outflow(), Outflow()),
    (Dirichlet(0.7), Dirichlet(-0.2)),
    (Neumann(flux=0.3), Robin(1.0, 0.5, 0.2)),
    (Neumann(gradient=0.3), Neumann(flux=-0.4)),
]


def make_term(law, grid, pairs, rows, reconstruction, flux=None):
    sides = SideData.build(pairs, grid, (rows,), 0.0, 10.0)
    periodic = tuple(isinstance(first, Periodic) for first, _ in pairs)
    law = LawRows.build(law, (rows,), grid, periodic)
    return ConvectionTerm(law, grid, sides, flux or Godunov(), reconstruction)


def rate(term, u, time=0.0):
    times = np.full(len(u), time)
    return term.rate(u, term.sides.at(times[None])[0], times)


def integrate(term, u, end, courant=0.4, start=0.0):
    """SSPRK3 by loops over ``rate``, with one step for all rows."""
    time = start
    while time < end - 1e-13:
        first, _, speed = rate(term, u, time)
        step = min(end - time, courant / speed.max())
        one = u + step * first
        two = 0.75 * u + 0.25 * (one + step * rate(term, one, time + step)[0])
        u = (u + 2.0 * (two + step * rate(term, two, time + 0.5 * step)[0])) / 3.0
        time += step
    return u


def random_cells(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)
