from probconserv.rollout.flux_model import FluxModel as FluxModel
from probconserv.rollout.step_update import StepUpdate as StepUpdate
from probconserv.rollout.step_update import with_errors as with_errors
