"""Other architectures as methods of an experiment: what they read, that files give them back, their settings."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import boon
from boon import BOON
from experiments import driver
from experiments.boundary import EXPERIMENTS
from experiments.boundary import methods as keys
from experiments.boundary.baselines import architectures
from experiments.boundary.baselines.architectures import FourierOperator, NeuralOperator, PrincipalComponents
from experiments.boundary.baselines.layout import Layout, Sensors, on_grid
from experiments.boundary.baselines.unet import UNet
from experiments.boundary.cases import BoundaryCase, Setting
from experiments.boundary.data import load_fields
from experiments.boundary.methods import Method, methods, untuned
from experiments.boundary.operator import Treatment, layout_of, load, with_channels
from experiments.boundary.samples import DataStore
from experiments.boundary.training import validation_error
from experiments.errors import InvalidArgumentError, MissingPackageError
from tests.experiments.boundary.tiny import context, one, tiny_experiment

CASE = one("heat_independent", "single-values")


def method(key: str, case: BoundaryCase = CASE) -> Method:
    (found,) = (entry for entry in methods(case) if entry.key == key)
    return found


def larger(case: BoundaryCase) -> BoundaryCase:
    """With as many samples as a linear map of this case has numbers."""
    return replace(case, sizes=replace(case.sizes, samples=60, validation=10))


@pytest.mark.parametrize(("name", "key"), [("heat_independent", "single-values"), ("cavity", "multi")])
@pytest.mark.parametrize("time_modes", [0, 2])
def test_what_networks_read_is_the_input_and_every_datum_once(
    name: str, key: str, time_modes: int, tmp_path: Path
) -> None:
    case, treatment = one(name, key, time_modes), Treatment(channels=True)
    fields = load_fields(case, case.test_data(0), DataStore(folder=tmp_path, version=1))
    layout = layout_of(treatment, case, fields)
    inputs = with_channels(fields.input, fields.values, treatment, case)
    read = layout.sensors.read(inputs)
    first = fields.input[..., 0] if case.sizes.network.time_modes else fields.input
    assert read.shape[1] == sum(layout.sensors.blocks)
    assert torch.equal(read[:, : first[0].numel()], first.flatten(1))
    sides = [side for pair in fields.values if pair for side in pair]
    assert read.shape[1] - first[0].numel() == sum(side[0].numel() for side in sides)
    assert torch.allclose(read[:, first[0].numel() :].sum(1), sum(side.flatten(1).sum(1) for side in sides), atol=1e-4)
    assert Layout.from_json(asdict(layout)) == layout


@pytest.mark.parametrize("key", [keys.PCA, keys.UNET, keys.PACKAGE])
@pytest.mark.parametrize(("name", "case_key"), [("heat_independent", "single-gradients"), ("basin", "single")])
def test_a_stored_operator_has_the_validation_error_that_its_file_notes(
    name: str, case_key: str, key: str, tmp_path: Path
) -> None:
    case = one(name, case_key)
    chosen, run = method(key, case), context(tmp_path)
    if not chosen.available:
        pytest.skip("needs neuraloperator")
    experiment = tiny_experiment(case, of=EXPERIMENTS[name])
    weights = driver.train_all(experiment.table, experiment.trainings(case, chosen, 0, run), run)
    data = case.training_data(0)
    known = load_fields(case, data, DataStore(folder=run.data_folder, version=experiment.data_version))
    unseen = known.take(slice(len(known) - data.validation, None))
    model = load(weights[0], chosen.treatment, case)
    noted = boon.read_notes(weights[0])["history"][-1]["relative_l2"]
    assert validation_error(model, unseen, batch=1) == pytest.approx(noted, rel=1e-4, abs=1e-6)  # float32
    scores = experiment.score(case, chosen, 0, weights, run)
    assert np.isfinite(scores["relative_l2"]).all()


def test_a_regression_solves_a_linear_problem_and_is_the_same_for_every_seed(tmp_path: Path) -> None:
    """Heat with given values is linear in what is given; float32 rounds data to 6e-8."""
    case = larger(CASE)
    experiment, run, chosen = (
        tiny_experiment(case, of=EXPERIMENTS["heat_independent"]),
        context(tmp_path),
        method("pca"),
    )
    first, second = (experiment.trainings(case, chosen, seed, run)[0] for seed in (0, 1))
    assert first.weights(tmp_path) == second.weights(tmp_path)
    weights = driver.train_all(experiment.table, [first], run)
    scores = experiment.score(case, chosen, 0, weights, run)
    assert scores["relative_l2"].max() < 3e-6
    trial = boon.read_notes(weights[0])["regression"]["trials"][0]
    assert isinstance(load(weights[0], chosen.treatment, case).operator, BOON) == trial["prescribed"]
    if trial["prescribed"]:
        assert scores["boundary"] == 0.0
    with pytest.raises(InvalidArgumentError, match="has no untrained form; fit it"):
        PrincipalComponents().build(Layout.from_json(boon.read_notes(weights[0])["layout"]))


def test_without_the_package_its_methods_are_left_out_and_that_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (architectures, keys):
        monkeypatch.setattr(module, "has_neuraloperator", lambda: False)
    jobs = driver.plan(tiny_experiment(CASE, of=EXPERIMENTS["heat_independent"]).table, context(tmp_path))
    assert keys.PACKAGE in CASE.methods
    assert keys.PACKAGE not in {job.method.key for job in jobs}
    assert keys.PCA in {job.method.key for job in jobs}
    expected = "Methods that need the package neuraloperator are left out: it is not installed.\n"
    assert capsys.readouterr().err == expected
    layout = Layout(sensors=Sensors(space=(9,), constant=(None,)), out_channels=1, width=4, modes=(3,), depth=2)
    with pytest.raises(MissingPackageError, match=r"pip install 'probconserv-boon\[neuraloperator\]'"):
        NeuralOperator().build(layout)


def test_chosen_settings_are_those_of_the_methods(tmp_path: Path) -> None:
    slower = 1 / 3
    chosen = {
        keys.FNO: Setting(architecture={"padding": 0.5, "channel_mlp": 0.5}),
        keys.PENALTY: Setting(rate=slower),
        keys.DEFAULT: Setting(correction={"share": 1.0}, rate=slower),
    }
    case = replace(CASE, settings=chosen)
    fno = method(keys.FNO, case)
    expected = Treatment(architecture=FourierOperator(padding=0.5, channel_mlp=0.5))
    assert (fno.treatment, fno.rate) == (expected, 1.0)
    assert method(keys.UNET, case) == next(entry for entry in untuned(CASE) if entry.key == keys.UNET)
    default, residual = method(keys.DEFAULT, case), method(keys.RESIDUAL, case)
    assert default.treatment.correction.share == 1.0
    assert (residual.treatment, residual.rate) == (replace(default.treatment, penalty=0.1), slower)
    experiment = tiny_experiment(case, of=EXPERIMENTS["heat_independent"])
    training = experiment.trainings(case, method(keys.PENALTY, case), 0, context(tmp_path))
    assert training[0].config.training.peak_rate == slower * CASE.sizes.training.peak_rate


def test_the_headline_shows_what_but_boon_is_best_on_the_validation_set() -> None:
    experiment, rest = EXPERIMENTS["heat_independent"], {keys.WITHOUT_SCHUR_CHANNELS: 0.1, keys.DEFAULT: 0.01}
    for best, expected in (
        (keys.PCA, [keys.FNO, keys.PCA]),
        (keys.UNET, [keys.FNO, keys.UNET]),
        (keys.FNO, [keys.FNO]),
    ):
        errors = {keys.FNO: 0.6, keys.CHANNELS: 0.5, keys.PCA: 0.5, keys.UNET: 0.5, **rest, best: 0.2}
        records = pd.DataFrame([{"method": key, "score": "validation", "mean": error} for key, error in errors.items()])
        shown, _ = experiment.headline(CASE, records)
        assert shown == [*expected, keys.WITHOUT_SCHUR_CHANNELS, keys.DEFAULT]
        shown, _ = experiment.headline(CASE, records[records["method"] != keys.WITHOUT_SCHUR_CHANNELS])
        assert shown == [*expected, keys.WITHOUT_SCHUR, keys.DEFAULT]
        records["method"] = records["method"].replace(keys.WITHOUT_SCHUR_CHANNELS, keys.ELIMINATION)
        shown, _ = experiment.headline(CASE, records)
        assert shown == [*expected, keys.ELIMINATION, keys.WITHOUT_SCHUR, keys.DEFAULT]


GENERATOR = torch.Generator().manual_seed(0)
SQUARE = Sensors(space=(6, 5), constant=(None, 0, 1))


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def inputs(sensors: Sensors, count: int = 3) -> Tensor:
    """A field, and channels that are constant along their axes."""
    a = random(count, len(sensors.constant), *sensors.space)
    for channel, axis in enumerate(sensors.constant):
        if axis is not None:
            a[:, channel] = a[:, channel].mean(1 + axis, keepdim=True)
    return a


def test_sensors_read_fields_everywhere_and_data_once() -> None:
    a = inputs(SQUARE)
    assert SQUARE.blocks == (30, 5, 6)
    expected = torch.cat([a[:, 0].flatten(1), a[:, 1, 2], a[:, 2, :, 3]], dim=1)
    assert torch.allclose(SQUARE.read(a), expected, rtol=0, atol=1e-15)
    doubled = on_grid(a, (11, 9))
    assert torch.allclose(SQUARE.read(doubled), expected, rtol=0, atol=1e-14), "interpolated to their grid"
    with pytest.raises(InvalidArgumentError, match=r"must be \(batch, 3, \*space\) with 2 axes, got \(3, 2, 6, 5\)"):
        SQUARE.read(a[:, :2])


@pytest.mark.parametrize("space", [(9,), (16,), (10, 17), (5, 6, 8)])
def test_a_unet_takes_every_grid_and_sees_all_of_it(space: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model, a = UNet(len(space), 3, 2, width=4, levels=2).double(), random(2, 3, *space)
    u = model(a)
    assert u.shape == (2, 2, *space)
    u[0, :, ..., -1].sum().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in model.parameters())
    changed = a.clone()
    changed[0, 2] += 1.0
    differs = (model(changed) - u).abs() > 1e-6
    assert bool(differs[0].all()), "a channel with boundary data reaches every node"
    assert not bool(differs[1].any()), "samples do not mix"
