"""Released weights are taken for the training that they are of, and for no other."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments.conservation import EXPERIMENTS as CONSERVATION
from experiments.experiment import RunContext, RunOptions, Training
from experiments.generation import EXPERIMENTS as GENERATION
from experiments.stages import changed_since, take_released


def flow_training(context: RunContext) -> Training:
    return GENERATION["generate_heat"].training(0, context)


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    return RunContext(options=RunOptions(preset="laptop", out=tmp_path))


def test_released_weights_of_the_training_are_taken(context: RunContext) -> None:
    training = flow_training(context)
    assert take_released(training, context)
    assert training.weights(context.options.out).is_file()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda training: replace(training, config=replace(training.config, width=64)), "training.width"),
        (
            lambda training: replace(
                training, config=replace(training.config, training=replace(training.config.training, steps=500))
            ),
            "training.training.steps",
        ),
        (lambda training: replace(training, data_version=99), "data_version"),
    ],
)
def test_weights_of_another_training_are_named_and_left_alone(
    change: Any, named: str, context: RunContext, capsys: pytest.CaptureFixture[str]
) -> None:
    training = change(flow_training(context))
    assert not take_released(training, context)
    assert not training.weights(context.options.out).exists()
    assert f"other {named}." in capsys.readouterr().err


def test_reproduce_takes_weights_that_were_trained_on_older_data(context: RunContext) -> None:
    assert take_released(replace(flow_training(context), data_version=99), replace(context, released=True))


def test_the_machine_of_a_training_does_not_matter(context: RunContext) -> None:
    training = flow_training(context)
    config = replace(training.config, training=replace(training.config.training, device="cuda", processes=4))
    assert take_released(replace(training, config=config), context)


def test_files_of_release_0_1_are_compared_in_what_they_name(context: RunContext) -> None:
    entry = CONSERVATION["stefan"]
    training = entry.training("anp", 0, entry.data, context)
    released = context.release / "weights" / str(training.release)
    assert changed_since(released, training) == []
    wider = replace(training.config, network=replace(training.config.network, width=64))
    assert changed_since(released, replace(training, config=wider)) == ["training.network.width"]
