from typing import TYPE_CHECKING

from boon.channels import ChannelBOON as ChannelBOON
from boon.conditions.discretisation import boundary_channels as boundary_channels
from boon.conditions.parts import Part as Part
from boon.corrections.correction import Correction as Correction
from boon.corrections.correction import Prescription as Prescription
from boon.corrections.elimination import Elimination as Elimination
from boon.corrections.extension import SmoothExtension as SmoothExtension
from boon.corrections.mixed import MixedTransform as MixedTransform
from boon.cosine import CosineConfig as CosineConfig
from boon.cosine import CosineFNO as CosineFNO
from boon.errors import DataFileError as DataFileError
from boon.errors import IncompatibleCornersError as IncompatibleCornersError
from boon.errors import InvalidArgumentError as InvalidArgumentError
from boon.errors import LibraryError as LibraryError
from boon.errors import MissingBoundaryError as MissingBoundaryError
from boon.errors import TrainedWeightsWarning as TrainedWeightsWarning
from boon.fno import FNO as FNO
from boon.fno import FNOConfig as FNOConfig
from boon.normalisation import Normalised as Normalised
from boon.operator import BOON as BOON
from boon.scores import BoundaryError as BoundaryError
from boon.scores import boundary_error as boundary_error
from boon.scores import noise_gain as noise_gain
from boon.scores import relative_l2 as relative_l2
from boon.scores import slope_error as slope_error
from boon.storage import load as load
from boon.storage import read_notes as read_notes
from boon.storage import save as save

if TYPE_CHECKING:  # names that can be imported and are left out of __all__
    from boon.conditions.functionals import Boundary as Boundary
    from boon.conditions.functionals import prescribe as prescribe
    from boon.errors import BoonError as BoonError
    from boon.errors import SingularKernelError as SingularKernelError
    from boon.errors import StoredOperatorError as StoredOperatorError
    from boon.errors import TooManyModesError as TooManyModesError
    from boon.storage import Operator as Operator
    from boon.transforms import DomainFourier as DomainFourier
    from boon.transforms import FourierTransform as FourierTransform
    from boon.transforms import NodeFourier as NodeFourier
