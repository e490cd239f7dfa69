"""Scores of Gaussian fields on the test parameters of a case, and what figures show of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

import boon
from experiments.combined.cases import Case
from experiments.combined.fields import FieldProblem
from experiments.combined.methods import Method
from experiments.combined.networks import bounded, inputs, surrogate
from experiments.records.record import Arrays
from probconserv import Prediction, ProbConserv, scores


def score_truth(case: Case, seed: int) -> Arrays:
    """By how much the true fields miss the law, per test parameter: the error of the trapezoid rule.

    Args:
        case: The case.
        seed: Seed of the run.
    """
    parameter = case.parameters(seed)
    residual = case.problem.law(parameter).residual(case.problem.truth(parameter))
    return {"conservation": residual.abs().amax(dim=(-2, -1)).numpy()}


def score_method(case: Case, method: Method, group: int, weights: Sequence[Path], seed: int) -> Arrays:
    """Scores of one group, in double precision.

    Args:
        case: The case.
        method: The method.
        group: Number of the group, which seeds dropout.
        weights: Weights of its trainings.
        seed: Seed of the run.

    Returns:
        See ``scores_of`` and ``shown``.
    """
    network, problem = method.network, case.problem
    assert network is not None
    operators = [boon.load(path).eval() for path in weights]
    if method.bounded is not None:
        network = replace(network, correction=method.bounded)
        operators = [bounded(operator, method.bounded) for operator in operators if isinstance(operator, boon.FNO)]
    model = surrogate(operators, network, problem, case.sizes.passes, method.correlated).double()
    parameter = case.parameters(seed)
    predict = ProbConserv(model, problem.law(parameter)) if method.conserved else model
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(seed + group)
        prediction = predict(*inputs(problem, network, parameter))
        return scores_of(prediction, problem, parameter) | shown(prediction)


def scores_of(prediction: Prediction, problem: FieldProblem, parameter: Float[Tensor, " batch"]) -> Arrays:
    """Scores of a prediction, one per test parameter.

    Args:
        prediction: Gaussian ``(batch, T, n)``, float64.
        problem: The problem.
        parameter: The test parameters.

    Returns:
        ``MSE`` and ``CRPS``: means over all times and points; ``LL``, ``coverage50``, ``coverage90``: the same over
        the points whose value is not given, since a given value has no density and is covered by every interval;
        ``conservation``: largest |total − the law's total| over times; ``boundary``: largest |u − g| over times and the
        ends with given values, left out where there is none. All ``(batch,)``.
    """
    mean, variance, truth = prediction.mean, prediction.variance, problem.truth(parameter)
    free = truth[..., problem.free], mean[..., problem.free], variance[..., problem.free]
    by_time = {
        "MSE": scores.mse(truth, mean),
        "CRPS": scores.crps(truth, mean, variance),
        "LL": scores.log_likelihood(*free),
        "coverage50": scores.coverage(*free, 0.5),
        "coverage90": scores.coverage(*free, 0.9),
    }
    arrays = {name: values.mean(dim=-1).numpy() for name, values in by_time.items()}
    arrays["conservation"] = scores.conservation_error(mean, problem.law(parameter)).abs().amax(dim=-1).numpy()
    errors = [
        (mean[..., index] - end).abs()
        for index, given, end in zip((0, -1), problem.given, problem.ends(parameter), strict=True)
        if given
    ]
    return arrays | ({"boundary": torch.stack(errors).amax(dim=(0, -1)).numpy()} if errors else {})


def shown(prediction: Prediction) -> Arrays:
    """``mean`` and ``standard_deviation`` ``(n,)`` of the first test parameter at the middle time."""
    middle = prediction.mean.shape[1] // 2
    return {
        "mean": prediction.mean[0, middle].numpy(),
        "standard_deviation": prediction.variance[0, middle].sqrt().numpy(),
    }
