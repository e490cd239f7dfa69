"""The experiments on operators under both constraints from training to figures, in tiny sizes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import boon
from experiments import driver
from experiments.combined import EXPERIMENTS
from experiments.combined.fields import FieldProblem
from experiments.combined.networks import Network, build, inputs, surrogate
from experiments.combined.problems import AFTER, BOUNDED, IN_TRAINING, PLAIN, THROUGH_UPDATE, Method
from experiments.combined.training import FieldLoss, field_samples, train_operator
from experiments.errors import InvalidArgumentError
from experiments.experiment import RunContext, RunOptions
from experiments.records.record import Source
from experiments.records.scores import SCORES
from experiments.report.terminal import print_report
from probconserv import ProbConserv
from probconserv.scores import crps
from tests.experiments.combined.tiny import SIZES, shrunk, tiny, tiny_problem

pytestmark = pytest.mark.long


def means(report: driver.Report) -> Any:
    """Results by case and seed, of every score and method."""
    records = report.records[(report.records["method"] != "truth") & (report.records["source"] == Source.COMPUTED)]
    return records.pivot_table(index=["case", "seed"], columns=["score", "method"], values="mean")


def context(out: Path, seed: int = 0) -> RunContext:
    return RunContext(options=RunOptions(out=out, seed=seed), training_seed=seed, progress=False)


def test_both_constraints_hold_on_one_prediction_and_scores_are_over_groups(tmp_path: Path) -> None:
    report = driver.run(tiny("combined", "stefan").table, RunOptions(out=tmp_path))
    table = means(report)
    assert list(table.index) == [(f"stefan-{number}", group) for number in (0, 1) for group in (0, 1)]
    assert report.records["standard_error"].isna().all(), "errors are over groups"
    for score, constrained in (("boundary", "boon"), ("conservation", "probconserv")):
        assert (table[score].filter(like=constrained) <= (0 if score == "boundary" else 1e-12)).all(axis=None)
        assert (table[score].filter(regex=f"^(?!.*{constrained})") > 1e-4).all(axis=None)
    assert {"MSE", "CRPS", "LL", "coverage50", "coverage90", "boundary", "conservation"} == set(table.columns.levels[0])
    assert {f.stem for f in report.files} == {"table", "profile-stefan-0", "profile-stefan-1", "overview"}
    assert "2 independent groups, ensembles of 2" in report.description.title


@pytest.mark.parametrize("name", ["combined", "end_to_end"])
def test_the_truth_alone_shows_the_score_that_it_has(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = driver.run(tiny(name).table, RunOptions(out=tmp_path, methods=("truth",)))
    print_report(report)
    printed = " ".join(capsys.readouterr().out.split())  # headings are as narrow as their numbers
    assert SCORES["conservation"].title in printed
    assert "truth" in printed
    assert SCORES["CRPS"].heading not in printed


def test_training_through_the_update_is_compared_seed_by_seed(tmp_path: Path) -> None:
    report = driver.run(tiny("end_to_end", "stefan", "porous_medium").table, RunOptions(out=tmp_path))
    table = means(report)
    expected = table["CRPS"][IN_TRAINING] / table["CRPS"][AFTER]
    assert table["ratio"][IN_TRAINING].to_numpy() == pytest.approx(expected.to_numpy(), rel=1e-12)
    (paper,) = report.records[report.records["source"] == Source.PUBLISHED].itertuples()
    assert (paper.case, paper.method, paper.mean) == ("stefan-0", IN_TRAINING, pytest.approx(7.52 / 7.85))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_groups_and_runs_share_no_training_but_experiments_do(name: str, tmp_path: Path) -> None:
    def hashes(entry: str, method: str, seed: int, group: int) -> set[str]:
        experiment, run = tiny(entry, "stefan").table, context(tmp_path, seed)
        case = experiment.cases(run)[0]
        row = next(row for row in experiment.methods(case) if row.key == method)
        return {training.hash for training in experiment.trainings(case, row, group, run)}

    groups = [hashes(name, "fno", seed, group) for seed in range(3) for group in range(2)]
    assert len(set.union(*groups)) == sum(map(len, groups))
    assert hashes("end_to_end", "fno", 0, 1) < hashes("combined", "fno", 0, 1)


@pytest.mark.parametrize("network", [PLAIN, BOUNDED, THROUGH_UPDATE], ids=lambda network: network.name)
def test_training_lowers_the_score_and_resumes_to_the_last_bit(network: Network, tmp_path: Path) -> None:
    row, run = Method(key=network.name, label=network.name, network=network), context(tmp_path / "whole")
    experiment = replace(tiny("end_to_end", "stefan", steps=40), rows=(row,)).table
    (whole,) = driver.train_all(experiment, [driver.plan(experiment, run)[0].trainings[0]], run)
    history = [entry["crps"] for entry in boon.read_notes(whole)["history"]]
    assert history[-1] < 0.9 * history[0]

    def stop(step: int, *_: float) -> None:
        if step == 31:
            raise ZeroDivisionError

    run = replace(context(tmp_path / "parts"), progress=stop)
    (training,) = driver.plan(experiment, run)[0].trainings
    with pytest.raises(ZeroDivisionError):
        train_operator(training, run)
    assert not training.weights(run.options.out).exists()
    train_operator(training, replace(run, progress=False))
    states = [boon.load(path).state_dict() for path in (training.weights(run.options.out), whole)]
    torch.testing.assert_close(*states, rtol=0.0, atol=0.0)


def loss_of(network: Network, name: str, folder: Path) -> tuple[FieldProblem, Any, Any, FieldLoss, Any]:
    """Problem, samples, an untrained operator, its loss, and the arguments of that."""
    problem = tiny_problem(name)
    samples, operator = field_samples(problem, 3, folder), build(shrunk(network), problem)
    loss = FieldLoss(operator, network, problem)
    return problem, samples, operator, loss, loss.batches(samples, torch.device("cpu"))(slice(None))


def test_the_loss_through_the_update_is_that_of_the_conditioned_prediction(tmp_path: Path) -> None:
    problem, samples, operator, loss, parts = loss_of(THROUGH_UPDATE, "stefan", tmp_path)
    value = loss(*parts)
    model = ProbConserv(surrogate([operator], problem), problem.law(samples[0]))
    prediction = model(*inputs(problem, PLAIN, samples[0], torch.float32))
    expected = crps(samples[1], prediction.mean, prediction.variance).mean()
    # The update casts its result back to single precision here, the loss does not.
    assert float(value.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert all(bool(gradient.isfinite().all()) for gradient in torch.autograd.grad(value, [*operator.parameters()]))


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="batch must not exceed the 6 samples, got 7"):
        replace(SIZES, batch=7)
    for wrong in ({"nodes": 2}, {"times": 0}, {"refinement": 3}):
        with pytest.raises(InvalidArgumentError, match="at least 3 nodes, one time and an even refinement"):
            replace(tiny_problem("stefan"), **wrong)
