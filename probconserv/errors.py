"""Errors of probconserv, with one common base."""

from typing import Any


class ProbConservError(Exception):
    """Base of every error raised by ``probconserv``."""


class InvalidArgumentError(ProbConservError, ValueError):
    """An argument has the wrong value, shape or type."""


class DependentConstraintsError(ProbConservError, ValueError):
    """The constraint rows are not independent under the prior, so S = G Σ Gᵀ + σ² I is singular."""


class InfeasibleConstraintError(ProbConservError, ValueError):
    """No field meets the law and the inequalities together; the text names the feasible totals."""


class IncompatibleQueryError(ProbConservError, ValueError):
    """Context, query and constraint do not match in problem, coordinates, batch or number of points."""


class ConvergenceError(ProbConservError, RuntimeError):
    """An iteration did not reach its tolerance; the text names the residual."""


class WeightsError(ProbConservError, ValueError):
    """A file of weights is missing, damaged, or made for another model, problem or version."""


class CheckpointError(ProbConservError, ValueError):
    """A checkpoint is damaged, or belongs to another training, model or version."""


class TrainingDivergedError(ProbConservError, RuntimeError):
    """A loss or a gradient is not finite; the text names the step and the last checkpoint."""


class TrainingInterruptedError(ProbConservError, RuntimeError):
    """A training was interrupted; its checkpoint is kept."""


class SamplingInterruptedError(ProbConservError, RuntimeError):
    """Sampling was interrupted; ``draws`` holds the fields that are done."""

    def __init__(self, message: str, draws: Any) -> None:
        super().__init__(message)
        self.draws = draws


class OutputFolderError(ProbConservError, RuntimeError):
    """A folder cannot be written."""
