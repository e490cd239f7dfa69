"""The experiments on operators under both constraints from training to figures, in tiny sizes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import boon
from experiments import driver
from experiments.combined import EXPERIMENTS
from experiments.combined.data import field_samples
from experiments.combined.fields import FieldProblem
from experiments.combined.methods import AFTER, BOUNDED, DROPOUT, IN_TRAINING, PLAIN, THROUGH_UPDATE, Method
from experiments.combined.networks import UNIT, Network, build, diversity_penalty, inputs, surrogate
from experiments.combined.training import FieldLoss
from experiments.errors import InvalidArgumentError
from experiments.experiment import RunContext, RunOptions
from experiments.records.record import Source
from probconserv import ProbConserv
from probconserv.scores import crps
from probconserv.surrogates.operator import as_gaussian
from tests.documents import ROOT, run_python
from tests.experiments.combined.tiny import SIZES, shrunk, tiny, tiny_problem

HEADS = Network(name="heads", heads=2, diversity=0.5)
NETWORKS = (PLAIN, BOUNDED, THROUGH_UPDATE, HEADS, DROPOUT)


def score(report: driver.Report, case: str, method: str, name: str) -> pd.DataFrame:
    """Records of one score."""
    records = report.records
    return records[(records["case"] == case) & (records["method"] == method) & (records["score"] == name)]


def context(out: Path, seed: int = 0) -> RunContext:
    return RunContext(options=RunOptions(out=out, seed=seed), training_seed=seed, progress=False)


def test_both_constraints_hold_on_one_prediction_and_scores_are_over_groups(tmp_path: Path) -> None:
    experiment = tiny("combined", "stefan")
    report = driver.run(experiment, RunOptions(out=tmp_path))
    records = report.records[report.records["method"] != "truth"]
    assert set(records["case"]) == {"stefan-0", "stefan-1"}
    assert set(records["seed"]) == {0, 1}
    assert records["standard_error"].isna().all(), "errors are over groups"
    for (method, name), part in records.groupby(["method", "score"]):
        if name == "boundary":
            assert (part["mean"] == 0).all() if "boon" in str(method) else (part["mean"] > 1e-4).all()
        if name == "conservation":
            assert (part["mean"] <= 1e-12).all() if "probconserv" in str(method) else (part["mean"] > 1e-4).all()
    assert {"MSE", "CRPS", "LL", "coverage50", "coverage90", "boundary", "conservation"} == set(records["score"])
    drawn = {"profile-stefan-0", "profile-stefan-1", "shift-stefan-0"}
    assert {file.stem for file in report.files} == drawn | {"table"}
    assert "2 independent groups, ensembles of 2" in report.title


def test_every_kind_of_uncertainty_has_a_row_before_and_after_the_law(tmp_path: Path) -> None:
    experiment = tiny("operator_uncertainty", "diffusion")
    report = driver.run(experiment, RunOptions(out=tmp_path))
    methods = [method.key for method in experiment.methods(report.cases[0])]
    assert methods[1::2] == ["single-operator", "ensemble", "diverse-heads", "mc-dropout"]
    for method in methods[1::2]:
        before, after = (score(report, "diffusion-0", key, "conservation") for key in (method, f"probconserv-{method}"))
        assert (after["mean"] <= 1e-12).all()
        assert (before["mean"] > 1e-12).all()
        before, after = (score(report, "diffusion-0", key, "CRPS") for key in (method, f"probconserv-{method}"))
        assert (after["mean"].to_numpy() != before["mean"].to_numpy()).all()
    assert "boundary" not in set(report.records["score"])


def test_training_through_the_update_is_compared_seed_by_seed(tmp_path: Path) -> None:
    report = driver.run(tiny("end_to_end", "stefan", "porous_medium"), RunOptions(out=tmp_path))
    ratios = score(report, "stefan-0", IN_TRAINING, "ratio")
    ours = ratios[ratios["source"] == Source.COMPUTED]
    trained, after = (score(report, "stefan-0", key, "CRPS")["mean"].to_numpy() for key in (IN_TRAINING, AFTER))
    assert ours["mean"].to_numpy() == pytest.approx(trained / after, rel=1e-12)
    assert ratios[ratios["source"] == Source.PUBLISHED]["mean"].to_list() == [pytest.approx(7.52 / 7.85)]
    others = report.records[(report.records["case"] != "stefan-0") & (report.records["score"] == "ratio")]
    assert set(others["source"]) == {Source.COMPUTED}
    assert set(others["method"]) == {IN_TRAINING}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_groups_and_runs_share_no_training_but_experiments_do(name: str, tmp_path: Path) -> None:
    def hashes(entry: str, method: str, seed: int, group: int) -> set[str]:
        experiment, run = tiny(entry, "stefan"), context(tmp_path, seed)
        case = experiment.cases(run)[0]
        row = next(row for row in experiment.methods(case) if row.key == method)
        return {training.hash for training in experiment.trainings(case, row, group, run)}

    method = "ensemble" if name == "operator_uncertainty" else "fno"
    groups = [hashes(name, method, seed, group) for seed in range(3) for group in range(2)]
    assert len(set.union(*groups)) == sum(map(len, groups))
    assert hashes("combined", "fno", 0, 1) == hashes("operator_uncertainty", "ensemble", 0, 1)
    assert hashes("end_to_end", "fno", 0, 1) < hashes("combined", "fno", 0, 1)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_training_lowers_the_score_and_resumes_to_the_last_bit(network: Network, tmp_path: Path) -> None:
    row, run = Method(key=network.name, label=network.name, network=network), context(tmp_path / "whole")
    experiment = replace(tiny("end_to_end", "stefan", steps=40), rows=lambda _: (row,))
    (whole,) = driver.train_all(experiment, [driver.plan(experiment, run)[0].trainings[0]], run)
    history = [entry["crps"] for entry in boon.read_notes(whole)["history"]]
    assert history[-1] < 0.9 * history[0]

    def stop(step: int, *_: float) -> None:
        if step == 31:
            raise ZeroDivisionError

    run = replace(context(tmp_path / "parts"), progress=stop)
    (training,) = driver.plan(experiment, run)[0].trainings
    with pytest.raises(ZeroDivisionError):
        experiment.train(training, run)
    assert not training.weights(run.options.out).exists()
    experiment.train(training, replace(run, progress=False))
    resumed = boon.load(training.weights(run.options.out)).state_dict()
    for name, tensor in boon.load(whole).state_dict().items():
        assert torch.equal(tensor, resumed[name]), name


def loss_of(network: Network, name: str, folder: Path) -> tuple[FieldProblem, Any, Any, FieldLoss, Any]:
    """Problem, samples, an untrained operator, its loss, and the arguments of that."""
    problem = tiny_problem(name)
    samples, operator = field_samples(problem, 3, folder), build(shrunk(network), problem)
    loss = FieldLoss(operator, network, problem)
    return problem, samples, operator, loss, loss.batches(samples, torch.device("cpu"))(slice(None))


def test_the_loss_through_the_update_is_that_of_the_conditioned_prediction(tmp_path: Path) -> None:
    problem, samples, operator, loss, parts = loss_of(THROUGH_UPDATE, "stefan", tmp_path)
    value = loss(*parts)
    model = ProbConserv(surrogate([operator], PLAIN, problem, passes=1), problem.law(samples[0]))
    prediction = model(*inputs(problem, PLAIN, samples[0], torch.float32))
    expected = crps(samples[1], prediction.mean, prediction.variance).mean()
    # The update casts its result back to single precision here, the loss does not.
    assert float(value.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    value.backward()
    gradients = [parameter.grad for parameter in operator.parameters()]
    assert all(gradient is not None and bool(torch.isfinite(gradient).all()) for gradient in gradients)


def test_the_loss_of_heads_is_their_mean_score_and_the_penalty(tmp_path: Path) -> None:
    _, samples, operator, loss, parts = loss_of(HEADS, "porous_medium", tmp_path)
    with torch.no_grad():
        heads = [as_gaussian(part, UNIT) for part in operator(*parts[0]).double().chunk(2, dim=1)]
        expected = sum(float(crps(samples[1], head.mean, head.variance).mean()) for head in heads) / 2
        assert float(loss.score(*parts)) == pytest.approx(expected, rel=1e-12)
        penalty = 0.5 * float(diversity_penalty(operator, 2))
        assert float(loss(*parts)) == pytest.approx(expected + penalty, rel=1e-6)


def test_wrong_options_and_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="--data means nothing for combined"):
        driver.run(tiny("combined"), RunOptions(out=tmp_path / "out", data="exact"))
    with pytest.raises(InvalidArgumentError, match="batch must not exceed the 6 samples, got 7"):
        replace(SIZES, batch=7)


def test_the_composition_of_the_page_meets_both_constraints_untrained() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        names: dict[str, Any] = run_python(ROOT / "docs" / "combined.md")
    mean, variance = names["prediction"].mean.detach(), names["prediction"].variance.detach()
    assert mean.shape == variance.shape == (2, 5, 101)
    assert torch.equal(mean[..., 0], names["left"])
    assert not bool(mean[..., -1].any())
    assert not bool(variance[..., [0, -1]].any())
    assert float(names["law"].residual(mean).abs().max()) < 1e-12
