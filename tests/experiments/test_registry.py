"""What the command line lists exists."""

import re
from typing import get_args

import pytest

from experiments import fields
from experiments.experiment import Preset
from experiments.records.release import manifest, released_results
from experiments.registry import BENCHMARKS, CHOICES, EXPERIMENTS, STUDIES, TUNINGS, benchmark, command_of, experiment
from tests.documents import ROOT

RELEASED = [name for name in EXPERIMENTS if name in manifest()["experiments"] and name not in fields.EXPERIMENTS]
"""Those with trainings: laws of fields have none."""


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


@pytest.mark.parametrize("name", RELEASED)
def test_a_run_takes_no_less_than_its_released_trainings(name: str) -> None:
    """Of trainings that differ in their seed alone the fastest counts: others waited for the machine."""
    trainings = released_results(name).trainings.drop_duplicates("seconds")
    alike = trainings.groupby(["case", "method", trainings["training"].str.rstrip("0123456789")])["seconds"]
    assert in_seconds(experiment(name).durations["laptop"]) >= (alike.min() * alike.size()).sum()


def test_the_hours_of_all_experiments_are_those_in_the_guide() -> None:
    hours = sum(in_seconds(entry.durations["laptop"]) for entry in EXPERIMENTS.values()) / 3600
    assert f"{hours:.0f} hours on one core" in " ".join((ROOT / "CONTRIBUTING.md").read_text().split())


def test_studies_choices_and_tunings_are_found_by_their_full_names() -> None:
    for entries in (STUDIES, CHOICES, TUNINGS):
        for entry in entries.values():
            assert experiment(entry.name) is entry
            assert entry.name not in EXPERIMENTS


def test_the_command_of_an_experiment_finds_it_again() -> None:
    for command, entries in (("run", EXPERIMENTS), ("study", STUDIES), ("choose", CHOICES), ("tune", TUNINGS)):
        for name, entry in entries.items():
            assert command_of(entry) == f"{command} {name}"
