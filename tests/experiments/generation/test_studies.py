"""The study of sampling steps."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments import driver
from experiments.experiment import RunContext, RunOptions
from experiments.generation import STUDIES, StepsStudy
from experiments.generation.cases import Case
from experiments.generation.scoring import scores_of
from experiments.generation.studies import floor_of
from experiments.records.release import released_weights
from probconserv import FlowMatching
from tests.experiments.generation.tiny import SIZES, tiny

STUDY = STUDIES["generate_stokes-study"]


@pytest.mark.long
def test_all_samplers_are_scored_on_one_flow_with_every_number_of_evaluations(tmp_path: Path) -> None:
    flows = replace(tiny("generate_stokes"), sizes={"smoke": replace(SIZES, steps=10)})
    entry = StepsStudy(name="steps", flows=flows, more=STUDY.more[2:])
    report = driver.run(entry.table, RunOptions(out=tmp_path))
    errors = report.records[report.records["score"] == "mean_error"].set_index(["case", "method"])["mean"]
    samplers = ("unconstrained", "eci", "pcfm", "conditioned-gaussian", "conditioned", "twisted")
    for law in ("initial", "three"):
        assert set(errors[law].index) == {"truth", *(f"{each}-{number}" for each in samplers for number in (12, 25))}
    rows = report.records[report.records["score"] == "mean_error"]
    assert rows[rows["method"].str.startswith("unconstrained")]["mean"].round(12).nunique() > 3
    times = report.records[report.records["score"] == "draw_milliseconds"]
    assert len(times) == len(rows[rows["method"] != "truth"])
    assert (times["mean"] > 0).all()
    assert len(list((tmp_path / "generation").rglob("weights.safetensors"))) == 1
    assert any(file.name == "study.png" for file in report.files)


def test_steps_of_eci_count_its_inner_evaluations() -> None:
    case = STUDY.cases(RunContext(options=RunOptions(preset="laptop")))[1]
    rows = {row.key: row for row in STUDY.methods(case)}
    assert [row.evaluations for key, row in rows.items() if key.startswith("eci")] == [12, 25, 50, 100]
    options = rows["eci-100"].options(replace(case, sizes=replace(case.sizes, steps=100)))
    assert options.steps * options.mixing == 100


def test_the_floor_of_true_draws_falls_with_their_number() -> None:
    flows = tiny("generate_stokes")
    case = Case(problem=flows.problem, condition=flows.conditions[2], sizes=replace(SIZES, draws=50))
    few, many = floor_of(case, 0), floor_of(replace(case, sizes=replace(SIZES, draws=800)), 0)
    for name in ("mean_error", "deviation_error"):
        assert few[f"{name}_10"] < few[name] < few[f"{name}_90"]
    # The expected error of a mean of n draws is the mean variance over n.
    assert many["mean_error"] * 800 == pytest.approx(float(case.moments()[1].square().mean()), rel=0.6)
    assert np.max(many["law_residual"]) <= 1e-13


def test_values_with_noise_leave_the_posterior_of_the_parameters() -> None:
    """Against weights of many draws of the prior."""
    condition = STUDY.more[2]
    case = Case(problem=STUDY.flows.problem, condition=condition, sizes=replace(SIZES, nodes=24))
    prior = case.problem.draws(40_000, 24, seed=3)
    weights = (-0.5 * case.law.residual(prior.flatten(1)).square() / case.law.noise).sum(dim=-1).softmax(dim=0)
    mean, deviation = case.moments()
    expected = torch.einsum("s,stx->tx", weights, prior)
    error = 5 * deviation * float(weights.square().sum()) ** 0.5 + 1e-6
    assert bool(((expected - mean).abs() <= error).all())
    assert float((case.truths(4000, seed=1).std(dim=0) - deviation).abs().max()) <= 0.1 * float(deviation.max())
    assert float(case.law.residual(mean.flatten()).abs().max()) <= 0.1


@pytest.mark.long
@pytest.mark.parametrize(
    ("key", "sampler", "most"),
    [
        ("three", "twisted", (2e-5, 2e-5, 0.05)),
        ("deep", "twisted", (5e-4, 3e-4, 0.15)),
        ("boundary", "conditioned", (1e-4, 1e-4, 0.15)),
    ],
)
def test_the_released_flow_draws_from_the_posterior(key: str, sampler: str, most: tuple[float, ...]) -> None:
    """Errors of mean and standard deviation and the Fréchet distance of the default, mean over seeds."""
    study = STUDY
    cases = {case.key: case for case in study.cases(RunContext(options=RunOptions(preset="laptop")))}
    flow = FlowMatching.load(released_weights("generation/stokes-flow-0.safetensors"))
    errors = []
    for seed in (0, 1) if sampler == "twisted" else (0,):
        drawn = flow.draw(1024, law=cases[key].law, seed=seed)
        assert drawn.sampler == sampler
        scores = scores_of(drawn.fields, cases[key], seed=seed)
        errors.append([float(scores[name]) for name in ("mean_error", "deviation_error", "frechet")])
    assert bool((torch.tensor(errors).mean(dim=0) <= torch.tensor(most)).all()), errors
