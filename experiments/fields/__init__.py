"""The experiments on fields with laws: block means of real temperatures, and the mass of water over a rollout."""

from experiments.fields.downscaling_experiment import DownscalingExperiment

EXPERIMENTS = {entry.name: entry for entry in (DownscalingExperiment(),)}

__all__ = ["EXPERIMENTS", "DownscalingExperiment"]
