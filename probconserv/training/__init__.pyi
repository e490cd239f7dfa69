from probconserv.training.config import TrainingConfig as TrainingConfig
from probconserv.training.loop import StepContext as StepContext
from probconserv.training.loop import Task as Task
from probconserv.training.loop import train as train
