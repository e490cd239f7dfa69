"""The benchmark of inequalities, in small: it runs, finds the same minimiser, and reports in the common shape."""

import pytest
import torch

from experiments.benchmarks import inequality
from experiments.errors import ExperimentError


def test_report_of_small_sizes(monkeypatch):
    monkeypatch.setattr(inequality, "SLICES", 6)
    report = inequality.run()
    assert report["benchmark"] == "inequality"
    assert [case["case"].rsplit(", ")[-1] for case in report["cases"]] == ["batched", "looped"]
    for case in report["cases"]:
        assert case["ratio"] == pytest.approx(case["baseline_seconds"] / case["seconds"])
        assert case["difference"] <= 1e-8
        assert case["law residual"] <= 1e-12


def test_times_of_minimisers_that_differ_do_not_count():
    with pytest.raises(ExperimentError, match=r"differ by 0\.001"):
        inequality._require_agreement(torch.zeros(2), torch.full((2,), 1e-3))
