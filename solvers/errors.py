"""Errors of the solvers, with one common base."""


class SolverError(Exception):
    """Base of every error raised by ``solvers``."""


class InvalidArgumentError(SolverError, ValueError):
    """An argument has the wrong value, shape or type."""


class SolverDivergedError(SolverError, RuntimeError):
    """A time step failed at the smallest allowed step; the text names time, step and residual."""


class BoundarySamplingError(SolverError, RuntimeError):
    """Time steps missed an event in the boundary data; the text names the side, the interval and both integrals."""
