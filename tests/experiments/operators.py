"""Boundary-condition cases in sizes that train in milliseconds."""

from dataclasses import replace

from experiments.operator_config import NetworkSizes, OperatorCase, OperatorSizes
from experiments.operator_problems import CASES
from experiments.training import TrainingConfig

SIZES = OperatorSizes(
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


def tiny_cases(name: str, preset: str = "laptop", time_modes: int = 0, seeds: int = 1) -> tuple[OperatorCase, ...]:
    """All versions of an experiment, with 3 output times where there are 25."""
    return tuple(tiny(case, time_modes, seeds) for case in CASES[name](preset))


def tiny(case: OperatorCase, time_modes: int = 0, seeds: int = 1) -> OperatorCase:
    """A case in tiny sizes."""
    square = len(case.problem.conditions) == 2
    modes = time_modes if case.times > 1 else 0
    kept = case.sizes.network
    network = replace(SIZES.network, unit=kept.unit, order=kept.order, time_modes=modes)
    sizes = replace(SIZES, nodes=9 if square else SIZES.nodes, network=network, seeds=seeds)
    return replace(case, times=min(case.times, 3), sizes=sizes)


def one(name: str, key: str, time_modes: int = 0) -> OperatorCase:
    """One version by the name of its case."""
    return next(case for case in tiny_cases(name, time_modes=time_modes) if case.name == key)
