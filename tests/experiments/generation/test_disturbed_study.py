"""The study of laws whose values no field of the flow has."""

from pathlib import Path

import pytest
import torch

from experiments import driver
from experiments.experiment import RunContext, RunOptions
from experiments.generation import DISTURBED, DisturbedStudy
from experiments.generation.scoring import residual
from experiments.registry import experiment
from tests.experiments.generation.tiny import tiny


def test_the_study_has_every_law_as_it_is_disturbed_and_out_of_range() -> None:
    assert experiment("generate_stokes-disturbed") is DISTURBED
    cases = DISTURBED.cases(RunContext(options=RunOptions(preset="laptop")))
    assert len({case.key for case in cases}) == len({case.label for case in cases}) == len(cases) == 2 * 7
    by_key = {case.key: case for case in cases}
    exact, noisy, rounded = (by_key[key].law for key in ("boundary", "boundary-1-noise", "boundary-bfloat16"))
    deviation = float((noisy.b - exact.b).std() / exact.b.square().mean().sqrt())
    assert deviation == pytest.approx(0.01, rel=0.3)
    assert torch.equal(rounded.b, exact.b.bfloat16().double())
    assert by_key["boundary-1-noise"].law is noisy  # the same noise for all methods
    outside = by_key["boundary-above-1"]
    assert outside.condition.fixed == (None, pytest.approx(8.6))
    assert outside.label == "boundary value, ω = 8.6, out of range"
    assert float(residual(outside.truths(3, seed=1), outside.law).max()) <= 1e-14


@pytest.mark.long
def test_ours_keeps_its_ground_under_noise_that_is_not_told(tmp_path: Path) -> None:
    entry = DisturbedStudy(name="disturbed", flows=tiny("generate_stokes"))
    options = RunOptions(out=tmp_path, cases=("boundary", "boundary-1-noise"), methods=("gaussian", "conditioned"))
    report = driver.run(entry, options)
    errors = report.records.set_index(["score", "case", "method"])["mean"]
    for method in ("gaussian", "conditioned"):
        assert errors["law_residual", "boundary-1-noise", method] <= 1e-12
        clean, noisy = (errors["mean_error", case, method] for case in ("boundary", "boundary-1-noise"))
        assert noisy <= 1.5 * clean + 2 * 0.02**2
