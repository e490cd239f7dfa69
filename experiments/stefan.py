"""Stefan problem: a front that moves through a medium that conducts only above a threshold ("hard")."""

from experiments.conservation_run import conservation_experiment
from experiments.face_means import draw_face_means
from probconserv.surrogates.gp import GPConfig
from solvers.problems import STEFAN

EXPERIMENT = conservation_experiment(
    STEFAN,
    "Stefan problem: a moving front in a medium that conducts only above a threshold",
    GPConfig(smoothness=0.5),
    durations={"smoke": "30 s", "laptop": "65 min", "paper": "50 h", "reproduce": "5 min"},
    extra_figures=draw_face_means,
)
