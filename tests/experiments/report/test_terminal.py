"""Headlines at a terminal of 80 columns."""

import io
from types import SimpleNamespace

import pytest

from experiments import registry
from experiments.report.results import released
from experiments.report.terminal import console, headline_tables

ENTRIES = {entry.name: entry for entry in (*registry.EXPERIMENTS.values(), *registry.STUDIES.values())}


@pytest.mark.parametrize(
    "name", ["stefan", "viscous_burgers", "generate_stefan-prediction", "generate_stokes-disturbed"]
)
def test_every_number_of_a_headline_is_printed_whole(name: str) -> None:
    """Names of rows wrap or are cut, numbers are not."""
    results, printed = released(ENTRIES[name]), io.StringIO()
    assert results is not None
    report = SimpleNamespace(experiment=ENTRIES[name], cases=results.cases)
    tables = list(headline_tables(report, results.records))  # type: ignore[arg-type]
    console(printed).print(*tables, sep="\n")
    shown = printed.getvalue().split()
    for table in tables:
        for column in table.columns[1:]:
            for text in column.cells:
                shown.remove(str(text))
