"""Fields of many parameters, each with a law of its own: laws, rivals, exact posteriors, and a run in small sizes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gpytorch.distributions import MultivariateNormal

from experiments import driver
from experiments.errors import InvalidArgumentError
from experiments.experiment import RunOptions
from experiments.generation import EXPERIMENTS
from experiments.generation.conditioning import ManyFields, OneField, Told
from experiments.generation.methods import TOLD_METHODS
from experiments.generation.observed import posterior
from experiments.generation.problem import GenerationProblem
from experiments.generation.problems import RANDOM_MEDIA
from experiments.generation.training import training_of
from experiments.generation.without_flow import gaussian_fields, likely_fields, smoothed_fields
from probconserv import LinearConstraint, condition
from tests.experiments.generation.tiny import SIZES

LEVEL = GenerationProblem(
    name="level", label="a constant", ranges=((0.0, 1.0),) * 3, bounds=(0.0, np.inf), modes=2,
    solution=lambda t, x, a, b, c: a + 0.1 * b * x + 0.1 * c * t,
)  # fmt: skip


def case(condition: Told, problem: GenerationProblem = LEVEL, **sizes: int) -> ManyFields:
    """Three fields of a problem."""
    small = replace(SIZES, modes=2, **sizes)  # type: ignore[arg-type]
    return ManyFields(problem=problem, condition=condition, sizes=small, fields=3)


def one(told: Told, **sizes: int) -> OneField:
    return case(told, **sizes).each(group=0)[1]


def test_every_field_is_told_of_by_values_of_its_own_with_noise_and_exact_totals() -> None:
    told = Told(key="", label="", values=40, totals=(0, -1))
    first, second = case(told, nodes=20).each(group=0)[:2]
    law = first.law
    assert law is not None
    assert torch.equal(law.b, first.law.b)
    assert not torch.equal(law.rows[:40], second.law.rows[:40])
    residual = law.residual(first.truth.flatten())
    assert float(residual[40:].abs().max()) <= 1e-15
    assert float(residual[:40].std()) == pytest.approx(told.deviation, rel=0.35)
    assert torch.equal(law.noise > 0, torch.arange(42) < 40)
    assert float(law.rows[41] @ first.truth.flatten()) == pytest.approx(float(first.truth[-1].mean()))


@pytest.mark.parametrize(
    ("change", "said"),
    [({"values": -1}, "values must be at least 0"), ({"deviation": 0.0}, "deviation must be positive, got 0.0")],
)
def test_what_cannot_be_told_is_refused(change, said) -> None:
    with pytest.raises(InvalidArgumentError, match=said):
        Told(key="", label="", **change)
    with pytest.raises(InvalidArgumentError, match="values must be at most the 144 of a field, got 145"):
        one(Told(key="", label="", values=145)).law  # noqa: B018 - the law is made when it is asked for


def test_solutions_weighted_by_their_likelihood_are_the_posterior() -> None:
    """Of a level that is seen with noise, among levels that are all as likely."""
    told = one(Told(key="", label="", values=4, deviation=0.1))
    pool = LEVEL.draws(40_000, told.sizes.nodes, seed=1).flatten(1).float()
    found = posterior(told, pool)
    assert found is not None
    level = found.fields.mean(dim=-1).double()
    mean = float(found.weights @ level)
    seen = float(told.law.b.mean())
    assert mean == pytest.approx(seen, abs=0.03)
    assert float((found.weights @ (level - mean).square()).sqrt()) == pytest.approx(0.1 / 4**0.5, rel=0.15)
    assert float(found.draws(4000, seed=0).mean()) == pytest.approx(mean, abs=0.005)
    assert posterior(told, pool[:50]) is None
    assert posterior(one(Told(key="", label="", totals=(-1,))), pool) is None
    assert posterior(one(Told(key="", label="")), pool) is not None


@pytest.mark.parametrize("draw", [likely_fields, smoothed_fields, gaussian_fields])
def test_rivals_meet_totals_and_bounds_and_come_near_the_values(draw) -> None:
    told = one(Told(key="", label="", values=3, totals=(-1,)), samples=2000, draws=200)
    fields = draw(told, 0).flatten(1)
    residual = told.law.residual(fields)
    assert float(residual[:, 3].abs().max()) <= 1e-12
    assert float(residual[:, :3].square().mean().sqrt()) <= 0.06
    assert float(fields.min()) >= 0.0
    assert torch.equal(fields, draw(told, 0).flatten(1))
    assert not torch.equal(fields, draw(replace(told, group=1), 0).flatten(1))


def test_the_gaussian_takes_noise_of_values_into_account() -> None:
    told = one(Told(key="", label="", values=2, deviation=0.2), samples=500, draws=4000)
    flow = training_of(LEVEL, told.sizes, 0, "cpu")
    model = flow.untrained(flow.fields())
    mean = model.latent.decode(torch.zeros(1, 2, dtype=torch.float64))[0]
    law = told.law
    assert isinstance(law, LinearConstraint)
    expected = condition(MultivariateNormal(mean, model.covariance()), law)
    unbounded = replace(told, problem=replace(LEVEL, bounds=(-np.inf, np.inf)))
    draws = gaussian_fields(unbounded, 0).flatten(1)
    assert torch.allclose(draws.mean(dim=0), expected.mean, rtol=0, atol=0.02)
    assert torch.allclose(draws.std(dim=0), expected.variance.sqrt(), rtol=0.1, atol=0)


def test_random_media_have_no_more_than_what_flows_in() -> None:
    u = RANDOM_MEDIA.draws(20, 24, seed=0)
    assert u.shape == (20, 16, 24)
    assert float(u.min()) >= 0.0
    totals = u.mean(dim=-1)
    growth = totals.diff(dim=-1)
    assert torch.allclose(growth, growth.mean(dim=-1, keepdim=True).expand_as(growth), rtol=0, atol=1e-9)
    assert float(growth.min()) >= -1e-12
    assert torch.allclose(u[:5], RANDOM_MEDIA.draws(5, 24, seed=0), rtol=0, atol=1e-12)  # products of batches round


@pytest.mark.long
def test_all_rows_are_scored_against_every_field(tmp_path: Path) -> None:
    entry = replace(EXPERIMENTS["generate_gpme"], sizes={"smoke": replace(SIZES, nodes=16, draws=8)})
    cases = ("values-2", "values-total-5", "bounds")
    report = driver.run(entry.table, RunOptions(out=tmp_path, cases=cases))
    energy = report.records[report.records["score"] == "energy"].groupby(["case", "method"])["mean"].mean()
    rivals = {method.key for method in TOLD_METHODS if method.key != "truth"}
    assert set(energy["values-total-5"].index) == rivals
    assert set(energy["bounds"].index) == {*rivals, "truth"}
    assert (energy > 0).all()
    outside = report.records[report.records["score"] == "outside"].groupby("method")["mean"].max()
    assert outside[["ours", "gaussian", "smoother", "training-fields", "conditioned-gaussian"]].max() == 0.0
    assert outside["unconstrained"] > 0
    assert any(file.name == "observations.png" for file in report.files)
    again = driver.run(entry.table, RunOptions(out=tmp_path, cases=cases))
    assert again.records["mean"].equals(report.records["mean"])
