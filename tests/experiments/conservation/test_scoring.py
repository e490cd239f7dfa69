"""What is scored and stored of a method, against dense formulas in NumPy; rivals."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator.operators import DiagLinearOperator
from scipy.stats import norm

from experiments.conservation.cases import Case, Target, laws_of
from experiments.conservation.data import context_of, validation_functions
from experiments.conservation.experiment import EXPERIMENTS
from experiments.conservation.methods import BlackBox, methods
from experiments.conservation.rivals import NARROW, Inverted, functions_of
from experiments.conservation.scoring import FRACTIONS, LEVELS, learn_extrapolation, predict, score_method, score_truth
from experiments.experiment import RunContext, RunOptions
from experiments.records.storage import Arrays
from probconserv import Context, Mixture, Query
from probconserv.surrogates.surrogate import Surrogate
from solvers.problems import Problem
from solvers.problems.conservation import BURGERS, DIFFUSION, POROUS_MEDIUM, STEFAN
from tests.experiments.conservation.tiny import case

COMPONENTS, FUNCTIONS, POINTS = 3, 23, np.linspace(0.0, 1.0, 41)
WEIGHTS = np.full(41, 1 / 40)
WEIGHTS[[0, -1]] /= 2
TIME, TOTAL = STEFAN.test_time, float(STEFAN.total(STEFAN.test_time, 0.6))


class Ramps(Surrogate):
    """Three falling ramps with given variances; how steep they fall is a function's mean observed value."""

    def predict(self, context: Context, query: Query) -> Mixture:
        assert context.points.shape[:-2] == query.points.shape[:-2]
        slope = 1.2 - 2 * context.values.mean(dim=-1, keepdim=True)
        t, x = query.points.unbind(dim=-1)
        number = torch.arange(float(COMPONENTS), dtype=torch.float64).reshape(-1, *[1] * x.ndim)
        means = 0.9 - slope * x - t + 0.1 * number
        return Mixture(MultivariateNormal(means, DiagLinearOperator((0.05 + 0.05 * number) ** 2 * (1 + x))))


class Flat(Surrogate):
    """Ones, with hardly any variance."""

    def predict(self, context: Context, query: Query) -> MultivariateNormal:  # noqa: ARG002 - always the same
        x = query.points[..., 1]
        return MultivariateNormal(torch.ones_like(x), DiagLinearOperator(torch.full_like(x, 1e-4)))


def scored(key: str, where: Case, surrogate: Callable[[], Surrogate] = Ramps) -> Arrays:
    """What is stored of a method of the Stefan problem with ramps for the network."""
    (chosen,) = (entry for entry in methods(STEFAN, "exact", 4) if entry.key == key)
    return score_method(where, replace(chosen, black_box=BlackBox((), lambda *_: surrogate())), {})


