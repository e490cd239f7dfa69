"""The boundary-condition experiments: operators whose output meets its boundary conditions."""

from experiments.boundary.beyond_training import EXPERIMENTS as STUDIES
from experiments.boundary.experiment import EXPERIMENTS, load_operator
from experiments.boundary.versions import HARD

__all__ = ["EXPERIMENTS", "HARD", "STUDIES", "load_operator"]
