"""Boundary-condition experiments from samples to figures in tiny sizes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import boon
from experiments import driver, load_operator
from experiments.boundary import EXPERIMENTS
from experiments.boundary import methods as keys
from experiments.boundary.cases import BoundaryCase
from experiments.boundary.data import load_fields
from experiments.boundary.methods import methods
from experiments.boundary.operator import Treatment, build, load
from experiments.boundary.problems import PROBLEMS
from experiments.boundary.scoring import over_time
from experiments.boundary.training import operator_task, operator_training, store_of, validation_error
from experiments.errors import NotReleasedError
from experiments.experiment import RunOptions, Training
from experiments.records.record import Source
from probconserv.training import StepContext
from solvers import Neumann
from tests.experiments.boundary.tiny import context, one, tiny_cases, tiny_experiment
from tests.experiments.marks import slow_but

pytestmark = pytest.mark.long

USUAL = {"wave_neumann", "burgers_periodic", "cavity", "heat_independent", "reaction_diffusion"}
CASE = one("heat_independent", "single-values")


def scores(report: driver.Report, score: str) -> pd.Series:
    """One score of what was computed, by case and method."""
    records = report.records[(report.records["score"] == score) & (report.records["source"] == Source.COMPUTED)]
    return records.set_index(["case", "method"])["mean"]


@pytest.mark.parametrize("name", slow_but(PROBLEMS, USUAL))
def test_trained_corrections_meet_the_conditions_and_every_figure_is_drawn(name: str, tmp_path: Path) -> None:
    """No boundary error for values and periodic ends, ≤ 1e-6 relative for gradients (float32)."""
    case = tiny_cases(name)[-1]
    report = driver.run(tiny_experiment(case, of=EXPERIMENTS[name]).table, RunOptions(out=tmp_path))
    errors = scores(report, "boundary_relative_max")[case.key]
    assert list(errors.index) == [method.key for method in methods(case) if method.available]
    sides = {type(side) for each in case.source.conditions for pair in each for side in pair}
    bound = 1e-6 if Neumann in sides else 0.0
    for key, error in errors.iloc[1:].items():
        if key in (
            keys.PRESCRIPTION,
            keys.ELIMINATION,
            keys.WITHOUT_SCHUR,
            keys.WITHOUT_SCHUR_CHANNELS,
            keys.RESIDUAL,
            keys.SLOPES,
            keys.DEFAULT,
        ):
            assert error <= bound, key
        elif key not in (keys.CIRCLE, keys.PCA):
            assert error > 1e-4, key
    assert ("set-up reconstructed" in report.description.title) == bool(case.source.reconstructed)
    assert {file.name for file in report.files if file.suffix == ".png"} == {"overview.png", f"sample-{case.key}.png"}


def test_scores_and_shown_fields_are_those_of_the_trained_operator(tmp_path: Path) -> None:
    case = one("cavity", "multi", time_modes=2)
    experiment, run = tiny_experiment(case, of=EXPERIMENTS["cavity"]), context(tmp_path)
    truth, *_, method = methods(case)
    weights = driver.train_all(experiment.table, experiment.trainings(case, method, 0, run), run)
    arrays, true = experiment.score(case, method, 0, weights, run), experiment.score(case, truth, 0, (), run)
    whole = np.sqrt((arrays["over_time"] ** 2).mean(axis=1))
    assert np.allclose(whole, arrays["relative_l2"], rtol=1e-6)  # float32
    assert true["input"].shape == (1, 1, 9, 9)
    assert true["shown"].shape == arrays["shown"].shape == (1, 3, 9, 9)
    assert np.array_equal(true["shown"][:, :, 0], arrays["shown"][:, :, 0])
    assert not np.array_equal(true["shown"], arrays["shown"])
    assert arrays["boundary"] == true["boundary"] == 0.0
    vanishing = torch.tensor([1.0, 0.0])[:, None].expand(1, 2, 3)  # as standing waves do
    assert torch.allclose(over_time(vanishing + 0.5, vanishing), torch.full((1, 2), 0.5 * 2**0.5, dtype=torch.float64))


def test_the_validation_set_is_not_trained_on_and_weights_say_how_they_were_made(tmp_path: Path) -> None:
    experiment, run = tiny_experiment(CASE, of=EXPERIMENTS["heat_independent"]), context(tmp_path)
    (training,) = experiment.trainings(CASE, methods(CASE)[1], 0, run)
    (path,) = driver.train_all(experiment.table, [training], run)
    assert path.parent.parent == tmp_path / "heat_independent" / "operators"
    fields, notes = load_fields(CASE, CASE.training_data(0), store_of(run, 1)), boon.read_notes(path)
    error = validation_error(load(path, Treatment(), CASE), fields.take(slice(6, None)), batch=1)
    assert notes["history"][-1]["relative_l2"] == pytest.approx(error, rel=1e-5)  # float32, batches of another size
    assert notes["training"]["samples"]["problem"] == "heat_independent"
    assert notes["training"]["training"]["seed"] == 0
    seen: list[torch.Tensor] = []
    spied = torch.nn.Module()
    spied.forward = lambda first, *_: seen.extend(first)
    task = operator_task(build(Treatment(), CASE, fields), training.config, fields, training)
    for step in range(20):
        task.loss(spied, StepContext(step, 0.0, torch.Generator().manual_seed(step)))
    trained_on, usable = ({tuple(sample.flatten().tolist()) for sample in some} for some in (seen, fields.input[:6]))
    assert trained_on == usable


def test_everything_that_decides_a_training_changes_its_hash() -> None:
    sizes, plain = CASE.sizes, Treatment()

    def training(case: BoundaryCase, treatment: Treatment, data_seed: int, seed: int, version: int = 1) -> str:
        config = operator_training(case, treatment, data_seed, seed)
        return Training(key="k", label="l", folder="f", config=config, data_version=version).hash

    changes = ({"nodes": 19}, {"batch": 3}, {"network": replace(sizes.network, width=5)})
    changes += ({"training": replace(sizes.training, steps=7)},)
    hashes = [training(replace(CASE, sizes=replace(sizes, **change)), plain, 0, 0) for change in changes]
    hashes.append(training(one("heat_independent", "single-gradients"), plain, 0, 0))
    hashes.append(training(CASE, Treatment(channels=True), 0, 0))
    hashes += [training(CASE, plain, *seeds) for seeds in ((0, 0), (1, 0), (0, 1), (0, 0, 2))]
    assert len(set(hashes)) == len(hashes)
    unseen = replace(CASE, label="another", sizes=replace(sizes, test=5, seeds=2))
    assert training(unseen, plain, 0, 0) == training(CASE, plain, 0, 0)


def test_the_papers_numbers_belong_to_their_cases() -> None:
    stokes = EXPERIMENTS["stokes"]
    *others, notebook = PROBLEMS["stokes"].cases("laptop")
    (record,) = stokes.published(notebook)
    assert (record.method, record.mean, record.source) == (keys.WITHOUT_SCHUR, 0.0123, Source.PUBLISHED)
    assert record.note == "Saad et al., notebook: ν=0.1, 500 nodes"
    assert not any(stokes.published(case) for case in others)


def test_released_operators_are_loaded_by_their_keys() -> None:
    assert not load_operator("heat_independent", "single-values").training
    fields = torch.rand(2, 2, 129, generator=torch.Generator().manual_seed(2))
    for method in (keys.FNO, keys.WITHOUT_SCHUR_CHANNELS, keys.DEFAULT):
        operator = load_operator("reaction_diffusion", "single", method)
        with torch.no_grad():
            u = operator(fields, [(torch.tensor([[0.5], [0.6]]), torch.tensor([[0.1], [0.2]]))])
        assert u.shape == (2, 1, 129)
        assert bool(u.isfinite().all())
        assert torch.allclose(u[:, 0, 0], torch.tensor([0.5, 0.6])) == (method != keys.FNO)
    with pytest.raises(NotReleasedError, match=r"unet is not released. Released: single-0.02 fno; .*; multi"):
        load_operator("stokes", "single-0.02", "unet")
    with pytest.raises(NotReleasedError, match=r"Released: operators of stokes, "):
        load_operator("stefan", "u=0.6")
