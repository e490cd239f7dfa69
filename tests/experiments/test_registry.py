"""What the command line lists exists."""

import pytest

from experiments.registry import BENCHMARKS, EXPERIMENTS, benchmark, experiment


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_listed_benchmark_can_be_run(name: str) -> None:
    assert callable(benchmark(name))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_listed_experiment_says_how_long_each_preset_takes(name: str) -> None:
    assert experiment(name).name == name
    assert all(experiment(name).durations[preset][-1] in "sn" for preset in ("smoke", "laptop", "paper"))
