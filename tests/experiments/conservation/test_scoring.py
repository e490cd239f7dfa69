"""What is scored and stored of a method, against the same function by function in NumPy."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator.operators import DiagLinearOperator
from scipy.stats import norm

from experiments.conservation.cases import Case, Target, laws_of
from experiments.conservation.data import context_of, validation_functions
from experiments.conservation.methods import BlackBox, Method, methods
from experiments.conservation.scoring import FRACTIONS, LEVELS, learn_extrapolation, score_method, score_truth
from experiments.storage import Arrays
from probconserv import Context, Mixture, Query, Surrogate
from solvers.problems import BURGERS, DIFFUSION, POROUS_MEDIUM, STEFAN, Problem
from tests.experiments.conservation.tiny import case

COMPONENTS, FUNCTIONS, POINTS = 3, 23, np.linspace(0.0, 1.0, 41)
WEIGHTS = np.full(41, 1 / 40)
WEIGHTS[[0, -1]] /= 2
COMPARED = ("anp", "hardc-anp", "probconserv-anp", "probconserv-anp-quadrature-variance")


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


RAMPS = BlackBox((), lambda *_: Ramps())


def method(key: str, build: Callable[..., Surrogate] | None = None) -> Method:
    """A method of the Stefan problem with ramps for the network."""
    (chosen,) = (entry for entry in methods(STEFAN, "exact", 4) if entry.key == key)
    return replace(chosen, black_box=RAMPS if build is None else BlackBox((), build))


def scored(key: str, where: Case) -> Arrays:
    return score_method(where, method(key), {})


def components(where: Case, function: int, time: float, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and variances ``(components, points)`` of one function's prediction."""
    slope = 1.2 - 2 * context_of(Target(where)).values[function].numpy().mean()
    number = np.arange(COMPONENTS)[:, None]
    return 0.9 - slope * x - time + 0.1 * number, (0.05 + 0.05 * number) ** 2 * (1 + x)


