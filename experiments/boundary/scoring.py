"""Scores of operators on test samples: relative L2, boundary error, error over time."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import boon
from boon import boundary_error, relative_l2
from experiments.boundary.cases import BoundaryCase
from experiments.boundary.data import Fields, by_time
from experiments.boundary.operator import ConditionedOperator, Treatment, build, load
from experiments.records.record import Arrays

SHOWN = 1  # test samples whose fields are kept for figures


def score_operator(path: Path, treatment: Treatment, case: BoundaryCase, test: Fields) -> Arrays:
    """Scores of a trained operator, see ``boon.BoundaryError`` for those of the boundary.

    ``relative_l2`` is per sample, ``over_time`` ``(samples, t)``, and ``shown`` the fields of the first samples
    ``(samples, t, *nodes)``.
    """
    model = load(path, treatment, case)
    u = model.predict(test, case.sizes.batch)
    pairs = zip(u.double().split(1), test.output.double().split(1), strict=True)
    return {
        "relative_l2": torch.stack([relative_l2(*pair) for pair in pairs]).numpy(),
        "over_time": over_time(by_time(u, case), by_time(test.output, case)).numpy(),
        "validation": validation_score(path),
        "shown": by_time(u[:SHOWN], case).numpy(),
        **_boundary(model, u, test),
    }


def score_truth(case: BoundaryCase, test: Fields) -> Arrays:
    """Boundary error of the true fields under the one-sided differences, and the fields that figures show."""
    first = test.input[:SHOWN, 0] * case.sizes.network.unit
    return {
        "input": (first[..., 0] if case.sizes.network.time_modes else first).numpy(),
        "shown": by_time(test.output[:SHOWN], case).numpy(),
        **_boundary(build(Treatment(), case), test.output, test),
    }


def validation_score(path: Path) -> np.ndarray:
    """Mean relative L2 on the validation set at the end of a training, as its weights note it."""
    return np.array(boon.read_notes(path)["history"][-1]["relative_l2"])


def over_time(u: Float[Tensor, "batch t *space"], truth: Float[Tensor, "batch t *space"]) -> Float[Tensor, "batch t"]:
    """‖u − truth‖₂ at each time relative to the root mean square over times of ‖truth‖₂ of the sample.

    Its root mean square over times is the relative L2 of the whole field, and it is defined when the truth vanishes
    at some time, as standing waves do.
    """
    error, size = ((field.double().flatten(2).norm(dim=2)) for field in (u - truth, truth))
    return error / size.square().mean(dim=1, keepdim=True).sqrt()


def _boundary(model: ConditionedOperator, u: Tensor, test: Fields) -> Arrays:
    error = boundary_error(u, model.discretise(u, test.values))
    return {
        "boundary": np.array(error.maximum * model.case.sizes.network.unit),
        "boundary_relative": np.array(error.relative_l2),
        "boundary_relative_max": np.array(error.relative_maximum),
    }
