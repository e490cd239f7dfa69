"""Operators trained by the command line, alone or in several processes."""

import json
from pathlib import Path

import pytest

from experiments import operator_problems, operator_trainings
from experiments.commands import main
from experiments.experiment import RunOptions
from experiments.operator_methods import methods
from experiments.operator_problems import boundary_cases
from experiments.processes import Share
from experiments.train_operator import shareable
from tests.experiments.operators import tiny_cases


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(operator_problems.CASES, "stokes", lambda preset: tiny_cases("heat_independent", preset)[:1])


def words(out: Path, *more: str) -> list[str]:
    return ["train", "stokes", "--out", str(out), *more]


def test_train_makes_the_operators_that_run_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(tmp_path, "--role", "boon-default", "--json")) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["problem"] == "stokes"
    (file,) = printed["weights"]
    assert Path(file).parent.parent == tmp_path / "stokes" / "operators"
    assert Path(file).is_file()


def test_several_processes_leave_out_what_one_must_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[str] = []
    monkeypatch.setattr(operator_trainings, "launched", lambda: Share(0, 2, 0, 2))
    monkeypatch.setattr(operator_trainings, "trained_operator", lambda _c, method, *_: trained.append(method.name))
    operator_trainings.train_operators("stokes", RunOptions(out=tmp_path))
    (case,) = boundary_cases("stokes", RunOptions(out=tmp_path))
    assert trained == [method.name for method in methods(case) if shareable(method)]
    assert len(trained) == len(methods(case)) - 1
    assert "'FNO + soft penalty' trains in one process; run does that." in capsys.readouterr().err


def test_torchrun_is_for_train(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("experiments.commands.launched", lambda: Share(1, 2, 1, 2))
    assert main(["list"]) == 2
    assert "train alone shares its work" in capsys.readouterr().err
