"""Errors of probconserv: those of all packages, and the kinds that only predictions have.

Everything public checks its arguments: one that is wrong by itself (out of range, not finite, of another shape or type
than its description says) raises InvalidArgumentError, and arguments that do not fit each other IncompatibleQueryError.
Docstrings name what is raised beyond that.
"""

from typing import Any

from solvers.errors import DataFileError as DataFileError
from solvers.errors import InvalidArgumentError as InvalidArgumentError
from solvers.errors import LibraryError as LibraryError
from solvers.errors import MissingFileError as MissingFileError
from solvers.errors import MissingPackageError as MissingPackageError
from solvers.errors import OutputFolderError as OutputFolderError
from solvers.errors import TrainingDivergedError as TrainingDivergedError
from solvers.errors import TrainingInterruptedError as TrainingInterruptedError


class DependentConstraintsError(LibraryError, ValueError):
    """The constraint rows are not independent under the prior, so S = G Σ Gᵀ + σ² I is singular."""


class InfeasibleConstraintError(LibraryError, ValueError):
    """No field meets the law and the inequalities together; the text names the feasible totals."""


class IncompatibleQueryError(LibraryError, ValueError):
    """Context, query and constraint do not match in problem, coordinates, batch or number of points."""


class ConvergenceError(LibraryError, RuntimeError):
    """An iteration did not reach its tolerance; the text names the residual."""


class SamplingInterruptedError(LibraryError, RuntimeError):
    """Sampling was interrupted; ``draws`` holds the fields that are done."""

    def __init__(self, message: str, draws: Any) -> None:
        super().__init__(message)
        self.draws = draws
