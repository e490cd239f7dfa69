from probconserv.rollout.diagnosis import Diagnosis as Diagnosis
from probconserv.rollout.diagnosis import RolloutBand as RolloutBand
from probconserv.rollout.flux_model import FluxModel as FluxModel
from probconserv.rollout.rollout import Rollout as Rollout
from probconserv.rollout.rollout import Trajectory as Trajectory
from probconserv.rollout.run import RolloutState as RolloutState
from probconserv.rollout.step_update import StepUpdate as StepUpdate
from probconserv.rollout.step_update import with_errors as with_errors
