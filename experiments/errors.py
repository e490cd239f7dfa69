"""Errors of the experiments: one base, leaves that say what went wrong."""

from probconserv.errors import CheckpointError as CheckpointError
from probconserv.errors import OutputFolderError as OutputFolderError
from probconserv.errors import TrainingDivergedError as TrainingDivergedError
from probconserv.errors import TrainingInterruptedError as TrainingInterruptedError


class ExperimentError(Exception):
    """Base of every error raised by ``experiments``; the command line prints its text and exits with 2."""


class InvalidArgumentError(ExperimentError, ValueError):
    """An argument has the wrong value or type."""


class UnknownNameError(ExperimentError, ValueError):
    """No experiment or benchmark has this name."""


class DataFileError(ExperimentError, ValueError):
    """A data file is missing, damaged, or does not hold what it should."""


class NotReleasedError(ExperimentError, ValueError):
    """Results or weights are not part of the release, or of this installation."""


class MissingPackageError(ExperimentError, ImportError):
    """A package of an extra is not installed."""


class MissingFilesError(ExperimentError, ValueError):
    """Files that other people made, and that do not come with the package, were not given."""


class JobsFailedError(ExperimentError, RuntimeError):
    """Some of several jobs failed; names them and their logs."""
