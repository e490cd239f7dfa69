"""The boundary-condition tables in the documents are those of the results that ship."""

from pathlib import Path

import pytest

from experiments import operator_summary
from experiments.errors import DataFileError
from experiments.operator_methods import CHANNELS, DEFAULT_NAME, LIFTED, PAPER
from experiments.operator_shipping import ShippedResults, ShippedTraining, TrainingSizes, read_results, write_results
from experiments.tables import Row, boon_rows

ROOT = Path(__file__).parents[2]
SINGLE, MANY = "ν=0.02, single step to t = 2", "ν=0.02, 25 times to t = 2"
SIZES = TrainingSizes(
    samples=450,
    validation=50,
    test=200,
    nodes=128,
    width=32,
    modes=16,
    depth=4,
    steps=5000,
    batch=20,
    seeds=3,
)


def row(label: str, method: str, error: float, validation: float, boundary: float) -> Row:
    scores = {
        "relative_l2": (error, error / 10),
        "validation": (validation, None),
        "boundary_relative": (boundary, None),
    }
    return Row(label, method, scores, "", "initial field")


def results(name: str = "stokes", labels: tuple[str, ...] = (SINGLE, MANY)) -> ShippedResults:
    """Of the baselines, lifting has the lowest error on test samples but not on those held out."""
    rows = [
        entry
        for label in labels
        for entry in (
            Row(label, "truth", {"boundary": (0.0, None)}),
            row(label, "FNO", 0.04, 0.05, 0.5),
            row(label, CHANNELS, 0.03, 0.03, 0.25),
            row(label, LIFTED, 0.02, 0.06, 0.0),
            row(label, PAPER, 0.05, 0.05, 0.0),
            row(label, DEFAULT_NAME, 0.012, 0.012, 0.0),
        )
    ]
    trainings = tuple(
        ShippedTraining(
            parameter=entry.parameter, method=entry.method, seconds=(1234.4, 5.0), processors=("a chip",), sizes=SIZES
        )
        for entry in rows
        if entry.method != "truth"
    )
    return ShippedResults(
        experiment=name,
        preset="laptop",
        rows=(*rows, *boon_rows(name)),
        trainings=trainings,
        weights=(),
        environment={},
    )


def test_the_readme_and_the_results_page_are_up_to_date() -> None:
    shipped = operator_summary.shipped_results()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = operator_summary.short_table(shipped)
    expected = operator_summary.fill(readme, operator_summary.BEGIN, operator_summary.END, table)
    assert expected == readme, "run python -m experiments.summary"
    page = (ROOT / "docs" / "boundary_results.md").read_text(encoding="utf-8")
    assert operator_summary.long_tables(shipped) == page, "run python -m experiments.summary"


def test_what_ships_keeps_its_conditions_in_the_stored_rows() -> None:
    for shipped in operator_summary.shipped_results():
        for row in shipped.rows:
            if row.method in (PAPER, DEFAULT_NAME):
                assert row.scores["boundary_relative_max"][0] <= 1e-6, (shipped.experiment, row.parameter, row.method)


def test_a_line_of_the_short_table_holds_errors_ratios_and_the_papers_number() -> None:
    single, many = operator_summary.short_table([results()]).splitlines()[2:4]
    ours = (
        "0.04 (4.00e-03) | 0.03 (3.00e-03), FNO + boundary channels | 0.05 (5.00e-03) | 0.012 (1.20e-03) | 3.33 | 2.5 "
        "| 0.5 | 0"
    )
    assert single == f"| stokes, {SINGLE} | {ours} | — |"
    assert many == f"| stokes, {MANY} | {ours} | 0.0123 [ν=0.1, 500 nodes] |"
    burgers = operator_summary.short_table([results("burgers_dirichlet")]).splitlines()[2:4]
    assert [line.split(" | ")[-1] for line in burgers] == ["8.40e-05 [500 nodes] |", "— |"]


def test_every_line_has_a_cell_for_every_heading() -> None:
    *lines, blank, _legend = operator_summary.short_table([results(), results("cavity")]).splitlines()
    assert blank == ""
    assert len({line.count("|") for line in lines}) == 1
    assert len(lines) == 2 + 4


def test_experiments_that_do_not_ship_are_left_out(library: Path) -> None:
    assert operator_summary.shipped_results() == []
    assert operator_summary.short_table([]) == ""
    assert "## " not in operator_summary.long_tables([])
    for name in ("cavity", "stokes"):
        write_results(results(name), {})
    assert [shipped.experiment for shipped in operator_summary.shipped_results()] == ["stokes", "cavity"]
    (library / "results" / "cavity.json").write_text("{}")
    with pytest.raises(DataFileError, match="does not hold results"):
        operator_summary.shipped_results()


@pytest.mark.usefixtures("library")
def test_results_are_read_as_they_were_written() -> None:
    write_results(results(), {})
    assert read_results("stokes") == results()


def test_the_page_holds_every_row_and_the_times_and_sizes_of_its_training() -> None:
    shipped = results()
    page = operator_summary.long_tables([shipped])
    for row in shipped.rows:
        assert sum(line.startswith(f"| {row.parameter} | {row.method} |") for line in page.splitlines()) == 1
    assert f"| {SINGLE} | 1,234 (5) | 1,234 (5) | 1,234 (5) | 1,234 (5) | 1,234 (5) |" in page
    assert "Wall time on one thread each, a chip, with other work beside;" in page
    assert (
        f"* {SINGLE}; {MANY}: 450 samples trained on, 50 held out, 200 test samples; 128 nodes an axis; 4 layers, "
        "width 32, 16 frequencies an axis; 5,000 steps of 20 samples; 3 seeds." in page
    )


@pytest.mark.usefixtures("library")
def test_both_documents_are_written(tmp_path: Path) -> None:
    write_results(results(), {})
    (tmp_path / "docs").mkdir()
    readme = tmp_path / "README.md"
    readme.write_text("no marks\n")
    with pytest.raises(DataFileError, match="needs the marks '<!-- boundary results: "):
        operator_summary.write(tmp_path)
    assert readme.read_text() == "no marks\n"
    readme.write_text(f"before\n{operator_summary.BEGIN}\n{operator_summary.END}\nafter\n")
    operator_summary.write(tmp_path)
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- boundary")
    assert text.endswith(f"{operator_summary.END}\nafter\n")
    assert operator_summary.short_table([results()]) in text
    page = (tmp_path / "docs" / "boundary_results.md").read_text(encoding="utf-8")
    assert page == operator_summary.long_tables([results()])
