"""What a conservation experiment computes from its cases: scores, curves over time, local against global laws."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Generator, Tensor

from experiments.conservation import Case, of_functions, predict_at
from experiments.methods import Distribution, Laws, Method
from experiments.storage import Arrays
from probconserv import condition, scores
from probconserv.balance import local_conservation as local_law
from probconserv.sampling import draw
from probconserv.surrogates.surrogate import Context

SLICES = 10
"""Pairs of time and function that are conditioned at once: bounds the memory of 100 components each."""
OVER_TIME = (
    *("GP", "HardC-GP", "ProbConserv-GP"),
    *("ANP", "SoftC-ANP", "HardC-ANP", "ProbConserv-ANP"),
    *("ProbConserv-ANP (non-negative)", "ProbConserv-ANP (monotone)", "Ensemble", "ProbConserv-Ensemble"),
)
"""Methods that are followed over time."""
ON_CELLS = ("ANP", "ProbConserv-ANP")
"""Methods that are scored for cell averages too."""
LEVELS = tuple(0.05 * i for i in range(1, 20))
"""Levels of the central intervals whose coverage is drawn."""


def evaluate(case: Case) -> Arrays:
    """Predicts at the test time for all functions and scores every method.

    Args:
        case: The test case.

    Returns:
        Per-function scores ``<method>|<score>`` (functions,); coverage at all levels ``<method>|reliability``
        (levels, functions); sampled front positions ``<method>|fronts`` (samples, functions) where the field has a
        front; mean and deviation of a typical function's prediction
        ``<method>|mean``, ``<method>|deviation`` (places,); its ``context`` (n, 3); the truth's own conservation
        error ``truth|CE`` (1,).
    """
    time = torch.tensor([case.problem.test_time], dtype=torch.float64)
    context, truth, laws = case.context(), case.truth(time), case.laws(time[:, None])
    priors = _predictions(case, case.methods, context, time)
    reference = next(name for name in ("anp", *case.surrogates) if name in priors)
    shown = typical(priors[reference], truth)
    arrays: Arrays = {
        "places": case.grid.points.numpy(),
        "truth": truth[0].numpy(),
        "truth|CE": scores.conservation_error(truth, case.laws(time).exact).numpy(),
        "context": torch.cat((context.points[shown], context.values[shown, :, None]), dim=-1).numpy(),
    }
    for name, method in case.methods.items():
        prior = priors[method.surrogate]
        arrays |= _scores(case, name, method, prior, truth, laws)
        arrays |= _profile(name, method.transform(of_functions(prior, slice(shown, shown + 1)), laws))
    return arrays


def evaluate_on_cells(case: Case) -> Arrays:
    """Scores of the network and of its update for cell averages, whose cell sum meets the law exactly.

    Args:
        case: The test case.

    Returns:
        Per-function scores ``<method> (cell averages)|<score>`` (functions,), as ``evaluate`` gives them.
    """
    case = replace(case, on_cells=True)
    time = torch.tensor([case.problem.test_time], dtype=torch.float64)
    truth, laws = case.truth(time), case.laws(time[:, None])
    rows = {name: method for name, method in case.methods.items() if name in ON_CELLS}
    priors = _predictions(case, rows, case.context(), time)
    arrays: Arrays = {}
    for name, method in rows.items():
        arrays |= _scores(case, f"{name} (cell averages)", method, priors[method.surrogate], truth, laws)
    return arrays


def curves(case: Case) -> Arrays:
    """Totals and scores of the first functions over time, for the methods that are followed.

    Args:
        case: The test case.

    Returns:
        ``times`` (t,), the law's total ``law`` (t,), that of the true field by the trapezoid rule ``truth`` (t,), and
        ``<method>|total``, ``<method>|MSE``, ``<method>|LL`` (functions, t).
    """
    config = case.config
    times = torch.linspace(0.0, case.problem.final_time, config.curve_times + 1, dtype=torch.float64)[1:]
    laws, truth = case.laws(times[:, None]), case.truth(times)[:, None]
    total = laws.exact.b[:, 0, 0]
    arrays: Arrays = {
        "times": times.numpy(),
        "law": total.numpy(),
        "truth": (laws.exact.residual(truth)[:, 0, 0] + total).numpy(),
    }
    followed = {name: method for name, method in case.methods.items() if name in OVER_TIME}
    priors = _predictions(case, followed, case.first_functions(), times)
    for name, method in followed.items():
        parts = []
        for prior in _in_parts(priors[method.surrogate], max(1, SLICES // len(times))):
            prediction = method.transform(prior, laws)
            mean, variance = prediction.mean, prediction.variance
            parts.append(
                {
                    "total": laws.exact.residual(mean)[..., 0] + laws.exact.b[..., 0],
                    "MSE": scores.mse(truth, mean),
                    "LL": scores.log_likelihood(truth, mean, variance),
                }
            )
        arrays |= {f"{name}|{key}": torch.cat([part[key] for part in parts], dim=-1).mT.numpy() for key in parts[0]}
    return arrays


def local_conservation(case: Case, volumes: int = 20) -> Arrays:
    """A typical function's prediction under the global law, and under the law of every control volume.

    The local laws need the flux through every inner face as well: a volume holds what entered it through its faces.
    The face fluxes are those of the closed form.

    Args:
        case: The test case; its places must divide into the volumes.
        volumes: Number of control volumes.

    Returns:
        ``places``, ``truth``, and ``<name>|mean``, ``<name>|deviation`` (places,) of each prediction.
    """
    problem, time = case.problem, torch.tensor([case.problem.test_time], dtype=torch.float64)
    name, label = ("anp", "ANP") if "anp" in case.surrogates else ("gp", "GP")
    priors = predict_at(case, name, case.first_functions(), time)
    truth = case.truth(time)
    shown = typical(priors, truth)
    prior = of_functions(priors, slice(shown, shown + 1))
    faces = torch.linspace(*problem.domain, volumes + 1, dtype=torch.float64)
    ends = torch.tensor([[0.0], [problem.test_time]], dtype=torch.float64)
    held = problem.antiderivative(ends, faces, case.parameter)
    passed = held[0] - held[1]  # through every face, up to one constant that cancels between neighbours
    predictions = {
        label: prior,
        f"ProbConserv-{label}, global law": condition(prior, case.laws(time).exact),
        f"local law, {volumes} volumes": condition(prior, local_law(case.grid, faces, held[0].diff(), passed)),
    }
    arrays: Arrays = {"places": case.grid.points.numpy(), "truth": truth[0].numpy()}
    for shown_name, prediction in predictions.items():
        arrays |= _profile(shown_name, prediction)
    return arrays


def typical(prediction: Distribution, truth: Tensor) -> int:
    """The function whose squared error is the median of all, for predictions ``(1, functions, places)``."""
    errors = scores.mse(truth, prediction.mean[0])
    return int(errors.argsort()[len(errors) // 2])


def _predictions(case: Case, rows: dict[str, Method], context: Context, times: Tensor) -> dict[str, Distribution]:
    """Every black box that one of the methods needs, asked once."""
    needed = dict.fromkeys(method.surrogate for method in rows.values())
    return {name: predict_at(case, name, context, times) for name in needed}


def _in_parts(prediction: Distribution, size: int) -> Iterator[Distribution]:
    """The prediction of some functions at a time, in order."""
    for start in range(0, prediction.mean.shape[-2], size):
        yield of_functions(prediction, slice(start, start + size))


def _profile(name: str, prediction: Distribution) -> Arrays:
    """Mean and deviation of a single function's prediction ``(1, 1, places)``."""
    mean, deviation = prediction.mean[0, 0], prediction.variance[0, 0].sqrt()
    return {f"{name}|mean": mean.numpy(), f"{name}|deviation": deviation.numpy()}


