"""The velocity of a flow: a network around the velocity of a Gaussian, in coefficients or on fields."""

import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from probconserv.errors import InvalidArgumentError
from probconserv.surrogates.flow.latent import FieldLatent


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


class ResidualFieldVelocity(nn.Module):
    """v(z, t) of fields: that of a Gaussian with the modes of the data, and a network for how the data differ from it.

    The component c of z along a mode, with variances d² in the data and k in the noise, has s² = t² d² + (1 − t)² k,

        v = (t d² − (1 − t) k)/s² c + d √k/s n,

    where n is the component of the network's output; noise is taken to be independent between modes. The network sees
    the field of all c/s, which are of size 1. The rest of z is moved by the first term alone: what is rough, such as a
    value imposed on one line of the grid, goes away and does not reach the network.

    Args:
        network: From fields ``(s, *space)`` and times ``(s,)`` to fields, for instance ``boon.FNOVelocity``.
        size: Number of modes.
        points: Points of a field. ``of`` takes all three, and the modes, from a latent.
    """

    modes: Tensor
    spread: Tensor
    noise: Tensor

    def __init__(self, network: nn.Module, size: int, points: int) -> None:
        super().__init__()
        if not 1 <= size < points:
            raise InvalidArgumentError(f"size must lie between 1 and the {points} points less one, got {size}.")
        self.network = network
        self.register_buffer("modes", torch.eye(size, points))
        self.register_buffer("spread", torch.ones(size + 1))
        self.register_buffer("noise", torch.ones(size + 1))

    @classmethod
    def of(cls, latent: FieldLatent, network: nn.Module) -> Self:
        """The velocity with the modes, variances and noise of a latent."""
        root = latent.modes.root / latent.scale
        size, points = root.shape
        velocity, spread = cls(network, size, points), torch.linalg.vector_norm(root, dim=-1)
        modes = root / spread[:, None]
        factor = latent.noise_root
        noise = torch.ones(size) if factor is None else (modes @ factor).square().sum(dim=-1)
        total = points if factor is None else factor.square().sum()
        rest = latent.modes.noise_variance.mean().sqrt() / latent.scale
        velocity.modes.copy_(modes)
        velocity.spread.copy_(torch.cat([spread, rest[None]]))
        velocity.noise.copy_(torch.cat([noise, ((total - noise.sum()) / (points - size))[None]]))
        return velocity

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        """dz/dt of fields z ``(s, *space)``, scaled as in ``FieldLatent``."""
        modes, d, k = self.modes.to(z), self.spread.to(z), self.noise.to(z)
        flat, t_ = z.flatten(1), t[:, None]
        along = flat @ modes.mT
        squares = (t_ * d) ** 2 + (1 - t_) ** 2 * k
        gaussian = (t_ * d**2 - (1 - t_) * k) / squares
        unit, size = squares[:, :-1].sqrt(), (modes.shape[1] / modes.shape[0]) ** 0.5
        seen = size * (along / unit) @ modes
        learnt = self.network(seen.reshape(z.shape), t).flatten(1) @ modes.mT / size
        change = (gaussian[:, :-1] - gaussian[:, -1:]) * along + d[:-1] * k[:-1].sqrt() / unit * learnt
        return (gaussian[:, -1:] * flat + change @ modes).reshape(z.shape)


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.normalise = nn.LayerNorm(width)
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, hidden: Tensor, time: Tensor) -> Tensor:
        return hidden + self.second(nn.functional.silu(self.first(self.normalise(hidden) + time)))
