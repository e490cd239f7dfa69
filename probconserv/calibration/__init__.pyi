from probconserv.calibration.displacement import displaced as displaced
from probconserv.calibration.doubt import Doubted as Doubted
from probconserv.calibration.doubt import doubt as doubt
from probconserv.calibration.doubt import law_misfit as law_misfit
from probconserv.calibration.variance import scaled as scaled
