"""Inviscid Burgers' equation: a ramp that steepens into a shock."""

from experiments.conservation_run import conservation_experiment
from probconserv.surrogates.gp import GPConfig
from solvers.problems import BURGERS

EXPERIMENT = conservation_experiment(
    BURGERS,
    "inviscid Burgers: a ramp that breaks into a shock",
    GPConfig(smoothness=0.5),
    durations={"smoke": "30 s", "laptop": "30 min", "paper": "24 h", "reproduce": "4 min"},
)
