"""Reference solutions of partial differential equations: laws, grids, boundary conditions; no learning in here."""

from solvers.cavity import CavityFlow, solve_cavity
from solvers.errors import InvalidArgumentError, SolverDivergedError, SolverError
from solvers.finite_volume.boundary import Dirichlet, Neumann, Outflow, Periodic, Robin
from solvers.finite_volume.fluxes import (
    MUSCL,
    WENO,
    ArithmeticMean,
    Constant,
    Godunov,
    HarmonicMean,
    IntegralMean,
    Rusanov,
)
from solvers.finite_volume.grid import CellGrid, Grid, NodeGrid
from solvers.finite_volume.laws import Advection, Burgers, ConvectiveLaw, Diffusion, DiffusiveLaw, PorousMedium, Stefan
from solvers.finite_volume.newton import Newton
from solvers.finite_volume.solve import Solution, solve
from solvers.finite_volume.stepping import SSPRK3, TRBDF2, BackwardEuler
from solvers.problems import PROBLEMS, Problem
from solvers.problems.boundary_problems import BOUNDARY_PROBLEMS
from solvers.problems.boundary_samples import BoundaryProblem, BoundarySamples, Normal, Uniform
from solvers.problems.sampling import (
    FunctionBatch,
    Protocol,
    SolutionBank,
    random_parameters,
    sample_bank,
    sample_exact,
)
from solvers.spectral import SpectralResolution, solve_periodic_burgers

__all__ = [
    "BOUNDARY_PROBLEMS",
    "MUSCL",
    "PROBLEMS",
    "SSPRK3",
    "TRBDF2",
    "WENO",
    "Advection",
    "ArithmeticMean",
    "BackwardEuler",
    "BoundaryProblem",
    "BoundarySamples",
    "Burgers",
    "CavityFlow",
    "CellGrid",
    "Constant",
    "ConvectiveLaw",
    "Diffusion",
    "DiffusiveLaw",
    "Dirichlet",
    "FunctionBatch",
    "Godunov",
    "Grid",
    "HarmonicMean",
    "IntegralMean",
    "InvalidArgumentError",
    "Neumann",
    "Newton",
    "NodeGrid",
    "Normal",
    "Outflow",
    "Periodic",
    "PorousMedium",
    "Problem",
    "Protocol",
    "Robin",
    "Rusanov",
    "Solution",
    "SolutionBank",
    "SolverDivergedError",
    "SolverError",
    "SpectralResolution",
    "Stefan",
    "Uniform",
    "random_parameters",
    "sample_bank",
    "sample_exact",
    "solve",
    "solve_cavity",
    "solve_periodic_burgers",
]
