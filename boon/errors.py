"""Errors of boon: one base, leaves that say what went wrong."""


class BoonError(Exception):
    """Base of every error raised by ``boon``."""


class InvalidArgumentError(BoonError, ValueError):
    """An argument has the wrong value, shape or type."""


class MissingBoundaryError(BoonError, ValueError):
    """A side has no condition, or no value, or its value twice."""


class IncompatibleCornersError(BoonError, ValueError):
    """Two sides prescribe different values where they meet."""


class TooManyModesError(BoonError, ValueError):
    """An axis has too few nodes to carry the modes that the operator keeps."""


class SingularKernelError(BoonError, RuntimeError):
    """The kernel between the boundary nodes cannot be inverted, so the interior cannot be eliminated from them."""


class StoredOperatorError(BoonError, ValueError):
    """A file holds no operator, or a damaged one."""
