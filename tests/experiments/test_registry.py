"""What the command line lists exists."""

import re
from typing import get_args

import pytest

from experiments import boundary, combined, conservation, generation, gpme, observations
from experiments.boundary import open_rollouts
from experiments.experiment import Preset
from experiments.options import CATALOGUE
from experiments.records.release import released_names, released_results
from experiments.registry import BENCHMARKS, benchmark, table
from tests.documents import ROOT

RELEASED = [name for name in CATALOGUE if name in released_names() and name not in observations.EXPERIMENTS]
"""Those with trainings."""


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_listed_benchmark_can_be_run(name: str) -> None:
    assert callable(benchmark(name))


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_listed_experiment_is_there_and_says_how_long_each_preset_takes(name: str) -> None:
    entry = table(name)
    assert entry.name == name
    assert CATALOGUE[name].summary
    seconds = [in_seconds(CATALOGUE[name].durations[preset]) for preset in get_args(Preset)]
    assert seconds == sorted(seconds)
    assert seconds[0] <= 120, "smoke is a matter of minutes at most"


def test_data_are_chosen_for_laws_in_time_and_files_given_for_records_of_others() -> None:
    takes = {name: table(name).options for name in CATALOGUE}
    assert {name for name, options in takes.items() if "data" in options} == set(conservation.EXPERIMENTS)
    assert {name for name, options in takes.items() if "files" in options} == {"observations"}


def test_every_experiment_of_a_family_is_listed() -> None:
    families = (boundary, open_rollouts, combined, conservation, generation, gpme, observations)
    groups = [family.EXPERIMENTS for family in families]
    groups.append(conservation.STUDIES)
    assert {entry.name for group in groups for entry in group.values()} == set(CATALOGUE)


def in_seconds(duration: str) -> float:
    """A duration as ``list`` shows it, for instance ``30 s`` or ``1.5 h``."""
    number, unit = re.fullmatch(r"(?:about )?(\d+(?:\.\d+)?) (s|min|h|days?)", duration).groups()
    return float(number) * {"s": 1, "min": 60, "h": 3600, "day": 86400, "days": 86400}[unit]


@pytest.mark.parametrize("name", RELEASED)
def test_a_run_takes_no_less_than_its_released_trainings(name: str) -> None:
    """Of trainings that differ in their seed alone the fastest counts: others waited for the machine."""
    trainings = released_results(name).trainings.drop_duplicates("seconds")
    alike = trainings.groupby(["case", "method", trainings["training"].str.rstrip("0123456789")])["seconds"]
    assert in_seconds(CATALOGUE[name].durations["laptop"]) >= (alike.min() * alike.size()).sum()


def test_the_hours_of_all_experiments_are_those_in_the_guide() -> None:
    hours = sum(in_seconds(CATALOGUE[name].durations["laptop"]) for name in CATALOGUE) / 3600
    assert f"{hours:.0f} hours on one core" in " ".join((ROOT / "CONTRIBUTING.md").read_text().split())
