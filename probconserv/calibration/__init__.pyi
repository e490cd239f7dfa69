from probconserv.calibration.displacement import displaced as displaced
from probconserv.calibration.variance import ContextCalibrated as ContextCalibrated
from probconserv.calibration.variance import NoisyContext as NoisyContext
from probconserv.calibration.variance import Tempered as Tempered
from probconserv.calibration.variance import scaled as scaled
