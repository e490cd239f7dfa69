"""Building blocks of neural processes: Fourier features of coordinates, attention and residual blocks."""

from math import pi

import torch
from jaxtyping import Float
from torch import Tensor, nn


def coordinate_features(points: Float[Tensor, "*batch n d"], frequencies: int) -> Float[Tensor, "*batch n features"]:
    """Coordinates and their Fourier features sin(2ʲπp/2), cos(2ʲπp/2), j = 0 … frequencies − 1.

    Coordinates are scaled to [−1, 1]; the lowest frequency has a period of twice that interval.
    """
    octaves = 0.5 * pi * 2.0 ** torch.arange(frequencies, dtype=points.dtype, device=points.device)
    angles = (points[..., None] * octaves).flatten(start_dim=-2)
    return torch.cat((points, torch.sin(angles), torch.cos(angles)), dim=-1)


def feature_count(coordinates: int, frequencies: int) -> int:
    """Number of features of one point in ``coordinate_features``."""
    return coordinates * (1 + 2 * frequencies)


class AttentionBlock(nn.Module):
    """Residual pre-normalised attention and two-layer network; leaves its input unchanged before training."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.normalise = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = zero_linear(width, width)
        self.drop = nn.Dropout(dropout)
        self.mlp = ResidualMLP(width, dropout)

    def forward(
        self, points: Float[Tensor, "*batch q width"], observed: Float[Tensor, "*batch n width"] | None = None
    ) -> Float[Tensor, "*batch q width"]:
        """Lets points attend to observed, normalised features, or to each other."""
        normalised = self.normalise(points)
        query = self._split(self.query(normalised))
        key, value = self.key_value(normalised if observed is None else observed).chunk(2, dim=-1)
        attended = _attend(query, self._split(key), self._split(value))
        points = points + self.drop(self.output(attended.transpose(-3, -2).flatten(start_dim=-2)))
        return self.mlp(points)

    def _split(self, features: Tensor) -> Tensor:
        """``(*batch, n, width)`` → ``(*batch, heads, n, width/heads)``."""
        return features.unflatten(-1, (self.heads, -1)).transpose(-3, -2)


def zero_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer initialised to zero, so that a deep residual network first trains its shallow parts."""
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def at_least_float32(values: Tensor) -> Tensor:
    """The values in float32 if their dtype is narrower; bfloat16 would round an output to three digits."""
    return values if values.dtype == torch.float64 else values.float()


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Scaled dot-product attention; in float32 on the CPU, where the bfloat16 kernel is several times slower."""
    if query.device.type != "cpu":
        return nn.functional.scaled_dot_product_attention(query, key, value)
    with torch.autocast("cpu", enabled=False):
        query, key, value = at_least_float32(query), at_least_float32(key), at_least_float32(value)
        return nn.functional.scaled_dot_product_attention(query, key, value)


class ResidualMLP(nn.Module):
    """h + W₂ gelu(W₁ norm(h)), point by point; leaves its input unchanged before training."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), zero_linear(width, width), nn.Dropout(dropout)
        )

    def forward(self, hidden: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Updates the features."""
        return hidden + self.layers(hidden)
