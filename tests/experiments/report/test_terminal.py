"""Headlines at a terminal of 80 columns."""

import io
from types import SimpleNamespace

import pytest

from experiments.registry import experiment
from experiments.report.results import released
from experiments.report.terminal import console, headline_tables


@pytest.mark.parametrize(
    "name", ["stefan", "viscous_burgers", "generate_stefan-prediction", "generate_stokes-disturbed"]
)
def test_every_number_of_a_headline_is_printed_whole(name: str) -> None:
    """Names of rows wrap or are cut, numbers are not."""
    results, printed = released(experiment(name)), io.StringIO()
    assert results is not None
    report = SimpleNamespace(experiment=experiment(name), cases=results.cases)
    tables = list(headline_tables(report, results.records))  # type: ignore[arg-type]
    console(printed).print(*tables, sep="\n")
    shown = printed.getvalue().split()
    for table in tables:
        for column in table.columns[1:]:
            for text in column.cells:
                shown.remove(str(text))


def test_a_run_of_other_methods_than_those_of_the_headline_shows_them() -> None:
    entry, printed = experiment("wave_neumann"), io.StringIO()
    results = released(entry)
    assert results is not None
    records = results.records[results.records["method"] == "boon-residual"]
    report = SimpleNamespace(experiment=entry, cases=results.cases)
    console(printed).print(*headline_tables(report, records), sep="\n")  # type: ignore[arg-type]
    assert printed.getvalue().count("residual in the loss") == len(results.cases)
