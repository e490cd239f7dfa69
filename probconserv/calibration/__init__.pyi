from probconserv.calibration.displacement import displaced as displaced
from probconserv.calibration.variance import scaled as scaled
