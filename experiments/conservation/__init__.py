"""The conservation experiments: surrogates of five problems, without and with the law of their total.

A user's problem is an experiment too:

    table = ConservationExperiment(problem=problem, gp=GPConfig(), networks=None).table
"""

from experiments.conservation.calibration import STUDIES, CalibrationStudy
from experiments.conservation.experiment import EXPERIMENTS, ConservationExperiment
from experiments.conservation.networks import NetworkPlan, load_pretrained

__all__ = ["EXPERIMENTS", "STUDIES", "CalibrationStudy", "ConservationExperiment", "NetworkPlan", "load_pretrained"]
