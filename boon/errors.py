"""Errors of boon, with one common base."""


class BoonError(Exception):
    """Base of every error raised by ``boon``."""


class InvalidArgumentError(BoonError, ValueError):
    """An argument has the wrong value, shape or type."""


class MissingBoundaryError(BoonError, ValueError):
    """A side has no condition, no value, or two values."""


class IncompatibleCornersError(BoonError, ValueError):
    """Two sides prescribe different values where they meet."""


class TooManyModesError(BoonError, ValueError):
    """An axis has too few nodes for the modes of the operator."""


class SingularKernelError(BoonError, RuntimeError):
    """The kernel between the boundary nodes cannot be inverted, so the interior cannot be eliminated from them."""


class StoredOperatorError(BoonError, ValueError):
    """A file is damaged, does not contain an operator, or cannot be written."""
