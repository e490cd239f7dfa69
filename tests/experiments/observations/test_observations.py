"""Observations: rows are what they say, on made-up records with a known law; files are refused by name."""

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Generator
from torch.distributions import Normal

from experiments import driver
from experiments.errors import DataFileError, MissingFilesError
from experiments.experiment import RunOptions, Style
from experiments.observations import ObservationsExperiment, traffic
from experiments.observations.energy import FILE, SurfaceEnergy
from experiments.observations.experiment import PROBLEMS, score
from experiments.observations.methods import METHODS, Method, ratio, shift
from experiments.observations.parts import Observed, Part, Problem, Series, regressed
from experiments.observations.temperature import Temperatures
from experiments.observations.traffic import COUNTED, LAGS, STEPS, STRETCHES, Traffic, TrafficAhead

ROWS = {method.key: method for method in METHODS}
INPUTS = torch.randn(400, 1, generator=Generator().manual_seed(0), dtype=torch.float64)


def series(slope: float = 1.0, error: float = 0.0, n: int = 4) -> Series:
    """Values around a line of one input whose errors go together; the law says slope · total + error."""
    generator, count = Generator().manual_seed(1), len(INPUTS)
    together = torch.randn(count, 1, generator=generator, dtype=torch.float64)
    apart = torch.randn(count, n, generator=generator, dtype=torch.float64)
    truth = 5 + INPUTS + together * torch.linspace(0.5, 1.5, n, dtype=torch.float64) + 0.1 * apart
    wrong = error * torch.randn(count, 1, generator=generator, dtype=torch.float64)
    target = slope * truth.sum(dim=1, keepdim=True) + wrong
    return Series(regressed(INPUTS, truth), truth, target, torch.arange(count) // 10, (200, 300, count))


@dataclass(frozen=True)
class MadeUp(Problem):
    key: str = "made-up"
    label: str = "made up"
    non_negative = True

    def observed(self, files: Path | None) -> Observed:  # noqa: ARG002
        return series().observed(torch.ones(1, 4, dtype=torch.float64))


AHEAD = [problem for problem in PROBLEMS if isinstance(problem, TrafficAhead)]
"""Rollouts of traffic: alone, and under the balance."""


def scored(observed: Observed, key: str, score_name: str = "CRPS") -> float:
    return float(score(observed, ROWS[key], 0)[score_name].mean())


def test_an_exact_law_is_met_and_lowers_the_error() -> None:
    observed = MadeUp().observed(None)
    assert len(score(observed, ROWS["none"], 0)["CRPS"]) == 10  # stretches of the test
    bare = scored(observed, "none")
    for key in ("uniform", "ratio", "diagonal", "covariance", "fitted", "mint", "joint", "calibrated"):
        assert scored(observed, key, "CE") < 1e-9, key
        assert scored(observed, key) < 0.5 * bare, key
    assert scored(observed, "covariance") < 0.5 * scored(observed, "uniform")  # errors that go together, not alike
    assert scored(observed, "regression") == pytest.approx(scored(observed, "covariance"), rel=0.2)
    assert scored(observed, "truncated") == pytest.approx(scored(observed, "fitted"), rel=0.1)


def test_a_law_that_states_too_much_is_fitted() -> None:
    """Imposed as it is stated it doubles the error or more; fitted it helps as an exact one does."""
    rows = torch.ones(1, 4, dtype=torch.float64)
    wrong, right = (series(slope=slope).observed(rows) for slope in (1.3, 1.0))
    assert scored(wrong, "covariance") > 2 * scored(wrong, "none")
    for key in ("fitted", "joint"):
        assert scored(wrong, key) == pytest.approx(scored(right, key), rel=0.05), key


def test_a_source_that_the_law_leaves_out_is_explained_by_its_rate() -> None:
    rows = torch.ones(1, 4, dtype=torch.float64)
    rate = torch.rand(len(INPUTS), 2, generator=Generator().manual_seed(2), dtype=torch.float64)
    right = series()
    wrong = replace(right, target=right.target - 30 * rate[:, :1], covariates=rate).observed(rows)
    for key in ("covariates", "calibrated"):
        assert scored(wrong, key) == pytest.approx(scored(right.observed(rows), "fitted"), rel=0.05), key
        assert scored(wrong, key) < 0.5 * scored(wrong, "fitted"), key
    assert "covariates" not in {row.key for row in ObservationsExperiment().methods(MadeUp())}
    assert "covariates" in {row.key for row in ObservationsExperiment().methods(Traffic())}


def test_a_law_that_says_nothing_does_no_harm() -> None:
    observed = series(slope=0.0, error=5.0).observed(torch.ones(1, 4, dtype=torch.float64))
    assert scored(observed, "covariance") > 1.5 * scored(observed, "none")
    for key in ("fitted", "joint", "calibrated", "regression"):
        assert scored(observed, key) < 1.1 * scored(observed, "none"), key
    assert 0.8 < scored(observed, "calibrated", "coverage90") < 0.97


def test_a_law_that_errs_as_the_prediction_does_adds_nothing() -> None:
    """Right-hand sides that the black box knows too: bands that take the errors for independent become too narrow."""
    observed = replace(series(), target=4 * (5 + INPUTS)).observed(torch.ones(1, 4, dtype=torch.float64))
    bare = scored(observed, "none", "coverage90")
    assert scored(observed, "fitted", "coverage90") < bare - 0.05
    assert scored(observed, "joint", "coverage90") == pytest.approx(bare, abs=0.02)
    assert scored(observed, "joint") == pytest.approx(scored(observed, "none"), rel=0.02)


def test_minimal_traces_are_those_of_hierarchicalforecast() -> None:
    methods = pytest.importorskip("hierarchicalforecast.methods", reason="pip install 'probconserv-boon[bench]'")
    rows = torch.ones(1, 4, dtype=torch.float64)
    observed = series(slope=0.9, error=0.5).observed(rows)
    known, test = observed.known, observed.test
    forecasts = torch.cat([test.target, test.predicted], dim=1).mT.numpy()
    errors = torch.cat([known.truth @ rows.mT - known.target, known.errors], dim=1).mT.numpy()
    trace = methods.MinTrace("mint_shrink", mint_shr_ridge=0.0)
    summing = np.vstack([rows, np.eye(4)])
    theirs = trace.fit_predict(summing, forecasts, y_insample=errors, y_hat_insample=np.zeros_like(errors))["mean"]
    np.testing.assert_allclose(ROWS["mint"].predict(observed).mean, theirs[1:].T, rtol=1e-6)


def test_methods_see_nothing_of_the_test_but_predictions_targets_and_covariates() -> None:
    observed = replace(series(), covariates=INPUTS.square()).observed(torch.ones(1, 4, dtype=torch.float64))
    hidden = replace(
        observed,
        test=Part(
            observed.test.predicted,
            torch.nan * observed.test.truth,
            *(getattr(observed.test, name) for name in ("target", "block", "covariates")),
        ),
    )
    for method in METHODS:
        assert torch.equal(method.predict(hidden).mean, method.predict(observed).mean), method.key


def test_predictions_of_known_cases_do_not_see_them() -> None:
    """An error in one case moves predictions outside its stretch only, and one in the test moves none."""
    whole, rows = series(), torch.ones(1, 4, dtype=torch.float64)
    before = whole.observed(rows)
    for case, first in ((10, 60), (390, 400)):
        truth = whole.truth.clone()
        truth[case] += 0.01  # too little for another λ
        after = replace(whole, black_box=regressed(INPUTS, truth), truth=truth).observed(rows)
        moved = (before.known.predicted != after.known.predicted).any(dim=1)
        assert not bool(moved[:first].any())
        assert bool(moved[first:].all())
        assert torch.equal(before.test.predicted, after.test.predicted) == (case == 390)


def test_shift_and_ratio_move_what_a_row_looks_at() -> None:
    rows = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]], dtype=torch.float64)
    predicted = torch.tensor([[1.0, 3.0, -1.0, -1.0]], dtype=torch.float64)
    part = Part(predicted, predicted, torch.tensor([[4.0, 1.0]], dtype=torch.float64), torch.zeros(1).long())
    assert shift(part, rows).tolist() == [[3.0, 5.0, 1.0, 1.0]]
    assert ratio(part, rows).tolist() == [[2.0, 6.0, -1.0, -1.0]]  # no factor makes −1 a 1


