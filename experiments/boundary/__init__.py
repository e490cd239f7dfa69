"""The boundary-condition experiments: operators whose output meets its boundary conditions."""

from experiments.boundary.beyond_training import EXPERIMENTS as STUDIES
from experiments.boundary.experiment import EXPERIMENTS, load_operator

__all__ = ["EXPERIMENTS", "STUDIES", "load_operator"]
