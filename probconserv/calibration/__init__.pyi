from probconserv.calibration.displacement import displaced as displaced
from probconserv.calibration.doubts import doubt as doubt
from probconserv.calibration.doubts import law_misfit as law_misfit
from probconserv.calibration.variance import scaled as scaled
