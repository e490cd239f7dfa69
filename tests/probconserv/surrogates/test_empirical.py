"""EmpiricalGP: the formulas with every matrix formed, limits of the bandwidth, points in any axes, files, messages."""

import math

import numpy as np
import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from torch import Tensor

from probconserv import Context, Mixture, NonNegative, Query, condition, integral
from probconserv.errors import DependentConstraintsError, IncompatibleQueryError, InvalidArgumentError
from probconserv.surrogates.empirical import EmpiricalGP
from solvers import NodeGrid
from tests.oracles import condition_densely

double = torch.float64
EPS = torch.finfo(double).eps
TIMES, PLACES = torch.tensor([0.1, 0.2, 0.4, 0.5], dtype=double), torch.linspace(0, 1, 11, dtype=double)


def waves(count: int, seed: int = 0) -> Tensor:
    """Functions (count, times, places) of many parameters."""
    generator = torch.Generator().manual_seed(seed)
    amplitude = torch.randn(count, 1, 1, 6, dtype=double, generator=generator)
    phase = torch.rand(count, 1, 1, 6, dtype=double, generator=generator)
    frequency = torch.arange(1, 7, dtype=double)
    argument = frequency * PLACES[:, None] + phase + TIMES[:, None, None]
    return 1 + (amplitude / frequency * torch.sin(math.pi * argument)).sum(dim=-1)


def linearly(functions: np.ndarray, t: float, x: float) -> np.ndarray:
    """The functions at one point, by two interpolations along one axis each."""
    at_time = [
        np.interp(t, TIMES.numpy(), functions[:, :, j].T[:, i]) for i in range(len(functions)) for j in range(11)
    ]
    rows = np.array(at_time).reshape(len(functions), 11)
    return np.array([np.interp(x, PLACES.numpy(), row) for row in rows])


def naively(functions, context, query, bandwidth):
    """Weights, centres and covariance of the mixture (module docstring), with every matrix formed."""
    at = [
        np.stack([linearly(functions.numpy(), *point.tolist()) for point in part], axis=1)
        for part in (context.points, query.points)
    ]
    seen, asked = at
    joint = np.hstack([seen, asked])
    mean, covariance = joint.mean(axis=0), np.cov(joint.T)
    n = seen.shape[1]
    centres, weights = [], []
    rows = np.eye(joint.shape[1])[:n]
    noise = context.noise.numpy()
    spread = rows @ (bandwidth**2 * covariance) @ rows.T + np.diag(noise)
    for function in joint:
        centre = mean + np.sqrt(1 - bandwidth**2) * (function - mean)
        updated, posterior = condition_densely(centre, bandwidth**2 * covariance, rows, context.values.numpy(), noise)
        residual = context.values.numpy() - centre[:n]
        weights.append(-0.5 * residual @ np.linalg.solve(spread, residual))
        centres.append(updated[n:])
    weights = np.exp(np.array(weights) - max(weights))
    return weights / weights.sum(), np.array(centres), posterior[n:, n:]


