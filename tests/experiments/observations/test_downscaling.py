"""Downscaling: methods against dense restatements, what they may see, the experiment, and messages."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from experiments import driver, registry
from experiments.commands import _Work
from experiments.errors import DataFileError, InvalidArgumentError, MissingPackageError
from experiments.experiment import RunOptions
from experiments.maintain import release
from experiments.observations import downscaling
from experiments.observations.downscaling import METHODS, Fit, Sizes, Years, forecast
from experiments.observations.downscaling_experiment import score_forecast
from experiments.observations.temperature import read_series, temperature
from experiments.records.run import read_run
from experiments.records.store import read_scores
from tests.experiments.observations.tiny import FEW, series, tiny_downscaling

BY_KEY = {method.key: method for method in METHODS}
CONSTRAINED = [method.key for method in METHODS if method.key not in ("truth", "bilinear", "ridge")]


def errors(count: int = 9, n: int = 16) -> torch.Tensor:
    return torch.randn(count, n, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def test_covariances_keep_every_variance_and_their_structure() -> None:
    error = errors()
    S = error.mT @ error / len(error)
    leading = torch.linalg.eigh(S)
    root = leading.eigenvectors[:, -3:] * leading.eigenvalues[-3:].sqrt()
    low = downscaling.low_rank(error, 3).to_dense()
    expected = root @ root.mT
    off = ~torch.eye(16, dtype=torch.bool)
    assert torch.allclose(low[off], expected[off], atol=1e-13)
    assert torch.allclose(low.diagonal(), S.diagonal(), rtol=1e-13)
    assert torch.allclose(downscaling.diagonal(error, None).to_dense(), torch.diag(S.diagonal()), rtol=1e-14)
    centred = error - error.mean(dim=0)
    C = centred.mT @ centred / (len(error) - 1)
    shrunk = downscaling.shrunk(error, 0.3).to_dense()
    assert torch.allclose(shrunk, 0.7 * C + 0.3 * torch.diag(C.diagonal()), atol=1e-13)


@pytest.mark.parametrize(("key", "candidate"), [("update-diagonal", None), ("update-low-rank", 3)])
def test_the_update_is_the_dense_one(key: str, candidate: int | None) -> None:
    fine = series(12, 4, 8)
    years = Years(fine, torch.arange(9), torch.arange(9, 12), 2)
    box = downscaling.interpolate(years)
    found = BY_KEY[key].treatment(box, years, candidate)
    error = (fine[:9] - box.fitted()).flatten(1)
    S = (downscaling.diagonal if candidate is None else downscaling.low_rank)(error, candidate).to_dense()  # type: ignore[arg-type]
    G = downscaling.means_of(torch.eye(32, dtype=torch.float64).reshape(32, 4, 8), 2).flatten(1).mT
    gain = torch.linalg.solve(G @ S @ G.mT, G @ S).mT
    lacking = (years.means[9:] - downscaling.means_of(box.scored, 2)).flatten(1)
    assert torch.allclose(found.mean.flatten(1), box.scored.flatten(1) + lacking @ gain.mT, rtol=0, atol=1e-10)
    assert torch.allclose(found.variance[0].flatten(), (S - gain @ G @ S).diagonal(), rtol=0, atol=1e-11)


@pytest.mark.parametrize("key", [method.key for method in METHODS[1:]])
def test_a_forecast_sees_nothing_of_the_test_years_but_their_means(key: str) -> None:
    fine = series()
    other = fine.clone()
    test = slice(FEW.training + FEW.validation, None)
    noise = torch.randn(fine[test].shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    other[test] += noise - downscaling.spread(downscaling.means_of(noise, 4), 4)
    one, _ = forecast(fine, 4, FEW, BY_KEY[key])
    two, _ = forecast(other, 4, FEW, BY_KEY[key])
    assert torch.allclose(one.mean, two.mean, rtol=0, atol=1e-9)
    assert torch.allclose(one.variance, two.variance, rtol=1e-9)
    missed = (downscaling.means_of(one.mean, 4) / downscaling.means_of(fine[test], 4) - 1).abs().max()
    assert (missed < 1e-14) == (key in CONSTRAINED)


def test_choices_are_the_best_on_validation_years() -> None:
    fine, method = series(), BY_KEY["update-shrunk"]
    _, (_, chosen) = forecast(fine, 4, FEW, method)
    early = Years(fine, torch.arange(20), torch.arange(20, 26), 4)
    box = downscaling.interpolate(early)
    found = {c: (method.treatment(box, early, c).mean - fine[20:26]).square().mean() for c in FEW.shrinkages}
    assert chosen == min(found, key=found.__getitem__)
    assert chosen != FEW.shrinkages[0], "the first would be taken by an index that is stuck"


def test_the_variance_has_one_factor_from_the_validation_years() -> None:
    fine = series()
    found, _ = forecast(fine, 4, FEW, BY_KEY["bilinear"])
    up = downscaling.bilinear(downscaling.means_of(fine, 4), 4)
    bare = fine - up
    early = bare[:20] - bare[:20].mean(dim=0)
    factor = ((bare[20:26] - bare[:20].mean(dim=0)).square() / early.square().mean(dim=0)).mean()
    late = bare[:26] - bare[:26].mean(dim=0)
    assert torch.allclose(found.variance[0], factor * late.square().mean(dim=0), rtol=1e-12)


def test_scores_of_a_year() -> None:
    truth = series(2, 4, 4)
    off = truth.clone()
    off[0, 0, 0] += 1.6
    prediction = downscaling.Forecast(off, torch.ones_like(off))
    scores = score_forecast(truth, prediction, 4)
    assert scores["RMSE"] == pytest.approx([0.4, 0.0], abs=1e-12)
    assert scores["coverage90"] == pytest.approx([1.0, 1.0])
    assert scores["coverage50"] == pytest.approx([15 / 16, 1.0])
    assert scores["block_error"] == pytest.approx([0.1 / float(truth[0].mean()), 0.0], abs=1e-15)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunOptions, driver.Report]:
    """A run of the made-up series."""
    options = RunOptions(out=tmp_path_factory.mktemp("runs"))
    return options, driver.run(tiny_downscaling().table, options)


def test_a_run_has_exact_block_means_and_a_figure(ran: tuple[RunOptions, driver.Report]) -> None:
    folder = ran[1].folder
    records = read_run(folder).records.set_index(["method", "score"])["mean"]
    assert all(records[key, "block_error"] < 1e-12 for key in CONSTRAINED)
    assert records["bilinear", "block_error"] > 1e-6
    assert records["update-shrunk", "RMSE"] < records["bilinear", "RMSE"]
    assert (folder / "maps-factor-4.png").is_file()
    assert "in kelvins" in (folder / "table.md").read_text()


def test_stored_scores_are_those_of_blocks_of_years(ran: tuple[RunOptions, driver.Report]) -> None:
    """The test years 26 to 35 lie in three blocks of five years."""
    prediction, _ = forecast(series(), 4, FEW, BY_KEY["bilinear"])
    yearly = score_forecast(series()[26:], prediction, 4)
    scores = read_scores(ran[1].folder / "scores.csv.gz").set_index("method")
    for name, reduced in (("RMSE", torch.mean), ("block_error", torch.amax)):
        expected = [float(reduced(block)) for block in yearly[name].split([4, 5, 1])]
        assert scores[name]["bilinear"].to_numpy() == pytest.approx(expected, rel=1e-13), name


@pytest.mark.long
def test_a_run_is_released_and_reproduced(ran: tuple[RunOptions, driver.Report], library: Path, tmp_path: Path) -> None:
    release([tiny_downscaling().table], ran[0], seeds=(0,), root=library)
    report = driver.reproduce(tiny_downscaling().table, RunOptions(out=tmp_path), library)
    assert report.verdict.startswith("Reproduced")


def test_without_the_package_one_line_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: Callable
) -> None:
    monkeypatch.setitem(sys.modules, "iris_sample_data", None)
    temperature.cache_clear()
    printed = command("run downscaling --methods bilinear --out", tmp_path)
    assert (printed.status, printed.out) == (2, "")
    (line,) = [line for line in printed.err.splitlines() if line.startswith("error:")]
    assert "pip install iris-sample-data" in line
    assert "[climate]" in line
    with pytest.raises(MissingPackageError, match="not installed"):
        temperature()
    left_out = _Work("run", registry.table("downscaling"), RunOptions(out=tmp_path, methods=("bilinear",)))
    assert left_out() is None
    assert "downscaling is left out: this needs" in capsys.readouterr().err


def test_files_with_other_contents_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    path.write_bytes(b"nothing")
    with pytest.raises(DataFileError, match="cannot be read as a file with air_temperature"):
        read_series(path)
    with h5py.File(path, "w") as file:
        file["other"] = np.zeros(3)
    with pytest.raises(DataFileError, match="cannot be read as a file with air_temperature"):
        read_series(path)
    with h5py.File(path, "w") as file:
        file["air_temperature"] = np.zeros((3, 2, 2))
    with pytest.raises(DataFileError, match=r"must hold air_temperature of the shape .* got \(3, 2, 2\)"):
        read_series(path)


@pytest.mark.parametrize(
    ("factor", "years", "wanted"),
    [
        *(
            (factor, 36, f"divide both axes of the fields of 12 × 16 points, got {factor}")
            for factor in (-4, 0, 1, 3, 8)
        ),
        *((4, years, f"than the 20 for training and 6 for validation, got {years}") for years in (15, 26)),
    ],
)
def test_factors_that_cut_no_blocks_and_series_without_test_years_are_refused(
    factor: int, years: int, wanted: str, tmp_path: Path
) -> None:
    """3 divides the 12 rows and not the 16 columns, 8 the columns and not the rows."""
    with pytest.raises(InvalidArgumentError, match=wanted):
        forecast(series(years), factor, FEW, BY_KEY["additive"])
    experiment = replace(tiny_downscaling(), factors=(factor,), series=lambda: series(years))
    with pytest.raises(InvalidArgumentError, match=wanted):
        driver.run(experiment.table, RunOptions(out=tmp_path, methods=("truth",)))


def test_sizes_are_checked() -> None:
    with pytest.raises(InvalidArgumentError, match="training must be at least 6, got 5"):
        Sizes(training=5)


@pytest.mark.parametrize(("factor", "years"), [(2, 36), (4, 27)])
def test_the_least_that_is_taken_is_scored(factor: int, years: int) -> None:
    fine = series(years)
    prediction, _ = forecast(fine, factor, FEW, BY_KEY["update-diagonal"])
    scores = score_forecast(fine[26:], prediction, factor)
    assert len(scores["RMSE"]) == years - 26
    assert all(torch.isfinite(values).all() for values in scores.values())


def test_the_update_meets_its_bar_on_the_temperatures() -> None:
    pytest.importorskip("iris_sample_data")
    fine = temperature()
    assert tuple(fine.shape) == (240, 36, 48)
    assert fine.dtype == torch.float64
    years = Years(fine, torch.arange(180), torch.arange(180, 240), 4)
    box = downscaling.interpolate(years)
    fixer = BY_KEY["additive"].treatment(box, years, None)
    few = Fit(box.scored[::6], box.fitted)
    update = BY_KEY["update-shrunk"].treatment(few, replace(years, scored=years.scored[::6]), 0.7)
    rmse = [float((each - fine[180:]).square().mean().sqrt()) for each in (box.scored, fixer.mean)]
    assert rmse == pytest.approx([0.3108, 0.2694], abs=1e-4)
    assert (update.mean - fine[180::6]).square().mean().sqrt() < 0.2
    assert (downscaling.means_of(update.mean, 4) / years.means[180::6] - 1).abs().max() < 1e-12