def _scores(case: Case, name: str, method: Method, prior: Distribution, truth: Tensor, laws: Laws) -> Arrays:
    """Per-function scores of a method, by name and score, some functions at a time."""
    generator = Generator().manual_seed(case.config.seed)
    parts = [
        _scores_of_part(case, method.transform(part, laws), truth, laws, generator) for part in _in_parts(prior, SLICES)
    ]
    return {f"{name}|{key}": np.concatenate([part[key] for part in parts], axis=-1) for key in parts[0]}


def _scores_of_part(case: Case, prediction: Distribution, truth: Tensor, laws: Laws, generator: Generator) -> Arrays:
    """Per-function scores ``(functions,)`` and sampled fronts of predictions ``(1, functions, places)``."""
    mean, variance = prediction.mean, prediction.variance
    samples = draw(prediction, (case.config.samples,), generator)[:, 0]
    values = {
        "CE": scores.conservation_error(mean, laws.exact)[0],
        "LL": scores.log_likelihood(truth, mean[0], variance[0]),
        "MSE": scores.mse(truth, mean[0]),
        "CRPS": scores.crps(truth, mean[0], variance[0]),
        "coverage50": scores.coverage(truth, mean[0], variance[0], 0.5),
        "coverage90": scores.coverage(truth, mean[0], variance[0], 0.9),
        "reliability": torch.stack([scores.coverage(truth, mean[0], variance[0], level) for level in LEVELS]),
        "energy": scores.energy_score(truth.expand_as(mean[0]), samples),
    }
    if case.problem.front is not None and case.problem.front_level is not None:
        level = float(case.problem.front_level(case.parameter))
        found = scores.has_shock(samples, level)
        values["fronts"] = scores.shock_position(samples, case.grid.points, level).where(found, math.nan)
        true_front = case.problem.front(case.problem.test_time, case.parameter)
        error = values["fronts"] - true_front
        values["shock"], values["spread"] = error.abs().nanmean(dim=0), _deviation(error)
        values["shockless"] = 1.0 - found.double().mean(dim=0)
    return {name: value.numpy() for name, value in values.items()}


def _deviation(values: Tensor) -> Tensor:
    """Standard deviation along the first axis of what is not NaN."""
    return (values - values.nanmean(dim=0)).square().nanmean(dim=0).sqrt()
