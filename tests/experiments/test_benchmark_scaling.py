"""The scaling benchmark, in small: every series runs, agrees with what it times, and gets into the document."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.benchmarks import scaling, scaling_page
from experiments.commands import main
from experiments.errors import DataFileError, ExperimentError
from solvers import Solution

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two small sizes of every series, measured in this process."""
    sizes = {key: (2, 4) if series.axis != "cells" else (8, 16) for key, series in scaling.SERIES.items()}
    shrunk = {key: replace(series, sizes=sizes[key]) for key, series in scaling.SERIES.items()}
    monkeypatch.setattr(scaling, "SERIES", shrunk)
    monkeypatch.setattr(scaling, "_in_own_process", scaling.measure)


@pytest.mark.usefixtures("small")
def test_every_size_has_time_memory_and_growth() -> None:
    result = scaling.run()
    assert len(result["cases"]) == 2 * len(scaling.SERIES)
    for first, second in zip(result["cases"][::2], result["cases"][1::2], strict=True):
        assert first["growth"] is None
        assert second["seconds"] == pytest.approx(first["seconds"] * 2 ** second["growth"])
        assert first["memory"] >= 0


def test_updates_meet_all_constraints_and_solutions_are_of_the_asked_size() -> None:
    update = scaling.update_of(3, 50, 4)
    mean, variance = update()
    assert mean.shape == variance.shape == (3, 50)
    again = scaling.update_of(3, 50, 4)()
    assert torch.equal(mean, again[0])
    solution = scaling.solution_of(2, 8)()
    assert isinstance(solution, Solution)
    assert solution.values.shape == (2, 1, 8)


@pytest.mark.slow
def test_a_size_is_measured_in_a_process_of_its_own() -> None:
    found = scaling._in_own_process("points", 100_000)
    assert found["seconds"] > 0
    # The inputs alone are two arrays of float64 and a row of G.
    assert found["memory"] > 2 * 8 * 100_000 / 1e6
    with pytest.raises(ExperimentError, match="The measurement of 3 nothing failed"):
        scaling._in_own_process("nothing", 3)


@pytest.mark.usefixtures("small")
def test_the_command_writes_table_and_figures_into_the_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "scaling.md"
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    assert main(["bench", "scaling", "--page", str(page), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    text = page.read_text(encoding="utf-8")
    for case in result["cases"]:
        assert f"| {case['case']} | {case['seconds']:.3g} |" in text
    for name in ("scaling-update", "scaling-solver"):
        assert f"figures/{name}.png" in text
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 0
    assert text.split(scaling_page.BEGIN)[0] == PAGE.read_text(encoding="utf-8").split(scaling_page.BEGIN)[0]


def test_the_document_says_whether_the_machine_was_busy() -> None:
    result = {"machine": "one", "cases": []}
    assert "Machine: one; otherwise idle." in scaling_page.as_markdown(result | {"load": 0.1})
    assert "busy with other work (load average 3.2)" in scaling_page.as_markdown(result | {"load": 3.2})


def test_pages_belong_to_the_benchmark_that_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "update", "--page", str(PAGE)]) == 2
    assert main(["bench", "scaling", "--page", str(tmp_path / "none.md")]) == 2
    assert capsys.readouterr().err.count("--page needs the benchmark scaling and a file") == 2
    page = tmp_path / "empty.md"
    page.write_text("")
    with pytest.raises(DataFileError, match="needs the marks"):
        scaling_page.write({"machine": "", "cases": [], "load": 0.0}, page)
