"""Predictions from a user's observations that keep a conservation law: the command ``predict``."""

from experiments.predict.command import predict_command
from experiments.predict.law import PredictOptions, conserved_totals
from experiments.predict.observations import read_observations
from experiments.predict.prediction import before_and_after, predict

__all__ = ["PredictOptions", "before_and_after", "conserved_totals", "predict", "predict_command", "read_observations"]