def test_a_row_of_ones_own_and_a_run(tmp_path: Path) -> None:
    def climatology(observed: Observed) -> Normal:
        mean, deviation = observed.known.truth.mean(dim=0), observed.known.truth.std(dim=0)
        return Normal(mean.expand(observed.test.predicted.shape), deviation)

    own = Method(key="climatology", label="climatology", style=Style("k"), predict=climatology, information="")
    experiment = ObservationsExperiment(problems=(MadeUp(),), rows=(*METHODS, own))
    report = driver.run(experiment.table, RunOptions(preset="smoke", out=tmp_path))
    assert set(report.records["method"]) == {*ROWS, "climatology"} - {"covariates"}
    assert (report.folder / "overview.png").exists()
    (case,) = experiment.problems
    assert [row.key for row in experiment.methods(case) if row.signed] == ["truncated"]


def written(path: Path, days: int = 1600, **changed: str) -> Path:
    """Daily means whose sensible and latent heat are each half of 0.8 of what the law says."""
    generator = np.random.default_rng(0)
    start = np.datetime64("2014-01-01")
    with path.open("w", newline="") as file:
        names = ["date", "H_PI_F", "LE_PI_F", "NETRAD", "input_G", "T_SONIC", "VPD_PI", "WS", "rso"]
        writer = csv.DictWriter(file, [changed.get(name, name) for name in names])
        writer.writeheader()
        for day in range(days):
            radiation, weather = generator.normal(100, 30), generator.normal(size=4)
            numbers = [0.4 * radiation, 0.4 * radiation, radiation + 10, 10.0, *weather]
            cells = ["" if day % 50 == 7 else f"{number:.6f}" for number in numbers]
            writer.writerow(dict(zip(writer.fieldnames, [str(start + day), *cells], strict=True)))
    return path


