"""Tables hold every number in every format, ours beside the papers'."""

import csv
import io
from dataclasses import replace

from experiments.tables import Row, as_csv, as_markdown, beside_paper, boon_rows, legend, paper_rows, print_table

OURS = Row("u*=0.6", "ProbConserv-GP", {"CE": (0.0, 0.0), "MSE": (1.25e-3, 2.0e-5)})


def test_paper_rows_quote_the_reference_file() -> None:
    rows = {(row.method, row.source): row for row in paper_rows("stefan", "u*=0.6")}
    released = rows["ProbConserv-ANP", "Hansen et al., released weights"]
    assert released.scores["MSE"] == (0.001887, 1.1e-5)
    published = {row.method: row for row in paper_rows("diffusion", "k=1") if row.source == "Hansen et al. 2023"}
    assert published["HardC-ANP"].scores["LL"] == (3.08, 0.04)


def test_problems_without_published_numbers_have_no_paper_rows() -> None:
    assert paper_rows("advection", "a=1") == []


def test_what_is_known_of_the_boon_paper_stands_beside_ours() -> None:
    (row,) = boon_rows("stokes")
    assert row.scores == {"relative_l2": (0.0123, None)}
    assert row.source == "Saad et al., notebook"
    assert boon_rows("cavity") == []


def test_rows_survive_json() -> None:
    assert Row.from_json(OURS.as_json()) == OURS


def test_markdown_shows_ours_and_the_papers() -> None:
    text = as_markdown("Stefan", [OURS, *paper_rows("stefan", "u*=0.6")])
    assert "| u*=0.6 | ProbConserv-GP | 0 (0) | — | 1.25e-03 (2.00e-05) | ours |" in text
    assert "| u*=0.6 | ANP | -0.013 (5.30e-05) | 3.54 (1.00e-03) | 5.39e-03 (2.10e-05) |" in text


def test_papers_numbers_stand_beside_ours() -> None:
    """The better of the numbers known for the same method: LL with dropout off, MSE with dropout on."""
    mine = Row("u*=0.6", "ProbConserv-ANP", {"LL": (5.4, 0.01), "MSE": (9.0e-4, 2.0e-5)})
    first, second, *rest = beside_paper([OURS, mine, *paper_rows("stefan", "u*=0.6")])
    assert first == OURS
    assert second.scores["paper_LL"] == (3.76, None)
    assert second.scores["paper_MSE"] == (0.001887, 1.1e-5)
    assert second.scores["LL"] == (5.4, 0.01)
    assert {row.method for row in rest} == {"ANP", "HardC-ANP"}
    text = as_markdown("Stefan", [second])
    assert "| parameter | method | LL ↑ | paper's LL | MSE ↓ | paper's MSE |\n" in text
    assert "| u*=0.6 | ProbConserv-ANP | 5.4 (0.01) | 3.76 | 9.00e-04 (2.00e-05) | 1.89e-03 (1.10e-05) |\n" in text


def test_csv_keeps_full_precision() -> None:
    (row,) = csv.DictReader(io.StringIO(as_csv([OURS])))
    assert float(row["MSE"]) == 1.25e-3
    assert float(row["MSE_se"]) == 2.0e-5


def test_terminal_table_cuts_no_cell() -> None:
    file = io.StringIO()
    print_table("Stefan", [OURS, *paper_rows("stefan", "u*=0.6")], file)
    assert "ProbConserv-GP" in file.getvalue()
    assert "Hansen et al., released weights" in file.getvalue()
    assert "…" not in file.getvalue()


def test_operators_have_their_own_columns_and_legend() -> None:
    row = Row("single step", "BOON", {"relative_l2": (1e-3, 1e-4), "boundary": (0.0, 0.0)}, "", "initial field")
    text = as_markdown("Stokes", [row])
    assert "| parameter | method | sees | relative L2 ↓ | boundary error ↓ |\n" in text
    assert "|---|---|---|---:|---:|\n" in text
    assert "| single step | BOON | initial field | 1.00e-03 (1.00e-04) | 0 (0) |\n" in text
    assert "Mean (standard error) over seeds: relative L2, boundary error." in text
    assert "CE" not in text
    assert "seeds" not in as_markdown("Stefan", [OURS])
    assert Row.from_json(row.as_json()) == row
    (cells,) = csv.DictReader(io.StringIO(as_csv([row])))
    assert cells["sees"] == "initial field"


def test_what_errors_are_over_is_the_rows_own_where_it_says_so() -> None:
    scores = {"CRPS": (0.2, 0.1), "boundary": (0.0, 0.0), "paper_ratio": (0.9, None)}
    row = Row("m in [2, 3]", "BOON", scores, over="groups")
    assert Row.from_json(row.as_json()) == row
    assert "Mean (standard error) over groups: CRPS, boundary error." in legend([row])
    assert "over test functions: CRPS. Mean (standard error) over seeds: boundary error." in legend(
        [replace(row, over="")]
    )
