"""Ridge regression of fine fields on coarse ones: the simple alternative that has as much information as the update."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

FOLDS = 6
"""Parts into which the years of a fit are cut, in order, for errors of years that were left out."""


@dataclass(frozen=True)
class Ridge:
    """Coarse cells on each side of a block that it is regressed on, besides its own; penalty of the coefficients."""

    reach: int
    penalty: float


def regress(
    inputs: Float[Tensor, "years p"], targets: Float[Tensor, "years q"], fitted: Tensor, penalty: float
) -> Float[Tensor, "years q"]:
    """Predictions of targets for all years by ridge regression with an intercept that is not penalised.

    Only the targets of the years ``fitted`` are used; ``penalty`` is λ of ‖Y − X W‖² + λ ‖W‖².
    """
    return ridge(inputs[fitted], targets[fitted], penalty)(inputs)


def ridge(
    inputs: Float[Tensor, "years p"], targets: Float[Tensor, "years q"], penalty: float
) -> Callable[[Float[Tensor, "*batch p"]], Float[Tensor, "*batch q"]]:
    """The function that ``regress`` evaluates."""
    centre, level = inputs.mean(dim=0), targets.mean(dim=0)
    X = inputs - centre
    normal = X.mT @ X + penalty * torch.eye(X.shape[1], dtype=X.dtype)
    weights = torch.linalg.solve(normal, X.mT @ (targets - level))
    return lambda u: (u - centre) @ weights + level


def regress_blocks(
    coarse: Float[Tensor, "years h w"], targets: Float[Tensor, "years rows columns"], fitted: Tensor, ridge: Ridge
) -> Float[Tensor, "years rows columns"]:
    """Predictions for all years of the values in every block from the coarse cells around it; see ``regress``."""
    factor, reach = targets.shape[-1] // coarse.shape[-1], ridge.reach
    predicted = torch.empty_like(targets)
    for i in range(coarse.shape[1]):
        for j in range(coarse.shape[2]):
            around = coarse[:, max(0, i - reach) : i + reach + 1, max(0, j - reach) : j + reach + 1].flatten(1)
            block = (slice(None), slice(factor * i, factor * (i + 1)), slice(factor * j, factor * (j + 1)))
            values = regress(around, targets[block].flatten(1), fitted, ridge.penalty)
            predicted[block] = values.unflatten(1, (factor, factor))
    return predicted


def left_out(
    coarse: Float[Tensor, "years h w"], targets: Float[Tensor, "years rows columns"], fitted: Tensor, ridge: Ridge
) -> Float[Tensor, "fitted rows columns"]:
    """Predictions for the years of a fit, each by a fit without its part of them."""
    part = torch.arange(len(fitted)) * FOLDS // len(fitted)
    predicted = targets[fitted].clone()
    for fold in range(FOLDS):
        rest, out = fitted[part != fold], fitted[part == fold]
        predicted[part == fold] = regress_blocks(coarse, targets, rest, ridge)[out]
    return predicted
