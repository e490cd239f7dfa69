"""EmpiricalGP around what is observed: the formulas with every matrix formed, laws in the weights, the prior."""

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from probconserv import Bounded, Context, LinearConstraint, NonlinearLaw, NonNegative, Query, integral
from probconserv.errors import IncompatibleQueryError, InvalidArgumentError
from probconserv.surrogates.empirical import EmpiricalGP
from solvers import NodeGrid
from tests.oracles import condition_densely
from tests.probconserv.surrogates.test_empirical import (
    PLACES,
    TIMES,
    at_time,
    linearly,
    mean_crps,
    observed,
    together,
    waves,
)

double = torch.float64
LAW = integral(NodeGrid(0.0, 1.0, 11), 1.3)
NOISY = integral(NodeGrid(0.0, 1.0, 11), 1.3, noise_variance=0.02)


def at(functions, points):
    return np.stack([linearly(functions.numpy(), *point.tolist()) for point in points], axis=1)


def naive_weights(distance, effective):
    """v with 1/Σ v² = N; those of the largest that sum to all but 1e-3 are left, and sum to 1."""

    def weights(log_temper):
        v = np.exp(-0.5 * np.exp(log_temper) * (distance - distance.min()))
        return v / v.sum()

    v = weights(brentq(lambda t: 1 / (weights(t) ** 2).sum() - effective, -40, 20, xtol=1e-14))
    order = np.argsort(-v)
    order = order[: int((np.cumsum(v[order]) < 0.999).sum()) + 1]
    return order, v[order] / v[order].sum()


def naively(functions, context, query, effective, h, law=None):
    """Mean and covariance of the widened mixture (docstring of the module), with every matrix formed."""
    seen, asked, y = at(functions, context.points), at(functions, query.points), context.values.numpy()
    s, target, noise = seen, y, np.zeros(len(y))
    if law is not None:
        s, target = np.hstack([s, asked @ law.rows.numpy().T]), np.concatenate([y, law.b.numpy()])
        noise = np.concatenate([noise, law.noise.numpy()])
    near, v = naive_weights((((s - target) ** 2) / (s.var(axis=0, ddof=1) + noise)).sum(axis=1), effective)
    joint, n = np.hstack([seen, asked])[near], len(y)
    m = v @ joint
    number = 1 / (v**2).sum()
    covariance = (v[:, None] * (joint - m)).T @ (joint - m) / (1 - 1 / number)
    gram = h**2 * covariance
    s_matrix = gram[:n, :n] + np.diag(context.noise.numpy())
    gain = gram[n:, :n] @ np.linalg.inv(s_matrix)
    x = m + np.sqrt(1 - h**2) * (joint - m)
    residual = y - x[:, :n]
    w = v * np.exp(-0.5 * np.einsum("ij,jk,ik->i", residual, np.linalg.inv(s_matrix), residual))
    w /= w.sum()
    centres = x[:, n:] + residual @ gain.T
    mean = w @ centres
    spread = gram[n:, n:] - gain @ gram[:n, n:] + (w[:, None] * (centres - mean)).T @ (centres - mean)
    misfit = (y - m[:n]) @ np.linalg.solve(s_matrix, y - m[:n])
    left = max(number - 1 - np.trace(np.linalg.solve(s_matrix, gram[:n, :n])), 0.2 * number)
    return mean, (1 + 1 / number + misfit / (number - 1)) * (number - 1) / left * spread


@pytest.mark.parametrize("h", [0.5, 1.0])
@pytest.mark.parametrize("law", [None, LAW, NOISY])
@pytest.mark.parametrize("effective", [8.0, 20.0])
def test_it_is_the_weighted_mixture_with_every_matrix_formed(effective, law, h):
    functions, truth = waves(60), waves(1, seed=1)[0]
    context, query = observed(truth, 4), at_time(0.3, 11)
    mean, covariance = naively(functions, context, query, effective, h, law)
    for mixture in (True, False):
        process = EmpiricalGP(functions, (TIMES, PLACES), h, effective=effective, mixture=mixture)
        found = process.weighted(context, query, law)
        assert np.allclose(found.mean, mean, atol=1e-8)
        assert np.allclose(found.variance, np.diag(covariance), atol=1e-8)
    assert np.allclose(found.covariance_matrix, covariance, atol=1e-8)
    if law is not None:  # each row is counted once, with its variance
        given = law.rows.numpy(), law.b.numpy(), law.noise.numpy()
        mean, covariance = condition_densely(mean, covariance, *given)
        found = process.predict(context, query, law)
        assert np.allclose(found.mean, mean, atol=1e-8)
        assert np.allclose(found.covariance_matrix, covariance, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, double])
