"""Linear diffusion of a sine wave on a periodic domain ("easy")."""

from experiments.conservation_run import conservation_experiment
from probconserv.surrogates.gp import GPConfig
from solvers.problems import DIFFUSION

EXPERIMENT = conservation_experiment(
    DIFFUSION,
    "linear diffusion of a sine wave, periodic",
    GPConfig(smoothness=2.5),
    durations={"smoke": "30 s", "laptop": "35 min", "paper": "24 h", "reproduce": "3 min"},
)
