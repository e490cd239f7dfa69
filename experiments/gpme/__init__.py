"""Fields of many parameters from few noisy observations, under a known total."""

from collections.abc import Mapping

from experiments.experiment import Declared
from experiments.gpme.experiment import RandomMediaExperiment
from experiments.gpme.queries.experiment import QueryLawExperiment

EXPERIMENTS: Mapping[str, Declared] = {"gpme": RandomMediaExperiment(), "query_laws": QueryLawExperiment()}
"""Porous media of random conductivity with random profiles, and plumes from random places."""
