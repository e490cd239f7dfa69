"""Which correction shall be the default: candidates of one family, trained alike, ranked on the validation set."""

from experiments.boundary.experiment import BoundaryExperiment
from experiments.boundary.methods import candidates
from experiments.boundary.versions import VERSIONS

_SUBJECT = "candidates for the default correction, ranked on the validation set"
CHOICES: dict[str, BoundaryExperiment] = {
    name: BoundaryExperiment(
        name=f"{name}-choice",
        problem=name,
        summary=f"{name}: {_SUBJECT}",
        durations={"smoke": "30 s", "laptop": "60 min", "paper": "9000 min", "reproduce": "1 s"},
        versions=versions,
        methods_of=candidates,
        subject=_SUBJECT,
        by_validation=True,
        repetitions=1,
    )
    for name, versions in VERSIONS.items()
}
"""Choices of the default correction by problem."""
