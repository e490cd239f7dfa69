"""Scores of Gaussian fields on the test parameters of a case, and what figures show of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

import boon
from experiments.combined.fields import FieldProblem
from experiments.combined.networks import bounded, inputs, surrogate
from experiments.combined.problems import Case, Method
from experiments.records.record import Arrays
from experiments.records.scores import VARIANCE_FLOOR
from probconserv import ProbConserv, scores
from probconserv.prediction import Prediction


def score_truth(case: Case, seed: int) -> Arrays:
    """By how much the true fields miss the law, per test parameter: the error of the trapezoid rule."""
    parameter = case.parameters(seed)
    residual = case.problem.law(parameter).residual(case.problem.truth(parameter))
    return {"conservation": residual.abs().amax(dim=(-2, -1)).numpy()}


def score_method(case: Case, method: Method, weights: Sequence[Path], seed: int) -> Arrays:
    """Scores of one group in double precision, see ``scores_of``.

    For the figures also ``mean`` and ``standard_deviation`` ``(n,)`` of the first test parameter at the middle time.
    """
    network, problem = method.network, case.problem
    assert network is not None
    operators = [boon.load(path).eval() for path in weights]
    if method.bounded is not None:
        network = replace(network, correction=method.bounded)
        operators = [bounded(operator, method.bounded) for operator in operators if isinstance(operator, boon.FNO)]
    model = surrogate(operators, problem, method.correlated).double()
    parameter = case.parameters(seed)
    predict = ProbConserv(model, problem.law(parameter)) if method.conserved else model
    with torch.no_grad():
        prediction = predict(*inputs(problem, network, parameter))
    mean, variance = (tensor[0, problem.times // 2] for tensor in (prediction.mean, prediction.variance))
    shown = {"mean": mean.numpy(), "standard_deviation": variance.sqrt().numpy()}
    return scores_of(prediction, problem, parameter) | shown


def scores_of(prediction: Prediction, problem: FieldProblem, parameter: Float[Tensor, " batch"]) -> Arrays:
    """Scores of a Gaussian ``(batch, T, n)``, one per test parameter.

    ``MSE`` and ``CRPS`` are means over all times and points; ``LL``, ``coverage50`` and ``coverage90`` leave out the
    points whose value is given, since that has no density and is covered by every interval; ``conservation`` is the
    largest |total − the law's total| over times; ``boundary`` the largest |u − g| over times and the ends with given
    values, left out where there is none.
    """
    mean, variance, truth = prediction.mean, prediction.variance, problem.truth(parameter)
    free = truth[..., problem.free], mean[..., problem.free], variance[..., problem.free]
    by_time = {
        "MSE": scores.mse(truth, mean),
        "CRPS": scores.crps(truth, mean, variance),
        "LL": scores.log_likelihood(*free, VARIANCE_FLOOR),
        "coverage50": scores.coverage(*free, 0.5),
        "coverage90": scores.coverage(*free, 0.9),
    }
    arrays = {name: values.mean(dim=-1).numpy() for name, values in by_time.items()}
    arrays["conservation"] = scores.conservation_error(mean, problem.law(parameter)).abs().amax(dim=-1).numpy()
    ends = zip((0, -1), problem.given, problem.ends(parameter), strict=True)
    errors = [(mean[..., index] - end).abs() for index, given, end in ends if given]
    return arrays | ({"boundary": torch.stack(errors).amax(dim=(0, -1)).numpy()} if errors else {})
