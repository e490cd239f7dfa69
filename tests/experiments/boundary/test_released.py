"""Which trainings have released weights: those of a problem itself, and the same ones where its study tests them."""

from pathlib import Path

import pytest

from experiments.boundary.experiment import BoundaryExperiment
from experiments.boundary.studies import STUDIES
from experiments.experiment import RunContext, RunOptions
from experiments.registry import experiment


def released(experiment: BoundaryExperiment, context: RunContext) -> dict[str, str | None]:
    """From hashes of trainings to the names of their weights."""
    return {
        training.hash: training.release
        for case in experiment.cases(context)
        for method in experiment.methods(case)
        for seed in experiment.seeds(case, context)
        for training in experiment.trainings(case, method, seed, context)
    }


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_names_the_released_operators_that_it_tests(name: str, tmp_path: Path) -> None:
    context = RunContext(options=RunOptions(preset="laptop", out=tmp_path))
    problem = experiment(name)
    assert isinstance(problem, BoundaryExperiment)
    own, tested = released(problem, context), released(STUDIES[name], context)
    assert tested == {training: own.get(training) for training in tested}
    assert len(set(tested.values()) - {None}) >= 2
