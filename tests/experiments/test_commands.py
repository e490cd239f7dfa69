"""The command line: what a user types, what is printed where, and how errors read."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from experiments import __main__ as program
from experiments import commands
from experiments.commands import main
from experiments.registry import BENCHMARKS, EXPERIMENTS


def test_list_names_everything_with_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    for word in ("diffusion", "porous_medium", "stefan", "update", "solver", "smoke", "laptop", "paper"):
        assert word in printed


def test_list_in_json_holds_names_summaries_and_times(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in listed["experiments"]] == list(EXPERIMENTS)
    assert {entry["name"]: entry["summary"] for entry in listed["benchmarks"]} == BENCHMARKS
    for entry in listed["experiments"]:
        assert entry["summary"] == EXPERIMENTS[entry["name"]].summary
        assert entry["durations"] == EXPERIMENTS[entry["name"]].durations


def test_list_shows_the_time_of_reproduce_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    timed = replace(EXPERIMENTS["stefan"], durations={"smoke": "1 s", "laptop": "2 min", "paper": "3 h"})
    monkeypatch.setattr(commands, "EXPERIMENTS", {"plain": timed})
    main(["list"])
    assert "reproduce" not in capsys.readouterr().out
    shipped = replace(timed, name="shipped", durations={**timed.durations, "reproduce": "4 min"})
    monkeypatch.setattr(commands, "EXPERIMENTS", {"plain": timed, "shipped": shipped})
    main(["list"])
    printed = capsys.readouterr().out
    assert "reproduce" in printed
    assert "4 min" in printed


@pytest.mark.parametrize(
    "command", ["list", "run", "reproduce", "sweep", "train", "choose", "study", "bench", "report", "predict"]
)
def test_every_command_takes_json_and_is_named_by_the_program(capsys: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert "--json" in capsys.readouterr().out
    assert f"    {command} " in str(program.__doc__)


def test_unknown_experiment_names_the_closest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "stefann"]) == 2
    message = capsys.readouterr().err
    assert "There is no experiment 'stefann'. Did you mean 'stefan'?" in message
    assert "porous_medium" in message


def test_unknown_benchmark_names_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "nothing"]) == 2
    assert "There is no benchmark 'nothing'. Known: update, solver" in capsys.readouterr().err


def test_unwritable_output_folder_is_said_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert main(["run", "stefan", "--out", str(blocked)]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "nonsense"], "--device nonsense cannot be used here"),
        (["--seed", "-3"], r"--seed must lie in \[0, 2³¹\), got -3"),
        (["--seed", "99999999999999999999"], r"--seed must lie in"),
    ],
)
def test_run_refuses_what_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["run", "stefan", *options, "--out", str(tmp_path)]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "stokes", "--cases", "double"], "There is no case 'double' here. Known: single-0.02, multi-0.02"),
        (["run", "stefan", "--cases", "single"], "--cases does not belong to conservation experiments"),
        (["run", "stefan", "--networks", "big"], "There is no network 'big' here. Known: anp, anp-exact, softc"),
        (["run", "stokes", "--data", "exact"], "--data does not belong to boundary-condition experiments"),
        (["run", "stokes", "--networks", "anp"], "--networks does not belong to boundary-condition experiments"),
        (["choose", "stefan"], "There is no boundary-condition experiment 'stefan'"),
        (["choose", "stokes", "--only", "magic"], "There is no candidate 'magic'"),
        (["study", "cavity"], "There is no study of 'cavity'. Known: heat_independent, burgers_dirichlet"),
        (["study", "heat_independent", "--cases", "x"], "--cases does not belong to study"),
        (["train", "stokes", "--role", "boon"], "There is no operator 'boon' of stokes. Known: fno, fno-boundary"),
        (["train", "stefan", "--cases", "single"], "--cases does not belong to trainings of one network"),
    ],
)
def test_names_and_options_of_other_experiments_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*"))
