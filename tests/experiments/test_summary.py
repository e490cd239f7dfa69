"""The tables in the documents are those of the stored metrics."""

from pathlib import Path

import pytest

from experiments import summary
from experiments.conservation_run import trainings
from experiments.errors import DataFileError
from experiments.experiment import RunOptions
from experiments.networks import data_of, pretrained_path, roles
from experiments.storage import read_json
from experiments.tables import Score, paper_rows
from solvers import PROBLEMS
from tests.experiments.test_networks import BEST_KNOWN

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"
CONSERVING = ("ProbConserv-ANP", "ProbConserv-ANP (non-negative)", "ProbConserv-ANP (monotone)")


def test_the_readme_and_the_results_page_are_up_to_date() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert summary.with_table(readme, summary.short_table()) == readme, "run python -m experiments.summary"
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert summary.with_table(page, summary.long_tables()) == page, "run python -m experiments.summary"


def test_every_parameter_of_every_problem_has_its_rows() -> None:
    table = summary.short_table()
    for problem in PROBLEMS.values():
        for parameter in problem.test_parameters:
            label = f"{problem.name.replace('_', ' ')}, {problem.symbol}={parameter:g}"
            assert table.count(f"| {label} |") + table.count(f"| {label} (out of range) |") >= 4


def rows_of(problem: str) -> dict[tuple[str, str], dict[str, Score]]:
    """Our stored scores of a problem by parameter and method."""
    return {(row.parameter, row.method): row.scores for row in summary.stored_rows(problem) if not row.source}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_hard_methods_keep_their_law_in_the_stored_metrics(problem: str) -> None:
    hard = {
        key: scores["CE"]
        for key, scores in rows_of(problem).items()
        if key[1].startswith(("HardC", "ProbConserv")) and "(quadrature variance)" not in key[1]
    }
    for parameter in PROBLEMS[problem].test_parameters:
        label = f"{PROBLEMS[problem].symbol}={parameter:g}"
        assert {"HardC-GP", "ProbConserv-GP", "HardC-ANP", "ProbConserv-ANP"} <= {
            method for place, method in hard if place == label
        }
    # Mean and standard error both, so that errors of both signs cannot cancel.
    kept = {key for key, (mean, error) in hard.items() if abs(mean) <= 1e-12 and error is not None and error <= 1e-12}
    assert hard.keys() - kept == set()


def test_the_best_known_numbers_are_those_of_the_reference_file() -> None:
    for (problem, parameter), best in BEST_KNOWN.items():
        known = [row.scores for row in paper_rows(problem, f"{PROBLEMS[problem].symbol}={parameter:g}")]
        assert best == (
            min(scores["MSE"][0] for scores in known if "MSE" in scores),
            max(scores["LL"][0] for scores in known if "LL" in scores),
        )


@pytest.mark.parametrize(("problem", "parameter"), BEST_KNOWN)
def test_one_conserving_row_beats_the_best_known_numbers(problem: str, parameter: float) -> None:
    """In the training range: mean error and likelihood at once, the law alone or with inequalities."""
    label = f"{PROBLEMS[problem].symbol}={parameter:g}"
    rows = {method: scores for (place, method), scores in rows_of(problem).items() if place == label}
    found = {name: (rows[name]["MSE"][0], rows[name]["LL"][0]) for name in CONSERVING if name in rows}
    best_error, best_likelihood = BEST_KNOWN[problem, parameter]
    assert any(error <= best_error and likelihood >= best_likelihood for error, likelihood in found.values()), found


def test_displacement_makes_the_unseen_front_likely_at_no_cost_in_error() -> None:
    scores = rows_of("stefan")["u*=0.5", "ProbConserv-ANP (displaced)"]
    assert scores["LL"][0] > -0.2
    assert scores["MSE"][0] <= 1.4e-2


@pytest.mark.parametrize("problem", PROBLEMS)
def test_stored_metrics_are_those_of_the_networks_that_ship(problem: str) -> None:
    stored = read_json(RESULTS / f"{problem}.json")
    assert (stored["experiment"], stored["functions"], stored["seed"]) == (problem, 50, 0)
    files = {role: pretrained_path(problem, role) for role in roles(problem, data_of(problem, RunOptions()))}
    assert stored["networks"] == trainings(files)
    assert stored["environment"]["revision"]


def test_a_problem_without_metrics_is_named() -> None:
    with pytest.raises(DataFileError, match=r"nothing\.json"):
        summary.stored_rows("nothing")


def test_the_table_goes_between_its_marks() -> None:
    text = f"a\n{summary.BEGIN}\nold\n{summary.END}\nb"
    assert summary.with_table(text, "new") == f"a\n{summary.BEGIN}\n\nnew\n\n{summary.END}\nb"
