"""An FNO as the velocity of a flow of fields, for generative models whose state is a field on a grid."""

from dataclasses import replace
from math import pi

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boon.errors import InvalidArgumentError
from boon.fno import FNO, FNOConfig


class FNOVelocity(nn.Module):
    """v(z, t) by an FNO: the field is a channel, sines and cosines of the time and any parameters are constant ones.

    The velocity of ``probconserv.FlowMatching`` in a ``FieldLatent``, as in functional flow matching (Kerrigan et al.,
    AISTATS 2024) and ECI (Cheng et al., ICLR 2025).

    Args:
        config: Sizes and options of the FNO; its channels follow from the other arguments.
        inputs: Number of parameters that the flow is conditional on.
        frequencies: Number K of frequencies; the time enters as t and cos πkt, sin πkt for k = 1 … K.

    Raises:
        InvalidArgumentError: If a number is negative.
    """

    def __init__(self, config: FNOConfig, *, inputs: int = 0, frequencies: int = 4) -> None:
        super().__init__()
        if min(inputs, frequencies) < 0:
            raise InvalidArgumentError(f"inputs and frequencies must not be negative, got {inputs} and {frequencies}.")
        self.inputs, self.frequencies = inputs, frequencies
        channels = 2 + 2 * frequencies + inputs
        self.operator = FNO(replace(config, in_channels=channels, out_channels=1))

    def forward(
        self, z: Float[Tensor, "s ..."], t: Float[Tensor, " s"], inputs: Float[Tensor, "s d"] | None = None
    ) -> Float[Tensor, "s ..."]:
        """The velocity.

        Args:
            z: Fields, both ends of every axis included.
            t: Times.
            inputs: Parameters of every field.

        Returns:
            dz/dt.

        Raises:
            InvalidArgumentError: If the field has another number of axes, or the inputs another number of columns.
        """
        axes, columns = self.operator.config.dimension, 0 if inputs is None else inputs.shape[-1]
        if z.ndim != axes + 1 or columns != self.inputs:
            raise InvalidArgumentError(
                f"FNOVelocity maps fields (s, *space) with {axes} axes and {self.inputs} inputs, got a field "
                f"{tuple(z.shape)} and {columns} inputs."
            )
        angles = pi * torch.arange(1, self.frequencies + 1, device=z.device, dtype=z.dtype) * t[:, None]
        constants = [t[:, None], angles.cos(), angles.sin()] + ([] if inputs is None else [inputs])
        constant = torch.cat(constants, dim=1)
        constant = constant.reshape(*constant.shape, *[1] * axes).expand(-1, -1, *z.shape[1:])
        return self.operator(torch.cat([z[:, None], constant], dim=1))[:, 0]
