"""The command on published draws, and the benchmark of projections, in small."""

import json
from pathlib import Path

import pytest

from experiments import cli
from experiments.benchmarks import projection
from experiments.generation import command
from experiments.generation.published import BurgersRows
from experiments.storage import read_arrays
from tests.experiments.generation.test_published import SMALL, write


def test_the_command_says_what_was_outside_and_what_the_laws_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path)
    published = command.constrain_published
    monkeypatch.setattr(command, "constrain_published", lambda folder, count: published(folder, count, rows=SMALL))
    file = tmp_path / "fields.safetensors"
    assert cli.main(["constrain", str(tmp_path), "--out", str(file)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("2 published draws under 85 rows and [0, 1]")
    assert [line.split()[-1] for line in printed[2:4]] == ["0.0%", "0.0%"]
    assert max(map(len, printed)) <= 80
    fields = read_arrays(file)["fields"]
    assert fields.shape == (2, 7, 21)
    assert fields.min() >= 0
    assert cli.main(["constrain", str(tmp_path), "--n", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["draws"] == 1


def test_a_folder_without_the_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["constrain", str(tmp_path)]) == 2
    assert "The file is in the repository xenakistheo/PCFM.jl" in capsys.readouterr().err
    assert cli.main(["constrain", str(tmp_path), "--n", "0"]) == 2
    assert "--n must be at least 1, got 0" in capsys.readouterr().err


def test_one_step_is_that_of_the_dense_form() -> None:
    small = BurgersRows(times=5, points=11, flux_steps=2, time_step=0.05, spacing=0.1, front=0.1)
    one, whole = projection.run(small, count=2)["cases"]
    assert one["difference"] <= 1e-8
    assert "33 rows, 55 unknowns, 2 fields" in one["case"]
    assert whole["law residual"] <= 1e-12
