"""Porous medium equation: a degenerate diffusion with a sharp front ("medium")."""

from experiments.conservation_run import conservation_experiment
from probconserv.surrogates.gp import GPConfig
from solvers.problems import POROUS_MEDIUM

EXPERIMENT = conservation_experiment(
    POROUS_MEDIUM,
    "porous medium equation: degenerate diffusion with a front",
    GPConfig(smoothness=0.5),
    durations={"smoke": "45 s", "laptop": "45 min", "paper": "50 h", "reproduce": "6 min"},
)
