"""The study of calibration: what it compares, from options to records, in small sizes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.distributions import Normal

from experiments.conservation import STUDIES
from experiments.conservation.calibration import TREATMENTS, Learnt, score_calibration
from experiments.conservation.cases import Target, laws_of
from experiments.driver import run
from experiments.experiment import RunContext, RunOptions
from probconserv import Mixture
from probconserv.calibration.conformal import ConformalBand
from probconserv.scores import coverage, crps, log_likelihood
from solvers.problems import PROBLEMS
from tests.experiments.conservation.tiny import case, tiny

STUDY = STUDIES["advection"]


def test_parameters_lie_in_the_range_and_three_on_each_side_with_the_front_inside() -> None:
    problem = STUDY.base.problem
    low, high = problem.training_range
    parameters = problem.test_parameters
    assert problem.training_range == PROBLEMS["advection"].training_range
    assert sum(parameter < low for parameter in parameters) == sum(parameter > high for parameter in parameters) == 3
    assert problem.front is not None
    fronts = [float(problem.front(problem.test_time, parameter)) for parameter in parameters]
    assert all(problem.domain[0] + 0.02 < front < problem.domain[1] - 0.02 for front in fronts)
    context = RunContext(options=RunOptions(preset="laptop"))
    chosen = STUDY.cases(context)[0]
    both = STUDY.trainings(chosen, STUDY.table.methods(chosen)[0], 0, context)
    assert [each.release for each in both] == [f"advection-{end}.safetensors" for end in ("anp", "extrapolation-small")]


@pytest.mark.long
def test_a_run_scores_all_treatments_and_draws_the_overview(tmp_path: Path) -> None:
    entry = replace(STUDY, base=replace(tiny("advection"), problem=STUDY.base.problem))
    report = run(entry.table, RunOptions(out=tmp_path, cases=("a=1", "a=7")))
    means = report.records.set_index(["score", "case", "method"])["mean"]
    exact = means["CE"].drop(["anp", "total-inverted"], level="method")
    assert exact.max() < 1e-12 < means["CE"]["a=1", "anp"]
    assert set(means["MSE"]["a=7"].index) == set(TREATMENTS)
    assert means["MSE"]["a=1", "conformal"] == pytest.approx(means["MSE"]["a=1", "probconserv"])
    assert means["moved"]["a=1", "by-law"] == 0, "what two steps have trained has no front"
    assert {file.name for file in report.files} >= {"overview.png"}


def test_scores_of_a_gaussian_are_those_of_the_formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = case()
    target, generator = Target(chosen), torch.Generator().manual_seed(0)
    mean = target.truth() + 0.1 * torch.randn(1, 23, 41, dtype=torch.float64, generator=generator)
    prior = Mixture(Normal(mean[None], torch.full_like(mean[None], 0.08)))
    monkeypatch.setattr("experiments.conservation.calibration.predicted", lambda *_: prior)
    band = ConformalBand(factor=2.0, level=0.9)
    learnt = Learnt(displacement=0.0, factor=1.0, bare_band=band, band=band, most=band)
    arrays = score_calibration(chosen, "anp", learnt, ())
    truth, variance = target.truth()[0], torch.tensor(0.0064).double()
    for name, expected in (
        ("CRPS", crps(truth, mean[0], variance)),
        ("LL", log_likelihood(truth, mean[0], variance)),
        ("coverage90", coverage(truth, mean[0], variance, 0.9)),
    ):
        assert arrays[name] == pytest.approx(expected.numpy(), rel=1e-6), name
    near = (target.grid.points - float(chosen.problem.front(0.05, 0.6))).abs() <= 0.02
    assert arrays["front_MSE"] == pytest.approx((mean - truth)[0][:, near].square().mean(dim=-1).numpy())
    assert arrays["band_width"] == pytest.approx(0.32)
    held = ((truth - mean[0]).abs() <= 0.16).all(dim=-1).double()
    assert arrays["band_coverage"].tolist() == held.tolist()
    assert laws_of(target).loose.noise.min() > 0
