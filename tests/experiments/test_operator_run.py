"""Every boundary-condition experiment from samples to figures in tiny sizes."""

from dataclasses import replace
from pathlib import Path

import pytest

from experiments import operator_run
from experiments.errors import DataFileError, InvalidArgumentError, NotShippedError
from experiments.experiment import Report, RunOptions
from experiments.operator_config import OperatorCase
from experiments.operator_methods import CIRCLE, DEFAULT_NAME, LIFTED, PAPER, PRESCRIBED, methods
from experiments.operator_problems import CASES
from experiments.operator_run import reproduce_operators, run_operators
from experiments.operator_shipping import load_pretrained_operator, read_results
from experiments.ship_operators import ship
from experiments.tables import Row
from tests.experiments.operators import one, tiny_cases


def options(folder: Path, seed: int = 0) -> RunOptions:
    return RunOptions(out=folder, seed=seed)


def by_method(report: Report) -> dict[str, Row]:
    return {row.method: row for row in report.rows if not row.source}


@pytest.mark.parametrize("name", CASES)
def test_run_scores_every_row_and_writes_every_file(name: str, tmp_path: Path) -> None:
    """After training: no boundary error for values and periodic ends, ≤ 1e-6 relative for gradients (float32)."""
    case = tiny_cases(name)[-1]
    report = run_operators(name, (case,), options(tmp_path))
    rows = by_method(report)
    assert list(rows) == ["truth", *(method.name for method in methods(case))]
    bound = 1e-6 if "neumann" in name or "gradients" in case.name else 0.0
    for row in list(rows.values())[1:]:
        error = row.scores["boundary_relative_max"][0]
        if row.method in (PRESCRIBED, PAPER, DEFAULT_NAME):
            assert error <= bound, row.method
        elif row.method not in (LIFTED, CIRCLE):
            assert error > 1e-4, row.method
        assert {"relative_l2", "validation", "boundary", "boundary_relative", "step"} < row.scores.keys()
        assert row.information
    assert rows["FNO"].scores["step"] == (1.0, None)
    assert ("set-up reconstructed" in report.title) == bool(case.problem.reconstructed)
    square = len(case.problem.conditions) == 2
    assert {file.suffix for file in report.figures} == ({".png", ".pdf", ".gif"} if square else {".png", ".pdf"})
    assert len({file.stem.split("-")[0] for file in report.figures}) == 3
    for file in (*report.tables, *report.figures, report.folder / "metrics.json"):
        assert file.stat().st_size > 0
    if square:
        (gif,) = (file for file in report.figures if file.suffix == ".gif")
        assert gif.read_bytes()[:6] == b"GIF89a"


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator_run, "draw_case", lambda *_: [])


@pytest.mark.usefixtures("no_figures")
def test_equal_seeds_give_equal_results_and_others_do_not(tmp_path: Path) -> None:
    case = one("stokes", "single-0.02")

    def scores(folder: str, seed: int) -> list[dict]:
        rows = run_operators("stokes", (case,), options(tmp_path / folder, seed)).rows
        return [{name: value for name, value in row.scores.items() if name != "step"} for row in rows]

    first = scores("first", 0)
    assert scores("second", 0) == first
    assert scores("first", 1)[1] != first[1]


@pytest.mark.usefixtures("no_figures")
def test_means_and_standard_errors_are_over_seeds(tmp_path: Path) -> None:
    case = one("stokes", "single-0.02")
    pair = replace(case, sizes=replace(case.sizes, seeds=2))
    both = by_method(run_operators("stokes", (pair,), options(tmp_path)))["FNO"].scores["relative_l2"]
    place = operator_run.place_of("stokes", options(tmp_path))
    files = {("FNO", seed): operator_run.trained_operator(pair, methods(pair)[0], place, seed) for seed in (0, 1)}
    stored = operator_run.score_case(pair, files, place, tmp_path)
    each = [float(arrays["relative_l2"].mean()) for arrays in stored.scores["FNO"]]
    assert both[0] == pytest.approx(sum(each) / 2, rel=1e-12)
    assert both[1] == pytest.approx(abs(each[0] - each[1]) / 2, rel=1e-9)  # |a − b|/√2 over √2


