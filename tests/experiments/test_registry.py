"""What the command line lists exists."""

import re
from typing import get_args

import pytest

from experiments.experiment import Preset
from experiments.registry import BENCHMARKS, CHOICES, EXPERIMENTS, STUDIES, TUNINGS, benchmark, command_of, experiment


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_listed_benchmark_can_be_run(name: str) -> None:
    assert callable(benchmark(name))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_listed_experiment_says_how_long_each_preset_takes(name: str) -> None:
    assert experiment(name).name == EXPERIMENTS[name].name == name
    seconds = [in_seconds(experiment(name).durations[preset]) for preset in get_args(Preset)]
    assert seconds == sorted(seconds)
    assert seconds[0] <= 60, "smoke is a matter of seconds"


def in_seconds(duration: str) -> float:
    """A duration as ``list`` shows it, for instance ``30 s`` or ``1.5 h``."""
    number, unit = re.fullmatch(r"(?:about )?(\d+(?:\.\d+)?) (s|min|h|days?)", duration).groups()
    return float(number) * {"s": 1, "min": 60, "h": 3600, "day": 86400, "days": 86400}[unit]


def test_studies_choices_and_tunings_are_found_by_their_full_names() -> None:
    for entries in (STUDIES, CHOICES, TUNINGS):
        for entry in entries.values():
            assert experiment(entry.name) is entry
            assert entry.name not in EXPERIMENTS


def test_the_command_of_an_experiment_finds_it_again() -> None:
    for command, entries in (("run", EXPERIMENTS), ("study", STUDIES), ("choose", CHOICES), ("tune", TUNINGS)):
        for name, entry in entries.items():
            assert command_of(entry) == f"{command} {name}"
