"""An FNO as the velocity of a flow of fields, for generative models whose state is a field on a grid."""

from dataclasses import replace
from math import pi

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boon.errors import InvalidArgumentError
from boon.fno import FNO, FNOConfig


class FNOVelocity(nn.Module):
    """v(z, t) by an FNO: the field is a channel, sines and cosines of the time are constant ones.

    The velocity of ``probconserv.FlowMatching`` in a ``FieldLatent``, as in functional flow matching (Kerrigan et al.,
    AISTATS 2024) and ECI (Cheng et al., ICLR 2025).

    Args:
        config: Sizes and options of the FNO; its channels follow from the other arguments.
        frequencies: Number K of frequencies; the time enters as t and cos πkt, sin πkt for k = 1 … K.

    Raises:
        InvalidArgumentError: If ``frequencies`` is negative.
    """

    def __init__(self, config: FNOConfig, *, frequencies: int = 4) -> None:
        super().__init__()
        if frequencies < 0:
            raise InvalidArgumentError(f"frequencies must not be negative, got {frequencies}.")
        self.frequencies = frequencies
        self.operator = FNO(replace(config, in_channels=2 + 2 * frequencies, out_channels=1))

    def forward(self, z: Float[Tensor, "s ..."], t: Float[Tensor, " s"]) -> Float[Tensor, "s ..."]:
        """dz/dt.

        Args:
            z: Fields, both ends of every axis included.
            t: Times.

        Raises:
            InvalidArgumentError: If the field has another number of axes.
        """
        axes = self.operator.config.dimension
        if z.ndim != axes + 1:
            raise InvalidArgumentError(
                f"FNOVelocity maps fields (s, *space) with {axes} axes, got a field {tuple(z.shape)}."
            )
        angles = pi * torch.arange(1, self.frequencies + 1, device=z.device, dtype=z.dtype) * t[:, None]
        constant = torch.cat([t[:, None], angles.cos(), angles.sin()], dim=1)
        constant = constant.reshape(*constant.shape, *[1] * axes).expand(-1, -1, *z.shape[1:])
        return self.operator(torch.cat([z[:, None], constant], dim=1))[:, 0]