@pytest.mark.usefixtures("no_figures")
def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = one("stokes", "single-0.02")
    original = operator_run.trained_operator
    calls: list[str] = []

    def counted(case: OperatorCase, method, place, seed: int) -> Path:
        calls.append(method.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(case, method, place, seed)

    monkeypatch.setattr(operator_run, "trained_operator", counted)
    with pytest.raises(KeyboardInterrupt):
        run_operators("stokes", (case,), options(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("**/weights.safetensors")}
    assert len(before) == 2
    report = run_operators("stokes", (case,), options(tmp_path))
    assert len(by_method(report)) == 8
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_the_data_option_of_other_experiments_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="--data does not belong to boundary-condition experiments"):
        run_operators("stokes", tiny_cases("stokes"), RunOptions(out=tmp_path / "out", data="solver"))
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("no_figures")
def test_what_ships_reproduces_the_run(tmp_path: Path, library: Path) -> None:
    cases = (one("heat_independent", "single-values"),)
    ran = by_method(run_operators("heat_independent", cases, options(tmp_path / "out")))
    shipped = ship("heat_independent", cases, tmp_path / "out")
    assert [entry.method for entry in shipped.weights][::2] == ["FNO", DEFAULT_NAME]
    assert len(shipped.weights) == len(list(library.glob("weights/operators/*.safetensors"))) == 3
    report = reproduce_operators("heat_independent", cases, options(tmp_path / "elsewhere"))
    now = {row.method: row for row in report.rows if row.source == "scored now"}
    stored = {row.method: row for row in report.rows if row.source == "stored run, laptop"}
    assert set(now) == {"truth", *(entry.method for entry in shipped.weights)}
    assert set(stored) == set(ran) - {"truth"}
    for method, row in now.items():
        assert {**row.scores, "step": 0} == {**ran[method].scores, "step": 0}
    operator = load_pretrained_operator("heat_independent", "single-values")
    assert not operator.training
    with pytest.raises(NotShippedError, match=r"No weights ship for 'x' of heat_independent, single-values. Known: "):
        load_pretrained_operator("heat_independent", "single-values", "x")


@pytest.mark.usefixtures("no_figures")
def test_files_that_are_missing_or_damaged_are_named(tmp_path: Path, library: Path) -> None:
    cases = (one("stokes", "single-0.02"),)
    with pytest.raises(NotShippedError, match=r"No results of experiment 'stokes' ship .* run stokes --preset laptop"):
        reproduce_operators("stokes", cases, options(tmp_path / "out"))
    with pytest.raises(DataFileError, match="finish the run before it ships"):
        ship("stokes", cases, tmp_path / "out")
    run_operators("stokes", cases, options(tmp_path / "out"))
    ship("stokes", cases, tmp_path / "out")
    (path, *_) = sorted(library.glob("weights/operators/*"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataFileError, match=f"{path.name}' is damaged"):
        reproduce_operators("stokes", cases, options(tmp_path / "out"))
    path.unlink()
    with pytest.raises(NotShippedError, match=f"'{path.name}', are missing"):
        reproduce_operators("stokes", cases, options(tmp_path / "out"))
    (library / "results" / "stokes.json").write_text('{"rows": []}')
    with pytest.raises(DataFileError, match="does not hold results of an experiment"):
        read_results("stokes")


def test_figures_of_one_time_show_profiles_only(tmp_path: Path) -> None:
    case = one("heat_neumann", "single")
    report = run_operators("heat_neumann", (case,), options(tmp_path))
    assert {file.stem for file in report.figures} == {"profile-single"}
