"""Reference solutions of partial differential equations: laws, grids, boundary conditions; no learning in here."""

from solvers.boundary import Dirichlet, Neumann, Outflow, Periodic, Robin
from solvers.errors import InvalidArgumentError, SolverDivergedError, SolverError
from solvers.grid import CellGrid, Grid, NodeGrid
from solvers.laws import Advection, Burgers, ConvectiveLaw, Diffusion, DiffusiveLaw, PorousMedium, Stefan

__all__ = [
    "Advection",
    "Burgers",
    "CellGrid",
    "ConvectiveLaw",
    "Diffusion",
    "DiffusiveLaw",
    "Dirichlet",
    "Grid",
    "InvalidArgumentError",
    "Neumann",
    "NodeGrid",
    "Outflow",
    "Periodic",
    "PorousMedium",
    "Robin",
    "SolverDivergedError",
    "SolverError",
    "Stefan",
]
