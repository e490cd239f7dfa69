"""All experiments at once: every one is done, one that fails stops no other, and tables come in order."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.cluster import ClusterOptions, Failure
from experiments.commands import main
from experiments.everything import DURATIONS, ExperimentJob
from experiments.experiment import Experiment, Report
from tests.experiments.sweep_stub import STUB, UNSHIPPED, calls, reproduce_nothing


@pytest.fixture(autouse=True)
def experiments(monkeypatch: pytest.MonkeyPatch) -> dict[str, Experiment]:
    """What all experiments are here."""
    stubs = {"stub": STUB, "unshipped": UNSHIPPED}
    monkeypatch.setattr("experiments.everything.EXPERIMENTS", stubs)
    return stubs


def test_run_all_ends_with_the_tables_and_names_what_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], experiments: dict[str, Experiment]
) -> None:
    experiments["unshipped"] = replace(UNSHIPPED, run=reproduce_nothing)
    assert main(["run", "all", "--out", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert "Run: " + str(tmp_path / "stub") in printed.out
    assert "Time: " in printed.out
    assert "run unshipped: experiments.errors.NotShippedError: no results of 'unshipped' ship" in printed.err
    assert "Start the same command again" in printed.err
    assert calls(tmp_path) == 1


def test_reproduce_all_leaves_out_what_does_not_ship(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    experiments: dict[str, Experiment],
) -> None:
    monkeypatch.setattr("experiments.everything.run_jobs", done_here)
    experiments["last"] = replace(STUB, name="last")
    assert main(["reproduce", "all", "--out", str(tmp_path), "--json"]) == 0
    printed = capsys.readouterr()
    content = json.loads(printed.out)
    assert [entry["experiment"] for entry in content["experiments"]] == ["stub", "last"]
    assert content["not_shipped"] == ["unshipped"]
    assert "unshipped does not ship yet" in printed.err


def done_here(
    works: Sequence[ExperimentJob],
    options: ClusterOptions,  # noqa: ARG001
    folder: Path,  # noqa: ARG001
    finished: Callable[[ExperimentJob, Report | None], None],
) -> list[Failure]:
    """The jobs, the last one first, in this process."""
    for work in reversed(works):
        finished(work, work())
    return []


@pytest.mark.parametrize("option", [["--data", "exact"], ["--cases", "single"], ["--networks", "anp"]])
def test_options_of_some_experiments_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: list[str]
) -> None:
    assert main(["run", "all", "--out", str(tmp_path), *option]) == 2
    assert f"{option[0]} does not belong to all experiments" in capsys.readouterr().err


def test_list_says_how_long_all_take(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["all"] == dict(DURATIONS)
