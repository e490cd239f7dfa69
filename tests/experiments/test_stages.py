"""What every experiment shares on its way to files; released weights are taken for the training that they are of."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.conservation import EXPERIMENTS as CONSERVATION
from experiments.experiment import RunContext, RunOptions, Training
from experiments.generation import EXPERIMENTS as GENERATION
from experiments.records.storage import alone_with
from experiments.stages import changed_since, create_once, one_thread, stage_progress, take_released, unlocked_first


def test_of_two_runs_that_want_weights_one_makes_them(tmp_path: Path) -> None:
    path, made, go = tmp_path / "training" / "weights", list[int](), threading.Event()

    def make() -> None:
        made.append(1)
        go.wait(10)
        path.write_text("weights")

    with ThreadPoolExecutor() as pool:
        both = [pool.submit(create_once, path, make, path.exists) for _ in range(2)]
        go.set()
        assert [one.result(10) for one in both] == [path, path]
    assert made == [1]
    create_once(path, make, lambda: path.read_text() == "better weights")
    assert made == [1, 1], "what is there but not whole is made again"


def test_what_another_run_is_making_comes_last(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name / "weights" for name in "abc")
    with alone_with(second):
        order = unlocked_first([first, second, third])
        assert [next(order), next(order)] == [first, third]
        third.write_text("made meanwhile")
    assert list(order) == [second]
    assert list(unlocked_first([first, second, third])) == [first, second, third]


def test_one_thread_is_given_back() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)


def test_progress_names_every_stage_on_standard_error_when_it_begins(capsys: pytest.CaptureFixture[str]) -> None:
    with stage_progress(2) as stages:
        stages.begin("first of two")
        stages.say("0 [is] the score of the first")
        assert capsys.readouterr() == ("", "1/2 first of two\n0 [is] the score of the first\n")
        stages.begin("second of two")
        assert capsys.readouterr() == ("", "2/2 second of two\n")


def flow_training(context: RunContext) -> Training:
    return GENERATION["generate_stokes"].training(0, context)


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
