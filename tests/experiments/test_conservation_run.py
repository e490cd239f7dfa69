"""A conservation experiment from options to files; small sizes, all stages."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from experiments import conservation_run
from experiments.config import ConservationConfig
from experiments.errors import InvalidArgumentError
from experiments.storage import Arrays
from probconserv.gp import GPConfig
from solvers.problems import DIFFUSION, STEFAN, Problem

SMALL = ConservationConfig(
    problem="stefan",
    data="solver",
    seed=0,
    functions=4,
    places=41,
    samples=50,
    curve_functions=2,
    curve_times=3,
    cells=64,
    output_times=40,
    gp=GPConfig(smoothness=0.5, steps=15),
)


@pytest.mark.parametrize("problem", [STEFAN, DIFFUSION])
@pytest.mark.parametrize("data", ["solver", "exact"])
def test_run_scores_every_method_and_writes_every_file(tmp_path: Path, problem: Problem, data: str) -> None:
    config = dataclasses.replace(SMALL, problem=problem.name, data=data)
    report = conservation_run.run_conservation(problem, config, tmp_path)
    rows = {(row.parameter, row.method): row.scores for row in report.rows if not row.source}
    for parameter in problem.test_parameters:
        label = f"{problem.symbol}={parameter:g}"
        assert abs(rows[label, "GP"]["CE"][0]) > 1e-6
        assert abs(rows[label, "ProbConserv-GP"]["CE"][0]) < 1e-12
        assert abs(rows[label, "HardC-GP"]["CE"][0]) < 1e-12
        assert ("shock" in rows[label, "GP"]) == (problem.front is not None)
        assert abs(rows[label, "truth"]["CE"][0]) < 0.05
    assert any(row.source for row in report.rows)
    for file in (*report.tables, *report.figures, report.folder / "metrics.json", report.folder / "environment.json"):
        assert file.stat().st_size > 0


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = conservation_run.run_conservation(STEFAN, SMALL, tmp_path / "whole")
    calls: list[str] = []

    def counted(name: str, stop_at: int | None) -> conservation_run.Stage:
        stage = original[name]

        def run(case: conservation_run.Case) -> Arrays:
            calls.append(f"{name} {case.label}")
            if len(calls) == stop_at:
                raise KeyboardInterrupt
            return stage(case)

        return run

    original = dict(conservation_run.STAGES)
    monkeypatch.setattr(conservation_run, "STAGES", {name: counted(name, 4) for name in original})
    with pytest.raises(KeyboardInterrupt):
        conservation_run.run_conservation(STEFAN, SMALL, tmp_path / "parts")
    monkeypatch.setattr(conservation_run, "STAGES", {name: counted(name, None) for name in original})
    resumed = conservation_run.run_conservation(STEFAN, SMALL, tmp_path / "parts")
    assert calls[3] == calls[4]
    assert len(calls) == 2 * len(original) + 1
    assert [row.as_json() for row in resumed.rows] == [row.as_json() for row in whole.rows]


def test_a_damaged_stage_is_named_and_rebuilt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = conservation_run.run_conservation(STEFAN, SMALL, tmp_path)
    file = report.folder / "scores-0.6.h5"
    file.write_bytes(file.read_bytes()[:-100])
    again = conservation_run.run_conservation(STEFAN, SMALL, tmp_path)
    assert "scores-0.6.h5' is damaged" in capsys.readouterr().err
    assert [row.as_json() for row in again.rows] == [row.as_json() for row in report.rows]


def test_seed_decides_the_result(tmp_path: Path) -> None:
    first = conservation_run.run_conservation(STEFAN, SMALL, tmp_path / "a")
    other = conservation_run.run_conservation(STEFAN, dataclasses.replace(SMALL, seed=1), tmp_path / "b")
    assert not np.allclose(first.rows[1].scores["MSE"], other.rows[1].scores["MSE"])


def test_a_config_out_of_range_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="functions must be at least 2, got 1"):
        dataclasses.replace(SMALL, functions=1)
    with pytest.raises(InvalidArgumentError, match="curve_functions must not exceed functions = 4, got 9"):
        dataclasses.replace(SMALL, curve_functions=9)
