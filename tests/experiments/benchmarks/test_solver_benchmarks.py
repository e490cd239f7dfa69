"""The benchmarks of the solver in small: settings at equal error, baselines that solve the problem, tables."""

import importlib.metadata
import math
from collections.abc import Iterator

import numpy as np
import pytest

from experiments.benchmarks import baselines, solver
from experiments.benchmarks.shocks import pairs
from experiments.benchmarks.solver import Attempt, Case, Measured, cases, fastest, solution
from experiments.errors import LibraryError
from solvers import TRBDF2
from solvers.problems.conservation import BURGERS, DIFFUSION


def attempts(*errors: float) -> list[Attempt]:
    """Settings named by their errors."""
    return [Attempt(f"{error:g}", lambda error=error: np.full((1, 1, 4), error)) for error in errors]


def size(values: np.ndarray) -> float:
    return float(values.mean())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes by the reciprocal of the error."""
    monkeypatch.setattr(solver, "timed", lambda action: (1.0 / action().flat[0], action()))


@pytest.mark.usefixtures("clock")
def test_the_fastest_setting_within_a_tenth_of_the_target_counts() -> None:
    allowed = 1.1 * 1.15
    found = fastest([attempts(2.0, allowed * 1.01, allowed, 1.0), attempts(math.nan, 1.2)], size, 1.0)
    assert found == Measured(f"{allowed:g}", pytest.approx(1 / allowed), pytest.approx(allowed), True)


@pytest.mark.usefixtures("clock")
def test_the_most_accurate_setting_counts_where_none_suffices() -> None:
    assert fastest([attempts(3.0, 2.0), attempts(2.5)], size, 1.0).setting == "2"
    with pytest.raises(LibraryError, match="No setting of a method gave finite values"):
        fastest([attempts(math.nan)], size, 1.0)


@pytest.mark.usefixtures("clock")
def test_a_ladder_ends_at_thrice_the_time_of_what_suffices_or_at_the_limit() -> None:
    def tried(*errors: float, floor: float = 1.0, limit: float = 20.0) -> list[str]:
        names: list[str] = []

        def climbed() -> Iterator[Attempt]:
            for attempt in attempts(*errors):
                names.append(attempt.setting)
                yield attempt

        fastest([climbed()], size, floor, limit)
        return names

    assert tried(2.0, 1.0, 0.5, 0.3, 0.1) == ["2", "1", "0.5", "0.3"]
    assert tried(2.0, 1.0, floor=0.1, limit=0.4) == ["2"]


def test_short_runs_are_repeated_and_the_shortest_counts() -> None:
    runs: list[int] = []
    seconds, values = solver.timed(lambda: np.array([runs.append(1) or len(runs)]))
    assert len(runs) == values[0] == solver.REPEATS
    assert 0.0 <= seconds < 0.1


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_right_hand_sides_reach_the_spatial_error_of_ours(case: Case) -> None:
    exact_in_time = solver.integration(case, 1e-11, 1e-12)()
    floor = case.error(exact_in_time)
    if case.problem is BURGERS:  # the Courant number moves the error of a shock by some per cent
        assert case.error(solution(case)().values.numpy()) == pytest.approx(floor, rel=0.05)
        return
    values = solution(case, stepper=TRBDF2(1e-7))().values.numpy()
    assert np.abs(values - exact_in_time).mean() < 0.15 * floor


def test_a_batch_spreads_about_its_parameter_and_some_functions_count() -> None:
    case = Case(name="d", problem=DIFFUSION, parameters=(2.0,), times=(0.5,)).spread(5)
    assert case.parameters == pytest.approx((1.9, 1.95, 2.0, 2.05, 2.1))
    some = case.every(2)
    exact = case.problem.averages(0.5, case.grid(), np.array(case.parameters)).numpy()[:, None]
    assert some.error(exact) == pytest.approx(0.0, abs=1e-14)
    assert some.error(exact[::2] + 0.25) == pytest.approx(0.25)


def loop(start: np.ndarray, steps: int) -> np.ndarray:
    return baselines.rkl2_loop(start, solver.END - solver.START, steps)


def test_ours_and_the_bare_loop_agree_in_two_dimensions() -> None:
    start, _ = solver.barenblatt(16)
    values = solver.ours_on_plane(start)[-1][-1].action()
    assert values[0] == pytest.approx(loop(start, 256), abs=3e-5)
    assert loop(start, 3).sum() == pytest.approx(start.sum(), rel=1e-12)  # nothing leaves


@pytest.mark.long
def test_ours_and_the_bare_loops_agree_on_shocks() -> None:
    (_, ours, loop), (_, gas, tube) = pairs(60, 80)
    assert np.abs(ours() - loop()).max() < 1e-13  # the same steps
    assert np.abs(gas() - tube()).mean() < 1e-3  # other first steps, and a cell is 1/80 wide


def test_a_case_has_the_times_and_errors_of_both_and_our_setting() -> None:
    mine, theirs = Measured("RKL2(1)", 2e-3, 1e-4, True), Measured("b", 4.0, 2e-4, True)
    case = solver.case_of("Stefan", mine, "LSODA", theirs, 2e-4)
    numbers = {"seconds": 2e-3, "baseline_seconds": 4.0, "L1 error": 1e-4, "baseline L1 error": 2e-4, "ratio": 2e3}
    assert {key: case[key] for key in numbers} == pytest.approx(numbers)
    assert (case["case"], case["baseline"], case["setting"]) == ("Stefan", "LSODA", "RKL2(1)")
    assert case["target L1"] == pytest.approx(2.3e-4)


def test_the_benchmark_in_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver, "cases", lambda: [cases()[4]])
    result = solver.run(functions=2, looped=1, planes=(8,), limit=1e-9)
    assert [(case["case"], case["baseline"]) for case in result["cases"]] == [
        ("diffusion k = 1, one function", "LSODA"),
        ("diffusion k = 1, one of 2 in a call", "LSODA"),
        ("Burgers on a circle, 200 cells", "bare loop"),
        ("Sod's tube, 400 cells", "bare loop"),
        ("Barenblatt m = 2, 8²", "RKL2 loop"),
    ]
    assert all(case["ratio"] > 0 for case in result["cases"])
    assert f"numba {importlib.metadata.version('numba')}, llvmlite" in result["machine"]
