"""The velocity of a flow in Karhunen–Loève coefficients: a residual network around the velocity of a Gaussian."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from probconserv.errors import InvalidArgumentError


class ResidualVelocity(nn.Module):
    """v(z, t) = a(t) z + d/s network(z/s, t, inputs) with s² = t² d² + (1 − t)², d the spread of each coefficient.

    The first term, a = (t d² − (1 − t))/s², is the velocity that transports a standard normal to N(0, d²), to which
    coefficients come close; the network learns how the data differ from it and starts at zero.

    Args:
        size: Number r of coefficients.
        width: Features of every layer.
        blocks: Residual blocks of two layers.
        inputs: Number of parameters that the flow is conditional on.
        frequencies: Number of Fourier features of t.
        spread: d, one for each coefficient, the ``spread`` of ``KarhunenLoeve``; 1 without it.

    Raises:
        InvalidArgumentError: If a number is out of range.
    """

    spread: Tensor

    def __init__(
        self,
        size: int,
        width: int = 256,
        blocks: int = 4,
        inputs: int = 0,
        frequencies: int = 8,
        spread: Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__()
        if min(size, width, blocks, frequencies) < 1 or inputs < 0:
            raise InvalidArgumentError(
                f"size, width, blocks and frequencies must be at least 1 and inputs not negative, got {size}, {width}, "
                f"{blocks}, {frequencies} and {inputs}."
            )
        values = [1.0] * size if spread is None else [float(value) for value in spread]
        if len(values) != size or not min(values) > 0:
            raise InvalidArgumentError(f"spread must be {size} positive numbers, got {values}.")
        self.size, self.inputs = size, inputs
        self.config = {"width": width, "blocks": blocks, "inputs": inputs, "frequencies": frequencies, "spread": values}
        self.register_buffer("spread", torch.tensor(values), persistent=False)
        self.embed = nn.Linear(size + inputs, width)
        self.embed_time = nn.Linear(2 * frequencies, width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(blocks))
        self.output = nn.Linear(width, size)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, z: Tensor, t: Tensor, inputs: Tensor | None = None) -> Tensor:
        """The velocity.

        Args:
            z: Coefficients ``(s, r)``.
            t: Times ``(s,)``.
            inputs: Parameters ``(s, inputs)``.

        Returns:
            dz/dt ``(s, r)``.

        Raises:
            InvalidArgumentError: If the inputs do not have the number of columns that the network was built for.
        """
        columns = 0 if inputs is None else inputs.shape[-1]
        if columns != self.inputs:
            raise InvalidArgumentError(f"inputs must have {self.inputs} columns, got {columns}.")
        t = t[:, None]
        spread = self.spread.to(z)
        scale = ((t * spread) ** 2 + (1 - t) ** 2).sqrt()
        features = z / scale if inputs is None else torch.cat([z / scale, inputs], dim=-1)
        octaves = math.pi * torch.arange(1, self.embed_time.in_features // 2 + 1, device=z.device, dtype=z.dtype)
        time = self.embed_time(torch.cat([(octaves * t).cos(), (octaves * t).sin()], dim=-1))
        hidden = self.embed(features) + time
        for block in self.blocks:
            hidden = block(hidden, time)
        return (t * spread**2 - (1 - t)) / scale**2 * z + self.output(hidden) * spread / scale


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.normalise = nn.LayerNorm(width)
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, hidden: Tensor, time: Tensor) -> Tensor:
        return hidden + self.second(nn.functional.silu(self.first(self.normalise(hidden) + time)))
