"""Neural operators whose output meets its boundary conditions exactly."""

from boon.correction import Boundary, prescribe
from boon.errors import (
    BoonError,
    IncompatibleCornersError,
    InvalidArgumentError,
    MissingBoundaryError,
    SingularKernelError,
    TooManyModesError,
)
from boon.family import Correction, Prescription
from boon.fno import FNO, FNOConfig
from boon.operator import BOON
from boon.scores import BoundaryError, boundary_error, relative_l2

__all__ = [
    "BOON",
    "FNO",
    "BoonError",
    "Boundary",
    "BoundaryError",
    "Correction",
    "FNOConfig",
    "IncompatibleCornersError",
    "InvalidArgumentError",
    "MissingBoundaryError",
    "Prescription",
    "SingularKernelError",
    "TooManyModesError",
    "boundary_error",
    "prescribe",
    "relative_l2",
]