def treated(
    key: str, parts: tuple[np.ndarray, np.ndarray], weights: np.ndarray, total: float, loose: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance ``(points,)`` under the method, from dense formulas component by component."""
    means, variances = parts
    excess = (means @ weights - total)[:, None]
    if key.startswith("hardc"):
        means = means - weights * excess / (weights @ weights)
    elif key.startswith("probconserv"):
        cross = variances * weights
        scale = (cross @ weights)[:, None] + (loose if "quadrature" in key else 0.0)
        means, variances = means - cross * excess / scale, variances - cross**2 / scale
    return means.mean(axis=0), variances.mean(axis=0) + means.var(axis=0)


def log_likelihood(truth: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> float:
    return float(norm.logpdf(truth, mean, np.sqrt(np.maximum(variance, 1e-6))).mean())


def quadrature_variance(problem: Problem, time: float, x: np.ndarray) -> float:
    """Mean square over 101 training parameters of what the trapezoid rule makes of the true field, less its total."""
    errors = [
        np.trapezoid(problem.solution(time, torch.from_numpy(x), float(parameter)).numpy(), x)
        - float(problem.total(time, float(parameter)))
        for parameter in np.linspace(*problem.training_range, 101)
    ]
    return float(np.square(errors).mean())


def true_field(problem: Problem, time: float, parameter: float) -> np.ndarray:
    return problem.solution(time, torch.from_numpy(POINTS), parameter).numpy()


@pytest.mark.parametrize("key", COMPARED)
def test_scores_are_those_of_every_function_by_itself(key: str) -> None:
    """23 functions, ten at a time: none is left out, taken twice or mixed up with another."""
    arrays, time = scored(key, case()), STEFAN.test_time
    truth, total = true_field(STEFAN, time, 0.6), float(STEFAN.total(time, 0.6))
    loose = quadrature_variance(STEFAN, time, POINTS)
    expected: dict[str, list[Any]] = {name: [] for name in ("signed_CE", "CE", "MSE", "LL", "CRPS", "coverage90")}
    covered = []
    for function in range(FUNCTIONS):
        mean, variance = treated(key, components(case(), function, time, POINTS), WEIGHTS, total, loose)
        error, deviation = truth - mean, np.sqrt(variance)
        z = error / deviation
        expected["signed_CE"].append(WEIGHTS @ mean - total)
        expected["CE"].append(abs(WEIGHTS @ mean - total))
        expected["MSE"].append((error**2).mean())
        expected["LL"].append(log_likelihood(truth, mean, variance))
        expected["CRPS"].append((deviation * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - np.pi**-0.5)).mean())
        expected["coverage90"].append((np.abs(z) <= norm.ppf(0.95)).mean())
        covered.append([(np.abs(z) <= norm.ppf(0.5 + level / 2)).mean() for level in LEVELS])
        assert arrays["mean"][function] == pytest.approx(mean, rel=1e-9, abs=1e-12)
        assert arrays["standard_deviation"][function] == pytest.approx(deviation, rel=1e-9)
    for name, values in expected.items():
        assert arrays[name] == pytest.approx(np.array(values), rel=1e-9, abs=1e-14), name
    assert arrays["reliability"] == pytest.approx(np.array(covered).T, abs=1e-12)


def test_energy_scores_are_those_of_draws_of_the_mixture() -> None:
    generator, expected = np.random.default_rng(0), []
    truth = true_field(STEFAN, STEFAN.test_time, 0.6)
    for function in range(FUNCTIONS):
        means, variances = components(case(), function, STEFAN.test_time, POINTS)
        chosen = generator.integers(COMPONENTS, size=2000)
        draws = means[chosen] + np.sqrt(variances[chosen]) * generator.standard_normal((2000, 41))
        to_truth = np.sqrt(((draws - truth) ** 2).mean(axis=-1)).mean()
        expected.append(to_truth - 0.5 * np.sqrt(((draws[::2] - draws[1::2]) ** 2).mean(axis=-1)).mean())
    # Distances vary by a fifth: five standard errors of 400 draws a function.
    assert scored("anp", case())["energy"] == pytest.approx(np.array(expected), rel=5 * 0.2 / 400**0.5)


def test_fronts_are_those_of_the_samples_that_have_one() -> None:
    chosen = case(POROUS_MEDIUM, 2.0)
    arrays, front = scored("anp", chosen), float(POROUS_MEDIUM.front(POROUS_MEDIUM.test_time, 2.0))  # type: ignore[misc]
    fronts = arrays["fronts"]
    assert fronts.shape == (400, FUNCTIONS)
    shocked = np.isfinite(fronts)
    assert set(np.unique(fronts[shocked]).round(12)) <= set(POINTS.round(12))
    for part in (shocked.mean(), (fronts < front).mean(), (fronts > front).mean()):
        assert 0.01 < part < 0.99
    for function in range(FUNCTIONS):
        distance = fronts[shocked[:, function], function] - front
        none = 1 - shocked[:, function].mean()
        assert arrays["shockless"][function] == pytest.approx(none, abs=1e-12)
        means, variances = components(chosen, function, POROUS_MEDIUM.test_time, POINTS)
        expected = norm.sf(0.0, means, np.sqrt(variances)).prod(axis=-1).mean()
        assert none == pytest.approx(expected, abs=5 * 0.5 / 400**0.5)
        assert arrays["shock"][function] == pytest.approx(np.abs(distance).mean(), rel=1e-12)
        assert arrays["spread"][function] == pytest.approx(distance.std(), rel=1e-12)


def test_front_scores_are_left_out_where_there_is_no_front() -> None:
    arrays = score_method(case(), method("anp", lambda *_: Flat()), {})
    assert arrays["shockless"].tolist() == [1.0] * FUNCTIONS
    assert all(bool(np.isnan(arrays[name]).all()) for name in ("shock", "spread", "fronts"))
    assert not {"fronts", "shock", "spread", "shockless"} & scored("anp", case(DIFFUSION, 1.0)).keys()


@pytest.mark.parametrize(("problem", "parameter"), [(STEFAN, 0.6), (STEFAN, 0.5), (POROUS_MEDIUM, 3.0), (BURGERS, 1.0)])
def test_the_loose_law_has_the_mean_square_of_the_quadrature_error(problem: Problem, parameter: float) -> None:
    target = Target(case(problem, parameter), over_time=True)
    laws, x = laws_of(target), np.linspace(*problem.domain, 41)
    expected = [quadrature_variance(problem, float(time), x) for time in target.times]
    assert torch.as_tensor(laws.loose.noise_variance).flatten().numpy() == pytest.approx(np.array(expected), rel=1e-9)
    assert min(expected) > 1e-10
    assert not laws.exact.noise.any()
    totals = [float(problem.total(float(time), parameter)) for time in target.times]
    assert laws.total.tolist() == pytest.approx(totals, rel=1e-14)
    # The cell sum of cell averages is the total up to rounding.
    on_cells = laws_of(replace(target, on_cells=True)).loose.noise_variance
    assert float(torch.as_tensor(on_cells).max()) < 1e-28


def test_curves_are_those_of_every_function_and_time_by_itself() -> None:
    truth, times = score_truth(case()), STEFAN.final_time * np.arange(1, 5) / 4
    fields, totals = [true_field(STEFAN, t, 0.6) for t in times], np.array([float(STEFAN.total(t, 0.6)) for t in times])
    assert truth["times"] == pytest.approx(times)
    assert truth["law"] == pytest.approx(totals, rel=1e-12)
    assert truth["total"] == pytest.approx(np.array([WEIGHTS @ field for field in fields]), rel=1e-12)
    assert truth["signed_CE"] == pytest.approx([WEIGHTS @ truth["field"] - float(STEFAN.total(0.05, 0.6))], rel=1e-9)
    for key in ("anp", "hardc-anp", "probconserv-anp"):
        arrays, expected = scored(key, case()), np.empty((3, 5, 4))
        for function in range(5):
            for i, (time, field, total) in enumerate(zip(times, fields, totals, strict=True)):
                mean, variance = treated(key, components(case(), function, time, POINTS), WEIGHTS, total, 0.0)
                likelihood = log_likelihood(field, mean, variance)
                expected[:, function, i] = WEIGHTS @ mean, ((field - mean) ** 2).mean(), likelihood
        for name, values in zip(("curve_total", "curve_MSE", "curve_LL"), expected, strict=True):
            assert arrays[name] == pytest.approx(values, rel=1e-9), (key, name)


def test_cell_averages_are_scored_against_cell_averages() -> None:
    """40 cells of [0, 1]: the true averages are differences of the antiderivative, and their sum is the total."""
    time, total = STEFAN.test_time, float(STEFAN.total(STEFAN.test_time, 0.6))
    held = STEFAN.antiderivative(time, torch.linspace(0.0, 1.0, 41, dtype=torch.float64), 0.6).numpy()
    centres, weights, truth = (np.arange(40) + 0.5) / 40, np.full(40, 1 / 40), np.diff(held) * 40
    for key in ("anp-cells", "probconserv-anp-cells"):
        arrays = scored(key, case())
        for function in range(FUNCTIONS):
            mean, variance = treated(key, components(case(), function, time, centres), weights, total, 0.0)
            assert arrays["signed_CE"][function] == pytest.approx(weights @ mean - total, rel=1e-9, abs=1e-14)
            assert arrays["MSE"][function] == pytest.approx(((truth - mean) ** 2).mean(), rel=1e-9)
            assert arrays["LL"][function] == pytest.approx(log_likelihood(truth, mean, variance), rel=1e-9)


def test_local_laws_hold_what_every_control_volume_holds() -> None:
    arrays, bare = scored("probconserv-anp", case()), scored("anp", case())
    shown = int(np.argsort(bare["MSE"])[FUNCTIONS // 2])
    faces = torch.linspace(0.0, 1.0, 21, dtype=torch.float64)
    held = np.diff(STEFAN.antiderivative(STEFAN.test_time, faces, 0.6).numpy())

    def contents(u: np.ndarray) -> np.ndarray:
        """Trapezoid rule over the 20 volumes of two intervals each."""
        return (u[:-2:2] + 2 * u[1:-1:2] + u[2::2]) / 80

    assert arrays["local_function"].tolist() == [shown]
    assert contents(arrays["local_mean"]) == pytest.approx(held, abs=1e-12)
    assert contents(arrays["mean"][shown]).sum() == pytest.approx(held.sum(), abs=1e-12)
    assert np.abs(contents(arrays["mean"][shown]) - held).max() > 1e-3


def test_only_functions_of_the_unseen_third_of_the_range_teach_to_extrapolate() -> None:
    many = replace(case().sizes, functions=100)
    for parameter in STEFAN.test_parameters:
        _, drawn = validation_functions(case(STEFAN, parameter, sizes=many))
        # The range is [0.55, 0.7]; of 100 uniform draws the extremes lie within a tenth of the third's ends.
        assert 0.55 <= float(drawn.min()) < 0.555
        assert 0.595 < float(drawn.max()) <= 0.6


@pytest.mark.parametrize("problem", [STEFAN, BURGERS])
@pytest.mark.parametrize("fraction", [0.0, 0.005, 0.01, 0.03])
def test_the_displacement_of_a_front_is_recovered(problem: Problem, fraction: float) -> None:
    assert fraction in FRACTIONS
    length = problem.domain[1] - problem.domain[0]
    target = Target(case(problem, sizes=replace(case().sizes, functions=200, points=201)))
    _, parameter = validation_functions(target.case)
    normals = torch.randn(200, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    x = target.grid.points - fraction * length * normals[:, None]
    mean = problem.solution(problem.test_time, x.clamp(*problem.domain), parameter[:, None])[None]
    prediction = MultivariateNormal(mean, DiagLinearOperator(torch.full_like(mean, 1e-6)))
    assert learn_extrapolation(target, prediction, parameter)[0] == pytest.approx(fraction * length)
    # Everywhere 2 too high at standard deviation 1/2: the squares are 16 variances.
    field = target.field(parameter[:, None, None])[:, 0, 0]
    high = MultivariateNormal((field + 2.0)[None], DiagLinearOperator(torch.full_like(field, 0.25)[None]))
    assert learn_extrapolation(target, high, parameter)[1] == pytest.approx(16.0, rel=1e-12)
