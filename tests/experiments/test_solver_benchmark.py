"""The solver's benchmark: what it reports, and what it says without FiPy."""

import sys

import pytest
import torch

from experiments.benchmarks import measure, solver
from experiments.errors import ExperimentError


def test_cases_carry_times_errors_and_their_ratio(monkeypatch):
    monkeypatch.setattr(solver, "FUNCTIONS", 12)
    monkeypatch.setattr(solver, "CELLS", 20)
    monkeypatch.setattr(solver, "_require_fipy", lambda: None)
    monkeypatch.setattr(solver, "_fipy", lambda exponent: (exponent, torch.zeros(20, dtype=torch.float64).numpy()))
    report = solver.run()
    assert report["benchmark"] == "solver"
    assert len(report["cases"]) == len(solver.TOLERANCES) * len(solver.COMPARED)
    for case in report["cases"]:
        assert case["ratio"] == pytest.approx(case["baseline_seconds"] / case["seconds"])
        assert 0.0 < case["L1 error"] < 0.02 < case["baseline L1 error"]


def test_message_without_fipy(monkeypatch):
    monkeypatch.setitem(sys.modules, "fipy", None)
    with pytest.raises(ExperimentError, match=r"FiPy, which is not installed; pip install 'probconserv-boon\[bench\]'"):
        solver.run()


def test_best_of_takes_the_shortest():
    seconds, result = measure.best_of(lambda: 7, repeats=2)
    assert result == 7
    assert 0.0 <= seconds < 1.0
