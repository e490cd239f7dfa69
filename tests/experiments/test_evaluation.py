"""What an experiment computes from its cases, against the same function by function in NumPy."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator.operators import DiagLinearOperator
from scipy.stats import norm

from experiments.config import ConservationConfig
from experiments.conservation import Case
from experiments.evaluation import LEVELS, curves, evaluate, evaluate_on_cells, local_conservation
from experiments.storage import Arrays
from probconserv import Context, Mixture, Query, Surrogate
from probconserv.surrogates.gp import GPConfig
from solvers.problems import BURGERS, DIFFUSION, POROUS_MEDIUM, STEFAN, Problem

CONFIG = ConservationConfig(
    problem="stefan",
    data="exact",
    seed=0,
    functions=23,
    places=41,
    samples=400,
    curve_functions=5,
    curve_times=4,
    gp=GPConfig(smoothness=0.5),
)
COMPONENTS = 3


class Ramps(Surrogate):
    """Three falling ramps with known variances; how steep they fall is a function's mean observed value."""

    def predict(self, context: Context, query: Query) -> Mixture:
        assert context.points.shape[:-2] == query.points.shape[:-2]
        slope = 1.2 - 2 * context.values.mean(dim=-1, keepdim=True)
        t, x = query.points.unbind(dim=-1)
        number = torch.arange(float(COMPONENTS), dtype=torch.float64).reshape(-1, *[1] * x.ndim)
        means = 0.9 - slope * x - t + 0.1 * number
        return Mixture(MultivariateNormal(means, DiagLinearOperator((0.05 + 0.05 * number) ** 2 * (1 + x))))


def case(problem: Problem = STEFAN, parameter: float = 0.6) -> Case:
    return Case(problem, parameter, replace(CONFIG, problem=problem.name), Path("unused"), {"anp": Ramps()})


