"""The table of BOON as published says what the records and the paper say."""

import pytest

from boon import Elimination
from experiments import load_operator
from experiments.records.release import released_results
from experiments.report import published
from experiments.report.tables import results_of


def cells(experiment: str, case: str) -> dict[str, str]:
    """A row of the table by its headings."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in published.boon().splitlines()]
    label = f"{experiment}, {results_of(experiment).description.cases[case]}"
    (found,) = (line for line in lines if line[0] == label)
    return dict(zip(lines[0], found, strict=True))


@pytest.mark.parametrize(("experiment", "case"), published.CASES)
def test_every_number_is_the_mean_over_seeds_of_a_record(experiment: str, case: str) -> None:
    records, row = released_results(experiment).records, cells(experiment, case)
    of_case = records[(records["case"] == case) & (records["score"] == "relative_l2")]
    for heading, key in published.METHODS.items():
        seeds = of_case.loc[of_case["method"] == key, "mean"]
        shown = row[heading].split(" ")[0]
        assert (shown == "—") == seeds.empty, heading
        assert seeds.empty or float(shown) == pytest.approx(seeds.mean(), rel=5e-3), "three digits are shown"


def test_a_published_number_stands_beside_its_case_alone() -> None:
    assert cells("stokes", "multi-notebook")["published BOON"] == "0.0123"
    assert cells("burgers_dirichlet", "single-paper")["published BOON"] == "8.40e-05"
    assert cells("stokes", "single-paper")["published BOON"] == "—"


@pytest.mark.parametrize("case", ["single-paper", "single-0.02"])
def test_the_papers_correction_has_a_stored_row_and_released_weights(case: str) -> None:
    assert cells("stokes", case)["BOON (Elimination, as published)"] != "—"
    assert load_operator("stokes", case, "boon-paper").treatment.correction == Elimination()
