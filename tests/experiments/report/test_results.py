from dataclasses import replace

from experiments.report.results import MANY_ROWS, headline
from tests.experiments.report.example import Entry, Example, results


def test_marks_compare_with_the_first_method_and_leave_alone_what_is_within_the_errors() -> None:
    table = headline(results())
    assert table.columns == ["method", "LL ↑", "MSE ↓", "paper"] or table.columns == [
        "method",
        "MSE ↓",
        "paper",
        "LL ↑",
    ]
    at = {column: i - 1 for i, column in enumerate(table.columns)}
    cells = {(case, name): row for case, rows in table.groups for name, row in rows}
    marks = {key: row[at["MSE ↓"]].mark for key, row in cells.items()}
    assert marks == {
        ("a=1 <in range>", "Bare"): "",
        ("a=1 <in range>", "Hard & fast"): "",
        ("a=1 <in range>", "Ours"): "better",
        ("b=2", "Bare"): "",
        ("b=2", "Hard & fast"): "",
        ("b=2", "Ours"): "worse",
    }
    assert cells["b=2", "Hard & fast"][at["LL ↑"]].mark == "worse"
    assert [name for (case, name), row in cells.items() if case == "b=2" and row[at["MSE ↓"]].best] == ["Bare"]
    assert [row[at["paper"]].text for row in cells.values()] == ["—", "—", "0.4", "—", "—", "—"]
    assert cells["a=1 <in range>", "Ours"][at["MSE ↓"]].text == "0.505 (5.00e-03)"  # mean and error over two seeds


def test_many_cases_are_rows_with_one_score() -> None:
    cases = tuple(Entry(f"c{i}", f"case {i}") for i in range(MANY_ROWS // 3 + 1))
    table = headline(results(replace(Example(), cases_=cases)))
    assert table.columns == ["MSE ↓", "Bare", "Hard & fast", "Ours"]
    ((label, rows),) = table.groups
    assert not label
    assert [name for name, _ in rows] == [case.label for case in cases]
    assert [cell.mark for cell in rows[0][1]] == ["", "", "worse"]


def test_a_row_without_a_method_has_a_dash() -> None:
    cases = tuple(Entry(f"c{i}", f"case {i}") for i in range(MANY_ROWS // 2))
    shown = results(replace(Example(), cases_=cases))
    records = shown.records[~((shown.records["case"] == "c1") & (shown.records["method"] == "hard"))]
    table = headline(replace(shown, records=records))
    assert [cell.text for cell in table.groups[0][1][1][1]][1] == "—"
