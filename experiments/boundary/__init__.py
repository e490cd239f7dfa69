"""The boundary-condition experiments: operators whose output meets its boundary conditions."""

from experiments.boundary.experiment import EXPERIMENTS, load_operator

__all__ = ["EXPERIMENTS", "load_operator"]
