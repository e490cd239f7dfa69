"""The boundary-condition experiments: operators whose output meets its boundary conditions."""

from experiments.boundary.experiment import CHOICES, EXPERIMENTS, load_operator
from experiments.boundary.hard import HARD
from experiments.boundary.studies import STUDIES

__all__ = ["CHOICES", "EXPERIMENTS", "HARD", "STUDIES", "load_operator"]
