"""The benchmarks in small: they run, compare like with like, and report in the common shape."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments import registry
from experiments.benchmarks import documents, measure, update
from experiments.errors import DataFileError, LibraryError, OutputFolderError
from tests.documents import DOCS


def test_the_shortest_time_counts_and_turns_alternate_after_one_to_warm_up() -> None:
    seconds, result = measure.best_of(lambda: 7, repeats=2)
    assert result == 7
    assert 0.0 <= seconds < 1.0
    order: list[str] = []
    assert len(measure.take_turns([lambda: order.append("a"), lambda: order.append("b")], rounds=2)) == 2
    assert order == ["a", "b"] * 3


def test_times_of_results_that_differ_do_not_count() -> None:
    assert measure.difference_within(torch.zeros(2), torch.full((2,), 1e-3), 1e-2) == pytest.approx(1e-3)
    for wrong, text in ((1e-3, r"0\.001"), (float("nan"), "nan")):
        with pytest.raises(LibraryError, match=f"differ by {text}, so their times do not count"):
            measure.difference_within(torch.zeros(2), torch.full((2,), wrong), 1e-4)


def test_update_is_compared_with_the_dense_form_and_with_copying() -> None:
    assert [case["baseline"] for case in update.short_fields(12)] == ["dense, batched", "dense, looped"]
    measured = update.measure_long_field(1000)
    assert measured.keys() == {"seconds", "cloned", "copied", "looped", "memory"}
    assert min(measured.values()) >= 0
    assert [case["baseline"] for case in update.one_field()] == ["four lines without checks", "root of its multiplier"]


@pytest.mark.slow
def test_fields_under_block_means_and_bounds_are_those_by_hand_and_of_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update, "SIDE", 8)
    monkeypatch.setattr(update, "BATCH", 2)
    assert update.block_fields()["ratio"] > 0
    assert all(case["difference"] <= 1e-6 for case in update.non_negative_fields(slices=6))


@pytest.mark.slow
def test_sizes_are_measured_in_a_new_process() -> None:
    long = update.long_field(1000)
    assert long["times copying"] > 0 < long["ratio"]
    with pytest.raises(LibraryError, match=r"The measurement measure_long_field\('nothing'\) failed"):
        measure.in_new_process(update.measure_long_field, "nothing")


def test_a_table_has_a_row_per_case_and_a_column_for_what_all_cases_measure(tmp_path: Path) -> None:
    first = measure.compared("a", 0.002, "by hand", 0.004, difference=1e-9, setting="RKL2(1)")
    more = measure.compared("b", 3.0, "by hand", 6.0, difference=2e-9, megabytes=12.3, setting="RKL2(2)")
    documents.write(measure.report("update", [first, more]), document := _copied_page(tmp_path))
    text = document.read_text(encoding="utf-8").split("<!-- update")[1].split("<!-- end of update")[0]
    assert "| a | 2 ms | by hand | 4 ms | 2 | 1e-09 | RKL2(1) |" in text
    assert "| b | 3 s | by hand | 6 s | 2 | 2e-09 | RKL2(2) |" in text
    assert "megabytes" not in text


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the benchmarks that were run, each with one case; none takes time."""
    names: list[str] = []

    def benchmark(name: str) -> Callable[[], dict[str, Any]]:
        def run() -> dict[str, Any]:
            names.append(name)
            return measure.report(name, [measure.compared("a case", 0.002, "by hand", 0.004)])

        return run

    monkeypatch.setattr(registry, "benchmark", benchmark)
    return names


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("update", b"", "page.md' needs the marks '<!-- update: written by"),
        ("solver", b"", "--page docs/speed.md -->' and '<!-- end of solver -->' once each"),
        ("update", b"\xff", "page.md' cannot be read as a document"),
        ("another", b"", "--page needs the benchmark update or solver and a file, got another"),
    ],
)
def test_a_document_that_cannot_take_the_table_is_refused_before_the_benchmark(
    name: str, content: bytes, message: str, runs: list[str], tmp_path: Path, command: Callable
) -> None:
    (tmp_path / "page.md").write_bytes(content)
    ended = command(f"bench {name} --page", tmp_path / "page.md")
    assert (ended.status, runs) == (2, [])
    assert message in ended.err


def test_a_document_that_cannot_be_written_is_refused_before_the_benchmark(
    runs: list[str], tmp_path: Path, command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> Path:
        raise OutputFolderError(f"'{folder}' cannot be written.")

    monkeypatch.setattr(documents, "writable_folder", refuse)
    ended = command("bench update --page", _copied_page(tmp_path))
    assert (ended.status, ended.err, runs) == (2, f"error: '{tmp_path}' cannot be written.\n", [])


def test_the_result_is_printed_before_the_document_is_written(
    runs: list[str], tmp_path: Path, command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("bench update --page", _copied_page(tmp_path))
    assert command(*words).status == 0
    assert "| a case | 2 ms | by hand | 4 ms |" in (tmp_path / "speed.md").read_text(encoding="utf-8")

    def fail(*_: object) -> str:
        raise DataFileError("the disk is full.")

    monkeypatch.setitem(documents.TABLES, "update", fail)
    printed = command(*words)
    assert "a case" in printed.out
    assert "against by hand" in printed.out
    assert (printed.status, printed.err) == (2, "error: the disk is full.\n")
    assert runs == ["update", "update"]


def _copied_page(folder: Path) -> Path:
    return Path(shutil.copy(DOCS / "speed.md", folder / "speed.md"))