def observed(function: Tensor, count: int, seed: int = 0, noise: bool = True) -> Context:
    """Observations at random points between those of the functions, each with a variance of its own."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(count, 2, dtype=double, generator=generator)
    points[:, 0] = 0.1 + 0.4 * points[:, 0]
    values = torch.stack([torch.as_tensor(linearly(function[None].numpy(), *point.tolist()))[0] for point in points])
    variance = 0.01 + 0.05 * torch.rand(count, dtype=double, generator=generator)
    return Context(points, values, noise_variance=variance if noise else None)


def together(truths: Tensor, count: int) -> tuple[list[Context], Context]:
    """Observations of every function, and the same as one batch."""
    contexts = [observed(truth, count, seed) for seed, truth in enumerate(truths)]
    points, values, noise = (
        torch.stack([getattr(each, name) for each in contexts]) for name in ("points", "values", "noise")
    )
    return contexts, Context(points, values, noise_variance=noise)


def mean_crps(truth: Tensor, mean: Tensor, variance: Tensor) -> float:
    """The mean score of Gaussians, written out."""
    normal, deviation = torch.distributions.Normal(0.0, 1.0), variance.sqrt()
    z = (truth - mean) / deviation
    return float((deviation * (z * (2 * normal.cdf(z) - 1) + 2 * normal.log_prob(z).exp() - math.pi**-0.5)).mean())


def at_time(time: float, count: int = 7) -> Query:
    x = torch.linspace(0, 1, count, dtype=double)
    return Query(torch.stack([torch.full_like(x, time), x], dim=-1))


@pytest.mark.parametrize("bandwidth", [0.2, 0.6, 1.0])
@pytest.mark.parametrize("count", [8, 40], ids=["fewer functions than points", "more"])
def test_equal_to_the_formulas_with_every_matrix_formed(bandwidth, count):
    functions, truth = waves(count), waves(1, seed=1)[0]
    context, query = observed(truth, 5), at_time(0.3)
    weights, centres, covariance = naively(functions, context, query, bandwidth)
    mean = weights @ centres
    spread = covariance + (weights[:, None] * (centres - mean)).T @ (centres - mean)
    process = EmpiricalGP(functions, (TIMES, PLACES), bandwidth)
    mixture = process.predict(context, query)
    assert isinstance(mixture, Mixture)
    order = np.argsort(-weights)[: len(mixture.weights)]
    if bandwidth < 1:
        assert np.allclose(mixture.weights, weights[order], atol=1e-8)
        assert np.allclose(mixture.components.mean, centres[order], atol=1e-8)
    else:
        assert len(mixture.weights) == 1
    assert np.allclose(mixture.components.covariance_matrix[0], covariance, atol=1e-8)
    assert np.allclose(mixture.mean, mean, atol=1e-8)
    assert np.allclose(mixture.variance, np.diag(spread), atol=1e-8)
    gaussian = EmpiricalGP(functions, (TIMES, PLACES), bandwidth, mixture=False).predict(context, query)
    assert isinstance(gaussian, MultivariateNormal)
    assert np.allclose(gaussian.mean, mean, atol=1e-8)
    assert np.allclose(gaussian.covariance_matrix, spread, atol=1e-8)


def test_a_law_is_one_more_observation_or_conditions_the_result():
    """Of every component the law's row may be observed first or last."""
    functions, truth = waves(30), waves(1, seed=1)[0]
    context, query = observed(truth, 4), at_time(0.2, 11)
    mixture = EmpiricalGP(functions, (TIMES, PLACES), 0.5).predict(context, query)
    law = integral(NodeGrid(0.0, 1.0, 11), torch.trapezoid(truth[1], PLACES))
    after = condition(mixture, law)
    weights, centres, covariance = naively(functions, context, query, 0.5)
    row = law.rows.numpy()
    totals, variance = (centres @ row.T)[:, 0], (row @ covariance @ row.T).item()
    density = weights * np.exp(-0.5 * (float(law.b) - totals) ** 2 / variance)
    expected = centres + np.outer(float(law.b) - totals, covariance @ row[0] / variance)
    assert np.allclose(after.mean, density @ expected / density.sum(), atol=1e-7)
    assert float(law.residual(after.mean).abs().max()) < 1e-12
    draws = after.sample(torch.Size([50]))
    assert float(law.residual(draws).abs().max()) < 1e-10
    positive = condition(
        EmpiricalGP(functions, (TIMES, PLACES), mixture=False).predict(context, query), law & NonNegative()
    )
    assert float(positive.mode.min()) >= 0


def test_without_bandwidth_it_is_a_search_and_keeps_mean_and_covariance_for_every_one():
    functions = waves(30)
    context, query = observed(functions[3], 6), at_time(0.4)
    found = EmpiricalGP(functions, (TIMES, PLACES), 1e-5).predict(context, query)
    misfit = torch.stack(
        [
            sum(
                (context.values[j] - linearly(functions[[i]].numpy(), *context.points[j].tolist())[0]) ** 2
                / context.noise[j]
                for j in range(6)
            )
            for i in range(30)
        ]
    )
    weights = torch.softmax(-0.5 * misfit, dim=0)
    fields = torch.as_tensor(np.stack([linearly(functions.numpy(), 0.4, x) for x in np.linspace(0, 1, 7)], axis=1))
    assert torch.allclose(found.mean, weights @ fields, atol=1e-4)
    vague = Context(context.points, context.values, noise_variance=1e12)
    for bandwidth in (0.3, 0.7, 1.0):
        prior = EmpiricalGP(functions, (TIMES, PLACES), bandwidth, mixture=False).predict(vague, query)
        assert torch.allclose(prior.mean, fields.mean(dim=0), atol=1e-6)
        # the mixture divides by F, the covariance by F − 1
        share = bandwidth**2 + (1 - bandwidth**2) * 29 / 30
        assert torch.allclose(prior.covariance_matrix, share * fields.mT.cov(), rtol=1e-6, atol=1e-8)


