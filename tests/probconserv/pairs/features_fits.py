"""Features that fit something to cases, and scores."""

import math
from collections.abc import Callable
from typing import Any

import torch
from scipy import stats
from torch import Tensor
from torch.distributions import Normal

from probconserv import LinearConstraint, Mixture, fit_band, fit_covariance, fit_law, from_samples, integral, scores
from probconserv.calibration import displaced, scaled
from probconserv.calibration.marginals import (
    calibration_error,
    cumulative_probability,
    marginal_crps,
    marginal_log_likelihood,
)
from probconserv.calibration.variance import standardised_squares, variance_factor
from probconserv.constraints import quadrature_variance
from tests.probconserv.pairs.changes import Answer, Given, Quantity
from tests.probconserv.pairs.features_update import N, dense, mixture, normal
from tests.probconserv.pairs.kinds import Feature

ONES = torch.ones(1, N, dtype=torch.float64) / N


def law_of_cases(given: Given) -> Any:
    """A mean that holds but for noise, from observed fields."""
    fields = given.uniform("observations", given.cases, N, batch=False)
    stated = given.normal("right-hand sides", given.cases, 1, batch=False, says="b of the constraint")
    law = LinearConstraint(ONES, stated)
    return fit_law(law, fields + stated, offset=given.option("offset", True, False))


def corrected(made: Any, given: Given) -> Answer:
    law = made.corrected(LinearConstraint(ONES, given.uniform("b of the constraint", 1)))
    return {
        "b": Quantity(law.b),
        "noise": Quantity(law.noise, 2),
        "slope": Quantity(made.slope, 0, lead=None),
        "offset": Quantity(made.offset, 1, lead=None),
    }


def asked_coverage(_: Any, given: Given) -> Answer:
    """How many of two thousand new cases lie in the 90 % intervals of laws, each fitted to other past cases."""
    rows, seed = 2000, torch.Generator().manual_seed(given.cases)
    stated, errors = torch.randn(2, given.cases + 1, rows, dtype=torch.float64, generator=seed) * given.scale()
    G = torch.eye(rows, dtype=torch.float64).to_sparse()
    law = fit_law(LinearConstraint(G, stated[:-1]), (stated + errors)[:-1]).corrected(LinearConstraint(G, stated[-1]))
    inside = (stated[-1] + errors[-1] - law.b).abs() <= stats.norm.ppf(0.95) * law.noise.sqrt()
    return {"coverage": Quantity(inside.double().mean(), 0, lead=None)}


def covariance(given: Given) -> Any:
    return fit_covariance(
        given.normal("residuals", N, lead=(given.cases,)), shrinkage=given.option("shrinkage", None, 0.7)
    )


def around(made: Any, given: Given) -> Answer:
    found = made.around(given.uniform("mean", N))
    return {
        "covariance": Quantity(found.lazy_covariance_matrix.to_dense(), 2),
        "shrinkage": Quantity(made.shrinkage, 0),
        "mean": Quantity(found.mean),
    }


def sample_covariance(given: Given) -> Answer:
    """Off the diagonal 1 − λ of the sample's covariance; unbiased on it."""
    residuals = given.normal("residuals", N, lead=(given.cases,))
    made = fit_covariance(residuals)
    S, weight = torch.cov(residuals.mT), float(made.shrinkage)
    return {
        "covariance": Quantity((1 - weight) * S + weight * S.diag().diag(), 2),
        "shrinkage": Quantity(made.shrinkage, 0),
        "mean": Quantity(given.uniform("mean", N)),
    }


def band_of(kind: str) -> Callable[[Given], Any]:
    def band(given: Given) -> Any:
        mean, deviation = prediction_of_cases(given)
        values = given.normal("values", given.cases, N, batch=False)
        level = given.option("level", 0.7, 0.6)
        return fit_band(Normal(mean, deviation, validate_args=False), values, level=level, kind=kind)  # type: ignore[arg-type]

    return band


def prediction_of_cases(given: Given) -> tuple[Tensor, Tensor]:
    mean = given.normal("mean of the functions", given.cases, N, batch=False)
    return mean, given.uniform("deviation of the functions", given.cases, N, batch=False)


def ends(made: Any, given: Given) -> Answer:
    lower, upper = made.ends(normal(given))
    return {
        "lower": Quantity(lower),
        "upper": Quantity(upper),
        "factor": Quantity(torch.tensor(made.factor, dtype=torch.float64), 0, lead=None),
    }


def by_rank(kind: str) -> Callable[[Given], Answer]:
    """The factor is the ⌈(m + 1) level⌉-th smallest score of m fields, of each value with "pointwise"."""

    def band(given: Given) -> Answer:
        mean, deviation = prediction_of_cases(given)
        ratios = (given.normal("values", given.cases, N, batch=False) - mean).abs() / deviation
        ratios, each = (ratios.amax(dim=1), 1) if kind == "field" else (ratios.flatten(), N)
        rank = math.ceil((given.cases + 1) * 0.7 * each - 1e-9)
        factor = ratios.sort().values[rank - 1]
        prior = normal(given)
        width = factor * prior.stddev
        found = {"lower": prior.mean - width, "upper": prior.mean + width}
        return {name: Quantity(end) for name, end in found.items()} | {"factor": Quantity(factor, 0, lead=None)}

    return band


