"""Observations under laws, and temperatures from their means over blocks."""

from collections.abc import Mapping

from experiments.experiment import Declared
from experiments.observations.downscaling_experiment import DownscalingExperiment
from experiments.observations.experiment import ObservationsExperiment

EXPERIMENTS: Mapping[str, Declared] = {
    entry.name: entry for entry in (ObservationsExperiment(), DownscalingExperiment())
}

__all__ = ["EXPERIMENTS", "DownscalingExperiment", "ObservationsExperiment"]
