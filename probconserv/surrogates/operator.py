"""Operators as black boxes: half of the output channels are a mean, half a deviation."""

import math
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Normal

from probconserv.errors import InvalidArgumentError


class GaussianOperator(nn.Module):
    """A map from fields to fields read as independent Gaussians, one distribution per output channel (output time).

        μ = a,   σ = unit · b²

    where a is the first half of the operator's channels and b the second. σ is smooth, not negative, and 0 where b is:
    an operator that meets the Dirichlet condition (g, 0), as ``boon.BOON`` makes any operator do, predicts its boundary
    values exactly and knows that it does. An update outside leaves such values alone.

    Args:
        operator: ``(batch, in_channels, *space)`` → ``(batch, 2c, *space)``; what else it takes is passed on.
        unit: Deviation where b = 1, in the units of the field.

    Raises:
        InvalidArgumentError: If the unit is not a positive number.
    """

    def __init__(self, operator: nn.Module, unit: float = 0.1) -> None:
        super().__init__()
        if not (math.isfinite(unit) and unit > 0):
            raise InvalidArgumentError(f"unit must be positive and finite, got {unit}.")
        self.operator = operator
        self.unit = unit

    def forward(self, *arguments: Any) -> Normal:
        """Calls the operator and reads its output.

        Args:
            *arguments: What the operator takes.

        Returns:
            Independent Gaussians ``(batch, c, n)`` over the n points of space, in row-major order.

        Raises:
            InvalidArgumentError: If the operator gives an odd number of channels or no field.
        """
        return as_gaussian(self.operator(*arguments), self.unit)


def as_gaussian(field: Float[Tensor, "batch channels *space"], unit: float) -> Normal:
    """Reads a field as ``GaussianOperator`` does.

    Args:
        field: ``(batch, 2c, *space)``.
        unit: Deviation where the second half of the channels is 1.

    Returns:
        Independent Gaussians ``(batch, c, n)``; a deviation may be 0.

    Raises:
        InvalidArgumentError: If the number of channels is odd or there is no axis of space.
    """
    if field.ndim < 3 or field.shape[1] % 2:
        raise InvalidArgumentError(
            "The output of the operator must be (batch, 2c, *space), as many channels for deviations as for means, "
            f"got {tuple(field.shape)}."
        )
    mean, root = field.flatten(2).chunk(2, dim=1)
    # torch calls a Normal of no deviation invalid, but all that is asked of this one is defined for it.
    return Normal(mean, unit * root.square(), validate_args=False)
