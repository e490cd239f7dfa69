"""Where the samples of boundary-condition experiments come from: closed forms, random problems, files of others."""

from experiments.boundary.sources.closed_form import ClosedFormSource
from experiments.boundary.sources.darcy_files import DarcyFiles
from experiments.boundary.sources.recipes import RecipeSource
from experiments.boundary.sources.source import DataStore, SampleConfig, Samples, Source

__all__ = [
    "ClosedFormSource",
    "DarcyFiles",
    "DataStore",
    "RecipeSource",
    "SampleConfig",
    "Samples",
    "Source",
]
