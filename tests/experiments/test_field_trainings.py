"""Operators of the experiments under both constraints, trained by the command line."""

import json
from pathlib import Path

import pytest

from experiments import field_trainings
from experiments.commands import main
from experiments.field_experiments import STUDIES
from experiments.field_study import groups
from tests.experiments.fields import TINY, tiny_study


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(field_trainings.SIZES, "smoke", TINY)
    monkeypatch.setitem(STUDIES, "combined", tiny_study("combined", "stefan"))


def train(out: Path, *words: str) -> int:
    return main(["train", "combined", "--out", str(out), *words, "--json"])


def test_train_makes_the_operators_that_run_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, "--role", "boon") == 0
    first = json.loads(capsys.readouterr().out)["weights"]
    assert train(tmp_path) == 0
    files = set(json.loads(capsys.readouterr().out)["weights"])
    assert set(first) < files
    own = groups(STUDIES["combined"], TINY, 0)
    wanted = {training.folder(tmp_path) / "weights.safetensors" for group in own for training in group.trainings}
    assert {Path(file) for file in files} == wanted
    assert all(path.is_file() for path in wanted)


def test_an_unknown_network_names_the_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, "--role", "heads") == 2
    assert "There is no network 'heads' in combined. Known: fno, boon." in capsys.readouterr().err
