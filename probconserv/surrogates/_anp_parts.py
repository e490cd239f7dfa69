"""Parts of the attentive neural process: config, Fourier features, attention, encoders of observed points, decoder."""

from dataclasses import dataclass
from math import pi

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Normal

from probconserv.errors import InvalidArgumentError


@dataclass(frozen=True, kw_only=True)
class ANPConfig:
    """Sizes of an attentive neural process and ranges of its data.

    Args:
        problem: Name of the problem; empty accepts data of any problem.
        low: Lower ends of the coordinates (t, x, …), units of the problem.
        high: Upper ends of the coordinates.
        value_scale: Typical size of the field; the network works in this unit.
        width: Features of every layer, a multiple of ``heads``.
        heads: Attention heads.
        self_layers: Self-attention blocks over the context, in each path.
        cross_layers: Cross-attention blocks from targets to context.
        decoder_layers: Residual blocks of the decoder.
        latent_width: Size of z.
        frequencies: Octaves of Fourier features of every target coordinate, fine enough for sharp fronts.
        context_frequencies: Octaves of Fourier features of every observed coordinate. Functions differ smoothly, so
            the finest octaves would only add noise here.
        value_frequencies: Octaves of Fourier features of observed values. Small differences between large values would
            be lost in a linear embedding in bfloat16.
        dropout: Probability of dropping a feature in training.
        scale_floor: Smallest predicted scale, units of the field; no more than ``value_scale``.
        latent_samples: Components of a prediction: draws of z.
        sample_seed: Seed of these draws, the same for all functions, so that predictions are deterministic.
    """

    problem: str = ""
    low: tuple[float, ...]
    high: tuple[float, ...]
    value_scale: float = 1.0
    width: int = 128
    heads: int = 2
    self_layers: int = 2
    cross_layers: int = 1
    decoder_layers: int = 4
    latent_width: int = 64
    frequencies: int = 9
    context_frequencies: int = 4
    value_frequencies: int = 6
    dropout: float = 0.0
    scale_floor: float = 1e-3
    latent_samples: int = 100
    sample_seed: int = 0

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high) or not all(a < b for a, b in zip(self.low, self.high, strict=True)):
            raise InvalidArgumentError(
                f"low and high need one entry per coordinate with low < high, got {self.low} and {self.high}."
            )
        for name in ("width", "heads", "cross_layers", "latent_width", "latent_samples"):
            if getattr(self, name) < 1:
                raise InvalidArgumentError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("self_layers", "decoder_layers", "frequencies", "context_frequencies", "value_frequencies"):
            if getattr(self, name) < 0:
                raise InvalidArgumentError(f"{name} must not be negative, got {getattr(self, name)}.")
        if self.width % self.heads:
            raise InvalidArgumentError(f"width must be a multiple of heads = {self.heads}, got {self.width}.")
        if self.value_scale <= 0 or self.scale_floor <= 0 or not 0 <= self.dropout < 1:
            raise InvalidArgumentError(
                "value_scale and scale_floor must be positive and dropout in [0, 1), "
                f"got {self.value_scale}, {self.scale_floor} and {self.dropout}."
            )
        if self.scale_floor > self.value_scale:
            raise InvalidArgumentError(
                f"scale_floor is a smallest standard deviation in units of the field, but {self.scale_floor:g} is more "
                f"than the typical size of the field, value_scale = {self.value_scale:g}; give about a thousandth of "
                "that."
            )

    @property
    def blocks(self) -> int:
        """Number of attention and residual blocks; each has several tensors."""
        return 2 * self.self_layers + self.cross_layers + self.decoder_layers

    @property
    def least_parameters(self) -> int:
        """A lower bound on the number of parameters, within a factor of ten: one matrix per layer, no biases."""
        features = feature_count(len(self.low), self.frequencies) + feature_count(
            len(self.low), self.context_frequencies
        )
        features += feature_count(1, self.value_frequencies)
        return self.width * (self.width * (1 + self.blocks) + features + self.latent_width)


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


class SetEncoder(nn.Module):
    """Observed points → encoded points ``(*batch, n, width)`` by self-attention."""

    def __init__(self, config: ANPConfig) -> None:
        super().__init__()
        self.frequencies, self.value_frequencies = config.context_frequencies, config.value_frequencies
        features = feature_count(len(config.low), self.frequencies) + feature_count(1, self.value_frequencies)
        self.embed = nn.Linear(features, config.width)
        self.blocks = nn.ModuleList(
            AttentionBlock(config.width, config.heads, config.dropout) for _ in range(config.self_layers)
        )
        self.normalise = nn.LayerNorm(config.width)

    def forward(self, points: Tensor, values: Tensor) -> Tensor:
        encoded = coordinate_features(points, self.frequencies)
        observed = coordinate_features(values[..., None], self.value_frequencies)
        hidden = self.embed(torch.cat((encoded, observed), dim=-1).to(self.embed.weight))
        for block in self.blocks:
            hidden = block(hidden)
        return self.normalise(hidden)


class LatentEncoder(nn.Module):
    """Observed points → Gaussian q(z | points), independent entries."""

    def __init__(self, config: ANPConfig) -> None:
        super().__init__()
        self.encoder = SetEncoder(config)
        self.hidden = nn.Linear(config.width, config.width)
        self.moments = nn.Linear(config.width, 2 * config.latent_width)

    def forward(self, points: Tensor, values: Tensor) -> Normal:
        summary = self.encoder(points, values).mean(dim=-2)
        loc, raw = at_least_float32(self.moments(nn.functional.gelu(self.hidden(summary)))).chunk(2, dim=-1)
        # The scale stays within (0.001, 1): a vanishing one would make the divergence infinite.
        return Normal(loc, 0.001 + 0.999 * torch.sigmoid(raw), validate_args=False)


class Decoder(nn.Module):
    """Target representation and z → mean and positive scale of every target, in units of the field's size."""

    def __init__(self, config: ANPConfig) -> None:
        super().__init__()
        self.condition = nn.Linear(config.latent_width, config.width)
        self.blocks = nn.ModuleList(ResidualMLP(config.width, config.dropout) for _ in range(config.decoder_layers))
        self.normalise = nn.LayerNorm(config.width)
        self.output = nn.Linear(config.width, 2)
        nn.init.normal_(self.output.weight, std=0.01)

    def forward(self, hidden: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        hidden = hidden + self.condition(z)[..., None, :]
        for block in self.blocks:
            hidden = block(hidden)
        mean, raw = at_least_float32(self.output(self.normalise(hidden))).unbind(dim=-1)
        return mean, nn.functional.softplus(raw)
