"""The velocity of a flow: a network around the velocity of a Gaussian."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from probconserv.errors import InvalidArgumentError


class ResidualVelocity(nn.Module):
    """v(z, t) = a(t) z + d/s network(z/s, t) with s² = t² d² + (1 − t)², d the spread of each coefficient.

    The first term, a = (t d² − (1 − t))/s², is the velocity that transports a standard normal to N(0, d²), to which
    coefficients come close; the network learns how the data differ from it and starts at zero.

    Args:
        size: Number r of coefficients.
        width: Features of every layer.
        blocks: Residual blocks of two layers.
        frequencies: Number of Fourier features of t.
        spread: d, one for each coefficient, the ``spread`` of ``KarhunenLoeve``; 1 without it.
    """

    spread: Tensor

    def __init__(
        self,
        size: int,
        width: int = 256,
        blocks: int = 4,
        frequencies: int = 8,
        spread: Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__()
        if min(size, width, blocks, frequencies) < 1:
            raise InvalidArgumentError(
                f"size, width, blocks and frequencies must be at least 1, got {size}, {width}, {blocks} and "
                f"{frequencies}."
            )
        values = [1.0] * size if spread is None else [float(value) for value in spread]
        if len(values) != size or not min(values) > 0:
            raise InvalidArgumentError(f"spread must be {size} positive numbers, got {values}.")
        self.size = size
        self.config = {"width": width, "blocks": blocks, "frequencies": frequencies, "spread": values}
        self.register_buffer("spread", torch.tensor(values), persistent=False)
        self.embed = nn.Linear(size, width)
        self.embed_time = nn.Linear(2 * frequencies, width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(blocks))
        self.output = nn.Linear(width, size)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    @staticmethod
    def least_parameters(size: int, width: int, blocks: int, frequencies: int) -> int:
        """Number of the weights of a network, without biases and norms."""
        return 2 * width * (size + frequencies + blocks * width)

    @property
    def untrained(self) -> bool:
        """Whether the network is zero, as it was built."""
        return not any(bool(each.any()) for each in self.output.parameters())

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        """dz/dt ``(s, r)`` of coefficients z ``(s, r)`` at times ``(s,)``."""
        if z.shape[-1] != self.size:
            raise InvalidArgumentError(f"z must have {self.size} coefficients, got {z.shape[-1]}.")
        t = t[:, None]
        spread = self.spread.to(z)
        scale = ((t * spread) ** 2 + (1 - t) ** 2).sqrt()
        octaves = math.pi * torch.arange(1, self.embed_time.in_features // 2 + 1, device=z.device, dtype=z.dtype)
        time = self.embed_time(torch.cat([(octaves * t).cos(), (octaves * t).sin()], dim=-1))
        hidden = self.embed(z / scale) + time
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
