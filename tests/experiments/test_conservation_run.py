"""A conservation experiment from options to files; small sizes, all stages."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments import conservation_run, figures, stefan
from experiments.config import ConservationConfig
from experiments.conservation import Case
from experiments.errors import InvalidArgumentError
from experiments.evaluation import evaluate
from experiments.experiment import Data, RunOptions
from experiments.networks import network_training
from experiments.shift import displacement
from experiments.storage import Arrays, read_arrays, read_json
from probconserv import ANP, Ensemble, GPSurrogate, Surrogate
from probconserv.surrogates.gp import GPConfig
from solvers.problems import DIFFUSION, STEFAN, Problem

SMALL = ConservationConfig(
    problem="stefan",
    data="solver",
    seed=0,
    functions=4,
    places=41,
    samples=50,
    curve_functions=2,
    curve_times=3,
    cells=64,
    output_times=40,
    gp=GPConfig(smoothness=0.5, steps=5),
)


def cases(config: ConservationConfig, folder: Path) -> list[Case]:
    surrogates = black_boxes(config)
    return [Case(STEFAN, parameter, config, folder / "data", surrogates) for parameter in STEFAN.test_parameters]


def black_boxes(config: ConservationConfig) -> dict[str, Surrogate]:
    """Untrained networks: what the pipeline does must hold for any."""

    def network(seed: int) -> ANP:
        tiny = network_training(config.problem, "anp", "smoke", "exact").network
        torch.manual_seed(seed)
        return ANP(dataclasses.replace(tiny, width=8, latent_width=4, latent_samples=3)).eval()

    networks: dict[str, Surrogate] = {name: network(i) for i, name in enumerate(("anp", "anp-exact", "softc", "edge"))}
    return {"gp": GPSurrogate(config.gp), "ensemble": Ensemble([network(8), network(9)], own_variance=True), **networks}


def same(first: dict[str, dict[str, Arrays]], second: dict[str, dict[str, Arrays]]) -> bool:
    """Whether two runs stored the same numbers; fronts are NaN where a sample has none."""
    return flat(first).keys() == flat(second).keys() and all(
        np.array_equal(array, flat(second)[name], equal_nan=True) for name, array in flat(first).items()
    )


def flat(stored: dict[str, dict[str, Arrays]]) -> dict[tuple[str, str, str], np.ndarray]:
    """Arrays by case, stage and name."""
    return {
        (case, stage, name): array
        for case, stages in stored.items()
        for stage, arrays in stages.items()
        for name, array in arrays.items()
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Arrays]]:
    folder = tmp_path_factory.mktemp("whole")
    return conservation_run.run_stages(cases(SMALL, folder), folder)


@pytest.mark.parametrize(
    ("problem", "data"), [(STEFAN, "solver"), pytest.param(DIFFUSION, "exact", marks=pytest.mark.slow)]
)
def test_run_scores_every_method_and_writes_every_file(tmp_path: Path, problem: Problem, data: Data) -> None:
    config = dataclasses.replace(SMALL, problem=problem.name, data=data)
    report = conservation_run.run_conservation(problem, config, black_boxes(config), tmp_path)
    rows = {(row.parameter, row.method): row.scores for row in report.rows if not row.source}
    for parameter in problem.test_parameters:
        label = f"{problem.symbol}={parameter:g}"
        hard = [name for (place, name) in rows if place == label and name.startswith(("HardC", "ProbConserv"))]
        assert len(hard) >= 7
        for name in hard:
            tolerance = 1e-2 if "quadrature" in name else 1e-12
            assert abs(rows[label, name]["CE"][0]) < tolerance, name
        for name in ("GP", "ANP", "SoftC-ANP", "Ensemble", "ANP, closed-form data"):
            assert abs(rows[label, name]["CE"][0]) > 1e-6
        assert ((label, "ProbConserv-ANP (monotone)") in rows) == problem.monotone
        assert ("shock" in rows[label, "GP"]) == (problem.front is not None)
        assert abs(rows[label, "truth"]["CE"][0]) < 0.05
    assert any(row.source for row in report.rows)
    for file in (*report.tables, *report.figures, report.folder / "metrics.json", report.folder / "environment.json"):
        assert file.stat().st_size > 0


def test_an_interrupted_run_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, dict[str, Arrays]]
) -> None:
    calls: list[str] = []
    original = dict(conservation_run.STAGES)

    def counted(name: str, stop_at: int | None) -> conservation_run.Stage:
        def run(case: Case) -> Arrays:
            calls.append(f"{name} {case.label}")
            if len(calls) == stop_at:
                raise KeyboardInterrupt
            return original[name](case)

        return run

    monkeypatch.setattr(conservation_run, "STAGES", {name: counted(name, 4) for name in original})
    with pytest.raises(KeyboardInterrupt):
        conservation_run.run_stages(cases(SMALL, tmp_path), tmp_path)
    monkeypatch.setattr(conservation_run, "STAGES", {name: counted(name, None) for name in original})
    resumed = conservation_run.run_stages(cases(SMALL, tmp_path), tmp_path)
    assert calls[3] == calls[4]
    assert len(calls) == 2 * len(original) + 1
    assert same(resumed, whole)


@pytest.mark.parametrize("pattern", ["scores-0.6.h5", "data/stefan-*.h5"])
def test_a_damaged_file_is_named_and_rebuilt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], whole: dict[str, dict[str, Arrays]], pattern: str
) -> None:
    conservation_run.run_stages(cases(SMALL, tmp_path), tmp_path)
    (file,) = tmp_path.glob(pattern)
    file.write_bytes(file.read_bytes()[:-100])
    (tmp_path / "scores-0.5.h5").unlink()
    again = conservation_run.run_stages(cases(SMALL, tmp_path), tmp_path)
    assert f"{file}' is damaged" in capsys.readouterr().err
    assert same(again, whole)


def test_a_table_averages_shock_positions_over_the_functions_that_have_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def two_without_shock(case: Case) -> Arrays:
        arrays = evaluate(case)
        arrays["GP|shock"][:] = [math.nan, 0.1, math.nan, 0.3]
        return arrays

    monkeypatch.setitem(conservation_run.STAGES, "scores", two_without_shock)
    monkeypatch.setattr(conservation_run, "draw_case", lambda *arguments: [])  # noqa: ARG005
    report = conservation_run.run_conservation(STEFAN, SMALL, black_boxes(SMALL), tmp_path)
    (row,) = (row for row in report.rows if (row.parameter, row.method) == ("u*=0.6", "GP"))
    # Mean of 0.1 and 0.3, and their deviation 0.2/√2 over √2.
    assert row.scores["shock"] == pytest.approx((0.2, 0.1), rel=1e-12)
    stored = read_json(report.folder / "metrics.json")
    assert row.as_json() in stored["rows"]
    assert (stored["experiment"], stored["functions"], stored["seed"]) == ("stefan", 4, 0)
    assert stored["displacement"] == displacement(read_arrays(report.folder / "shift.h5"))


def test_shock_histograms_leave_out_samples_without_a_shock(tmp_path: Path) -> None:
    positions = {"ANP": np.array([[0.25, 0.25], [0.75, math.nan]]), "GP": np.full((2, 2), math.nan)}
    figure = figures.shock_histograms(positions, 0.5, (0.0, 1.0), "Stefan")
    heights = [
        {round(bar.get_center()[0], 9): bar.get_height() for bar in axes.patches if bar.get_height()}
        for axes in figure.axes
    ]
    # Of four samples two lie in the bin [0.24, 0.26), one in [0.74, 0.76), and one has no shock; then none has.
    assert heights == [{0.25: pytest.approx(0.5), 0.75: pytest.approx(0.25)}, {}]
    assert [list(axes.lines[0].get_xdata()) for axes in figure.axes] == [[0.5, 0.5]] * 2
    assert all(file.stat().st_size > 0 for file in figures.save(figure, tmp_path / "front"))


def test_seed_decides_the_result(tmp_path: Path, whole: dict[str, dict[str, Arrays]]) -> None:
    other = conservation_run.run_stages(cases(dataclasses.replace(SMALL, seed=1), tmp_path)[:1], tmp_path)
    assert not np.allclose(whole["u*=0.6"]["scores"]["GP|MSE"], other["u*=0.6"]["scores"]["GP|MSE"])


def test_a_config_out_of_range_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="functions must be at least 2, got 1"):
        dataclasses.replace(SMALL, functions=1)
    with pytest.raises(InvalidArgumentError, match="curve_functions must not exceed functions = 4, got 9"):
        dataclasses.replace(SMALL, curve_functions=9)


def test_a_run_takes_the_networks_that_its_options_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []

    def stop(problem: str, role: str, options: RunOptions) -> Path:  # noqa: ARG001
        trained.append(role)
        return tmp_path / role / "weights.safetensors"

    class Reached(Exception):
        pass

    def reached(*arguments: object) -> None:
        assert set(arguments[-1]) == {"softc", "anp"}
        raise Reached

    monkeypatch.setattr(conservation_run, "trained_network", stop)
    monkeypatch.setattr(conservation_run, "conservation_config", reached)
    with pytest.raises(Reached):
        stefan.EXPERIMENT.run(RunOptions(out=tmp_path, networks=("softc", "anp")))
    assert trained == ["anp", "softc"], "those that others start from come first"
