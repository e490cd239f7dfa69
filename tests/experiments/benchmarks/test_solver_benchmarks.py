"""The benchmarks of the solver in small: settings at equal error, baselines that solve the problem, tables."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.benchmarks import documents, solver
from experiments.benchmarks.equal_error import attempts as equal_error
from experiments.benchmarks.equal_error import libraries, lsoda, planes
from experiments.benchmarks.equal_error.attempts import Attempt, Measured
from experiments.benchmarks.equal_error.cases import Case, cases, solution
from experiments.errors import DataFileError, LibraryError
from experiments.report.terminal import print_benchmark
from solvers import TRBDF2
from solvers.problems import BURGERS, DIFFUSION
from tests.documents import DOCS


def attempts(*errors: float) -> list[Attempt]:
    """Settings named by their errors."""
    return [Attempt(f"{error:g}", lambda error=error: np.full((1, 1, 4), error)) for error in errors]


def size(values: np.ndarray) -> float:
    return float(values.mean())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes by the reciprocal of the error."""
    monkeypatch.setattr(equal_error, "timed", lambda action: (1.0 / action().flat[0], action()))


@pytest.mark.usefixtures("clock")
def test_the_fastest_setting_within_a_tenth_of_the_target_counts() -> None:
    allowed = 1.1 * 1.15
    found = equal_error.fastest([attempts(2.0, allowed * 1.01, allowed, 1.0), attempts(math.nan, 1.2)], size, 1.0)
    assert found == Measured(f"{allowed:g}", pytest.approx(1 / allowed), pytest.approx(allowed), True)


@pytest.mark.usefixtures("clock")
def test_the_most_accurate_setting_counts_where_none_suffices() -> None:
    assert equal_error.fastest([attempts(3.0, 2.0), attempts(2.5)], size, 1.0).setting == "2"
    with pytest.raises(LibraryError, match="No setting of a method gave finite values"):
        equal_error.fastest([attempts(math.nan)], size, 1.0)


@pytest.mark.usefixtures("clock")
def test_a_ladder_ends_at_thrice_the_time_of_what_suffices_or_at_the_limit() -> None:
    names = [each.setting for each in equal_error.climb(attempts(2.0, 1.0, 0.5, 0.3, 0.1), size, 1.0)]
    assert names == ["2", "1", "0.5", "0.3"]
    assert len(equal_error.climb(attempts(2.0, 1.0), size, 0.1, limit=0.4)) == 1


def test_short_runs_are_repeated_and_the_shortest_counts() -> None:
    runs: list[int] = []
    seconds, values = equal_error.timed(lambda: np.array([runs.append(1) or len(runs)]))
    assert len(runs) == values[0] == equal_error.REPEATS
    assert 0.0 <= seconds < 0.1


def test_the_baseline_is_the_fastest_that_reaches_the_target_else_the_most_accurate() -> None:
    mine, quick, good = Measured("a", 2.0, 1.0, True), Measured("b", 1.0, 9.0, False), Measured("c", 6.0, 1.0, True)
    case = equal_error.case_of("name", mine, {"quick": quick, "good": good}, 1.0)
    assert (case["baseline"], case["ratio"], case["setting"]) == ("good", 3.0, "a")
    assert case["methods"]["quick"]["reaches the target"] is False
    assert equal_error.case_of("name", mine, {"quick": quick}, 1.0)["ratio"] == 0.5


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_right_hand_sides_reach_the_spatial_error_of_ours(case: Case) -> None:
    floor = lsoda.spatial_error(case)
    if case.problem is BURGERS:  # the Courant number moves the error of a shock by some per cent
        assert case.error(solution(case)().values.numpy()) == pytest.approx(floor, rel=0.05)
        return
    exact_in_time = lsoda.integration(case, 1e-11, 1e-12)()
    values = solution(case, stepper=TRBDF2(1e-7))().values.numpy()
    assert np.abs(values - exact_in_time).mean() < 0.15 * floor


