"""Tables of results: marks, missing scores, methods that are no more, 80 columns; blocks of documents."""

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from experiments.driver import describe
from experiments.errors import DataFileError
from experiments.plots import BLACK, BLUE, GREY, VERMILION
from experiments.records.description import Description, title
from experiments.records.overview import LIMIT, draw_overview
from experiments.records.paired import EQUAL, WINS, against
from experiments.records.record import Record, as_frame
from experiments.records.release import released_names
from experiments.records.scores import SCORES
from experiments.records.table import wide
from experiments.report import tables
from experiments.report.documents import MAKER, fill, filled, stale
from experiments.report.results import MANY_ROWS, Cell, Results, Row, headline, released
from experiments.report.tables import Table
from experiments.report.terminal import SCREEN, console, headline_tables
from tests.documents import ROOT
from tests.experiments.report.example import Entry, Example, results


def rows_of(shown: Results) -> list[Row]:
    return headline(shown.description, shown.records, scores=shown.scores)


def test_marks_are_those_of_paired_differences_from_the_reference() -> None:
    """Functions differ by far more than methods do: without pairs nothing would be better or worse."""
    rows = {(row.group, row.name): row.cells for row in rows_of(results())}
    headings = [cell.heading for cell in rows["b=2", "Bare"]]
    assert headings == ["MSE ↓", "paper", "LL ↑"]
    assert {key: cells[0].mark for key, cells in rows.items()} == {
        ("a=1 <in range>", "Bare"): "",
        ("a=1 <in range>", "Hard & fast"): "",
        ("a=1 <in range>", "Ours"): "better",
        ("b=2", "Bare"): "",
        ("b=2", "Hard & fast"): "",
        ("b=2", "Ours"): "worse",
    }
    assert rows["b=2", "Hard & fast"][2].mark == "worse"
    assert [key for key, cells in rows.items() if cells[0].best] == [("a=1 <in range>", "Ours"), ("b=2", "Bare")]
    assert [cells[1].text for cells in rows.values()] == ["—", "—", "0.4", "—", "—", "—"]
    assert rows["a=1 <in range>", "Ours"][0][1:3] == ("0.505", "5.00e-03")  # mean and error over two seeds


def test_without_scores_per_function_nothing_has_a_colour() -> None:
    shown = results()
    few = replace(shown, scores=shown.scores[shown.scores["method"] != "bare"])
    for rows in (
        headline(shown.description, shown.records),
        rows_of(few),
        rows_of(replace(shown, scores=few.scores[:0])),
    ):
        assert {cell.mark for row in rows for cell in row.cells} == {"", "paper"}
        assert any(cell.best for row in rows for cell in row.cells)


@pytest.mark.parametrize("score", [key for key, score in SCORES.items() if score.imposed])
def test_what_methods_impose_has_no_colour(score: str) -> None:
    """All methods but the reference meet the law to round-off, since they are built to."""
    scores = Example().scores().rename(columns={"CE": score})
    assert against("bare", scores, "a", "MSE") == {"hard": EQUAL, "ours": WINS}
    assert against("bare", scores, "a", score) == {}


