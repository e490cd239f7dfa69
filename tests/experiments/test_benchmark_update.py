"""The benchmark of the update, in small: it runs, compares like with like, and reports in the common shape."""

import pytest
import torch

from experiments.benchmarks import update
from experiments.errors import ExperimentError


def test_report_of_small_sizes(monkeypatch):
    monkeypatch.setattr(update, "SLICES", 12)
    monkeypatch.setattr(update, "CHUNK", 5)
    monkeypatch.setattr(update, "_long_field", dict)
    report = update.run()
    assert report["benchmark"] == "update"
    assert len(report["cases"]) == 7
    for case in report["cases"][:-1]:
        assert case["ratio"] == pytest.approx(case["baseline_seconds"] / case["seconds"])
        assert case["case"].startswith("12 slices of 201 points")


def test_long_field_reports_times_and_memory(monkeypatch):
    monkeypatch.setattr(update, "LONG", 1000)
    found = update.measure_long_field()
    assert set(found) == {"seconds", "cloned", "copied", "memory"}
    assert all(value >= 0 for value in found.values())


def test_times_of_forms_that_differ_do_not_count():
    one, other = torch.zeros(2), torch.full((2,), 1e-3)
    with pytest.raises(ExperimentError, match=r"differ by 0\.001"):
        update._require_agreement((one, one), (one, other))
