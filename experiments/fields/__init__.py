"""The mass of water over the steps of a model that does not conserve it."""

from collections.abc import Mapping

from experiments.experiment import Experiment
from experiments.fields.rollout_experiment import RolloutExperiment

EXPERIMENTS: Mapping[str, Experiment] = {"shallow_water_rollout": RolloutExperiment()}

__all__ = ["EXPERIMENTS", "RolloutExperiment"]
