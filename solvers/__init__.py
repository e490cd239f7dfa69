"""Reference solutions of partial differential equations: laws, grids, boundary conditions; no learning in here."""

from solvers.boundary import Dirichlet, Neumann, Outflow, Periodic, Robin
from solvers.errors import InvalidArgumentError, SolverDivergedError, SolverError
from solvers.grid import CellGrid, Grid, NodeGrid
from solvers.laws import Advection, Burgers, ConvectiveLaw, Diffusion, DiffusiveLaw, PorousMedium, Stefan
from solvers.problems import PROBLEMS, Problem
from solvers.sampling import FunctionBatch, Protocol, SolutionBank, random_parameters, sample_bank, sample_exact

__all__ = [
    "PROBLEMS",
    "Advection",
    "Burgers",
    "CellGrid",
    "ConvectiveLaw",
    "Diffusion",
    "DiffusiveLaw",
    "Dirichlet",
    "FunctionBatch",
    "Grid",
    "InvalidArgumentError",
    "Neumann",
    "NodeGrid",
    "Outflow",
    "Periodic",
    "PorousMedium",
    "Problem",
    "Protocol",
    "Robin",
    "SolutionBank",
    "SolverDivergedError",
    "SolverError",
    "Stefan",
    "random_parameters",
    "sample_bank",
    "sample_exact",
]
