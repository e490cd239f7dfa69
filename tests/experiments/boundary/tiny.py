"""Boundary-condition experiments in sizes that train in milliseconds."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from experiments.boundary import EXPERIMENTS
from experiments.boundary.cases import BoundaryCase, BoundarySizes, NetworkSizes
from experiments.boundary.experiment import BoundaryExperiment
from experiments.boundary.versions import VERSIONS
from experiments.experiment import RunContext, RunOptions
from probconserv.training import TrainingConfig

SIZES = BoundarySizes(
    samples=8,
    validation=2,
    test=3,
    nodes=17,
    network=NetworkSizes(width=4, modes=3, depth=2),
    training=TrainingConfig(
        steps=6, peak_rate=1e-2, validate_every=3, checkpoint_every=2, precision="32-true", weight_decay=1e-4
    ),
    batch=4,
    seeds=1,
)


def tiny(case: BoundaryCase, time_modes: int = 0, seeds: int = 1) -> BoundaryCase:
    """A case in tiny sizes, with 3 output times where there are 25."""
    square = len(case.problem.conditions) == 2
    kept = case.sizes.network
    modes = time_modes if case.times > 1 else 0
    network = replace(SIZES.network, unit=kept.unit, order=kept.order, time_modes=modes)
    sizes = replace(SIZES, nodes=9 if square else SIZES.nodes, network=network, seeds=seeds)
    return replace(case, times=min(case.times, 3), sizes=sizes)


def tiny_cases(name: str, time_modes: int = 0) -> tuple[BoundaryCase, ...]:
    """All versions of a problem."""
    return tuple(tiny(case, time_modes) for case in VERSIONS[name]("laptop"))


def one(name: str, key: str, time_modes: int = 0) -> BoundaryCase:
    """One version by its key."""
    return next(case for case in tiny_cases(name, time_modes) if case.key == key)


def tiny_experiment(*cases: BoundaryCase, of: BoundaryExperiment = EXPERIMENTS["stokes"]) -> BoundaryExperiment:
    """An experiment with other cases."""
    versions: Callable[..., tuple[BoundaryCase, ...]] = lambda _: cases  # noqa: E731
    return replace(of, versions=versions)


def context(out: Path, seed: int = 0) -> RunContext:
    """A run without progress bars."""
    return RunContext(options=RunOptions(out=out, seed=seed), training_seed=seed, progress=False)
