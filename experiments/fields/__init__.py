"""The experiments on fields with laws.

downscaling              real temperatures from their means over blocks
shallow_water_rollout    the mass of water over the steps of a model that does not conserve it
"""

from collections.abc import Mapping

from experiments.experiment import Experiment
from experiments.fields.downscaling_experiment import DownscalingExperiment
from experiments.fields.rollout_experiment import RolloutExperiment

EXPERIMENTS: Mapping[str, Experiment] = {entry.name: entry for entry in (DownscalingExperiment(), RolloutExperiment())}

__all__ = ["EXPERIMENTS", "DownscalingExperiment", "RolloutExperiment"]
