"""Generated fields: exact moments, laws, scores of distributions, and the rows of a table."""

from dataclasses import replace

import pytest
import torch
from gpytorch.distributions import MultivariateNormal

from experiments import driver
from experiments.errors import InvalidArgumentError
from experiments.experiment import RunContext, RunOptions
from experiments.generation import EXPERIMENTS, laws
from experiments.generation.cases import Case
from experiments.generation.methods import methods_of
from experiments.generation.problems import REACTION_DIFFUSION, STEFAN, STOKES, initial_and_reaction
from experiments.generation.scoring import frechet, outside, residual, scores_of
from experiments.generation.training import training_of
from experiments.generation.without_flow import gaussian_fields, nearest_fields
from experiments.report.results import headline
from probconserv import LinearConstraint, condition
from solvers.grids import trapezoid_weights
from solvers.problems import exact
from tests.experiments.generation.tiny import SIZES, tiny

CASES = [
    Case(problem=STOKES, condition=condition, sizes=SIZES) for condition in EXPERIMENTS["generate_stokes"].conditions
]


def test_moments_are_those_of_stokes_problem_in_closed_form() -> None:
    """From the means of cos ωt and sin ωt over ω, and of e^(−ky) cos ky and e^(−ky) sin ky over k."""
    mean, deviation = (moment[1:, 1:] for moment in STOKES.moments(12, ()))  # the closed forms divide by t and y
    times, points = (axis[1:] for axis in STOKES.axes(12))

    def product(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The mean of e^(−ky) cos(ky − ωt)."""
        cos, sin = ((8 * t).sin() - (2 * t).sin()) / (6 * t), ((2 * t).cos() - (8 * t).cos()) / (6 * t)
        ends = [torch.exp(-s) * torch.stack([s.sin() - s.cos(), -s.sin() - s.cos()]) / 2 for s in (2 * y, 20 * y)]
        first, second = (ends[1] - ends[0]) / (18 * y)
        return cos[:, None] * first + sin[:, None] * second

    expected = 2 * product(times, points)
    assert torch.allclose(mean, expected, rtol=0, atol=1e-13)
    decay = (torch.exp(-4 * points) - torch.exp(-40 * points)) / (36 * points)
    square = 2 * decay + 2 * product(2 * times, 2 * points)  # 2 cos² a = 1 + cos 2a
    assert torch.allclose(deviation, (square - expected.square()).sqrt(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.problem.name}-{case.key}")
def test_true_draws_meet_the_law_and_come_closest_to_the_moments(case: Case) -> None:
    large = replace(case, sizes=replace(SIZES, draws=4000))
    draws = large.truths(4000, seed=3)
    if case.law is not None:
        assert float(residual(draws, case.law).max()) <= 1e-14
        assert float(residual(draws + 0.1, case.law).min()) >= 0.09
    mean, deviation = case.moments()
    error = 5 * deviation / 4000**0.5 + 1e-14
    assert bool(((draws.mean(dim=0) - mean).abs() <= error).all())
    scores, shifted = scores_of(draws, large, seed=0), scores_of(draws + 0.5, large, seed=0)
    assert shifted["mean_error"] == pytest.approx(0.25, rel=0.1)
    assert shifted["deviation_error"] == pytest.approx(scores["deviation_error"], abs=1e-12)
    assert scores["protocol_mean"] <= scores["protocol_mean_90"] < 0.3 < shifted["protocol_mean_90"] + 0.2
    if not bool(deviation.any()):
        return
    wide = scores_of(2 * draws, large, seed=0)
    assert wide["frechet"] > 10 * scores["frechet"]
    wider = scores_of(2 * draws - draws.mean(dim=0), large, seed=0)
    assert wider["deviation_error"] == pytest.approx(float(deviation.square().mean()), rel=0.1)


def test_the_frechet_distance_of_gaussians_with_diagonal_covariances() -> None:
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(4000, 2, dtype=torch.float64, generator=generator)
    normal = (normal - normal.mean(dim=0)) @ torch.linalg.inv(torch.linalg.cholesky(normal.mT.cov())).mT
    first, second = normal * torch.tensor([1.0, 2.0]), normal * torch.tensor([3.0, 1.0]) + torch.tensor([2.0, 0.0])
    assert float(frechet(first, second)) == pytest.approx(4 + 4 + 1, rel=1e-10)
    assert float(frechet(first, first)) == pytest.approx(0.0, abs=1e-12)


def test_the_nonlinear_law_holds_for_all_true_fields_of_its_condition() -> None:
    problem, slack = REACTION_DIFFUSION, 1e-5  # what the error of the trapezoidal rule differs between fields
    u = problem.draws(6, 16, seed=1, fixed=(0.2, None))
    given = initial_and_reaction(u[0], *problem.axes(16))
    assert problem.bounds is not None
    assert float(u.std(dim=0).max()) > 0.01
    assert float(residual(u, given).max()) <= slack
    assert float(residual(problem.draws(6, 16, seed=1), given).min()) > 100 * slack
    assert float(outside(u, problem.bounds).max()) == 0.0
    assert float(outside(u - 1.5, problem.bounds).min()) > 0.5


def test_mass_by_the_trapezoidal_rule_is_near_the_closed_form() -> None:
    """2 c₁ √(t/π) of the Stefan problem, within a cell of its front."""
    times, points = STEFAN.axes(400)
    u = STEFAN.draws(1, 400, seed=0, fixed=(0.6,))[0]
    mass = laws.mass_rows(u, trapezoid_weights(points)).b
    assert torch.allclose(mass[50:], exact.stefan_total(times[51:], 0.6), rtol=0, atol=1 / 400)


@pytest.mark.slow
def test_bounds_hold_for_ours_alone(tmp_path) -> None:
    records = driver.run(tiny("generate_stefan").table, RunOptions(out=tmp_path)).records
    worst = records[records["score"] == "outside"].groupby("method")["mean"].max()
    inside = worst.reindex(["truth", "training-fields", "gaussian", "conditioned", "conditioned-gaussian"])
    assert (inside == 0.0).all()
    assert worst["unconstrained"] > 0


def test_every_sampler_is_scored_on_one_model_and_meets_the_law(tmp_path) -> None:
    report = driver.run(tiny("generate_stokes").table, RunOptions(out=tmp_path, cases=("boundary",)))
    records = report.records[report.records["score"] == "law_residual"].set_index(["method", "seed"])["mean"]
    assert len(records) == 3 + 5 * SIZES.groups
    for method in ("training-fields", "gaussian", "eci", "pcfm", "conditioned", "conditioned-gaussian"):
        assert records[method].max() <= 1e-12
    assert records["unconstrained"].min() > 1e-3
    assert len(list((tmp_path / "generation").rglob("weights.safetensors"))) == SIZES.groups
    assert any(file.name == "moments-boundary.png" for file in report.files)
    times = report.records[report.records["score"] == "draw_milliseconds"].set_index(["method", "seed"])["mean"]
    assert len(times) == len(records)
    assert times.min() > 0
    assert "ms per draw" in (report.folder / "table.md").read_text()


def test_the_search_finds_the_training_fields_of_the_given_parameter() -> None:
    """Of 2,000 fields it keeps those around ω = 6: a fixed boundary value, and the free k as spread as in the truth."""
    sizes = replace(SIZES, samples=2000, draws=400)
    boundary = Case(problem=STOKES, condition=EXPERIMENTS["generate_stokes"].conditions[2], sizes=sizes)
    draws = nearest_fields(boundary, seed=0)
    assert boundary.law is not None
    assert float(residual(draws, boundary.law).max()) <= 1e-12
    mean, deviation = boundary.moments()
    assert float((draws.mean(dim=0) - mean).square().mean()) <= 0.05 * float(deviation.square().mean())
    assert float((draws.std(dim=0) - deviation).square().mean()) <= 0.05 * float(deviation.square().mean())


def test_the_gaussian_of_the_training_fields_is_conditioned_exactly() -> None:
    sizes = replace(SIZES, samples=500, draws=4000)
    case = Case(problem=STOKES, condition=EXPERIMENTS["generate_stokes"].conditions[2], sizes=sizes)
    training = training_of(STOKES, sizes, 0, "cpu")
    flow = training.untrained(training.fields())
    assert isinstance(case.law, LinearConstraint)
    mean = flow.latent.decode(torch.zeros(1, sizes.modes, dtype=torch.float64))[0]
    posterior = condition(MultivariateNormal(mean, flow.covariance()), case.law)
    draws = gaussian_fields(case, seed=0).flatten(1)
    assert float(residual(draws, case.law).max()) <= 1e-12
    scale = flow.covariance().diagonal().mean().sqrt()
    assert float((draws.mean(dim=0) - posterior.mean).abs().max() / scale) <= 0.1
    assert float((draws.std(dim=0) - posterior.variance.clamp_min(0).sqrt()).abs().max() / scale) <= 0.1


def test_the_search_keeps_all_training_fields_under_a_law_that_they_meet() -> None:
    """The initial value of the Stefan problem is the same for all of them."""
    sizes = replace(SIZES, samples=600, draws=3000)
    alone = Case(problem=STEFAN, condition=EXPERIMENTS["generate_stefan"].conditions[0], sizes=sizes)
    assert len(nearest_fields(alone, seed=0).flatten(1).sum(dim=1).unique()) > 300


def test_published_numbers_stand_beside_the_row_of_their_method() -> None:
    experiment = EXPERIMENTS["generate_stokes"].table
    cases = experiment.cases(RunContext(options=RunOptions()))
    rows = [
        (record.case, record.method, record.score, record.mean) for c in cases for record in experiment.published(c)
    ]
    assert ("free", "unconstrained", "protocol_mean", 3.52e-3) in rows
    assert ("boundary", "eci", "protocol_deviation", 1.10e-4) in rows
    assert len(rows) == 6


def test_a_run_without_the_method_of_published_numbers_has_a_table(tmp_path) -> None:
    report = driver.run(tiny("generate_stokes").table, RunOptions(out=tmp_path, methods=("gaussian",)))
    rows = headline(report.description, report.records)
    assert [row.name for row in rows] == ["Gaussian"] * 2


def test_too_few_steps_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="steps must be at least 5"):
        replace(SIZES, steps=1)


def test_every_sampler_has_as_many_evaluations_of_the_velocity() -> None:
    """Steps of ECI take several each."""
    cases = EXPERIMENTS["generate_stokes"].cases(RunContext(options=RunOptions(preset="laptop")))
    assert max(case.condition.mixing for case in cases) > 1
    for case in cases:
        options = [method.options(case) for method in methods_of(case) if method.sampler is not None]
        assert {each.steps * each.mixing for each in options} == {case.sizes.steps}
