"""Field cases in sizes that train in milliseconds."""

from dataclasses import replace

from experiments.field_config import ADVECTION_CASE, HEAT_CASE, POROUS_MEDIUM_CASE, STEFAN_CASE, FieldSizes
from experiments.field_experiments import STUDIES
from experiments.field_study import FieldStudy
from experiments.operator_config import NetworkSizes
from experiments.training import TrainingConfig

CASES = {case.name: case for case in (HEAT_CASE, POROUS_MEDIUM_CASE, STEFAN_CASE, ADVECTION_CASE)}
TINY = FieldSizes(
    samples=6,
    held_out=2,
    test=3,
    nodes=17,
    times=3,
    refinement=2,
    network=NetworkSizes(width=4, modes=3, depth=2),
    training=TrainingConfig(steps=4, peak_rate=1e-2, validate_every=2, checkpoint_every=2, precision="32-true"),
    batch=3,
    members=2,
    passes=2,
    groups=2,
)


def tiny_study(name: str, *cases: str) -> FieldStudy:
    """A study with some of its cases and one shift each."""
    study = STUDIES[name]
    kept = [case for case in study.cases if not cases or case.name in cases]
    return replace(study, cases=tuple(replace(case, shifts=case.shifts[:1]) for case in kept))