def test_batches_are_predicted_one_by_one():
    functions, truths = waves(25), waves(3, seed=2)
    contexts, context = together(truths, 4)
    for times in ((0.3, 0.3, 0.3), (0.1, 0.25, 0.5)):  # shared and different query points
        queries = [at_time(time) for time in times]
        process = EmpiricalGP(functions, (TIMES, PLACES), 0.4)
        found = process.predict(context, Query(torch.stack([query.points for query in queries])))
        assert found.batch_shape == (3,)
        for entry in range(3):
            alone = process.predict(contexts[entry], queries[entry])
            assert torch.allclose(found.mean[entry], alone.mean, atol=1e-8)
            assert torch.allclose(found.variance[entry], alone.variance, atol=1e-8)
            covariance = found.components.lazy_covariance_matrix.to_dense()[0, entry]
            assert torch.allclose(covariance, alone.components.covariance_matrix[0], atol=1e-8)


def test_a_rank_keeps_every_variance_and_a_full_one_everything():
    functions, truth = waves(40), waves(1, seed=1)[0]
    context, query = observed(truth, 5), at_time(0.3)
    exact = EmpiricalGP(functions, (TIMES, PLACES)).predict(context, query)
    full = EmpiricalGP(functions, (TIMES, PLACES), rank=39).predict(context, query)
    assert torch.allclose(full.mean, exact.mean, atol=1e-8)
    assert torch.allclose(full.variance, exact.variance, atol=1e-8)
    vague = Context(context.points, context.values, noise_variance=1e12)
    few = EmpiricalGP(functions, (TIMES, PLACES), 1.0, rank=3).predict(vague, query)
    fields = np.stack([linearly(functions.numpy(), 0.3, x) for x in np.linspace(0, 1, 7)], axis=1)
    assert np.allclose(few.variance, fields.var(axis=0, ddof=1), rtol=1e-8)
    assert few.components.lazy_covariance_matrix.linear_ops[0].root.shape[-1] == 3


def test_what_a_rank_leaves_out_counts_as_independent():
    """One component, a Gaussian: C is bᵀb + D at observed and wanted points, with b the leading eigenvector of C."""
    functions, truth = waves(40), waves(1, seed=1)[0]
    context, query = observed(truth, 5), at_time(0.3)
    found = EmpiricalGP(functions, (TIMES, PLACES), 1.0, rank=1).predict(context, query)
    flat = functions.flatten(1).numpy()
    values, vectors = np.linalg.eigh(np.cov(flat.T))
    leading = (np.sqrt(values[-1]) * vectors[:, -1]).reshape(1, 4, 11)
    points = torch.cat([context.points, query.points])
    b = np.array([linearly(leading, *point.tolist())[0] for point in points])
    joint = np.stack([linearly(functions.numpy(), *point.tolist()) for point in points], axis=1)
    covariance = np.outer(b, b)
    covariance += np.diag(joint.var(axis=0, ddof=1) - b**2)
    rows = np.eye(len(points))[:5]
    mean, posterior = condition_densely(
        joint.mean(axis=0), covariance, rows, context.values.numpy(), context.noise.numpy()
    )
    assert np.allclose(found.mean, mean[5:], atol=1e-6)
    assert np.allclose(found.components.covariance_matrix[0], posterior[5:, 5:], atol=1e-6)


def test_two_axes_and_time():
    """Linear fields on the unit square at two times."""
    generator = torch.Generator().manual_seed(0)
    axis = torch.linspace(0, 1, 6, dtype=double)
    times = torch.tensor([0.0, 1.0], dtype=double)
    t, x, y = torch.meshgrid(times, axis, axis, indexing="ij")
    slope = torch.randn(20, 4, 1, 1, 1, dtype=double, generator=generator)
    functions = slope[:, 0] + slope[:, 1] * x + slope[:, 2] * y + slope[:, 3] * t
    points = torch.rand(6, 3, dtype=double, generator=generator)
    truth = (points @ torch.tensor([0.3, 1.0, -2.0], dtype=double)) + 0.5
    context = Context(points, truth, noise_variance=1e-6)
    query = Query(torch.rand(9, 3, dtype=double, generator=generator))
    grid = EmpiricalGP(functions, (times, axis, axis), 1.0).predict(context, query)
    wanted = query.points @ torch.tensor([0.3, 1.0, -2.0], dtype=double) + 0.5
    assert torch.allclose(grid.mean, wanted, atol=1e-3)
    one = EmpiricalGP(functions[:, 0, :, 0], (axis,)).predict(Context(axis[:1, None], truth[:1]), Query(axis[:, None]))
    assert float((one.mean[0] - truth[0]).abs()) < 1e-10
    assert float(one.variance[0]) < 1e-14  # of 1


