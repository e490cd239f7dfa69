"""Rollouts in sizes that take seconds."""

from experiments.fields import RolloutExperiment
from experiments.fields.rollout_experiment import Sizes

SHORT = Sizes(training=1, test=2, every=2, cells=8, steps=4)


def tiny_rollout() -> RolloutExperiment:
    """Four steps in two basins of 8 × 8 cells."""
    return RolloutExperiment(sizes={"smoke": SHORT})