@pytest.mark.parametrize("mixture", [True, False])
@pytest.mark.parametrize("effective", [None, 15])
@pytest.mark.parametrize("batch", [(), (1,), (2, 1)])
def test_a_prediction_meets_the_law_that_it_is_given(batch, effective, mixture, dtype):
    """To the rounding of the context's precision; bounds to the last digit, alone, too."""
    seen, query = observed(waves(1, seed=3)[0], 4), at_time(0.3, 11)
    context = Context(
        seen.points.to(dtype).expand(*batch, -1, -1), seen.values.to(dtype).expand(*batch, -1), noise_variance=1e-4
    )
    points = Query(query.points.expand(*batch, -1, -1))
    process = EmpiricalGP(waves(60), (TIMES, PLACES), 0.5, effective=effective, mixture=mixture)
    bounds = Bounded(0.5, 2.0)
    eps = 11 * 10 * torch.finfo(dtype).eps
    for law in (LAW, LAW & bounds, bounds):
        found = process.predict(context, points, law)
        draws = found.sample((7,), generator=torch.Generator().manual_seed(0))
        assert found.mean.shape == (*batch, 11)
        assert found.mean.dtype == dtype
        for fields in (found.mean, draws):
            if law is not bounds:
                assert float(LAW.residual(fields).abs().max()) < eps
            if law is not LAW:
                assert float(fields.min()) >= 0.5 - eps
                assert float(fields.max()) <= 2.0 + eps


@pytest.mark.parametrize("effective", [None, 15])
def test_a_law_without_weight_changes_nothing(effective):
    """A total that is far off, of so large a variance that it says nothing: d² / σ² = 1e-10 of all distances."""
    context, query = observed(waves(1, seed=1)[0], 4), at_time(0.3, 11)
    process = EmpiricalGP(waves(60), (TIMES, PLACES), 0.5, effective=effective)
    without = process.predict(context, query)
    off = integral(NodeGrid(0.0, 1.0, 11), 4.0, noise_variance=1e12)
    found = process.predict(context, query, off)
    assert torch.allclose(found.mean, without.mean, rtol=1e-8)
    assert torch.allclose(found.variance, without.variance, rtol=1e-8)


def test_nonlinear_laws_are_refused():
    process, context, query = EmpiricalGP(waves(8), (TIMES, PLACES)), observed(waves(1)[0], 2), at_time(0.3, 11)
    law = NonlinearLaw(residual_function=lambda u: u.square().mean(dim=-1, keepdim=True) - 1.0, points=11)
    for stated in (law, law & NonNegative()):
        with pytest.raises(InvalidArgumentError, match="got a NonlinearLaw; predict without it, with mixture=False"):
            process.predict(context, query, law=stated)
    with pytest.raises(InvalidArgumentError, match="constraint must be a LinearConstraint, an inequality"):
        process.predict(context, query, law=1.3)


def test_as_many_effective_functions_as_there_are_are_all_of_them_alike():
    functions = waves(40)
    context, query = observed(waves(1, seed=1)[0], 5), at_time(0.3)
    every = EmpiricalGP(functions, (TIMES, PLACES), 0.5).predict(context, query)
    for effective in (40, 1000):
        found = EmpiricalGP(functions, (TIMES, PLACES), 0.5, effective=effective).predict(context, query, law=None)
        assert torch.equal(found.mean, every.mean)
        assert torch.equal(found.variance, every.variance)


@pytest.mark.parametrize("effective", [None, 10])
def test_without_observations_it_is_the_prior(effective):
    functions, query = waves(40), at_time(0.3)
    prior = EmpiricalGP(functions, (TIMES, PLACES), 1.0, effective=effective, mixture=False).predict(None, query)
    fields = torch.as_tensor(at(functions, query.points))
    assert torch.allclose(prior.mean, fields.mean(dim=0), atol=1e-12)
    assert torch.allclose(prior.covariance_matrix, fields.mT.cov(), atol=1e-10)
    mixture = EmpiricalGP(functions, (TIMES, PLACES), 0.5, effective=effective).predict(None, query)
    assert torch.allclose(mixture.mean, fields.mean(dim=0), atol=1e-12)
    batch = Query(query.points.expand(3, -1, -1))
    assert EmpiricalGP(functions, (TIMES, PLACES), 0.5).predict(None, batch).mean.shape == (3, 7)


