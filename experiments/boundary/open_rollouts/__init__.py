"""Rollouts of open systems under the balance of their walls."""

from collections.abc import Mapping

from experiments.boundary.open_rollouts.experiment import OpenRolloutExperiment
from experiments.experiment import Declared

EXPERIMENTS: Mapping[str, Declared] = {"open_rollouts": OpenRolloutExperiment()}
"""Heat, reaction, Burgers, a channel and a plate whose walls are measured, 200 steps."""