def components(case: Case, function: int, time: float, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and variances ``(components, places)`` of one function's prediction."""
    slope = 1.2 - 2 * case.context().values[function].numpy().mean()
    number = np.arange(COMPONENTS)[:, None]
    return 0.9 - slope * places - time + 0.1 * number, (0.05 + 0.05 * number) ** 2 * (1 + places)


def treated(
    method: str, means: np.ndarray, variances: np.ndarray, weights: np.ndarray, law: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance ``(places,)`` after the method, from dense formulas component by component."""
    total, loose = law
    excess = (means @ weights - total)[:, None]
    if method == "HardC-ANP":
        means = means - weights * excess / (weights @ weights)
    elif method != "ANP":
        noise = loose if "quadrature" in method else 0.0
        cross = variances * weights
        scale = (cross @ weights)[:, None] + noise
        means, variances = means - cross * excess / scale, variances - cross**2 / scale
    return means.mean(axis=0), variances.mean(axis=0) + means.var(axis=0)


def log_likelihood(truth: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> float:
    return float(norm.logpdf(truth, mean, np.sqrt(np.maximum(variance, 1e-6))).mean())


def quadrature_variance(problem: Problem, time: float, places: np.ndarray) -> float:
    """Mean square over 101 training parameters of what the trapezoid rule makes of the true field, less its total."""
    errors = [
        np.trapezoid(problem.solution(time, torch.from_numpy(places), float(parameter)).numpy(), places)
        - float(problem.total(time, float(parameter)))
        for parameter in np.linspace(*problem.training_range, 101)
    ]
    return float(np.square(errors).mean())


def trapezoid(places: np.ndarray) -> np.ndarray:
    weights = np.full(len(places), places[1] - places[0])
    weights[[0, -1]] /= 2
    return weights


@pytest.fixture(scope="module")
def scored() -> Arrays:
    return evaluate(case())


METHODS = ("ANP", "HardC-ANP", "ProbConserv-ANP", "ProbConserv-ANP (quadrature variance)")


@pytest.mark.parametrize("method", METHODS)
def test_scores_are_those_of_every_function_by_itself(scored: Arrays, method: str) -> None:
    """23 functions, ten at a time: none is left out, taken twice or mixed up with another."""
    time, places = STEFAN.test_time, np.linspace(0.0, 1.0, 41)
    truth = STEFAN.solution(time, torch.from_numpy(places), 0.6).numpy()
    weights, total = trapezoid(places), float(STEFAN.total(time, 0.6))
    law = (total, quadrature_variance(STEFAN, time, places))
    expected: dict[str, list[float]] = {name: [] for name in ("CE", "MSE", "LL", "CRPS", "coverage90")}
    covered = []
    for function in range(23):
        mean, variance = treated(method, *components(case(), function, time, places), weights, law)
        error, deviation = truth - mean, np.sqrt(variance)
        z = error / deviation
        crps = deviation * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / math.sqrt(math.pi))
        expected["CE"].append(weights @ mean - total)
        expected["MSE"].append((error**2).mean())
        expected["LL"].append(log_likelihood(truth, mean, variance))
        expected["CRPS"].append(crps.mean())
        expected["coverage90"].append((np.abs(z) <= norm.ppf(0.95)).mean())
        covered.append([(np.abs(z) <= norm.ppf(0.5 + level / 2)).mean() for level in LEVELS])
    for name, values in expected.items():
        assert scored[f"{method}|{name}"] == pytest.approx(np.array(values), rel=1e-9, abs=1e-14), name
    assert scored[f"{method}|reliability"] == pytest.approx(np.array(covered).T, abs=1e-12)
    assert scored["truth"] == pytest.approx(truth, abs=1e-15)
    assert scored["truth|CE"] == pytest.approx(np.array([weights @ truth - total]), rel=1e-9)


def test_energy_scores_are_those_of_draws_of_the_mixture(scored: Arrays) -> None:
    generator = np.random.default_rng(0)
    places = np.linspace(0.0, 1.0, 41)
    truth, expected = scored["truth"], []
    for function in range(23):
        means, variances = components(case(), function, STEFAN.test_time, places)
        chosen = generator.integers(COMPONENTS, size=2000)
        draws = means[chosen] + np.sqrt(variances[chosen]) * generator.standard_normal((2000, 41))
        to_truth = np.sqrt(((draws - truth) ** 2).mean(axis=-1)).mean()
        expected.append(to_truth - 0.5 * np.sqrt(((draws[::2] - draws[1::2]) ** 2).mean(axis=-1)).mean())
    # Distances vary by a fifth: five standard errors of 400 draws a function.
    assert scored["ANP|energy"] == pytest.approx(np.array(expected), rel=5 * 0.2 / 400**0.5)


def test_fronts_are_those_of_the_samples_that_have_one() -> None:
    chosen = case(POROUS_MEDIUM, 2.0)
    scored, places = evaluate(chosen), np.linspace(0.0, 1.0, 41)
    fronts, front = scored["ANP|fronts"], float(POROUS_MEDIUM.front(POROUS_MEDIUM.test_time, 2.0))
    assert bool((scored["truth"][places < front] > 0).all())
    assert not scored["truth"][places > front].any()
    assert fronts.shape == (400, 23)
    found = np.isfinite(fronts)
    assert set(np.unique(fronts[found]).round(12)) <= set(places.round(12))
    for some in (found.mean(), (fronts < front).mean(), (fronts > front).mean()):
        assert 0.01 < some < 0.99
    for function in range(23):
        distance = fronts[found[:, function], function] - front
        none = 1 - found[:, function].mean()
        assert scored["ANP|shockless"][function] == pytest.approx(none, abs=1e-12)
        means, variances = components(chosen, function, POROUS_MEDIUM.test_time, places)
        expected = norm.sf(0.0, means, np.sqrt(variances)).prod(axis=-1).mean()
        assert none == pytest.approx(expected, abs=5 * 0.5 / 400**0.5)
        assert scored["ANP|shock"][function] == pytest.approx(np.abs(distance).mean(), rel=1e-12)
        assert scored["ANP|spread"][function] == pytest.approx(distance.std(), rel=1e-12)


def test_a_function_whose_samples_have_no_front_has_no_shock_error() -> None:
    class Flat(Surrogate):
        def predict(self, context: Context, query: Query) -> MultivariateNormal:  # noqa: ARG002 - always the same
            x = query.points[..., 1]
            return MultivariateNormal(torch.ones_like(x), DiagLinearOperator(torch.full_like(x, 1e-4)))

    arrays = evaluate(replace(case(), surrogates={"anp": Flat()}))
    assert arrays["ANP|shockless"].tolist() == [1.0] * 23
    for name in ("shock", "spread", "fronts"):
        assert bool(np.isnan(arrays[f"ANP|{name}"]).all())


def test_fields_without_a_front_have_no_front_scores() -> None:
    arrays = evaluate(case(DIFFUSION, 1.0))
    assert "ANP|MSE" in arrays
    assert not [name for name in arrays if name.endswith(("fronts", "shock", "spread", "shockless"))]


def test_the_typical_function_has_the_median_error(scored: Arrays) -> None:
    shown = int(np.argsort(scored["ANP|MSE"])[11])
    context = case().context()
    observed = torch.cat((context.points[shown], context.values[shown, :, None]), dim=-1)
    assert np.array_equal(scored["context"], observed.numpy())
    assert scored["ANP|MSE"][shown] == pytest.approx(((scored["ANP|mean"] - scored["truth"]) ** 2).mean(), rel=1e-12)
    means, variances = components(case(), shown, STEFAN.test_time, scored["places"])
    deviation = np.sqrt(variances.mean(axis=0) + means.var(axis=0))
    assert scored["ANP|deviation"] == pytest.approx(deviation, rel=1e-12)


@pytest.mark.parametrize(("problem", "parameter"), [(STEFAN, 0.6), (STEFAN, 0.5), (POROUS_MEDIUM, 3.0), (BURGERS, 1.0)])
def test_the_loose_law_has_the_mean_square_of_the_quadrature_error(problem: Problem, parameter: float) -> None:
    chosen = case(problem, parameter)
    times = torch.tensor([0.3, 0.6, 1.0], dtype=torch.float64) * problem.final_time
    laws = chosen.laws(times[:, None])
    places = np.linspace(*problem.domain, 41)
    expected = [quadrature_variance(problem, float(time), places) for time in times]
    assert laws.loose.noise_variance.flatten().numpy() == pytest.approx(np.array(expected), rel=1e-9)
    assert min(expected) > 1e-10
    assert not laws.exact.noise.any()
    totals = [float(problem.total(float(time), parameter)) for time in times]
    for law in (laws.exact, laws.loose):
        assert law.b.flatten().tolist() == pytest.approx(totals, rel=1e-14)
        assert law.G.flatten().numpy() == pytest.approx(trapezoid(places), rel=1e-14)
    on_cells = replace(chosen, on_cells=True).laws(times[:, None])
    # The cell sum of cell averages is the total up to rounding.
    assert float(on_cells.loose.noise_variance.max()) < 1e-28


def test_curves_are_those_of_every_function_and_time_by_itself() -> None:
    arrays = curves(case())
    times, places = STEFAN.final_time * np.arange(1, 5) / 4, np.linspace(0.0, 1.0, 41)
    weights, fields = trapezoid(places), [STEFAN.solution(t, torch.from_numpy(places), 0.6).numpy() for t in times]
    totals = np.array([float(STEFAN.total(t, 0.6)) for t in times])
    assert arrays["times"] == pytest.approx(times)
    assert arrays["law"] == pytest.approx(totals, rel=1e-12)
    assert arrays["truth"] == pytest.approx(np.array([weights @ field for field in fields]), rel=1e-12)
    for method in ("ANP", "HardC-ANP", "ProbConserv-ANP"):
        expected = np.empty((3, 5, 4))
        for function in range(5):
            for i, (time, field, total) in enumerate(zip(times, fields, totals, strict=True)):
                mean, variance = treated(method, *components(case(), function, time, places), weights, (total, 0.0))
                likelihood = log_likelihood(field, mean, variance)
                expected[:, function, i] = weights @ mean, ((field - mean) ** 2).mean(), likelihood
        for name, values in zip(("total", "MSE", "LL"), expected, strict=True):
            assert arrays[f"{method}|{name}"] == pytest.approx(values, rel=1e-9), (method, name)


def test_cell_averages_are_scored_against_cell_averages() -> None:
    """40 cells of [0, 1]: the true averages are differences of the antiderivative, and their sum is the total."""
    arrays = evaluate_on_cells(case())
    time, total = STEFAN.test_time, float(STEFAN.total(STEFAN.test_time, 0.6))
    held = STEFAN.antiderivative(time, torch.linspace(0.0, 1.0, 41, dtype=torch.float64), 0.6).numpy()
    centres, weights, truth = (np.arange(40) + 0.5) / 40, np.full(40, 1 / 40), np.diff(held) * 40
    for method in ("ANP", "ProbConserv-ANP"):
        for function in range(23):
            means, variances = components(case(), function, time, centres)
            mean, variance = treated(method, means, variances, weights, (total, 0.0))
            found = {name: arrays[f"{method} (cell averages)|{name}"][function] for name in ("CE", "MSE", "LL")}
            assert found["CE"] == pytest.approx(weights @ mean - total, rel=1e-9, abs=1e-14)
            assert found["MSE"] == pytest.approx(((truth - mean) ** 2).mean(), rel=1e-9)
            assert found["LL"] == pytest.approx(log_likelihood(truth, mean, variance), rel=1e-9)
    assert {name.split("|")[0] for name in arrays} == {"ANP (cell averages)", "ProbConserv-ANP (cell averages)"}


def test_local_laws_hold_what_every_control_volume_holds() -> None:
    arrays = local_conservation(case())
    faces = torch.linspace(0.0, 1.0, 21, dtype=torch.float64)
    held = np.diff(STEFAN.antiderivative(STEFAN.test_time, faces, 0.6).numpy())

    def contents(name: str) -> np.ndarray:
        """Trapezoid rule over the 20 volumes of two intervals each."""
        u = arrays[f"{name}|mean"]
        return (u[:-2:2] + 2 * u[1:-1:2] + u[2::2]) / 80

    assert contents("local law, 20 volumes") == pytest.approx(held, abs=1e-12)
    assert contents("ProbConserv-ANP, global law").sum() == pytest.approx(held.sum(), abs=1e-12)
    assert np.abs(contents("ProbConserv-ANP, global law") - held).max() > 1e-3
    assert abs(contents("ANP").sum() - held.sum()) > 1e-3
