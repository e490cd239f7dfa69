"""Cases of the boundary-condition experiments: presets, versions, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments import driver
from experiments.boundary import CHOICES, EXPERIMENTS, STUDIES
from experiments.boundary.cases import BoundaryDataConfig, NetworkSizes
from experiments.boundary.versions import VERSIONS
from experiments.errors import InvalidArgumentError
from experiments.experiment import RunOptions
from solvers.problems.boundary_problems import BOUNDARY_PROBLEMS
from tests.experiments.boundary.tiny import SIZES, tiny_cases


@pytest.mark.parametrize("name", VERSIONS)
@pytest.mark.parametrize("preset", ["smoke", "laptop", "paper"])
def test_cases_of_every_preset_have_distinct_keys_and_labels(name: str, preset: Any) -> None:
    cases = VERSIONS[name](preset)
    assert len({case.key for case in cases}) == len({case.label for case in cases}) == len(cases)
    assert all(case.key.startswith("multi" if case.times > 1 else "single") for case in cases)
    assert all(case.few_methods == (name in ("wave_neumann", "cavity")) for case in cases)


def test_paper_preset_has_the_authors_sizes() -> None:
    single, multi = VERSIONS["stokes"]("paper")[:2]
    (square,) = VERSIONS["cavity"]("paper")
    assert (single.sizes.samples, single.sizes.nodes, single.sizes.test, single.sizes.batch) == (500, 500, 100, 20)
    assert (single.sizes.network.modes, single.sizes.network.width) == (16, 64)
    assert (multi.sizes.samples, multi.sizes.network.modes, multi.sizes.network.time_modes) == (1000, 12, 12)
    assert (square.sizes.nodes, square.sizes.network.width, square.sizes.network.time_modes) == (50, 20, 8)
    assert square.sizes.network.unit == 8.0
    assert len(VERSIONS["stokes"]("paper")) == 10


@pytest.mark.parametrize("seed", range(3))
def test_test_samples_are_no_training_samples_of_any_seed(seed: int) -> None:
    (case, *_) = tiny_cases("stokes")
    assert case.test_data(seed).seed not in {case.training_data(other).seed for other in range(20)}


def test_versions_have_their_output_times() -> None:
    problem = BOUNDARY_PROBLEMS["heat_neumann"]
    assert BoundaryDataConfig(times=1).output_times(problem).tolist() == [0.5]
    assert BoundaryDataConfig(times=25, final_time=2.0).output_times(problem)[-1].item() == 2.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(SIZES, batch=7), "batch must not exceed the 8 − 2 samples"),
        (lambda: replace(SIZES, validation=0), "validation must be at least 1, got 0"),
        (lambda: NetworkSizes(order=5), "order must be 1, 2, 3 or 4, got 5"),
        (lambda: NetworkSizes(unit=3.0), "unit must be a power of two, got 3.0"),
        (lambda: NetworkSizes(unit=-2.0), "unit must be a power of two, got -2.0"),
        (lambda: BoundaryDataConfig(nodes=4), "nodes must be at least 5"),
        (lambda: BoundaryDataConfig(final_time=0.0), "final_time must be positive"),
    ],
)
def test_sizes_out_of_range_are_refused(make: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        make()
    assert NetworkSizes(unit=0.25).unit == 0.25


@pytest.mark.parametrize("experiment", [EXPERIMENTS["stokes"], STUDIES["heat_independent"], CHOICES["cavity"]])
def test_the_data_option_of_other_experiments_is_refused(experiment: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=f"--data solver does not belong to {experiment.name}"):
        driver.run(experiment, RunOptions(out=tmp_path, data="solver"))
