"""Errors of probconserv: those of all packages, and the kinds that only predictions and trainings have."""

from typing import Any

from solvers.errors import DataFileError as DataFileError
from solvers.errors import InvalidArgumentError as InvalidArgumentError
from solvers.errors import LibraryError as LibraryError
from solvers.errors import MissingPackageError as MissingPackageError
from solvers.errors import OutputFolderError as OutputFolderError


class DependentConstraintsError(LibraryError, ValueError):
    """The constraint rows are not independent under the prior, so S = G Σ Gᵀ + σ² I is singular."""


class InfeasibleConstraintError(LibraryError, ValueError):
    """No field meets the law and the inequalities together; the text names the feasible totals."""


class IncompatibleQueryError(LibraryError, ValueError):
    """Context, query and constraint do not match in problem, coordinates, batch or number of points."""


class ConvergenceError(LibraryError, RuntimeError):
    """An iteration did not reach its tolerance; the text names the residual."""


class TrainingDivergedError(LibraryError, RuntimeError):
    """A loss or a gradient is not finite; the text names the step and the last checkpoint."""


class TrainingInterruptedError(LibraryError, RuntimeError):
    """A training was interrupted; its checkpoint is kept."""


class SamplingInterruptedError(LibraryError, RuntimeError):
    """Sampling was interrupted; ``draws`` holds the fields that are done."""

    def __init__(self, message: str, draws: Any) -> None:
        super().__init__(message)
        self.draws = draws


ProbConservError, WeightsError, CheckpointError = LibraryError, DataFileError, DataFileError  # the names of 0.2
