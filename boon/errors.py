"""Errors of boon: those of all packages, and the kinds that only operators have."""

from solvers.errors import DataFileError as DataFileError
from solvers.errors import InvalidArgumentError as InvalidArgumentError
from solvers.errors import LibraryError as LibraryError
from solvers.errors import MissingFileError as MissingFileError
from solvers.errors import MissingPackageError as MissingPackageError


class MissingBoundaryError(LibraryError, ValueError):
    """A side has no condition, no value, or two values."""


class IncompatibleCornersError(LibraryError, ValueError):
    """Two sides prescribe different values where they meet."""


class TooManyModesError(LibraryError, ValueError):
    """An axis has too few nodes for the modes of the operator."""


class SingularKernelError(LibraryError, RuntimeError):
    """The kernel between the boundary nodes cannot be inverted, so the interior cannot be eliminated from them."""


class TrainedWeightsWarning(UserWarning):
    """Weights that were trained without a correction get one inside their layers, which changes what they compute."""
