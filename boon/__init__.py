"""Neural operators whose output meets its boundary conditions exactly."""

from boon.amplification import noise_gain
from boon.channels import ChannelBOON
from boon.conditions.discretisation import boundary_channels
from boon.conditions.functionals import Boundary, prescribe
from boon.conditions.parts import Part
from boon.corrections.correction import Correction, Prescription
from boon.corrections.elimination import Elimination
from boon.corrections.extension import SmoothExtension
from boon.corrections.matched import MatchedTransform
from boon.corrections.mixed import MixedTransform
from boon.corrections.scalar import ScalarElimination
from boon.errors import BoonError as BoonError
from boon.errors import (
    DataFileError,
    IncompatibleCornersError,
    InvalidArgumentError,
    LibraryError,
    MissingBoundaryError,
    SingularKernelError,
    TooManyModesError,
)
from boon.errors import StoredOperatorError as StoredOperatorError
from boon.fno import FNO, FNOConfig
from boon.normalisation import Normalised
from boon.operator import BOON
from boon.scores import BoundaryError, boundary_error, relative_l2
from boon.storage import Operator, load, read_notes, save
from boon.transforms import DomainFourier, FourierTransform, NodeFourier
from boon.velocity import FNOVelocity

__all__ = [
    "BOON",
    "FNO",
    "Boundary",
    "BoundaryError",
    "ChannelBOON",
    "Correction",
    "DataFileError",
    "DomainFourier",
    "Elimination",
    "FNOConfig",
    "FNOVelocity",
    "FourierTransform",
    "IncompatibleCornersError",
    "InvalidArgumentError",
    "LibraryError",
    "MatchedTransform",
    "MissingBoundaryError",
    "MixedTransform",
    "NodeFourier",
    "Normalised",
    "Operator",
    "Part",
    "Prescription",
    "ScalarElimination",
    "SingularKernelError",
    "SmoothExtension",
    "TooManyModesError",
    "boundary_channels",
    "boundary_error",
    "load",
    "noise_gain",
    "prescribe",
    "read_notes",
    "relative_l2",
    "save",
]
