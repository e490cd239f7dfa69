"""Predictions from a user's own observations that keep a conservation law: the command ``predict``."""

from experiments.predict.command import predict_command
from experiments.predict.figure import before_and_after
from experiments.predict.law import conserved_totals
from experiments.predict.observations import read_observations
from experiments.predict.options import PredictOptions
from experiments.predict.prediction import predict

__all__ = [
    "PredictOptions",
    "before_and_after",
    "conserved_totals",
    "predict",
    "predict_command",
    "read_observations",
]
