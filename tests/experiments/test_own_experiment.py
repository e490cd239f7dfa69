"""An experiment of a user's own: a law that the library does not know, on the command line and to a table."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from experiments import config, conservation_run
from experiments.commands import main
from experiments.conservation_run import conservation_experiment
from experiments.errors import InvalidArgumentError
from experiments.experiment import Experiment
from experiments.registry import EXPERIMENTS, experiment, register
from experiments.tables import Row
from probconserv.surrogates.gp import GPConfig
from solvers.problems import ADVECTION

SIZES = {"functions": 3, "places": 21, "samples": 10, "curve_functions": 1, "curve_times": 2}
DURATIONS = {"smoke": "1 s", "laptop": "2 s", "paper": "3 s"}


@pytest.fixture
def own() -> Iterator[Experiment]:
    """An experiment on a problem that only this test knows, registered."""
    problem = replace(ADVECTION, name="own_advection", test_parameters=(2.0,))
    made = conservation_experiment(problem, "a law of one's own", GPConfig(steps=3), DURATIONS, networks=False)
    register(made)
    yield made
    del EXPERIMENTS[made.name]


@pytest.mark.parametrize("command", [["run"], ["reproduce"]])
def test_it_runs_to_a_table_without_networks(
    own: Experiment,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
) -> None:
    for preset in ("smoke", "laptop"):
        monkeypatch.setitem(config.SIZES, preset, SIZES)
    monkeypatch.setattr(conservation_run, "draw_case", lambda *arguments: [])  # noqa: ARG005
    assert main([*command, own.name, "--out", str(tmp_path), "--json"]) == 0
    rows = [Row.from_json(row) for row in json.loads(capsys.readouterr().out)["rows"]]
    assert [row.method for row in rows] == ["truth", "GP", "HardC-GP", "ProbConserv-GP"]
    errors = {row.method: abs(row.scores["CE"][0]) for row in rows}
    assert errors["ProbConserv-GP"] < 1e-12 < 1e-6 < errors["GP"]


def test_it_is_listed_and_registered_as_often_as_a_module_is_read(
    own: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    register(own)
    assert experiment(own.name) is own
    assert main(["list", "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["experiments"]}
    assert listed[own.name] == {"name": own.name, "summary": own.summary, "durations": DURATIONS}


def test_the_name_of_another_experiment_is_refused(own: Experiment) -> None:
    with pytest.raises(InvalidArgumentError, match="another experiment 'stefan'"):
        register(replace(own, name="stefan"))
    assert experiment("stefan").summary != own.summary
