"""Scores of Gaussian fields on test parameters, and what figures show of them."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from experiments.field_cases import FieldCase
from experiments.storage import Arrays
from probconserv import Prediction, scores

MEANS = ("MSE", "CRPS", "LL", "coverage50", "coverage90")
LARGEST = ("boundary", "conservation")


def score(prediction: Prediction, case: FieldCase, parameter: Float[Tensor, " batch"]) -> Arrays:
    """Scores of a prediction, one per test parameter.

    Args:
        prediction: Gaussian ``(batch, T, n)``, float64.
        case: The case.
        parameter: The test parameters.

    Returns:
        ``MSE`` and ``CRPS``: means over all times and places; ``LL``, ``coverage50``, ``coverage90``: the same over the
        places whose value is not given, since a value that is known exactly has no density and is covered by every
        interval; ``conservation``: largest |total − the law's total| over times; ``boundary``: largest |u − g| over
        times and the ends with given values, left out where there is none. All ``(batch,)``.
    """
    mean, variance, truth = prediction.mean, prediction.variance, case.truth(parameter)
    free = truth[..., case.free], mean[..., case.free], variance[..., case.free]
    found = {
        "MSE": scores.mse(truth, mean),
        "CRPS": scores.crps(truth, mean, variance),
        "LL": scores.log_likelihood(*free),
        "coverage50": scores.coverage(*free, 0.5),
        "coverage90": scores.coverage(*free, 0.9),
    }
    arrays = {name: values.mean(dim=-1).numpy() for name, values in found.items()}
    arrays["conservation"] = scores.conservation_error(mean, case.law(parameter)).abs().amax(dim=-1).numpy()
    missed = [
        (mean[..., place] - end).abs()
        for place, known, end in zip((0, -1), case.known, case.ends(parameter), strict=True)
        if known
    ]
    return arrays | ({"boundary": torch.stack(missed).amax(dim=(0, -1)).numpy()} if missed else {})


def summarised(arrays: Arrays) -> dict[str, float]:
    """One number per score: the mean over test parameters, of ``boundary`` and ``conservation`` the largest."""
    means = {name: float(arrays[name].mean()) for name in MEANS if name in arrays}
    return means | {name: float(arrays[name].max()) for name in LARGEST if name in arrays}


def shown(prediction: Prediction) -> Arrays:
    """Mean and deviation of the first test parameter at the middle time, ``(n,)`` each."""
    middle = prediction.mean.shape[1] // 2
    mean, deviation = prediction.mean[0, middle], prediction.variance[0, middle].sqrt()
    return {"mean": np.asarray(mean), "deviation": np.asarray(deviation)}
