"""Scores of one method on one case, per function, and what figures show of it."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from gpytorch.distributions import MultivariateNormal
from torch import Generator, Tensor

from experiments.conservation.cases import VOLUMES, Case, Laws, Target, laws_of
from experiments.conservation.data import context_of, validation_functions
from experiments.conservation.methods import EXTRAPOLATION, BlackBox, Distribution, Method, network
from experiments.records.scores import VARIANCE_FLOOR
from experiments.records.storage import Arrays, checksum
from probconserv import Mixture, condition, scores
from probconserv.balance import local_conservation
from probconserv.calibration import displaced
from probconserv.calibration.variance import variance_factor
from probconserv.mixture import is_bounded
from probconserv.prediction import Prediction
from probconserv.sampling import draw
from probconserv.surrogates.surrogate import Context, Query, Surrogate

SLICES = 10
"""Pairs of time and function that are conditioned at once: bounds the memory of 100 components each."""
LEVELS = tuple(0.05 * i for i in range(1, 20))
"""Levels of the central intervals whose coverage is drawn."""
FRACTIONS = (0.0, 0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05)
"""Displacements that are tried, in lengths of the domain."""
Weights = tuple[Path, str]
Files = Mapping[str, Weights]
"""By name of the network its file and the checksum of that."""


def score_truth(case: Case) -> Arrays:
    """The truth's quadrature error ``(1,)``, and what figures show in addition to the methods.

    ``field`` ``(points,)`` at the test time; ``context`` ``(functions, n, 3)`` with columns t, x, u; the law's total
    ``law`` and that of the true field by the trapezoid rule ``total`` ``(t,)``.
    """
    target, followed = Target(case), Target(case, over_time=True)
    context, law = context_of(target), laws_of(followed)
    error = scores.conservation_error(target.truth(), laws_of(target).exact)[0]
    arrays = {
        "CE": error.abs(),
        "signed_CE": error,
        "points": target.grid.points,
        "field": target.truth()[0, 0],
        "context": torch.cat((context.points, context.values[..., None]), dim=-1),
        "times": followed.times,
        "law": law.total,
        "total": law.exact.residual(followed.truth())[:, 0, 0] + law.total,
    }
    return {name: tensor.numpy() for name, tensor in arrays.items()}


def score_method(case: Case, method: Method, weights: Mapping[str, Path]) -> Arrays:
    """Scores ``(functions,)`` at the test time, and what figures show of the method.

    ``mean`` and ``standard_deviation`` ``(functions, points)``, ``reliability`` ``(levels, functions)``, ``fronts``
    ``(samples, functions)``, curves ``(functions, t)``, and one function under local laws ``(points,)``.
    """
    target = Target(case, on_cells=method.on_cells)
    files = {name: (path, checksum(path)) for name, path in weights.items()}
    arrays = _at_test_time(method, files, target)
    if method.followed:
        arrays |= _over_time(method, files, Target(case, over_time=True))
    if method.local:
        arrays |= _local(_prior(method, files, target), target)
    return {name: tensor.numpy() for name, tensor in arrays.items()}


def _prior(method: Method, files: Files, target: Target) -> Distribution:
    assert method.black_box is not None
    return predicted(method.black_box, tuple(files[name] for name in method.black_box.networks), target)


@lru_cache(maxsize=6)
def predicted(black_box: BlackBox, weights: tuple[Weights, ...], target: Target) -> Distribution:
    """A model's prediction for a target's functions; methods with the same one share it."""
    return predict(black_box.build(target.case, [path for path, _ in weights]), target, context_of(target))


def _laws(method: Method, files: Files, target: Target) -> Laws:
    """The laws of a target, with what is learnt about functions outside the training range."""
    if not method.extrapolates:
        return laws_of(target)
    first = replace(target.case, parameter=target.case.problem.test_parameters[0])  # the same for all cases
    displacement, factor = _learnt(first, files[EXTRAPOLATION])
    return replace(laws_of(target), displacement=displacement, factor=factor)


@lru_cache(maxsize=2)
def _learnt(case: Case, weights: Weights) -> tuple[float, float]:
    context, parameter = validation_functions(case)
    prediction = predict(network(EXTRAPOLATION).build(case, weights[:1]), Target(case), context)
    return learn_extrapolation(Target(case), prediction, parameter)


def learn_extrapolation(target: Target, prediction: Distribution, parameter: Tensor) -> tuple[float, float]:
    """Displacement and variance factor that make the validation functions most likely.

    Their parameters lie up to a third of the range outside those of the network ``extrapolation``, as the Stefan
    problem's test parameter outside the whole range, which no training sees. Predictions: ``(1, functions, points)``.
    """
    low, high = target.case.problem.domain
    truth = target.field(parameter[:, None, None])[:, 0, 0]
    likelihoods = {}
    for deviation in ((high - low) * torch.tensor(FRACTIONS, dtype=torch.float64)).tolist():
        shifted = displaced(prediction, target.grid.points, deviation)
        likelihoods[deviation] = float(
            scores.log_likelihood(truth, shifted.mean[0], shifted.variance[0], VARIANCE_FLOOR).mean()
        )
    return max(likelihoods, key=likelihoods.__getitem__), variance_factor(prediction, truth)


def predict(surrogate: Surrogate, target: Target, context: Context) -> Distribution:
    """A prediction ``(t, functions, points)`` in float64; time is a batch axis, so that each time has its own law."""
    times, device = target.times, target.case.device
    points = target.grid.points.expand(len(times), context.points.shape[0], -1)
    query = torch.stack((times[:, None, None].expand_as(points), points), dim=-1).to(device)
    seen, values = (part.expand(len(times), *part.shape).to(device) for part in (context.points, context.values))
    with torch.no_grad():
        prediction = surrogate.to(device).predict(Context(seen, values, context.problem), Query(query, context.problem))
        return _functions(prediction, slice(None))


def _treated(method: Method, files: Files, target: Target) -> Iterator[tuple[Distribution, Laws]]:
    """The method's prediction with its laws, for some functions at a time, in order."""
    laws, prior = _laws(method, files, target), _prior(method, files, target)
    size = max(1, SLICES // len(target.times))
    for start in range(0, prior.mean.shape[-2], size):
        yield method.transform(_functions(prior, slice(start, start + size)), laws), laws


def _at_test_time(method: Method, files: Files, target: Target) -> dict[str, Tensor]:
    """Scores per function at the test time."""
    generator = Generator().manual_seed(target.case.seed)
    truth, parts = target.truth()[0], []
    for prediction, laws in _treated(method, files, target):
        samples = draw(prediction, (target.case.sizes.samples,), generator)[:, 0]
        fields = truth.expand_as(samples[0])
        parts.append(_scores(prediction, truth, laws) | _front_scores(samples, target, fields))
        if is_bounded(prediction):
            parts[-1] |= _draw_scores(samples, fields)
    axes = dict.fromkeys(("mean", "standard_deviation"), 0)
    return {name: torch.cat([part[name] for part in parts], dim=axes.get(name, -1)) for name in parts[0]}


def _scores(prediction: Distribution, truth: Tensor, laws: Laws) -> dict[str, Tensor]:
    """Scores of predictions ``(1, functions, points)`` by their means and variances."""
    error = scores.conservation_error(prediction.mean, laws.exact)[0]
    mean, variance = prediction.mean[0], prediction.variance[0]
    return {
        "CE": error.abs(),
        "signed_CE": error,
        "LL": scores.log_likelihood(truth, mean, variance, VARIANCE_FLOOR),
        "MSE": scores.mse(truth, mean),
        "CRPS": scores.crps(truth, mean, variance),
        **{f"coverage{level}": scores.coverage(truth, mean, variance, level / 100) for level in (50, 90)},
        "reliability": torch.stack([scores.coverage(truth, mean, variance, level) for level in LEVELS]),
        "mean": mean,
        "standard_deviation": variance.sqrt(),
    }


def _draw_scores(samples: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Scores of draws that lie on bounds, for which the Gaussian formulas of ``_scores`` are wrong."""
    covered = {level: scores.coverage_of_samples(truth, samples, level / 100) for level in (50, 90)}
    return {
        "draws_CRPS": scores.crps_of_samples(truth, samples),
        **{f"draws_coverage{level}": values for level, values in covered.items()},
    }


def _front_scores(samples: Tensor, target: Target, truth: Tensor) -> dict[str, Tensor]:
    """Scores by samples ``(samples, functions, points)``: the energy score, and where the field has one its front."""
    problem, parameter = target.case.problem, target.case.parameter
    values = {"energy": scores.energy_score(truth, samples)}
    if problem.front is None or problem.front_level is None:
        return values
    level = float(problem.front_level(parameter))
    shocked = scores.has_shock(samples, level)
    fronts = scores.shock_position(samples, target.grid.points, level).where(shocked, math.nan)
    error = fronts - problem.front(problem.test_time, parameter)
    spread = (error - error.nanmean(dim=0)).square().nanmean(dim=0).sqrt()
    shockless = 1.0 - shocked.double().mean(dim=0)
    return values | {"fronts": fronts, "shock": error.abs().nanmean(dim=0), "spread": spread, "shockless": shockless}


def _over_time(method: Method, files: Files, target: Target) -> dict[str, Tensor]:
    """Total, squared error and likelihood of the first functions over time ``(functions, t)``."""
    truth, parts = target.truth(), []
    for prediction, laws in _treated(method, files, target):
        mean, total = prediction.mean, laws.exact.residual(prediction.mean)[..., 0] + laws.total[:, None]
        likelihood = scores.log_likelihood(truth, mean, prediction.variance, VARIANCE_FLOOR)
        parts.append({"curve_total": total, "curve_MSE": scores.mse(truth, mean), "curve_LL": likelihood})
    return {name: torch.cat([part[name] for part in parts], dim=-1).mT for name in parts[0]}


def _local(prior: Distribution, target: Target) -> dict[str, Tensor]:
    """A typical function under the laws of control volumes, each of which holds what entered it through its faces.

    These need the flux through every inner face as well, which is that of the closed form.
    """
    problem = target.case.problem
    shown = typical(scores.mse(target.truth()[0], prior.mean[0]))
    faces = torch.linspace(*problem.domain, VOLUMES + 1, dtype=torch.float64)
    ends = torch.tensor([[0.0], [problem.test_time]], dtype=torch.float64)
    held = problem.antiderivative(ends, faces, target.case.parameter)
    passed = held[0] - held[1]  # through every face, up to one constant that cancels between neighbours
    law = local_conservation(target.grid, faces, held[0].diff(), passed)
    prediction = condition(_functions(prior, slice(shown, shown + 1)), law, keep_weights=True)
    local = {"local_mean": prediction.mean[0, 0], "local_standard_deviation": prediction.variance[0, 0].sqrt()}
    return {**local, "local_function": torch.tensor([shown])}


def typical(errors: Tensor | np.ndarray) -> int:
    """The function with the median of all errors ``(functions,)``."""
    return int(errors.argsort()[len(errors) // 2])


def _functions(prediction: Prediction, part: slice) -> Distribution:
    """A prediction ``(t, functions, points)`` of some of its functions, on the CPU in float64."""
    if isinstance(prediction, Mixture):
        return Mixture(_functions(prediction.components, part), prediction.weights.cpu().double())
    assert isinstance(prediction, MultivariateNormal)
    covariance = prediction.lazy_covariance_matrix[..., part, :, :].cpu().double()
    return MultivariateNormal(prediction.mean[..., part, :].cpu().double(), covariance)
