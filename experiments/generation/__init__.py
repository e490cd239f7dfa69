"""Generated fields under exact laws: draws of one trained flow, published samplers, and rivals without a flow."""

from experiments.generation.experiment import GenerationExperiment
from experiments.generation.problems import EXPERIMENTS

__all__ = ["EXPERIMENTS", "GenerationExperiment"]
