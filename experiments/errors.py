"""Errors of the experiments: those of all packages, and the kinds that only runs have."""

from solvers.errors import DataFileError as DataFileError
from solvers.errors import InvalidArgumentError as InvalidArgumentError
from solvers.errors import LibraryError as LibraryError
from solvers.errors import MissingPackageError as MissingPackageError
from solvers.errors import OutputFolderError as OutputFolderError
from solvers.errors import TrainingDivergedError as TrainingDivergedError
from solvers.errors import TrainingInterruptedError as TrainingInterruptedError


class UnknownNameError(LibraryError, ValueError):
    """No experiment or benchmark has this name."""


class NotReleasedError(LibraryError, ValueError):
    """Results or weights are not part of the release, or of this installation."""


class MissingFilesError(LibraryError, ValueError):
    """Files that other people made, and that do not come with the package, were not given."""


class JobsFailedError(LibraryError, RuntimeError):
    """Some of several jobs failed; names them and their logs."""


ExperimentError = LibraryError  # the name of 0.2
