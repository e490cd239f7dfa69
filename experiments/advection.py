"""Linear advection of a step that enters a domain: a discontinuity that keeps its height."""

from experiments.conservation_run import conservation_experiment
from probconserv.surrogates.gp import GPConfig
from solvers.problems import ADVECTION

EXPERIMENT = conservation_experiment(
    ADVECTION,
    "linear advection of a step",
    GPConfig(smoothness=0.5),
    durations={"smoke": "30 s", "laptop": "30 min", "paper": "24 h", "reproduce": "4 min"},
)