def test_the_bandwidth_of_the_smallest_error_is_taken():
    functions, truths = waves(60), waves(12, seed=5)
    _, context = together(truths, 6)
    query = Query(at_time(0.4, 11).points.expand(12, -1, -1))
    process = EmpiricalGP(functions, (TIMES, PLACES), 0.1)
    process.fit(validation=(context, query, truths[:, 2]), bandwidths=(0.3,))
    assert process.bandwidth == 0.3
    assert process.fit(validation=(context, query, truths[:, 2])) is process
    errors = {}
    for bandwidth in (0.1, 0.3, 0.5, 0.7, 0.8, 1.0):
        prediction = EmpiricalGP(functions, (TIMES, PLACES), bandwidth).predict(context, query)
        errors[bandwidth] = mean_crps(truths[:, 2], prediction.mean, prediction.variance)
    process.fit(validation=(context, query, truths[:, 2]), bandwidths=tuple(errors))
    assert process.bandwidth == min(errors, key=errors.__getitem__)
    assert process.bandwidth > 0.1


def test_saved_and_loaded(tmp_path):
    functions, query = waves(20), at_time(0.3)
    context = observed(waves(1, seed=1)[0], 4)
    process = EmpiricalGP(functions, (TIMES, PLACES), 0.5, rank=6, mixture=False, problem="waves")
    process.save(tmp_path / "process.safetensors", remark="a note")
    loaded = EmpiricalGP.load(tmp_path / "process.safetensors")
    assert (loaded.bandwidth, loaded.rank, loaded.mixture, loaded.problem) == (0.5, 6, False, "waves")
    first, second = (each.predict(context, query) for each in (process, loaded))
    assert torch.equal(first.mean, second.mean)
    assert torch.equal(first.covariance_matrix, second.covariance_matrix)


def test_single_precision_functions_and_observations():
    functions, query, context = waves(30), at_time(0.3), observed(waves(1, seed=1)[0], 4)
    exact = EmpiricalGP(functions, (TIMES, PLACES)).predict(context, query)
    single = Context(context.points.float(), context.values.float(), noise_variance=context.noise.float())
    found = EmpiricalGP(functions.float(), (TIMES, PLACES)).predict(single, query)
    assert found.mean.dtype == torch.float32
    assert torch.allclose(found.mean.double(), exact.mean, atol=1e-4)


@pytest.mark.parametrize("mixture", [True, False])
@pytest.mark.parametrize("bandwidth", [0.5, 1.0])
@pytest.mark.parametrize("shift", [0.0, 300.0])
@pytest.mark.parametrize("count", [6, 40], ids=["fewer functions than points", "more"])
def test_what_exact_observations_determine_is_certain(mixture, bandwidth, shift, count):
    """All functions are combinations of the first five deviations, of which five observations leave nothing."""
    functions, query = waves(6), at_time(0.3)
    functions = torch.cat([functions, functions.mean(dim=0) + torch.einsum("ij,jkl->ikl", mixes(count - 6), functions)])
    functions = shift + functions
    seen = observed(functions[0], 5, noise=False)
    process = EmpiricalGP(functions, (TIMES, PLACES), bandwidth, mixture=mixture)
    found = process.predict(seen, query)
    gaussian = found.components if mixture else found
    assert float(gaussian.variance.max()) == 0.0
    law = integral(NodeGrid(0.0, 1.0, 7), float(torch.trapezoid(found.mean, query.points[:, 1])) + 1.0)
    with pytest.raises(DependentConstraintsError):
        condition(found, law)
    at_one = process.predict(observed(functions[0], 4, noise=False), Query(seen.points[:4]))
    gaussian = at_one.components if mixture else at_one
    assert float(gaussian.variance.max()) == 0.0


def mixes(count: int) -> Tensor:
    """Coefficients (count, 6) whose sum is zero."""
    coefficients = torch.randn(count, 6, dtype=double, generator=torch.Generator().manual_seed(0))
    return coefficients - coefficients.mean(dim=1, keepdim=True)


