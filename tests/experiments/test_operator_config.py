"""Configs of the boundary-condition experiments: presets, versions, and what is refused."""

from dataclasses import replace
from typing import Any

import pytest

from experiments.errors import InvalidArgumentError, UnknownNameError
from experiments.experiment import RunOptions
from experiments.operator_config import NetworkSizes, OperatorSizes
from experiments.operator_problems import CASES, boundary_cases
from tests.experiments.operators import SIZES, tiny_cases


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("preset", ["smoke", "laptop", "paper"])
def test_cases_of_every_preset_have_names_and_labels_of_their_own(name: str, preset: Any) -> None:
    cases = CASES[name](preset)
    assert len({case.name for case in cases}) == len({case.label for case in cases}) == len(cases)
    assert all(case.name.isascii() for case in cases)
    assert all((case.times > 1) == case.name.startswith("multi") for case in cases)
    assert all(case.few_methods == (name in ("wave_neumann", "cavity")) for case in cases)


def test_paper_preset_has_the_authors_sizes() -> None:
    single, multi = CASES["stokes"]("paper")[:2]
    (square,) = CASES["cavity"]("paper")
    assert (single.sizes.samples, single.sizes.nodes, single.sizes.test, single.sizes.batch) == (500, 500, 100, 20)
    assert (single.sizes.network.modes, single.sizes.network.width) == (16, 64)
    assert (multi.sizes.samples, multi.sizes.network.modes, multi.sizes.network.time_modes) == (1000, 12, 12)
    assert (square.sizes.nodes, square.sizes.network.width, square.sizes.network.time_modes) == (50, 20, 8)
    assert square.sizes.network.unit == 8.0
    assert len(CASES["stokes"]("paper")) == 10


@pytest.mark.parametrize("seed", range(3))
def test_test_samples_are_no_training_samples_of_any_seed(seed: int) -> None:
    (case, *_) = tiny_cases("stokes")
    training = {case.training_data(other).seed for other in range(20)}
    assert case.test_data(seed).seed not in training


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 7}, "batch must not exceed the 8 − 2 samples"),
        ({"validation": 0}, "validation must be at least 1, got 0"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
    ],
)
def test_sizes_out_of_range_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        replace(SIZES, **change)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"order": 5}, "order must be 1, 2, 3 or 4, got 5"),
        ({"unit": 3.0}, "unit must be a power of two, got 3.0"),
        ({"unit": -2.0}, "unit must be a power of two, got -2.0"),
    ],
)
def test_networks_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        NetworkSizes(**options)


def test_units_below_one_are_powers_of_two_as_well() -> None:
    assert OperatorSizes(training=SIZES.training, network=NetworkSizes(unit=0.25)).network.unit == 0.25


def test_unknown_experiments_are_named() -> None:
    with pytest.raises(UnknownNameError, match=r"There is no boundary-condition experiment 'stefan'. Known: stokes"):
        boundary_cases("stefan", RunOptions())
    with pytest.raises(UnknownNameError, match=r"There is no case 'double' here. Known: single-0.02, multi-0.02."):
        boundary_cases("stokes", RunOptions(cases=("double",)))


def test_cases_can_be_chosen_by_name() -> None:
    assert [case.name for case in boundary_cases("stokes", RunOptions(cases=("multi-0.02",)))] == ["multi-0.02"]
    assert len(boundary_cases("stokes", RunOptions(preset="paper"))) == 10
