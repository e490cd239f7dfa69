"""Headlines at a terminal of 80 columns."""

import io

import pytest

from experiments.report.results import released
from experiments.report.terminal import console, headline_tables


@pytest.mark.parametrize(
    "name", ["stefan", "viscous_burgers", "generate_stefan-prediction", "generate_stokes-disturbed"]
)
def test_every_number_of_a_headline_is_printed_whole(name: str) -> None:
    """Names of rows wrap or are cut, numbers are not."""
    results, printed = released(name), io.StringIO()
    assert results is not None
    tables = list(headline_tables(results.description, results.records))
    console(printed).print(*tables, sep="\n")
    shown = printed.getvalue().split()
    for table in tables:
        for column in table.columns[1:]:
            for text in column.cells:
                shown.remove(str(text))


def test_a_run_of_other_methods_than_those_of_the_headline_shows_them() -> None:
    results, printed = released("wave_neumann"), io.StringIO()
    assert results is not None
    records = results.records[results.records["method"] == "boon-residual"]
    console(printed).print(*headline_tables(results.description, records), sep="\n")
    assert printed.getvalue().count("residual in the loss") == len(results.description.cases)