def test_a_law_alone_weighs_the_functions_and_is_met():
    functions, query = waves(200), at_time(0.2, 11)
    totals = torch.trapezoid(functions[:, 1], PLACES)
    high = integral(NodeGrid(0.0, 1.0, 11), totals.max())
    process = EmpiricalGP(functions, (TIMES, PLACES), 1.0, effective=20, mixture=False)
    prior, near = process.predict(None, query), process.weighted(None, query, high & NonNegative())
    assert float(high.residual(near.mean).abs()) < 0.5 * float(high.residual(prior.mean).abs())
    assert float(high.residual(process.predict(None, query, high).mean).abs()) < 1e-12


@pytest.mark.parametrize("laws", [True, False])
def test_every_query_of_a_batch_has_its_own_neighbourhood_and_law(laws):
    """Neighbourhoods differ in size; at more points than functions their number is the rank of the covariance."""
    functions, truths = waves(50), waves(4, seed=2)
    contexts, context = together(truths, 4)
    query = at_time(0.2, 11 if laws else 61)
    rows = torch.rand(4, 2, 11, dtype=double, generator=torch.Generator().manual_seed(0))
    totals = (rows @ truths[:, 1, :, None])[..., 0]

    def law(entries):
        return LinearConstraint(rows[entries], totals[entries]) if laws else None

    process = EmpiricalGP(functions, (TIMES, PLACES), 0.6, effective=12)
    found = process.predict(context, Query(query.points.expand(4, -1, -1)), law=law(slice(None)))
    for entry, each in enumerate(contexts):
        alone = process.predict(each, query, law=law(entry))
        assert torch.allclose(found.mean[entry], alone.mean, atol=1e-10)
        assert torch.allclose(found.variance[entry], alone.variance, atol=1e-10)


def test_values_at_which_no_two_functions_differ_carry_no_weight():
    functions = waves(40)
    functions[:, :, 0] = 0.0
    context, query = observed(waves(1, seed=1)[0], 4), at_time(0.3)
    wall = torch.tensor([[0.2, 0.0]], dtype=double)
    more = Context(
        torch.cat([context.points, wall]),
        torch.cat([context.values, torch.zeros(1, dtype=double)]),
        noise_variance=torch.cat([context.noise, torch.full((1,), 1e-6, dtype=double)]),
    )
    process = EmpiricalGP(functions, (TIMES, PLACES), 0.6, effective=10)
    assert torch.allclose(process.predict(more, query).mean, process.predict(context, query).mean, atol=1e-10)
    nowhere = LinearConstraint(torch.eye(7, dtype=double)[:1], torch.zeros(1))
    assert torch.allclose(
        process.predict(context, query, law=nowhere).mean, process.predict(context, query).mean, atol=1e-10
    )


def test_fit_takes_the_pair_of_the_smallest_error(tmp_path):
    functions, truths = waves(60), waves(12, seed=5)
    _, context = together(truths, 6)
    query, values = Query(at_time(0.4, 11).points.expand(12, -1, -1)), truths[:, 2]
    law = integral(NodeGrid(0.0, 1.0, 11), torch.trapezoid(values, PLACES))
    errors = {}
    for effective in (None, 10, 30):
        for bandwidth in (0.4, 0.8):
            process = EmpiricalGP(functions, (TIMES, PLACES), bandwidth, effective=effective)
            process.fit(validation=(context, query, values), bandwidths=(bandwidth,), effective=(effective,), law=law)
            prediction = process.weighted(context, query, law)
            errors[effective, bandwidth] = mean_crps(values, prediction.mean, prediction.variance)
    validation = (context, query, values)
    process.fit(validation=validation, bandwidths=(0.4, 0.8), effective=(None, 10, 30), law=law)
    assert (process.effective, process.bandwidth) == min(errors, key=errors.__getitem__)
    process.effective = 10
    process.save(tmp_path / "process.safetensors")
    assert EmpiricalGP.load(tmp_path / "process.safetensors").effective == 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"effective": 1}, "effective must be at least 2 functions, or None for all, got 1"),
        ({"effective": float("nan")}, "got nan"),
        ({"effective": 10, "rank": 3}, "give rank or effective, not both"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(change, message):
    with pytest.raises(InvalidArgumentError, match=message):
        EmpiricalGP(waves(4), (TIMES, PLACES), **change)


def test_laws_that_do_not_fit_are_refused():
    process, context, query = EmpiricalGP(waves(8), (TIMES, PLACES)), observed(waves(1)[0], 2), at_time(0.3, 9)
    with pytest.raises(IncompatibleQueryError, match="law acts on 11 points, but the query has 9"):
        process.predict(context, query, law=LAW)
    several = LinearConstraint(torch.ones(1, 9), torch.zeros(4, 1))
    with pytest.raises(IncompatibleQueryError, match=r"batch of the law, \(4,\), is not that of the query, \(\)"):
        process.predict(context, query, law=several)
