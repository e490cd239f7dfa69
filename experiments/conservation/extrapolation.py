"""How far fronts may be displaced outside the training range, learnt inside it.

The network ``extrapolation`` has seen the upper two thirds of the training parameters only. The lower third lies up to
a third of the range outside them, and the Stefan problem's test parameter as far outside the whole range. Closed-form
functions of that third are the validation set: on them the standard deviation s of ``displaced`` is chosen that makes
the truth most likely. No parameter outside the training range is used.
"""

from dataclasses import replace

import torch
from gpytorch.distributions import MultivariateNormal
from torch import Generator, Tensor

from experiments.conservation.cases import ConservationCase, Target
from probconserv import Mixture, scores
from probconserv.calibration import displaced, variance_factor
from probconserv.surrogates.surrogate import Context
from solvers.problems.sampling import Protocol, random_parameters, sample_exact

FRACTIONS = (0.0, 0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05)
"""Candidates for s, in lengths of the domain."""


def validation_functions(case: ConservationCase) -> tuple[Context, Tensor]:
    """Context and parameters ``(functions,)`` from the third of the range that the network has not seen."""
    problem = case.problem
    low, high = problem.training_range
    unseen = replace(problem, training_range=(low, low + (high - low) / 3))
    generator = Generator().manual_seed(case.seed)
    parameter = random_parameters(unseen, case.sizes.functions, generator)
    batch = sample_exact(problem, parameter, Protocol(), generator)
    return Context(batch.context_points, batch.context_values, problem.name), parameter


def learn_extrapolation(
    target: Target, prediction: MultivariateNormal | Mixture, parameter: Tensor
) -> tuple[float, float]:
    """Displacement and variance factor under which a prediction ``(1, functions, points)`` is most likely."""
    low, high = target.case.problem.domain
    truth = target.field(parameter[:, None, None])[:, 0, 0]
    likelihoods = {}
    for deviation in ((high - low) * torch.tensor(FRACTIONS, dtype=torch.float64)).tolist():
        moved = displaced(prediction, target.grid.points, deviation)
        likelihoods[deviation] = float(scores.log_likelihood(truth, moved.mean[0], moved.variance[0]).mean())
    return max(likelihoods, key=likelihoods.__getitem__), variance_factor(prediction, truth)