def asked_rule(_: Any, given: Given) -> Answer:
    fields = given.uniform("fields", given.cases, N, batch=False)
    total = given.uniform("total", given.cases, batch=False, length=1, says="b of the constraint")
    law = integral(given.points("points", N, batch=False), total)
    return {"variance": Quantity(quadrature_variance(law, fields), 2, 2, lead=None)}


def mean_square(given: Given) -> Answer:
    fields = given.uniform("fields", given.cases, N, batch=False)
    total = given.uniform("total", given.cases, batch=False, length=1)
    points = given.points("points", N, batch=False)
    missed = torch.trapezoid(fields, points) - total
    return {"variance": Quantity(missed.square().mean()[None], 2, 2, lead=None)}


def truth(given: Given) -> Tensor:
    return given.uniform("truth", N)


def asked_scores(made: Normal, given: Given) -> Answer:
    u, mean, variance = truth(given), made.mean, made.variance
    return {
        "mse": Quantity(scores.mse(u, mean), 2),
        "crps": Quantity(scores.crps(u, mean, variance)),
        "nll": Quantity(scores.nll(u, mean, variance), 0, log=1),
        "log_likelihood": Quantity(scores.log_likelihood(u, mean, variance), 0, log=-1),
        "coverage": Quantity(scores.coverage(u, mean, variance, 0.9), 0),
    }


def samples(given: Given) -> Tensor:
    return given.uniform("samples", N, lead=(given.cases,))


def asked_of_samples(made: Tensor, given: Given) -> Answer:
    u = truth(given)
    lower, upper = scores.interval_of_samples(made, 0.9)
    return {
        "crps": Quantity(scores.crps_of_samples(u, made)),
        "energy": Quantity(scores.energy_score(u, made)),
        "coverage": Quantity(scores.coverage_of_samples(u, made, 0.6), 0),
        "lower": Quantity(lower),
        "upper": Quantity(upper),
    }


def by_pairs(given: Given) -> Answer:
    """E|X − u| − ½ E|X − X′| over all pairs, and quantiles as NumPy has them."""
    draws, u = samples(given), truth(given)
    count = len(draws)
    apart = draws[:, None] - draws
    norm = lambda field: field.square().mean(dim=-1).sqrt()  # noqa: E731
    half = 2 * count * (count - 1)
    bounds = [torch.quantile(draws, p, dim=0) for p in (0.05, 0.95, 0.2, 0.8)]
    return {
        "crps": Quantity(((draws - u).abs().mean(0) - apart.abs().sum((0, 1)) / half).mean(-1)),
        "energy": Quantity(norm(draws - u).mean() - norm(apart).sum() / half),
        "coverage": Quantity(((u >= bounds[2]) & (u <= bounds[3])).double().mean(), 0),
        "lower": Quantity(bounds[0]),
        "upper": Quantity(bounds[1]),
    }


def asked_marginals(made: Mixture, given: Given) -> Answer:
    u = truth(given)
    probability = cumulative_probability(u, made)
    return {
        "probability": Quantity(probability, 0),
        "crps": Quantity(marginal_crps(u, made)),
        "log_likelihood": Quantity(marginal_log_likelihood(u, made), 0, log=-1),
        "calibration": Quantity(torch.tensor(calibration_error(probability)), 0, lead=None),
    }


def asked_variance(made: Any, given: Given) -> Answer:
    u = truth(given)
    found = scaled(made, given.number("factor", 2.0))
    return {
        "squares": Quantity(standardised_squares(made, u), 0),
        "factor": Quantity(torch.tensor(variance_factor(made, u)), 0, lead=None),
        "variance": Quantity(found.variance, 2),
    }


def moved(given: Given) -> Any:
    """Fields that may lie elsewhere by three cells."""
    return from_samples(given.uniform("samples", N, lead=(given.cases,), says="prior"))


def asked_displaced(made: Any, given: Given) -> Answer:
    steps = torch.linspace(0, 1, N, dtype=torch.float64) * given.scale(0, 1)
    found = displaced(made, steps, given.number("standard_deviation", 0.1, length=1))
    return {"mean": Quantity(found.mean), "variance": Quantity(found.variance, 2)}


FEATURES = {
    "fit_law": Feature(make=law_of_cases, ask=corrected),
    "coverage of fit_law": Feature(
        ask=asked_coverage,
        expected=lambda _: {"coverage": Quantity(torch.tensor(0.9), 0, lead=None)},
        long=True,
        rounding=0.0112,  # three standard errors of a fraction .9 of 2000
    ),
    "fit_covariance": Feature(make=covariance, ask=around, expected=sample_covariance),
    "fit_band, field": Feature(make=band_of("field"), ask=ends, expected=by_rank("field")),
    "fit_band, pointwise": Feature(make=band_of("pointwise"), ask=ends, expected=by_rank("pointwise")),
    "quadrature_variance": Feature(ask=asked_rule, expected=mean_square),
    "scores": Feature(make=normal, ask=asked_scores),
    "scores of samples": Feature(make=samples, ask=asked_of_samples, expected=by_pairs),
    "scores of mixtures": Feature(make=mixture, ask=asked_marginals),
    "scaled": Feature(make=dense, ask=asked_variance),
    "displaced": Feature(make=moved, ask=asked_displaced),
}