def test_small_errors_of_observations_are_variances_there():
    functions, seen = waves(40), observed(waves(1, seed=1)[0], 4)
    for noise in (1e-2, 1e-6, 1e-10, 1e-14):
        context = Context(seen.points, seen.values, noise_variance=noise)
        found = EmpiricalGP(functions, (TIMES, PLACES), 1.0, mixture=False).predict(context, Query(seen.points))
        prior = EmpiricalGP(functions, (TIMES, PLACES), 1.0, mixture=False).predict(None, Query(seen.points))
        gram = prior.covariance_matrix
        expected = noise * torch.linalg.solve(gram + noise * torch.eye(4, dtype=double), gram)
        # P is formed of a root √noise, rounded in units of the prior's root times the condition of four observations.
        condition_number = float(torch.linalg.cond(gram))
        most = 4 * 4 * EPS * (condition_number + math.sqrt(condition_number * float(gram.max()) / noise))
        assert torch.allclose(found.covariance_matrix, expected, rtol=0, atol=most * noise)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"rank": 4}, {"effective": 10.0}])
def test_functions_in_half_precision_are_right_to_it(dtype, options):
    functions, query, context = waves(30), at_time(0.3), observed(waves(1, seed=1)[0], 4)
    exact = EmpiricalGP(functions.to(dtype).double(), (TIMES, PLACES), **options).predict(context, query)
    found = EmpiricalGP(functions.to(dtype), (TIMES, PLACES), **options).predict(context, query)
    assert torch.allclose(found.mean, exact.mean, atol=1e-5)
    assert torch.allclose(found.variance, exact.variance, atol=1e-5)


def test_more_observations_than_functions_need_a_variance():
    functions, query = waves(5), at_time(0.3)
    context = observed(waves(1, seed=1)[0], 8)
    assert EmpiricalGP(functions, (TIMES, PLACES)).predict(context, query).mean.shape == (7,)
    exact = Context(context.points, context.values)
    with pytest.raises(
        InvalidArgumentError, match="8 observations of a function determine each other among the 5 func"
    ):
        EmpiricalGP(functions, (TIMES, PLACES)).predict(exact, query)
    flat = functions.clone()
    flat[:, :, 0] = 0.0
    at_wall = Context(torch.tensor([[0.2, 0.0]], dtype=double), torch.ones(1, dtype=double))
    with pytest.raises(InvalidArgumentError, match="where no function varies"):
        EmpiricalGP(flat, (TIMES, PLACES)).predict(at_wall, query)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"functions": waves(1)}, r"at least two functions .*, got \(1, "),
        ({"functions": torch.tensor(1.0)}, r"at least two functions .*, got \(\)"),
        ({"functions": torch.rand(4), "axes": ()}, "at least two functions"),
        ({"functions": torch.ones(4, 4, 11)}, "All functions are the same"),
        ({"functions": waves(4).index_fill(0, torch.tensor([1]), math.nan)}, "functions hold 44 NaN"),
        ({"functions": waves(4)[:, :3]}, r"axis of a field \(3, 11\) and as long, got \[\(4,\), \(11,\)\]"),
        ({"axes": (TIMES, PLACES.flip(0))}, "axes must be increasing coordinates"),
        ({"bandwidth": 0.0}, "bandwidth must lie above 0 and not above 1, got 0.0"),
        ({"bandwidth": 1.5}, "got 1.5"),
        ({"rank": 0}, "rank must be at least 1"),
    ],
)
def test_messages_of_the_constructor(change, message):
    arguments = {"functions": waves(4), "axes": (TIMES, PLACES)} | change
    with pytest.raises(InvalidArgumentError, match=message):
        EmpiricalGP(**arguments)


def test_messages_of_a_prediction():
    process, context = EmpiricalGP(waves(8), (TIMES, PLACES), problem="waves"), observed(waves(1)[0], 2)
    with pytest.raises(IncompatibleQueryError, match=r"Coordinate 0 .* between 0.9 and 0.9.*from 0.1 to 0.5"):
        process.predict(context, at_time(0.9))
    with pytest.raises(IncompatibleQueryError, match="of problem 'waves', but the context of 'heat'"):
        process.predict(Context(context.points, context.values, "heat", context.noise), at_time(0.3))
    line = Context(PLACES[:2, None], PLACES[:2])
    with pytest.raises(IncompatibleQueryError, match=r"the d = 2 coordinates of the grid, got \(11, 1\)"):
        process.predict(line, Query(PLACES[:, None]))
    with pytest.raises(InvalidArgumentError, match="values must be finite and one per query point"):
        process.fit(validation=(context, at_time(0.3), torch.ones(3)))
    with pytest.raises(InvalidArgumentError, match="got 2"):
        process.fit(validation=(context, at_time(0.3), torch.ones(7)), bandwidths=(2,))
