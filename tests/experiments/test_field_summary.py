"""The page on both constraints: its code runs, its tables are those of the results that ship."""

from pathlib import Path

import pytest
import torch

from experiments import field_summary
from experiments.field_experiments import AFTER, IN_TRAINING, STUDIES
from experiments.field_shipping import FieldResults
from experiments.tables import Row
from tests.documents import ROOT, run_python

PAGE = ROOT / field_summary.PAGE


@pytest.fixture(scope="module")
def names() -> dict:
    """Everything that the page's Python defines."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return run_python(PAGE)


def test_the_composition_of_the_page_meets_both_constraints_untrained(names: dict) -> None:
    prediction, left = names["prediction"], names["left"]
    assert prediction.mean.shape == prediction.variance.shape == (2, 5, 101)
    with torch.no_grad():
        assert torch.equal(prediction.mean[..., 0], left)
        assert not bool(prediction.mean[..., -1].any())
        assert not bool(prediction.variance[..., [0, -1]].any())
        assert float(names["law"].residual(prediction.mean).abs().max()) < 1e-12


def test_the_page_is_up_to_date() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert field_summary.filled(text) == text, "run python -m experiments.summary"


def test_the_page_names_the_intervals_of_the_experiments() -> None:
    text = PAGE.read_text(encoding="utf-8").replace("\\", "")
    for case in {case.name: case for study in STUDIES.values() for case in study.cases}.values():
        first, *others = (f"[{low:g}, {high:g}]" for low, high in case.ranges.values())
        assert f"{case.problem.symbol} in {first} | {', '.join(others)} | {case.final_time:g} |" in text


def results(*rows: Row) -> FieldResults:
    sizes = {"steps": 3000, "batch": 20, "samples": 256, "nodes": 101, "trainings": 3}
    times = {"parameter": "porous_medium", "seconds": [45.0, 1.0], "processors": ["a processor"], "sizes": sizes}
    return FieldResults(
        experiment="end_to_end",
        preset="laptop",
        seed=0,
        rows=rows,
        trainings=[{**times, "method": "FNO"}, {**times, "method": AFTER}],
        weights={},
        environment={},
    )


def test_the_smallest_score_of_every_line_is_marked_and_counted() -> None:
    rows = [
        Row("in", "truth", {"conservation": (1e-5, None)}),
        Row("in", AFTER, {"CRPS": (0.3, 0.01)}, over="groups"),
        Row("in", IN_TRAINING, {"CRPS": (0.2, 0.01), "ratio": (0.667, 0.01)}, over="groups"),
        Row("out", AFTER, {"CRPS": (0.4, 0.01)}, over="groups"),
        Row("out", IN_TRAINING, {"CRPS": (0.5, 0.01)}, over="groups"),
    ]
    text = field_summary.tables(results(*rows))
    assert "| in | 0.3 (0.01) | **0.2 (0.01)** |" in text
    assert "| out | **0.4 (0.01)** | 0.5 (0.01) |" in text
    assert f"Smallest of 2: {AFTER} 1 ×, {IN_TRAINING} 1 ×." in text
    assert "0.667" in text
    assert "* porous medium, FNO: 3 trainings of 3,000 steps, 45 (1) s each." in text
    assert text.count("trainings of") == 1, "the update after training needs no training of its own"


def test_results_that_ship_go_between_their_marks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    row = Row("in", AFTER, {"CRPS": (0.3, 0.01)}, over="groups")
    monkeypatch.setattr(field_summary, "read_field_results", lambda name: results(row))  # noqa: ARG005
    (tmp_path / "docs").mkdir()
    (tmp_path / field_summary.PAGE).write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    field_summary.write(tmp_path)
    text = (tmp_path / field_summary.PAGE).read_text(encoding="utf-8")
    assert text.count("| in | **0.3 (0.01)** |") == 3
