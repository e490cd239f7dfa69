"""The boundary-condition experiments: operators whose output meets its boundary conditions."""

from experiments.boundary.experiment import EXPERIMENTS, load_operator
from experiments.boundary.studies import STUDIES
from experiments.boundary.versions import HARD

__all__ = ["EXPERIMENTS", "HARD", "STUDIES", "load_operator"]