def test_the_circle_of_cells_has_a_band_of_two() -> None:
    order, h = lsoda.SYSTEMS["diffusion"].order, 0.1
    u = np.random.default_rng(0).standard_normal(len(order))
    rate = np.empty_like(u)
    rate[order] = lsoda.diffusion(0.0, u[order], 2.0, h)
    assert rate == pytest.approx(2.0 * (np.roll(u, 1) - 2.0 * u + np.roll(u, -1)) / h**2)


def test_a_batch_spreads_about_its_parameter_and_some_functions_count() -> None:
    case = Case(name="d", problem=DIFFUSION, parameters=(2.0,), times=(0.5,)).spread(5)
    assert case.parameters == pytest.approx((1.9, 1.95, 2.0, 2.05, 2.1))
    some = case.every(2)
    exact = case.problem.averages(0.5, case.grid(), np.array(case.parameters)).numpy()[:, None]
    assert some.error(exact) == pytest.approx(0.0, abs=1e-14)
    assert some.error(exact[::2] + 0.25) == pytest.approx(0.25)


def test_the_bare_loop_in_two_dimensions_is_of_second_order_in_time() -> None:
    start, _ = planes.barenblatt(24)
    fine = planes.rkl2_loop(start, 512)
    coarse = [np.abs(planes.rkl2_loop(start, steps) - fine).mean() for steps in (16, 32, 64)]
    orders = np.log2(np.divide(coarse[:-1], coarse[1:]))
    assert orders == pytest.approx(2.0, abs=0.4)
    assert planes.rkl2_loop(start, 3).sum() == pytest.approx(start.sum(), rel=1e-12)  # nothing leaves


def test_ours_and_the_bare_loop_agree_in_two_dimensions() -> None:
    start, _ = planes.barenblatt(16)
    values = planes._ours(start)[-1][-1].action()
    assert values[0] == pytest.approx(planes.rkl2_loop(start, 256), abs=3e-5)


def test_the_solver_benchmark_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fipy", None)
    with pytest.raises(LibraryError, match=r"FiPy, which is not installed; pip install 'probconserv-boon\[bench\]'"):
        solver.run()


def test_tables_show_every_method_and_mark_those_that_miss_the_target(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, theirs, missed = (
        Measured("RKL2(1)", 2e-3, 1e-4, True),
        Measured("b", 4.0, 1e-4, True),
        Measured("c", 1, 9, False),
    )
    others = {"LSODA": theirs, "FiPy": missed, "py-pde": missed}
    result = {"benchmark": "solver", "machine": "one", "cases": [equal_error.case_of("Stefan", mine, others, 2e-4)]}
    document = tmp_path / "page.md"
    document.write_text((DOCS / "benchmarks.md").read_text(encoding="utf-8"), encoding="utf-8")
    documents.write(result, document)
    row = r"| Stefan | 2.3e-04 | 2 ms (1.0e-04) | 4 s (1.0e-04) | 1 s (9.0e+00\*) | 1 s (9.0e+00\*) | 2e+03 | RKL2(1) |"
    assert row in document.read_text(encoding="utf-8")
    print_benchmark(result)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
    assert json.loads(json.dumps(result))["cases"][0]["methods"].keys() == {"ours", *others}
    (tmp_path / "empty.md").touch()
    with pytest.raises(DataFileError, match="needs the marks"):
        documents.write(result, tmp_path / "empty.md")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fipy", "pde"])
@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_libraries_solve_the_problems(name: str, case: Case) -> None:
    pytest.importorskip(name)
    ladders = libraries.fipy(case) if name == "fipy" else libraries.py_pde(case)
    values = list(ladders[-1])[1].action()
    assert values.shape == (1, len(case.times), values.shape[-1])
    # Implicit Euler is far from the target, but solves the problem.
    assert case.error(values) < 0.02
