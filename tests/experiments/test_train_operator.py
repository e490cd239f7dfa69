"""Trainings of operators: decided by their config, resumed exactly, stored with how they were made."""

import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import boon
from experiments import train_operator
from experiments.errors import TrainingDivergedError, TrainingInterruptedError
from experiments.operator_data import load_fields
from experiments.operator_methods import ConditionedOperator, methods
from experiments.train_operator import Place, load_operator, operator_training, slug, trained_operator, validation_score
from tests.experiments.operators import one

CASE = one("heat_independent", "single-values")
FNO, DEFAULT = methods(CASE)[0], methods(CASE)[-1]


def place(folder: Path) -> Place:
    return Place(experiment="heat_independent", out=folder, progress=False)


def weights(path: Path) -> dict[str, Tensor]:
    return boon.load(path).state_dict()


def assert_equal(first: Path, second: Path) -> None:
    one, other = weights(first), weights(second)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


class Stop(Exception):
    """Stands for a crash."""


def on_call(monkeypatch: pytest.MonkeyPatch, number: int, action) -> None:
    """Does something at one call of the loss, which may change its value."""
    calls = 0
    original = ConditionedOperator.loss

    def loss(self: ConditionedOperator, fields) -> Tensor:
        nonlocal calls
        calls += 1
        value = original(self, fields)
        return value * action() if calls == number else value

    monkeypatch.setattr(ConditionedOperator, "loss", loss)


def crash() -> float:
    raise Stop


def test_a_crashed_training_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trained_operator(CASE, DEFAULT, place(tmp_path / "whole"), 0)
    with monkeypatch.context() as patch:
        on_call(patch, 4, crash)
        with pytest.raises(Stop):
            trained_operator(CASE, DEFAULT, place(tmp_path / "broken"), 0)
    resumed = trained_operator(CASE, DEFAULT, place(tmp_path / "broken"), 0)
    assert_equal(whole, resumed)
    assert boon.read_notes(whole)["history"][-1]["step"] == 6


def test_an_interrupted_training_says_so_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trained_operator(CASE, FNO, place(tmp_path / "whole"), 0)

    def interrupt() -> float:
        os.kill(os.getpid(), signal.SIGINT)
        return 1.0

    with monkeypatch.context() as patch:
        on_call(patch, 3, interrupt)
        with pytest.raises(TrainingInterruptedError, match="training of 'FNO' for heat_independent was stopped"):
            trained_operator(CASE, FNO, place(tmp_path / "broken"), 0)
    assert_equal(whole, trained_operator(CASE, FNO, place(tmp_path / "broken"), 0))


def test_a_diverged_training_keeps_the_last_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        on_call(patch, 5, lambda: math.nan)
        with pytest.raises(TrainingDivergedError, match=r"diverged at step 5 of 6.*last good checkpoint"):
            trained_operator(CASE, FNO, place(tmp_path), 0)
    assert len(list(tmp_path.glob("**/checkpoint.safetensors"))) == 1
    assert not list(tmp_path.glob("**/weights.safetensors"))


def test_a_finished_training_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = trained_operator(CASE, FNO, place(tmp_path), 0)
    monkeypatch.setattr(train_operator, "train", crash)
    assert trained_operator(CASE, FNO, place(tmp_path), 0) == first


def test_seed_decides_the_weights_and_outer_randomness_does_not(tmp_path: Path) -> None:
    first = trained_operator(CASE, FNO, place(tmp_path / "first"), 0)
    torch.manual_seed(99)
    assert_equal(first, trained_operator(CASE, FNO, place(tmp_path / "again"), 0))
    other = weights(trained_operator(CASE, FNO, place(tmp_path / "first"), 1))
    assert not torch.equal(other["lift.weight"], weights(first)["lift.weight"])


def test_everything_that_decides_a_training_changes_its_identity() -> None:
    config = operator_training(CASE, FNO, 0, 0)
    sizes = CASE.sizes
    cases = (
        replace(CASE, sizes=replace(sizes, nodes=19)),
        replace(CASE, sizes=replace(sizes, batch=3)),
        replace(CASE, sizes=replace(sizes, network=replace(sizes.network, width=5))),
        replace(CASE, sizes=replace(sizes, training=replace(sizes.training, steps=7))),
        one("heat_independent", "single-gradients"),
    )
    others = [operator_training(case, FNO, 0, 0) for case in cases]
    others += [operator_training(CASE, DEFAULT, 0, 0), operator_training(CASE, FNO, 1, 0)]
    others.append(operator_training(CASE, FNO, 0, 1))
    assert len({config.identity, *(other.identity for other in others)}) == 1 + len(others)
    assert operator_training(CASE, replace(FNO, name="another name"), 0, 0).identity == config.identity
    unseen = replace(CASE, sizes=replace(sizes, test=5, seeds=2))
    assert operator_training(unseen, FNO, 0, 0).identity == config.identity


def test_samples_held_out_are_not_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    original = ConditionedOperator.loss

    def loss(self: ConditionedOperator, fields) -> Tensor:
        seen.append(fields.input)
        return original(self, fields)

    monkeypatch.setattr(ConditionedOperator, "loss", loss)
    path = trained_operator(CASE, FNO, place(tmp_path), 0)
    fields = load_fields(CASE, CASE.training_data(0), place(tmp_path).data)
    trained_on = {tuple(sample.flatten().tolist()) for batch in seen for sample in batch}
    held_out = fields.take(slice(6, None))
    assert len(trained_on) == 6
    assert all(tuple(sample.flatten().tolist()) not in trained_on for sample in held_out.input)
    score = validation_score(load_operator(path, FNO, CASE), held_out, batch=1)
    # float32 fields in batches of another size
    assert boon.read_notes(path)["history"][-1]["relative_l2"] == pytest.approx(score, rel=1e-5)


def test_weights_say_how_they_were_made(tmp_path: Path) -> None:
    notes = boon.read_notes(trained_operator(CASE, FNO, place(tmp_path), 3))
    assert notes["case"] == CASE.label
    assert notes["training"]["training"]["seed"] == 3
    assert notes["training"]["samples"]["problem"] == "heat_independent"
    assert {"seconds", "environment", "history"} < notes.keys()


def test_methods_have_file_names() -> None:
    assert slug("BOON (paper's form)") == "boon-papers-form"
    assert slug("FNO + boundary channels") == "fno-boundary-channels"
