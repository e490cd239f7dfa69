"""Numerical and exact reference solutions of partial differential equations."""

from solvers.data_files.field_set import FieldSet, collect
from solvers.data_files.files import export, load
from solvers.data_files.layouts import Layout, PDEBench, TheWell
from solvers.errors import BoundarySamplingError, InvalidArgumentError, LibraryError, SolverDivergedError
from solvers.errors import SolverError as SolverError
from solvers.finite_volume.boundary import Dirichlet, Neumann, Outflow, Periodic, Robin
from solvers.finite_volume.convection.numerical_fluxes import Godunov, Rusanov
from solvers.finite_volume.convection.reconstruction import MUSCL, WENO, Constant
from solvers.finite_volume.diffusion.face_means import ArithmeticMean, HarmonicMean, IntegralMean
from solvers.finite_volume.diffusion.newton import Newton
from solvers.finite_volume.grid import CellGrid, Grid, NodeGrid
from solvers.finite_volume.laws.balance import ConvectionDiffusion, Logistic, Source
from solvers.finite_volume.laws.coefficients import FaceVelocity, Field, align
from solvers.finite_volume.laws.laws import (
    Advection,
    Burgers,
    ConvectiveLaw,
    Diffusion,
    DiffusiveLaw,
    PorousMedium,
    Stefan,
    Transport,
)
from solvers.finite_volume.solution import Solution, Work
from solvers.finite_volume.solve import solve
from solvers.finite_volume.steppers.explicit import RKL2, SSPRK3
from solvers.finite_volume.steppers.implicit import TRBDF2, BackwardEuler
from solvers.problems import PROBLEMS, Problem
from solvers.random_fields import GaussianField, Matern, log_normal, two_phase
from solvers.steady.linear import ConjugateGradients, Direct, Jacobi, LinearSolver, Multigrid, Preconditioner
from solvers.steady.nodes import node_values
from solvers.steady.solve import SteadySolution, solve_steady
from solvers.systems.boundary import Reflecting
from solvers.systems.fluxes import HLL, HLLC
from solvers.systems.laws import ShallowWater, SystemLaw
from solvers.systems.solve import SystemSolution, solve_system

__all__ = [
    "HLL",
    "HLLC",
    "MUSCL",
    "PROBLEMS",
    "RKL2",
    "SSPRK3",
    "TRBDF2",
    "WENO",
    "Advection",
    "ArithmeticMean",
    "BackwardEuler",
    "BoundarySamplingError",
    "Burgers",
    "CellGrid",
    "ConjugateGradients",
    "Constant",
    "ConvectionDiffusion",
    "ConvectiveLaw",
    "Diffusion",
    "DiffusiveLaw",
    "Direct",
    "Dirichlet",
    "FaceVelocity",
    "Field",
    "FieldSet",
    "GaussianField",
    "Godunov",
    "Grid",
    "HarmonicMean",
    "IntegralMean",
    "InvalidArgumentError",
    "Jacobi",
    "Layout",
    "LibraryError",
    "LinearSolver",
    "Logistic",
    "Matern",
    "Multigrid",
    "Neumann",
    "Newton",
    "NodeGrid",
    "Outflow",
    "PDEBench",
    "Periodic",
    "PorousMedium",
    "Preconditioner",
    "Problem",
    "Reflecting",
    "Robin",
    "Rusanov",
    "ShallowWater",
    "Solution",
    "SolverDivergedError",
    "Source",
    "SteadySolution",
    "Stefan",
    "SystemLaw",
    "SystemSolution",
    "TheWell",
    "Transport",
    "Work",
    "align",
    "collect",
    "export",
    "load",
    "log_normal",
    "node_values",
    "solve",
    "solve_steady",
    "solve_system",
    "two_phase",
]
