"""The generation experiments in sizes that train in milliseconds."""

from dataclasses import replace

from experiments.generation import EXPERIMENTS
from experiments.generation.cases import Protocol, Sizes
from experiments.generation.experiment import GenerationExperiment
from probconserv.training import TrainingConfig

SIZES = Sizes(
    samples=60,
    nodes=12,
    modes=4,
    width=8,
    blocks=1,
    training=TrainingConfig(steps=4, validate_every=2, checkpoint_every=2, precision="32-true"),
    batch=16,
    draws=40,
    steps=5,
    protocol=Protocol(drawn=10, references=20, trials=5),
    groups=2,
)


def tiny(name: str) -> GenerationExperiment:
    """An experiment on few fields."""
    return replace(EXPERIMENTS[name], sizes={"smoke": SIZES, "laptop": SIZES})
