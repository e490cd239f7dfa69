"""The benchmarks in small: they run, compare like with like, and report in the common shape."""

import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from experiments import registry
from experiments.benchmarks import boon, documents, measure, surrogates, update
from experiments.errors import DataFileError, LibraryError, OutputFolderError
from tests.documents import DOCS

_PAIRS = zip(boon.SIZES, ((40,), (40, 9), (12, 12, 9)), strict=True)
SIZES = [size._replace(batch=2, shape=shape, modes=(3,) * len(shape), width=4, rounds=1) for size, shape in _PAIRS]


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


def test_fields_from_few_observations_are_predicted_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """And its search finds a function that is among those searched."""
    monkeypatch.setattr(surrogates, "SIZES", ((60, 12), (40, 12)))
    monkeypatch.setattr(surrogates, "EVERYWHERE", 12)
    monkeypatch.setattr(surrogates, "RANK", 5)
    monkeypatch.setattr(surrogates, "FIELDS", 2)
    cases = surrogates.run()["cases"]
    assert len(cases) == 7
    assert {case["baseline"] for case in cases} == {"search"}
    functions, axes = surrogates._functions(60, 12)
    context, query = surrogates._asked(functions, axes)
    mean, variance = surrogates._search(functions, axes, context, slice(10, 11))
    assert torch.allclose(mean, functions[:2, 10], atol=0.02)
    assert query.points.shape == (2, 12, 2)
    assert float(variance.min()) > -1e-12


@pytest.mark.slow
def test_fields_under_block_means_and_bounds_are_those_by_hand_and_of_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update, "SIDE", 8)
    monkeypatch.setattr(update, "BATCH", 2)
    assert update.block_fields()["ratio"] > 0
    assert all(case["difference"] <= 1e-6 for case in update.non_negative_fields(slices=6))


def test_every_correction_is_timed_against_the_plain_operator(monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "neuralop", None)
    cases = boon.run(SIZES)["cases"]
    assert len({case["case"] for case in cases}) == 3 * len(boon.CORRECTIONS) - 2  # elimination has one axis
    assert all(case["ratio"] == case["baseline_seconds"] / case["seconds"] > 0 for case in cases)
    assert "neuraloperator is not installed" in capsys.readouterr().err


def test_the_plain_operator_is_timed_against_one_with_as_many_frequencies(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []

    def theirs(n_modes: tuple[int, ...], in_channels: int, out_channels: int, **sizes: int) -> nn.Module:
        built.append((n_modes, sizes))
        return (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(n_modes) - 1](in_channels, out_channels, 1)

    for name in ("neuralop", "neuralop.models"):
        monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(FNO=theirs, __spec__="installed"))
    assert [case["baseline"] for case in boon.run(SIZES, corrections={})["cases"]] == ["FNO of neuraloperator"] * 3
    assert built == [((5,) * axes, {"hidden_channels": 4, "n_layers": 4}) for axes in (1, 2, 3)]


@pytest.mark.slow
def test_sizes_are_measured_in_a_new_process() -> None:
    long = update.long_field(1000)
    assert long["times copying"] > 0 < long["ratio"]
    with pytest.raises(LibraryError, match=r"The measurement measure_long_field\('nothing'\) failed"):
        measure.in_new_process(update.measure_long_field, "nothing")


def test_a_table_has_a_row_per_case_and_a_column_for_what_all_cases_measure(tmp_path: Path) -> None:
    first = measure.compared("a", 0.002, "by hand", 0.004, difference=1e-9)
    more = measure.compared("b", 3.0, "by hand", 6.0, difference=2e-9, megabytes=12.3, result="reached")
    documents.write(measure.report("update", [first, more]), document := _copied_page(tmp_path))
    text = document.read_text(encoding="utf-8").split("<!-- update")[1].split("<!-- end of update")[0]
    assert "| a | 2 ms | by hand | 4 ms | 2 | 1e-09 |" in text
    assert "| b | 3 s | by hand | 6 s | 2 | 2e-09 |" in text
    assert "megabytes" not in text


def test_the_table_of_training_steps_has_a_column_per_size(tmp_path: Path) -> None:
    cases = [measure.compared(f"{size}: {name}", 2.0, "FNO", 1.0) for size in ("1-D", "2-D") for name in ("x", "y")]
    cases += [measure.compared(f"{size}: FNO", 1.0, "FNO of neuraloperator", 4.0) for size in ("1-D", "2-D")]
    documents.write(measure.report("boon", cases), document := _copied_page(tmp_path))
    rows = document.read_text(encoding="utf-8").split("<!-- boon")[1].splitlines()
    assert all(f"| {name} | 2.00 | 2.00 |" in rows for name in ("x", "y"))
    assert "| plain FNO, seconds | 1 | 1 |" in rows
    assert "| plain FNO over it | 0.25 | 0.25 |" in rows


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
        ("boon", b"", "--page docs/speed.md -->' and '<!-- end of boon -->' once each"),
        ("update", b"\xff", "page.md' cannot be read as a document"),
        ("another", b"", "--page needs the benchmark update, solver,"),
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
    assert (printed.status, printed.err) == (2, "error: the disk is full.\n")
    assert runs == ["update", "update"]


def _copied_page(folder: Path) -> Path:
    return Path(shutil.copy(DOCS / "speed.md", folder / "speed.md"))
