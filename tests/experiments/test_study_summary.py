"""Studies and choices ship as they were stored, and the tables in the documents are those that ship."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from experiments import ship_studies, study_summary
from experiments.errors import DataFileError, NotShippedError
from experiments.experiment import Report, RunOptions
from experiments.operator_choice import Choice, choose
from experiments.operator_run import place_of
from experiments.operator_studies import STUDIES, Trial, run_trials, trials
from experiments.registry import EXPERIMENTS
from experiments.report_sections import page_sections
from experiments.ship_studies import ship_choice, ship_study, shipped_choice, shipped_study, with_study
from experiments.storage import read_object
from tests.experiments.operators import one

ROOT = Path(__file__).parents[2]
PAGE = ROOT / study_summary.PAGE
ONLY = ("prescription", "smooth extension")


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> tuple[Trial, ...]:
    """A study of one line with one step, in the place of the laptop's."""
    case = one("burgers_dirichlet", "single-0.02")
    case = replace(case, sizes=replace(case.sizes, training=replace(case.sizes.training, steps=1)))
    own = trials(case, STUDIES["burgers_dirichlet"], (6,))[:1]
    monkeypatch.setattr(ship_studies, "lines_of", lambda name, options: own)  # noqa: ARG005
    return own


def test_the_page_is_up_to_date() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert study_summary.filled(text) == text, "run python -m experiments.summary"


@pytest.mark.usefixtures("library")
def test_a_study_ships_when_it_is_finished(lines: tuple[Trial, ...], tmp_path: Path) -> None:
    with pytest.raises(NotShippedError):
        shipped_study("burgers_dirichlet")
    out = tmp_path / "out"
    with pytest.raises(DataFileError, match="finish the run before it ships"):
        ship_study("burgers_dirichlet", out)
    report = run_trials("burgers_dirichlet", lines, RunOptions(preset="laptop", out=out))
    path = ship_study("burgers_dirichlet", out)
    assert shipped_study("burgers_dirichlet") == report.rows
    assert read_object(path)["environment"] == read_object(report.folder / "environment.json")
    page = study_summary.filled(PAGE.read_text(encoding="utf-8"))
    start, end = study_summary.marks("study of burgers_dirichlet")
    assert f"| {lines[0].label} | " in page[page.index(start) : page.index(end)]


def test_the_page_of_all_results_shows_a_study_that_ships(
    library: Path, lines: tuple[Trial, ...], tmp_path: Path
) -> None:
    run_trials("burgers_dirichlet", lines, RunOptions(preset="laptop", out=tmp_path / "out"))
    ship_study("burgers_dirichlet", tmp_path / "out")
    sections = {section.name: section for section in page_sections(tmp_path / "none", library / "results")}
    assert sections["burgers_dirichlet-study"].shipped
    assert "heat_independent-study" not in sections


def test_reproduce_makes_tables_and_figure_of_a_study_that_ships(tmp_path: Path) -> None:
    own = Report(title="operators", rows=[], folder=tmp_path, figures=[tmp_path / "fields.png"])
    entry = replace(EXPERIMENTS["burgers_dirichlet"], reproduce=lambda options: own)  # noqa: ARG005
    options = RunOptions(out=tmp_path)
    report = with_study(entry).reproduce(options)
    assert [file.name for file in report.figures] == ["fields.png", "study.png", "study.pdf"]
    assert all(file.stat().st_size for file in report.figures[1:])
    assert report.rows == own.rows
    table = next(file for file in report.tables if file.suffix == ".md" and "study" in str(file))
    rows = shipped_study("burgers_dirichlet")
    assert all(f"| {row.parameter} | {row.method} |" in table.read_text(encoding="utf-8") for row in rows)
    section = {found.name: found for found in page_sections(tmp_path, ROOT / "experiments" / "results")}
    study = section["burgers_dirichlet-study"]
    assert study.relation == "whose scores are those of the tables"
    assert [figure.kind.leading for figure in study.figures] == [True]
    assert study.remedy.text == f"python -m experiments reproduce burgers_dirichlet --out {tmp_path}"


def test_reproduce_of_some_cases_or_of_what_is_not_studied_leaves_studies_alone(tmp_path: Path) -> None:
    own = Report(title="operators", rows=[], folder=tmp_path)
    entry = replace(EXPERIMENTS["burgers_dirichlet"], reproduce=lambda options: own)  # noqa: ARG005
    assert with_study(entry).reproduce(RunOptions(out=tmp_path, cases=("single-0.02",))) == own
    stokes = EXPERIMENTS["stokes"]
    assert with_study(stokes) == stokes


@pytest.mark.usefixtures("library")
def test_a_choice_ships_when_it_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = one("stokes", "single-0.02")
    monkeypatch.setattr(ship_studies, "boundary_cases", lambda name, options: (case,))  # noqa: ARG005
    out = tmp_path / "out"
    with pytest.raises(NotShippedError):
        shipped_choice("stokes")
    with pytest.raises(DataFileError, match="finish the run before it ships"):
        ship_choice("stokes", only=ONLY, out=out)
    choices = choose([case], place_of("stokes", RunOptions(preset="laptop", out=out)), only=ONLY)
    path = ship_choice("stokes", only=ONLY, out=out)
    assert shipped_choice("stokes") == choices
    assert read_object(path)["environment"]["packages"]
    path.write_text("{}")
    with pytest.raises(DataFileError, match="does not hold results"):
        shipped_choice("stokes")


def test_candidates_are_side_by_side_with_and_without_channels_apart() -> None:
    choices = {
        "stokes": [Choice(case="one step", scores={"x": [1e-3, 2e-3], "y": [math.inf], "x, channels": [3e-3]})],
        "heat_independent": [Choice(case="values", scores={"y, channels": [4e-3], "x, channels": [5e-3]})],
    }
    assert study_summary.candidate_table(choices).splitlines() == [
        "| | stokes, one step | stokes, one step, channels | heat independent, values, channels |",
        "|---|---:|---:|---:|",
        "| x | **1.5** | **3** | 5 |",
        "| y | failed | — | **4** |",
    ]


def test_the_tables_are_written_into_the_page(tmp_path: Path) -> None:
    (tmp_path / study_summary.PAGE).parent.mkdir()
    page = tmp_path / study_summary.PAGE
    page.write_text("no marks\n")
    with pytest.raises(DataFileError, match="needs the marks '<!-- candidates: "):
        study_summary.write(tmp_path)
    names = ("candidates", *(f"study of {name}" for name in STUDIES))
    page.write_text("\n".join(line for name in names for line in study_summary.marks(name)))
    study_summary.write(tmp_path)
    assert page.read_text(encoding="utf-8") == study_summary.filled(page.read_text(encoding="utf-8"))


def test_what_does_not_ship_is_left_out(library: Path) -> None:
    """Nothing ships: the marks of the page stay, and nothing stands between them."""
    assert not list(library.iterdir())
    start, end = study_summary.marks("candidates")
    assert f"{start}\n{end}" in study_summary.filled(PAGE.read_text(encoding="utf-8"))
