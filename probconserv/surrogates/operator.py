"""Operators as Gaussian predictions: half of the output channels are a mean, half a standard deviation."""

import math
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Normal

from probconserv.errors import InvalidArgumentError


class GaussianOperator(nn.Module):
    """A map from fields to fields read as independent Gaussians, one distribution per output channel (output time).

        μ = a,   σ = unit · b²

    where a is the first half of the operator's channels and b the second. σ is smooth, not negative, and 0 where b = 0:
    an operator that meets the Dirichlet condition (g, 0), as any operator inside ``boon.BOON`` does, predicts boundary
    values exactly and with variance 0, and a later update leaves them unchanged.

    Args:
        operator: ``(batch, in_channels, *space)`` → ``(batch, 2c, *space)``; further arguments are passed on.
        unit: Standard deviation where b = 1, in the units of the field.
    """

    def __init__(self, operator: nn.Module, unit: float = 0.1) -> None:
        super().__init__()
        if not (math.isfinite(unit) and unit > 0):
            raise InvalidArgumentError(f"unit must be positive and finite, got {unit}.")
        self.operator = operator
        self.unit = unit

    def forward(self, *arguments: Any) -> Normal:
        """Independent Gaussians ``(batch, c, n)`` over the n points of space, in row-major order."""
        return as_gaussian(self.operator(*arguments), self.unit)


def as_gaussian(field: Float[Tensor, "batch channels *space"], unit: float) -> Normal:
    """Reads a field ``(batch, 2c, *space)`` as ``GaussianOperator`` does: independent Gaussians ``(batch, c, n)``."""
    if field.ndim < 3 or field.shape[1] % 2:
        raise InvalidArgumentError(
            "The output of the operator must be (batch, 2c, *space), as many standard deviations as means, "
            f"got {tuple(field.shape)}."
        )
    mean, root = field.flatten(2).chunk(2, dim=1)
    # torch rejects a Normal with scale 0, but every property used here is defined for it.
    return Normal(mean, unit * root.square(), validate_args=False)
