"""Generated fields under exact laws: draws of one trained flow, published samplers, and rivals without a flow."""

from experiments.generation.experiment import GenerationExperiment
from experiments.generation.problems import EXPERIMENTS, STUDIES
from experiments.generation.studies import StepsStudy

__all__ = ["EXPERIMENTS", "STUDIES", "GenerationExperiment", "StepsStudy"]
