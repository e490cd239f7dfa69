"""How far fronts may be displaced outside the training range, learnt inside it.

The network ``edge`` has seen the upper two thirds of the training parameters only. The lower third lies up to a third
of the range beyond what it knows, and the Stefan problem's test parameter as far beyond the whole range. On closed-form
functions of that third the deviation s of ``displaced`` is chosen that makes the truth most likely; no parameter
outside the training range is used.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Generator

from experiments.conservation import Case, predict_at
from experiments.storage import Arrays
from probconserv import scores
from probconserv.calibration import ContextCalibrated, NoisyContext, Tempered, displaced, variance_factor
from probconserv.surrogates.surrogate import Context, Surrogate
from solvers.problems.sampling import Protocol, random_parameters, sample_exact

FRACTIONS = (0.0, 0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05)
"""Candidates for s, in lengths of the domain."""
CONTEXT_NOISE = 0.01
"""Standard deviation of the noise on the context, in the units of the field."""


def shift_scores(case: Case) -> Arrays:
    """Log-likelihood of held-out functions against the deviation of the displacement.

    Args:
        case: Any test case of the problem; holds the network ``edge``.

    Returns:
        ``deviation`` (candidates,), ``LL`` (candidates, functions), and ``factor`` (1,), the factor of the variance
        that makes the same functions most likely.
    """
    problem = case.problem
    low, high = problem.training_range
    unseen = replace(problem, training_range=(low, low + (high - low) / 3))
    generator = Generator().manual_seed(case.config.seed)
    parameter = random_parameters(unseen, case.config.functions, generator)
    batch = sample_exact(problem, parameter, Protocol(), generator)
    context = Context(batch.context_points, batch.context_values, problem.name)
    time = torch.tensor([problem.test_time], dtype=torch.float64)
    prediction = predict_at(case, "edge", context, time)
    truth = problem.solution(time, case.grid.points, parameter[:, None])
    deviations = (problem.domain[1] - problem.domain[0]) * torch.tensor(FRACTIONS, dtype=torch.float64)
    likelihoods = []
    for deviation in deviations.tolist():
        moved = displaced(prediction, case.grid.points, deviation)
        likelihoods.append(scores.log_likelihood(truth, moved.mean[0], moved.variance[0]))
    factor = variance_factor(prediction, truth)
    return {"deviation": deviations.numpy(), "LL": torch.stack(likelihoods).numpy(), "factor": np.array([factor])}


def repaired(surrogates: Mapping[str, Surrogate], arrays: Arrays) -> dict[str, Surrogate]:
    """The usual remedies for a network that is over-sure outside its training range, to compare with.

    Args:
        surrogates: Black boxes, ``anp`` among them.
        arrays: What ``shift_scores`` returned.

    Returns:
        The black boxes and, around ``anp``, the variance times a factor learnt like the displacement (``tempered``),
        times a factor from the function's own context (``context-calibrated``), and noise on the context
        (``noisy-context``).
    """
    network = surrogates["anp"]
    return {
        **surrogates,
        "tempered": Tempered(network, float(arrays["factor"][0])),
        "context-calibrated": ContextCalibrated(network),
        "noisy-context": NoisyContext(network, CONTEXT_NOISE, draws=5),
    }


def displacement(arrays: Arrays) -> float:
    """The most likely deviation of what ``shift_scores`` returned."""
    return float(arrays["deviation"][arrays["LL"].mean(axis=-1).argmax()])
