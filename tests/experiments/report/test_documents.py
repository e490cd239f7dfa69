"""Blocks of documents that are generated from stored runs."""

import pytest

from experiments.errors import DataFileError
from experiments.records.scores import Better
from experiments.registry import experiment
from experiments.report.calibration_tables import STUDIED
from experiments.report.documents import MAKER, fill, filled, stale
from experiments.report.tables import table
from tests.documents import ROOT


@pytest.mark.parametrize("inner", ["\n", "\n\nold\n\n", "\n\nold\n\nlines\n\n"])
def test_the_content_takes_the_place_of_what_stood_there(inner: str) -> None:
    text = fill(f"a\n<b>{inner}<e>\nz\n", "<b>", "<e>", "new\n")
    assert text == "a\n<b>\n\nnew\n\n<e>\nz\n"
    assert fill(text, "<b>", "<e>", "new") == text


@pytest.mark.parametrize("text", ["", "<b>", "<e>", "<e> <b>", "<b> <b> <e>", "<b> <e> <e>"])
def test_missing_marks_are_named(text: str) -> None:
    with pytest.raises(DataFileError, match=r"page\.md needs the marks '<b>' and '<e>' once each, in this order"):
        fill(text, "<b>", "<e>", "new", "page.md")


def test_a_block_of_another_name_is_an_error() -> None:
    with pytest.raises(DataFileError, match=r"page\.md' has a block 'resluts'; there are laws, "):
        filled(f"<!-- resluts: {MAKER} -->\n<!-- end of resluts -->", "page.md")


def test_the_best_of_a_row_is_bold_where_there_are_several() -> None:
    entries = [("a", "x", 1.0, 0.1), ("a", "y", 2.0, None), ("b", "y", 3.0, None)]
    lines = table(entries, "LL ↑", Better.HIGHER).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])]
    assert cells == [["LL ↑", "x", "y"], ["a", "1 (0.1)", "**2**"], ["b", "—", "3"]]
    assert "| **1 (0.1)** | 2 |" in table(entries, "LL ↑", Better.HIGHER, truth="y"), "true draws are never the best"


@pytest.mark.long
def test_documents_show_the_released_results() -> None:
    assert list(stale(ROOT)) == [], "run: python -m experiments.maintain documents"


def test_training_ranges_of_tables_are_those_of_the_problems() -> None:
    for name, (_, trained) in STUDIED.items():
        assert experiment(name).problem.training_range == trained, name  # type: ignore[attr-defined]