def test_energy_of_complete_days(tmp_path: Path) -> None:
    written(tmp_path / "tower.csv")
    plain = SurfaceEnergy(file="tower.csv", checksum="").observed(tmp_path)
    assert not bool(torch.isnan(plain.test.truth).any())
    ratios = plain.known.truth.sum(dim=1) / plain.known.target[:, 0]
    torch.testing.assert_close(ratios, torch.full_like(ratios, 0.8), atol=1e-5, rtol=0)
    informed = SurfaceEnergy(file="tower.csv", checksum="", informed=True).observed(tmp_path)
    assert float(informed.test.errors.std()) < 0.1 * float(plain.test.errors.std())


def test_files_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(MissingFilesError, match=r"'US-Tw3_daily_data.csv' of the tutorial.*--files FOLDER"):
        SurfaceEnergy().observed(None)
    with pytest.raises(DataFileError, match=r"There is no 'US-Tw3_daily_data.csv' in"):
        SurfaceEnergy().observed(tmp_path)
    (tmp_path / "fluxes").mkdir()
    written(tmp_path / "fluxes" / FILE)
    with pytest.raises(DataFileError, match="is damaged or another file than that of the tutorial"):
        SurfaceEnergy().observed(tmp_path)
    written(tmp_path / "renamed.csv", WS="wind")
    with pytest.raises(DataFileError, match="has no numbers in the columns"):
        SurfaceEnergy(file="renamed.csv", checksum="").observed(tmp_path)
    written(tmp_path / "short.csv", days=300)
    with pytest.raises(DataFileError, match="must have complete days from 2013 to 2018, got 294"):
        SurfaceEnergy(file="short.csv", checksum="").observed(tmp_path)


@pytest.fixture
def density(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Vehicles that all move on by one stretch a step, and files that may hold them."""
    generator = np.random.default_rng(0)
    entering = (
        0.07 + 0.02 * np.sin(np.arange(STEPS + STRETCHES) / 60) + 0.002 * generator.normal(size=STEPS + STRETCHES)
    )
    monkeypatch.setattr(traffic, "CHECKSUMS", dict.fromkeys(traffic.CHECKSUMS, ""))
    return np.stack([entering[STRETCHES - i : STRETCHES - i + STEPS] for i in range(STRETCHES)])


def record(folder: Path, density: np.ndarray) -> Path:
    for name, values in zip(traffic.CHECKSUMS, (density, density * traffic.LENGTH / traffic.SECONDS), strict=True):
        np.savetxt(folder / name, values)
    return folder


def test_what_learns_from_traffic_sees_no_test_step(tmp_path: Path, density: np.ndarray) -> None:
    for problem in (Traffic(), *AHEAD):
        before = problem.observed(record(tmp_path, density))
        later = density.copy()
        later[:, traffic.TEST :] *= 1.5
        after = problem.observed(record(tmp_path, later))
        for name in ("training", "validation", "known"):
            assert torch.equal(getattr(before, name).predicted, getattr(after, name).predicted), (problem.key, name)


def test_traffic_balances_from_count_to_count(tmp_path: Path, density: np.ndarray) -> None:
    """Counts at detectors are exact but for their interpolation."""
    names = list(traffic.CHECKSUMS)
    record(tmp_path, density)
    observed = Traffic().observed(tmp_path)
    assert observed.rows.shape == (1, 79)
    assert len(observed.known.truth) == traffic.TEST - LAGS[-1]
    missed = (observed.known.truth @ observed.rows.mT - observed.known.target).abs()
    assert float(missed.max()) < 0.01 * float(observed.known.target.mean())
    alone, balanced = (problem.observed(tmp_path).test for problem in AHEAD)
    assert len(alone.truth) == (STEPS // COUNTED - traffic.TEST // COUNTED) * (COUNTED - 1)
    off, none = ((part.predicted @ observed.rows.mT - part.target).abs().mean() for part in (alone, balanced))
    assert none < 1e-12 < off
    assert torch.equal(alone.truth[0], observed.test.truth[1])  # a minute after the count with which the test begins
    np.savetxt(tmp_path / names[1], density[:5])
    with pytest.raises(DataFileError, match=r"must have 104 × 540 finite numbers, got \(5, 540\)"):
        Traffic().observed(tmp_path)
    (tmp_path / names[1]).write_text("no numbers")
    with pytest.raises(DataFileError, match="cannot be read as a table of numbers"):
        Traffic().observed(tmp_path)


def test_temperatures_of_two_scenarios_share_what_is_known() -> None:
    pytest.importorskip("iris_sample_data")
    usual, other = (Temperatures(scenario=scenario).observed(None) for scenario in ("A1B", "E1"))
    assert torch.equal(usual.known.truth, other.known.truth)
    assert float(other.test.truth.mean()) < float(usual.test.truth.mean()) - 0.5
    torch.testing.assert_close(usual.test.truth @ usual.rows.mT, usual.test.target)
