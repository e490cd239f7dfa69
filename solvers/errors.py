"""The errors of all packages: one base, and one class per kind of error.

``probconserv``, ``boon`` and ``experiments`` re-export what they raise and add the kinds that are theirs alone.
"""


class LibraryError(Exception):
    """Base of every error that ``solvers``, ``probconserv``, ``boon`` and ``experiments`` raise."""


class InvalidArgumentError(LibraryError, ValueError):
    """An argument has the wrong value, shape or type."""


class DataFileError(LibraryError, ValueError):
    """A file is missing, damaged, made for something else, or does not hold what it should."""


class MissingFileError(DataFileError, FileNotFoundError):
    """There is no such file."""


class OutputFolderError(LibraryError, RuntimeError):
    """A folder cannot be written."""


class MissingPackageError(LibraryError, ImportError):
    """An optional package is not installed, or a package is too old for what is asked; the text names it."""


class SolverDivergedError(LibraryError, RuntimeError):
    """A time step failed at the smallest allowed step; the text names time, step and residual."""


class BoundarySamplingError(LibraryError, RuntimeError):
    """Time steps missed an event in the boundary data; the text names the side, the interval and both integrals."""


class TrainingDivergedError(LibraryError, RuntimeError):
    """A loss or a gradient is not finite; the text names the step and the last checkpoint."""


class TrainingInterruptedError(LibraryError, RuntimeError):
    """A training was interrupted by Ctrl-C; its checkpoint is kept.

    It is an ``Exception``: a loop over trainings with ``except Exception: continue`` would go on with the next one, so
    let this error pass there.
    """
