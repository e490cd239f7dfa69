"""Errors of probconserv: one base, leaves that say what went wrong."""


class ProbConservError(Exception):
    """Base of every error raised by ``probconserv``."""


class InvalidArgumentError(ProbConservError, ValueError):
    """An argument has the wrong value, shape or type."""


class DependentConstraintsError(ProbConservError, ValueError):
    """The constraint rows are not independent under the prior, so S = G Σ Gᵀ + σ² I is singular."""


class InfeasibleConstraintError(ProbConservError, ValueError):
    """No field meets the law and the inequalities together; names what is feasible."""


class IncompatibleQueryError(ProbConservError, ValueError):
    """Context, query and constraint do not belong together: other problem, coordinates, batch or number of points."""


class ConvergenceError(ProbConservError, RuntimeError):
    """An iteration did not reach its tolerance; names the residual."""


class WeightsError(ProbConservError, ValueError):
    """A file of weights is missing, damaged, or made for another model, problem or version."""