def test_many_cases_are_rows_with_one_score_and_a_dash_where_a_method_is_missing() -> None:
    cases = tuple(Entry(f"c{i}", f"case {i}") for i in range(MANY_ROWS // 3 + 2))
    shown = results(replace(Example(), cases_=cases))
    records = shown.records[~((shown.records["case"] == "c1") & (shown.records["method"] == "hard"))]
    rows = rows_of(replace(shown, records=records))
    assert [row.name for row in rows] == [case.label for case in cases]
    assert {row.group for row in rows} == {"MSE ↓"}
    assert [cell.heading for cell in rows[0].cells] == ["Bare", "Hard & fast", "Ours"]
    assert [cell.mark for cell in rows[0].cells] == ["", "", "worse"]
    assert rows[1].cells[1].text == "—"


@pytest.mark.parametrize(("score", "heading"), [("LL", "LL ↑"), ("CRPS", "CRPS ↓")], ids=["the second", "none"])
@pytest.mark.parametrize("count", [2, 2 * MANY_ROWS])
def test_without_the_first_score_of_the_headline_others_are_shown(score: str, heading: str, count: int) -> None:
    """The next of the headline, or all that there are."""
    shown = results(replace(Example(), cases_=tuple(Entry(f"c{i}", f"case {i}") for i in range(count))))
    rows = rows_of(replace(shown, records=shown.records[shown.records["score"] == score]))
    assert len({row.group for row in rows} | {row.name for row in rows}) > count
    headings = {row.group for row in rows} if count > MANY_ROWS else {cell.heading for cell in rows[0].cells}
    assert headings == {heading}
    assert all(len(row.cells) == len(rows[0].cells) > 0 for row in rows)


def test_rows_of_methods_that_the_experiment_has_no_more_are_last_under_their_keys() -> None:
    shown, entry = results(), Example()
    old = shown.records[shown.records["method"] == "bare"].assign(method="old")
    records = pd.concat([old, shown.records], ignore_index=True)
    both = replace(shown, records=records, description=describe(entry.table, entry.cases_, records))  # type: ignore[arg-type]
    assert list(both.description.methods.values()) == ["Bare", "Hard & fast", "Ours", "old (0.4)"]
    table = wide(both.records, both.description)
    assert table["method"].tolist() == 2 * ["Bare", "Hard & fast", "Ours", "old (0.4)"]
    only = replace(both, records=old)
    assert [row.name for row in rows_of(only)] == ["old (0.4)", "old (0.4)"]


GENERATED = {"training-fields": 1e-4, "gaussian": 3e-4, "unconstrained": 1e-2, "eci": 4e-4, "ours": 2e-4, "truth": 1e-6}
"""Errors of draws as a table of generated fields has them: of what is told the law, of the flow alone, true ones."""


def generated(reference: str) -> dict[str, Cell]:
    """The cells of such a table, which has no number of one method."""
    described = Description(
        experiment="generated",
        cases={"law": "law"},
        methods={key: key for key in (*GENERATED, "absent")},
        headline={"law": [*GENERATED, "absent"]},
        scores=["mean_error"],
        references={"law": reference},
    )
    key = {"experiment": "generated", "case": "law", "seed": 0}
    rows = [
        Record(**key, method=method, score="mean_error", mean=mean, standard_error=0.1 * mean)
        for method, mean in GENERATED.items()
    ]
    rows += [
        Record(**key, method=method, score="law_residual", mean=0.0, standard_error=None)
        for method in (*GENERATED, "absent")
    ]
    scores = [
        {"case": "law", "method": method, "seed": 0, "function": index, "mean_error": mean * (1 + 0.1 * index)}
        for method, mean in GENERATED.items()
        for index in range(12)
    ]
    return {row.name: row.cells[0] for row in headline(described, as_frame(rows), scores=pd.DataFrame(scores))}


def test_what_is_better_than_the_reference_is_no_loss_and_the_truth_takes_no_part() -> None:
    """Training fields, which are told the law, stand first; ours is worse than they, and better than the flow."""
    cells = generated("unconstrained")
    better = dict.fromkeys(("training-fields", "gaussian", "eci", "ours"), "better")
    assert {key: cell.mark for key, cell in cells.items()} == {**better, "unconstrained": "", "truth": "", "absent": ""}
    assert [key for key, cell in cells.items() if cell.best] == ["training-fields"], "neither true draws nor a dash"
    assert cells["absent"].text == "—"
    worse = {key: cell.mark for key, cell in generated("ours").items() if cell.mark}
    assert worse == {"training-fields": "better", "gaussian": "worse", "unconstrained": "worse", "eci": "worse"}
    absent = generated("absent")
    assert not any(cell.mark for cell in absent.values()), "without a number of the reference no colour"
    assert [key for key, cell in absent.items() if cell.best] == ["training-fields"], "but a best method"


def test_a_run_without_the_reference_of_many_cases_has_no_overview() -> None:
    shown = released("gpme")
    assert shown is not None
    assert draw_overview(shown.description, shown.records[shown.records["method"] != "anp"], shown.scores) is None


def test_dots_of_a_figure_have_the_colours_of_paired_differences() -> None:
    shown = results()
    figure = draw_overview(shown.description, shown.records[shown.records["score"] == "MSE"], shown.scores)
    assert figure is not None
    colours = [[line.get_color() for line in panel.lines if line.get_marker() == "o"] for panel in figure.axes]
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert [dict(zip(rows, panel, strict=True)) for panel in colours] == [
        {"Bare": BLACK, "Hard & fast": GREY, "Ours": colour} for colour in (BLUE, VERMILION)
    ]


def test_rows_of_cases_stand_beside_the_line_of_the_reference_and_far_ones_at_the_margin() -> None:
    """Hollow without a paired difference; 14 rows in two columns; 40 times the reference is a number at the margin."""
    shown = results(replace(Example(), cases_=tuple(Entry(f"c{i}", f"case {i}") for i in range(14))))
    records = shown.records[shown.records["score"] == "MSE"].copy()
    records.loc[(records["case"] == "c3") & (records["method"] == "ours"), "mean"] = 40.2
    figure = draw_overview(shown.description, records, shown.scores)
    assert figure is not None
    left, right = figure.axes
    assert [len(panel.get_yticks()) for panel in (left, right)] == [7, 7]
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["Hard & fast", "Ours", "reference: Bare", "no difference from it"]
    (reference,) = [line for line in left.lines if list(line.get_xdata()) == [1.0, 1.0]]
    assert reference.get_color() == BLACK
    hard, ours = [dots for dots in left.collections if len(getattr(dots, "get_offsets", list)()) == 7]
    assert np.allclose(hard.get_facecolors()[:, :3], 1.0)
    assert not np.allclose(ours.get_facecolors()[:, :3], 1.0)
    assert ours.get_offsets()[3, 0] == LIMIT
    assert [text.get_text() for text in left.texts] == ["40"]


def test_headings_are_names_in_words() -> None:
    headings = {
        "porous_medium": "Porous medium",
        "burgers_dirichlet": "Burgers Dirichlet",
        "advection-calibration": "Advection: calibration",
        "generate_reaction_diffusion": "Reaction diffusion, generated",
        "generate_stokes-study": "Stokes, generated: study",
    }
    assert {name: title(name) for name in headings} == headings


@pytest.mark.parametrize("name", released_names())
def test_a_headline_fits_one_screen_of_80_columns_and_every_number_is_printed_whole(name: str) -> None:
    """Names of rows wrap, numbers and words of headings do not."""
    results, printed = released(name), io.StringIO()
    assert results is not None
    tables = list(headline_tables(results.description, results.records))
    console(printed).print(*tables, sep="\n")
    lines, shown = printed.getvalue().splitlines(), printed.getvalue().split()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 40
    for each in tables:
        for column in each.columns[1:]:
            for word in (*str(column.header).split(), *(word for text in column.cells for word in str(text).split())):
                shown.remove(word)


def test_of_many_methods_in_many_cases_the_best_is_shown_beside_the_reference() -> None:
    cases = tuple(Entry(f"c{i}", f"case {i}") for i in range(SCREEN))
    records, printed = results(replace(Example(), cases_=cases)).records, io.StringIO()
    long = {"bare": "B" * 40, "hard": "Hard", "ours": "O" * 20}
    described = replace(replace(Example(), cases_=cases).described(), methods=long)
    console(printed).print(*headline_tables(described, records), sep="\n")
    lines = printed.getvalue().splitlines()
    assert lines[0].strip() == "MSE ↓, of the reference and of the best method"
    assert lines[2].split() == ["case", "0", "1", "1", "B" * 40]
    assert len(lines) == 2 + SCREEN


def test_a_run_of_other_methods_than_those_of_the_headline_shows_them() -> None:
    results, printed = released("wave_neumann"), io.StringIO()
    assert results is not None
    records = results.records[results.records["method"] == "boon-residual"]
    console(printed).print(*headline_tables(results.description, records), sep="\n")
    assert printed.getvalue().count("residual in the loss") == len(results.description.cases)


def test_the_terminal_shows_as_many_scores_as_fit_in_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        Row("case", name, [Cell(f"score {k}", "1" * width) for k in range(4)]) for name, width in (("a", 1), ("b", 28))
    ]
    monkeypatch.setattr("experiments.report.terminal.headline", lambda *_: rows)
    (table,) = headline_tables(results().description, results().records)
    assert [column.header for column in table.columns] == ["", "score 0", "score 1"]
    assert [len(list(column.cells)) for column in table.columns] == [2, 2, 2]


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
    with pytest.raises(DataFileError, match=r"page\.md' has a block 'resluts'; there are counts, "):
        filled(f"<!-- resluts: {MAKER} -->\n<!-- end of resluts -->", "page.md")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents show the example."""
    monkeypatch.setattr(tables, "results_of", lambda name: results(Example(name=name)))
    monkeypatch.setattr(tables, "over_seeds_of", lambda _: as_frame(()))


def cells_of(table: Table) -> list[list[str]]:
    lines = table.markdown().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])]


@pytest.mark.usefixtures("example")
def test_a_table_of_one_score_has_cases_as_rows_and_the_best_method_of_each_bold() -> None:
    assert cells_of(Table(experiment="example", score="MSE")) == [
        ["MSE ↓", "Bare", "Hard & fast", "Ours"],
        ["a=1 <in range>", "1 (5.00e-03)", "1.01 (5.00e-03)", "**0.505 (5.00e-03)**"],
        ["b=2", "**1 (5.00e-03)**", "1.01 (5.00e-03)", "1.5 (5.00e-03)"],
    ]
    several = cells_of(Table(experiment=("example", "more"), rows=("b",), columns=("ours", "bare"), score="LL"))
    assert [row[0] for row in several] == ["LL ↑", "Example, b=2", "More, b=2"]
    assert several[1][1:] == ["**3 (5.00e-03)**", "2 (5.00e-03)"]
    assert cells_of(Table(experiment="example", score="CRPS"))[0] == ["CRPS ↓", "Ours"], "what has no score is left out"


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize("keys", [{"rows": ("a", "no")}, {"columns": ("ours", "no")}])
def test_a_table_with_a_key_that_no_experiment_has_is_an_error(keys: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(DataFileError, match="A table of example names 'no', which none of them has"):
        Table(experiment="example", score="MSE", **keys).markdown()  # type: ignore[arg-type]


def test_round_off_is_as_good_as_zero() -> None:
    """Of errors of 3e-16 and 4e-16 neither is the better one."""
    best = Table(experiment="any", score="CE")._best(np.array([[3e-16, 4e-16, 2e-3, np.nan]]))
    assert best.tolist() == [[True, True, False, False]]


@pytest.mark.long
def test_documents_show_the_released_results() -> None:
    assert list(stale(ROOT)) == [], "run: python -m experiments.maintain documents"
