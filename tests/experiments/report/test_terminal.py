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


def test_a_run_of_other_methods_than_those_of_the_headline_shows_them() -> None:
    experiment, printed = ENTRIES["wave_neumann"], io.StringIO()
    results = released(experiment)
    assert results is not None
    records = results.records[results.records["method"] == "boon-residual"]
    report = SimpleNamespace(experiment=experiment, cases=results.cases)
    console(printed).print(*headline_tables(report, records), sep="\n")  # type: ignore[arg-type]
    assert printed.getvalue().count("residual in the loss") == len(results.cases)
