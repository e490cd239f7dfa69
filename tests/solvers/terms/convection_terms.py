"""Convection terms on rows, as the tests of them need them."""

import numpy as np

from solvers import MUSCL, Advection, CellGrid, Dirichlet, Godunov, Neumann, Outflow, Periodic, Robin
from solvers.finite_volume._operator import Operator
from solvers.finite_volume.convection._convection import ConvectionTerm
from solvers.finite_volume.convection.reconstruction_kernels import minmod, monotonized_central
from solvers.finite_volume.convection.schemes import Constant
from solvers.finite_volume.laws._law_rows import LawRows
from solvers.finite_volume.march.tiles import Tile
from solvers.finite_volume.sides._side_data import SideData

RECONSTRUCTIONS = [Constant(), MUSCL(), MUSCL(minmod), MUSCL(monotonized_central)]
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


def face_states(reconstruction, cells):
    """States left and right of the n + 1 faces ``(lines, n + 1)``, from averages ``(lines, n + 2 ghosts)``."""
    found = []

    class Recorded(Godunov):
        def flux(self, law, left, right):
            found.append((left.clone(), right.clone()))
            return super().flux(law, left, right)

    lines, count, ghosts = cells.reshape(-1, cells.shape[-1]).numpy(), cells.shape[-1], reconstruction.ghosts
    grid, pairs = CellGrid(0.0, 1.0, count), [(Outflow(), Outflow())]
    rate(make_term(Advection(1.0), grid, pairs, len(lines), reconstruction, Recorded()), lines)
    return tuple(part[:, ghosts : count - ghosts + 1] for part in found[0])


def rate(term, u, time=0.0):
    """Rates, fluxes through the sides and speeds of rows."""
    times = np.full(len(u), time)
    return rate_at(term, u, term.sides.at(times[None])[0], times)


def rate_at(term, u, data, times):
    """``rate`` by data of the sides and times of the rows."""
    tile = Tile(Operator(term.grid, term.sides, None, term, None), len(u), (None, term, None))
    tile.enter(np.arange(len(u)))
    change, flow, _ = tile.rates(u, data, times)
    return change, flow[:, :-3], flow[:, -2]


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
