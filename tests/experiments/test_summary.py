"""The tables in the documents are those of the stored metrics."""

from pathlib import Path

import pytest

from experiments import summary
from experiments.errors import DataFileError
from solvers import PROBLEMS

ROOT = Path(__file__).parents[2]


def test_the_readme_and_the_results_page_are_up_to_date() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert summary.with_table(readme, summary.short_table()) == readme, "run python -m experiments.summary"
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert summary.long_tables() == page, "run python -m experiments.summary"


def test_every_parameter_of_every_problem_has_its_rows() -> None:
    table = summary.short_table()
    for problem in PROBLEMS.values():
        for parameter in problem.test_parameters:
            label = f"{problem.name.replace('_', ' ')}, {problem.symbol}={parameter:g}"
            assert table.count(f"| {label} |") + table.count(f"| {label} (out of range) |") >= 4


def test_hard_methods_keep_their_law_in_the_stored_metrics() -> None:
    for problem in PROBLEMS:
        for row in summary.stored_rows(problem):
            if row.method.startswith(("HardC", "ProbConserv")) and "quadrature" not in row.method:
                assert abs(row.scores["CE"][0]) < 1e-12


def test_a_problem_without_metrics_is_named() -> None:
    with pytest.raises(DataFileError, match=r"nothing\.json"):
        summary.stored_rows("nothing")


def test_the_table_goes_between_its_marks() -> None:
    text = f"a\n{summary.BEGIN}\nold\n{summary.END}\nb"
    assert summary.with_table(text, "new") == f"a\n{summary.BEGIN}\n\nnew\n\n{summary.END}\nb"
