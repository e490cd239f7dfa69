"""Which correction shall be the default: candidates of one family, trained alike, ranked on the validation set."""

from functools import partial

from experiments.boundary.cases import BoundaryCase, Versions
from experiments.boundary.experiment import BoundaryExperiment
from experiments.boundary.methods import candidates
from experiments.boundary.versions import VERSIONS
from experiments.experiment import Preset

_SUBJECT = "candidates for the default correction, ranked on the validation set"


def _compared(versions: Versions, preset: Preset) -> tuple[BoundaryCase, ...]:
    return tuple(case for case in versions(preset) if not case.published)


CHOICES: dict[str, BoundaryExperiment] = {
    name: BoundaryExperiment(
        name=f"{name}-choice",
        problem=name,
        versions=partial(_compared, versions),
        methods_of=candidates,
        subject=_SUBJECT,
        by_validation=True,
        repetitions=1,
    )
    for name, versions in VERSIONS.items()
}
"""Choices of the default correction by problem."""