def components(where: Case, time: float, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and variances ``(components, functions, points)`` of the ramps."""
    slope = 1.2 - 2 * context_of(Target(where)).values.numpy().mean(axis=-1)[:, None]
    number = np.arange(COMPONENTS)[:, None, None]
    return 0.9 - slope * x - time + 0.1 * number, (0.05 + 0.05 * number) ** 2 * (1 + x) + 0 * slope


def treated(
    key: str, time: float, x: np.ndarray, weights: np.ndarray, loose: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance ``(functions, points)`` under the method, component by component."""
    means, variances = components(case(), time, x)
    excess = (means @ weights - float(STEFAN.total(time, 0.6)))[..., None]
    if key.startswith("hardc"):
        means = means - weights * excess / (weights @ weights)
    elif key.startswith("probconserv"):
        cross = variances * weights
        scale = (cross @ weights)[..., None] + loose
        means, variances = means - cross * excess / scale, variances - cross**2 / scale
    return means.mean(axis=0), variances.mean(axis=0) + means.var(axis=0)


def log_likelihood(truth: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    return norm.logpdf(truth, mean, np.sqrt(np.maximum(variance, 1e-6))).mean(axis=-1)


def quadrature_variance(problem: Problem, time: float, x: np.ndarray) -> float:
    """Mean square over 101 training parameters of what the trapezoid rule makes of the true field, less its total."""
    parameters, points = np.linspace(*problem.training_range, 101).tolist(), torch.from_numpy(x)
    rule = [np.trapezoid(problem.solution(time, points, parameter).numpy(), x) for parameter in parameters]
    return float(np.square(rule - np.array([float(problem.total(time, parameter)) for parameter in parameters])).mean())


def true_field(time: float) -> np.ndarray:
    return STEFAN.solution(time, torch.from_numpy(POINTS), 0.6).numpy()


@pytest.mark.parametrize("key", ["anp", "hardc-anp", "probconserv-anp", "probconserv-anp-quadrature-variance"])
def test_scores_are_those_of_every_function_by_itself(key: str) -> None:
    """23 functions, ten at a time: none is left out, taken twice or mixed up with another."""
    arrays, truth = scored(key, case()), true_field(TIME)
    loose = quadrature_variance(STEFAN, TIME, POINTS) if "quadrature" in key else 0.0
    mean, variance = treated(key, TIME, POINTS, WEIGHTS, loose)
    deviation = np.sqrt(variance)
    z = (truth - mean) / deviation
    expected = {
        "signed_CE": mean @ WEIGHTS - TOTAL,
        "CE": np.abs(mean @ WEIGHTS - TOTAL),
        "MSE": ((truth - mean) ** 2).mean(axis=-1),
        "LL": log_likelihood(truth, mean, variance),
        "CRPS": (deviation * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - np.pi**-0.5)).mean(axis=-1),
        "coverage90": (np.abs(z) <= norm.ppf(0.95)).mean(axis=-1),
        "reliability": np.array([(np.abs(z) <= norm.ppf(0.5 + level / 2)).mean(axis=-1) for level in LEVELS]),
        "mean": mean,
        "standard_deviation": deviation,
    }
    for name, values in expected.items():
        assert arrays[name] == pytest.approx(values, rel=1e-9, abs=1e-12), name


def test_draws_under_inequalities_are_scored_as_draws() -> None:
    """The Gaussian formulas know nothing of the bounds that draws lie on; other rows have no such scores."""
    arrays = scored("probconserv-anp-non-negative", case())
    assert arrays["draws_CRPS"].shape == arrays["CRPS"].shape == (FUNCTIONS,)
    assert (arrays["draws_coverage50"] <= arrays["draws_coverage90"]).all()
    assert not np.allclose(arrays["draws_CRPS"], arrays["CRPS"], rtol=1e-3)
    assert not {name for name in scored("probconserv-anp", case()) if name.startswith("draws_")}


def test_energy_scores_are_those_of_draws_of_the_mixture() -> None:
    generator = np.random.default_rng(0)
    means, variances = components(case(), TIME, POINTS)
    chosen = generator.integers(COMPONENTS, size=2000)
    draws = means[chosen] + np.sqrt(variances[chosen]) * generator.standard_normal((2000, FUNCTIONS, 41))
    to_truth = np.sqrt(((draws - true_field(TIME)) ** 2).mean(axis=-1)).mean(axis=0)
    expected = to_truth - 0.5 * np.sqrt(((draws[::2] - draws[1::2]) ** 2).mean(axis=-1)).mean(axis=0)
    # Distances vary by a fifth: five standard errors of 400 draws a function.
    assert scored("anp", case())["energy"] == pytest.approx(expected, rel=5 * 0.2 / 400**0.5)


def test_fronts_are_those_of_the_samples_that_have_one() -> None:
    chosen, time = case(POROUS_MEDIUM, 2.0), POROUS_MEDIUM.test_time
    arrays, front = scored("anp", chosen), float(POROUS_MEDIUM.front(time, 2.0))  # type: ignore[misc]
    fronts = arrays["fronts"]
    shocked = np.isfinite(fronts)
    assert fronts.shape == (400, FUNCTIONS)
    assert set(np.unique(fronts[shocked]).round(12)) <= set(POINTS.round(12))
    for part in (shocked.mean(), (fronts < front).mean(), (fronts > front).mean()):
        assert 0.01 < part < 0.99
    means, variances = components(chosen, time, POINTS)
    expected = norm.sf(0.0, means, np.sqrt(variances)).prod(axis=-1).mean(axis=0)
    assert 1 - shocked.mean(axis=0) == pytest.approx(expected, abs=5 * 0.5 / 400**0.5)
    assert arrays["shockless"] == pytest.approx(1 - shocked.mean(axis=0), abs=1e-12)
    assert arrays["shock"] == pytest.approx(np.nanmean(np.abs(fronts - front), axis=0), rel=1e-12)
    assert arrays["spread"] == pytest.approx(np.nanstd(fronts, axis=0), rel=1e-12)


def test_front_scores_are_left_out_where_there_is_no_front() -> None:
    arrays = scored("anp", case(), Flat)
    assert arrays["shockless"].tolist() == [1.0] * FUNCTIONS
    assert all(bool(np.isnan(arrays[name]).all()) for name in ("shock", "spread", "fronts"))
    assert not {"fronts", "shock", "spread", "shockless"} & scored("anp", case(DIFFUSION, 1.0)).keys()


@pytest.mark.long
@pytest.mark.parametrize(("problem", "parameter"), [(STEFAN, 0.6), (STEFAN, 0.5), (POROUS_MEDIUM, 3.0), (BURGERS, 1.0)])
def test_the_loose_law_has_the_mean_square_of_the_quadrature_error(problem: Problem, parameter: float) -> None:
    target = Target(case(problem, parameter), over_time=True)
    laws, times, x = laws_of(target), target.times.tolist(), np.linspace(*problem.domain, 41)
    expected = [quadrature_variance(problem, time, x) for time in times]
    assert torch.as_tensor(laws.loose.noise_variance).flatten().numpy() == pytest.approx(np.array(expected), rel=1e-9)
    assert min(expected) > 1e-10
    assert not laws.exact.noise.any()
    assert laws.total.tolist() == pytest.approx([float(problem.total(time, parameter)) for time in times], rel=1e-14)
    # The cell sum of cell averages is the total up to rounding.
    on_cells = laws_of(replace(target, on_cells=True)).loose.noise_variance
    assert float(torch.as_tensor(on_cells).max()) < 1e-28


def test_curves_are_those_of_every_function_and_time_by_itself() -> None:
    truth, times = score_truth(case()), STEFAN.final_time * np.arange(1, 5) / 4
    assert truth["times"] == pytest.approx(times)
    assert truth["law"] == pytest.approx([float(STEFAN.total(time, 0.6)) for time in times], rel=1e-12)
    assert truth["total"] == pytest.approx([WEIGHTS @ true_field(time) for time in times], rel=1e-12)
    assert truth["signed_CE"] == pytest.approx([WEIGHTS @ truth["field"] - TOTAL], rel=1e-9)
    for key in ("anp", "hardc-anp", "probconserv-anp"):
        arrays = scored(key, case())
        for i, time in enumerate(times):
            field, (mean, variance) = true_field(time), (part[:5] for part in treated(key, time, POINTS, WEIGHTS))
            assert arrays["curve_total"][:, i] == pytest.approx(mean @ WEIGHTS, rel=1e-9)
            assert arrays["curve_MSE"][:, i] == pytest.approx(((field - mean) ** 2).mean(axis=-1), rel=1e-9)
            assert arrays["curve_LL"][:, i] == pytest.approx(log_likelihood(field, mean, variance), rel=1e-9)


def test_cell_averages_are_scored_against_cell_averages() -> None:
    """40 cells of [0, 1]: the true averages are differences of the antiderivative, and their sum is the total."""
    contents = STEFAN.antiderivative(TIME, torch.linspace(0.0, 1.0, 41, dtype=torch.float64), 0.6).diff().numpy()
    centres, weights = (np.arange(40) + 0.5) / 40, np.full(40, 1 / 40)
    for key in ("anp-cells", "probconserv-anp-cells"):
        arrays, (mean, variance) = scored(key, case()), treated(key, TIME, centres, weights)
        assert arrays["signed_CE"] == pytest.approx(mean @ weights - TOTAL, rel=1e-9, abs=1e-14)
        assert arrays["MSE"] == pytest.approx(((40 * contents - mean) ** 2).mean(axis=-1), rel=1e-9)
        assert arrays["LL"] == pytest.approx(log_likelihood(40 * contents, mean, variance), rel=1e-9)


def test_local_laws_hold_what_every_control_volume_holds() -> None:
    arrays, shown = scored("probconserv-anp", case()), int(np.argsort(scored("anp", case())["MSE"])[FUNCTIONS // 2])
    held = STEFAN.antiderivative(TIME, torch.linspace(0.0, 1.0, 21, dtype=torch.float64), 0.6).diff().numpy()
    # Trapezoid rule over the 20 volumes of two intervals each.
    local, one = ((u[:-2:2] + 2 * u[1:-1:2] + u[2::2]) / 80 for u in (arrays["local_mean"], arrays["mean"][shown]))
    assert arrays["local_function"].tolist() == [shown]
    assert local == pytest.approx(held, abs=1e-12)
    assert one.sum() == pytest.approx(held.sum(), abs=1e-12)
    assert np.abs(one - held).max() > 1e-3


@pytest.mark.parametrize("parameter", STEFAN.test_parameters)
def test_only_functions_of_the_unseen_third_of_the_range_teach_to_extrapolate(parameter: float) -> None:
    _, drawn = validation_functions(case(STEFAN, parameter, sizes=replace(case().sizes, functions=100)))
    # The range is [0.55, 0.7]; of 100 uniform draws the extremes lie within a tenth of the third's ends.
    assert 0.55 <= float(drawn.min()) < 0.555 < 0.595 < float(drawn.max()) <= 0.6


@pytest.mark.parametrize("problem", [STEFAN, BURGERS])
@pytest.mark.parametrize("fraction", [0.0, 0.01])
def test_the_displacement_of_a_front_is_recovered(problem: Problem, fraction: float) -> None:
    assert fraction in FRACTIONS
    length = problem.domain[1] - problem.domain[0]
    target = Target(case(problem, sizes=replace(case().sizes, functions=50, points=201)))
    _, parameter = validation_functions(target.case)
    normals = torch.randn(50, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    x = target.grid.points - fraction * length * normals[:, None]
    mean = problem.solution(problem.test_time, x.clamp(*problem.domain), parameter[:, None])[None]
    prediction = MultivariateNormal(mean, DiagLinearOperator(torch.full_like(mean, 1e-6)))
    assert learn_extrapolation(target, prediction, parameter)[0] == pytest.approx(fraction * length)
    # Everywhere 2 too high at standard deviation 1/2: the squares are 16 variances.
    field = target.field(parameter[:, None, None])[None, :, 0, 0]
    high = MultivariateNormal(field + 2.0, DiagLinearOperator(torch.full_like(field, 0.25)))
    assert learn_extrapolation(target, high, parameter)[1] == pytest.approx(16.0, rel=1e-12)


RIVALS = ("search", "probconserv-search", "empirical", "probconserv-empirical", "total-inverted")


def case_of(name: str, folder: Path) -> Case:
    case = EXPERIMENTS[name].cases(RunContext(options=RunOptions(out=folder)))[0]
    return replace(case, data="exact", sizes=replace(case.sizes, functions=2, points=41, samples=20, curve_functions=1))


@pytest.mark.parametrize("name", ["porous_medium", "burgers_shock"])
def test_the_total_alone_gives_the_field_away(name: str, tmp_path: Path) -> None:
    case = case_of(name, tmp_path)
    target = Target(case)
    prediction = predict(Inverted(case), target, context_of(target))
    apart = (prediction.mean - target.truth()).abs()
    assert float(apart.mean()) < 2e-3 * float(target.truth().abs().max())


def test_a_total_that_says_nothing_leaves_all_functions(tmp_path: Path) -> None:
    case = case_of("diffusion", tmp_path)
    target = Target(case)
    prediction = predict(Inverted(case), target, context_of(target))
    k = torch.linspace(1, 5, 4001, dtype=torch.float64)[:, None]
    every = case.problem.solution(case.problem.test_time, target.grid.points, k)
    assert torch.allclose(prediction.mean[0, 0], every.mean(dim=0), atol=1e-3)


def test_a_search_finds_the_function_that_the_context_is_of(tmp_path: Path) -> None:
    case = case_of("diffusion", tmp_path)
    target = Target(case)
    prediction = predict(functions_of(case.problem, NARROW, 0), target, context_of(target))
    assert float((prediction.mean - target.truth()).abs().max()) < 5e-3
