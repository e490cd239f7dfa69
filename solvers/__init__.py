"""Reference solutions of partial differential equations: laws, grids, boundary conditions; no learning in here."""

from solvers.boundary import Dirichlet, Neumann, Outflow, Periodic, Robin
from solvers.boundary_problems import BOUNDARY_PROBLEMS
from solvers.boundary_samples import BoundaryProblem, BoundarySamples, Normal, Uniform
from solvers.cavity import CavityFlow, solve_cavity
from solvers.errors import InvalidArgumentError, SolverDivergedError, SolverError
from solvers.fluxes import (
    MUSCL,
    WENO,
    ArithmeticMean,
    Constant,
    Godunov,
    HarmonicMean,
    IntegralMean,
    Rusanov,
)
from solvers.grid import CellGrid, Grid, NodeGrid
from solvers.laws import Advection, Burgers, ConvectiveLaw, Diffusion, DiffusiveLaw, PorousMedium, Stefan
from solvers.newton import Newton
from solvers.problems import PROBLEMS, Problem
from solvers.sampling import FunctionBatch, Protocol, SolutionBank, random_parameters, sample_bank, sample_exact
from solvers.solution import Solution, solve
from solvers.spectral import SpectralResolution, solve_periodic_burgers
from solvers.stepping import SSPRK3, TRBDF2, BackwardEuler

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
