"""The Fourier neural operator in one to three dimensions (Li et al. 2021)."""

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite, pi
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boon._tensors.values import check_tensor
from boon.domain import positions
from boon.errors import InvalidArgumentError
from boon.layers import (
    ACTIVATIONS,
    SKIPS,
    Activation,
    ChannelMLP,
    Pointwise,
    Skip,
    SoftGating,
    activate,
    skip_connection,
)
from boon.spectral import Basis, Convolution, SpectralConvolution, fourier_basis
from boon.transforms import DomainFourier, FourierTransform
from solvers.recording import are_readable

LATER = {"later": True}
"""Marks an option that was added after a release: descriptions of trainings leave it out while it has its default."""


@dataclass(frozen=True, kw_only=True)
class FNOConfig:
    """Sizes and options of a Fourier neural operator; the number of axes is ``len(modes)``.

    Args:
        in_channels: Channels of the input field.
        out_channels: Channels of the output field.
        width: Channels of the hidden layers.
        modes: Frequencies 0 … m − 1 kept along every axis.
        depth: Number of Fourier layers.
        padding: Extension of the axes that are not periodic, as a fraction of their length; one number for all axes
            or one for each.
        periodic: Whether each axis is periodic; empty means that none is. The last node equals the first; in cells
            (see ``transform``) the first follows the last.
        coordinates: Whether to add coordinates x/length along every axis (sine and cosine if periodic) to the input.
        projection: Channels of the last hidden layer; None means 2·width.
        transform: Period and weights of the Fourier series on axes that are not periodic. ``DomainFourier()`` gives the
            same network on every grid at nodes, ``CellFourier()`` for averages over cells; operators of version 0.1
            have ``NodeFourier()``.
        skip: What a layer adds to its kernel: "linear" W v + b, "identity" v, "soft-gating" w v with one number w for
            every channel.
        channel_mlp: Hidden channels of a two-layer network at every node at the end of a layer, as a multiple of the
            width; the layer's input, gated as in "soft-gating", is added to its result. None for none.
        activation: "gelu", "relu", "silu" or "tanh".
        increment: Factor s of an operator that predicts changes, the first ``out_channels`` of the input plus s times
            what the network gives: about the size of a change in a step, in the units of the input. For fields of one
            time from those of the one before; a rollout of such steps needs training over several of them. None for an
            operator that predicts the field.

    Raises:
        InvalidArgumentError: If a count is below 1 or no whole number, an entry per axis is missing or an option has no
            such value.
    """

    in_channels: int = 1
    out_channels: int = 1
    width: int = 64
    modes: tuple[int, ...] = (16,)
    depth: int = 4
    padding: float | tuple[float, ...] = 0.125
    periodic: tuple[bool, ...] = ()
    coordinates: bool = True
    projection: int | None = None
    transform: FourierTransform = field(default_factory=DomainFourier)
    skip: Skip = "linear"
    channel_mlp: float | None = None
    activation: Activation = "gelu"
    increment: float | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        self._convert_numbers()
        self._check_options()
        sizes = (self.in_channels, self.out_channels, self.width, self.depth)
        counts = (*sizes, self.projection or 1, *self.modes)
        if not self.modes or min(counts) < 1:
            raise InvalidArgumentError(
                f"FNOConfig needs one number of modes per axis and every count at least 1, got {self}."
            )
        if len(self.paddings) != self.dimension or min(self.paddings) < 0:
            raise InvalidArgumentError(
                f"padding must be one number ≥ 0 or one per axis ({self.dimension}), got {self.padding}."
            )
        if self.periodic and len(self.periodic) != self.dimension:
            raise InvalidArgumentError(
                f"periodic must be empty or have one entry per axis ({self.dimension}), got {self.periodic}."
            )

    def _convert_numbers(self) -> None:
        """Numbers of Python in place of those of arrays, which files cannot hold."""
        for name, convert in _CONVERSIONS.items():
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, None if value is None else convert(value))
            except (TypeError, ValueError) as error:
                raise InvalidArgumentError(
                    "FNOConfig needs whole numbers as sizes, one number of modes per axis, and numbers as padding and "
                    f"channel_mlp, got {name}={value!r}."
                ) from error

    def _check_options(self) -> None:
        for name, options in (("skip", SKIPS), ("activation", ACTIVATIONS)):
            if getattr(self, name) not in options:
                raise InvalidArgumentError(f"{name} must be one of {options}, got {getattr(self, name)!r}.")
        if self.increment is not None and not (0 < self.increment < inf and self.in_channels >= self.out_channels):
            raise InvalidArgumentError(
                "increment must be positive and finite, and the input must begin with the channels of the output, got "
                f"{self.increment} with {self.in_channels} channels in and {self.out_channels} out."
            )
        if self.projection == 0 or (self.channel_mlp is not None and not self.mlp_channels >= 1):
            raise InvalidArgumentError(
                "projection and channel_mlp (times the width) need at least one channel, got "
                f"{self.projection} and {self.channel_mlp}; None leaves them out."
            )

    @property
    def mlp_channels(self) -> int:
        """Hidden channels of the channel MLPs, 0 without them."""
        ratio = self.channel_mlp or 0.0
        return round(ratio * self.width) if isfinite(ratio) else 0

    @property
    def dimension(self) -> int:
        """Number of axes."""
        return len(self.modes)

    @property
    def paddings(self) -> tuple[float, ...]:
        """The padding of every axis."""
        return self.padding if isinstance(self.padding, tuple) else (self.padding,) * len(self.modes)

    def is_periodic(self, axis: int) -> bool:
        """Whether an axis is periodic."""
        return bool(self.periodic) and self.periodic[axis]


def _one_or_several(value: Any) -> float | tuple[float, ...]:
    return tuple(map(float, value)) if hasattr(value, "__len__") else float(value)


_ROUNDING = 1e-6
_SIZES = ("in_channels", "out_channels", "width", "depth", "projection")
_CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(_SIZES, operator.index),
    "modes": lambda counts: tuple(map(operator.index, counts)),
    "padding": _one_or_several,
    "periodic": lambda flags: tuple(map(bool, flags)),
    "coordinates": bool,
    "channel_mlp": float,
    "increment": float,
}


class Layers(ABC):
    """Evaluation of the Fourier layers of an operator; boundary corrections replace parts of it."""

    @abstractmethod
    def bases(self, config: FNOConfig, shape: Sequence[int], like: Tensor) -> tuple[Basis, ...]:
        """The basis functions for fields of this shape, one basis per axis."""

    @abstractmethod
    def prepare(self, layer: int, v: Tensor) -> Tensor:
        """The features ``(batch, width, *space)`` that enter Fourier layer number ``layer``."""

    @abstractmethod
    def kernel(self, convolution: Convolution, v: Tensor, bases: Sequence[Basis]) -> Tensor:
        """The kernel of a layer applied to its features."""


@dataclass(frozen=True)
class PlainLayers(Layers):
    """The layers without correction."""

    def bases(self, config: FNOConfig, shape: Sequence[int], like: Tensor) -> tuple[Basis, ...]:
        return fourier_bases(config, shape, like)

    def prepare(self, layer: int, v: Tensor) -> Tensor:  # noqa: ARG002
        return v

    def kernel(self, convolution: Convolution, v: Tensor, bases: Sequence[Basis]) -> Tensor:
        return convolution(v, bases)


def fourier_bases(config: FNOConfig, shape: Sequence[int], like: Tensor) -> tuple[Basis, ...]:
    """The Fourier basis of every axis of an operator on fields of this shape."""
    return tuple(
        fourier_basis(count, modes, padding, periodic=config.is_periodic(axis), like=like, transform=config.transform)
        for axis, (count, modes, padding) in enumerate(zip(shape, config.modes, config.paddings, strict=True))
    )


class FNO(nn.Module):
    """Field to field: u = Q ∘ L_depth ∘ … ∘ L₁ ∘ P a with L v = σ(W v + b + K v).

    P and Q act pointwise; K is a ``SpectralConvolution``; the last layer has no activation. With the options of
    ``FNOConfig`` it is L v = σ(M σ(S v + K v) + w v), with a skip connection S, a channel MLP M and a gate w, as in the
    FNO of neuraloperator (Kossaifi et al. 2023).

    Args:
        config: Sizes and options.
    """

    def __init__(self, config: FNOConfig) -> None:
        super().__init__()
        self.config = config
        width, projection = config.width, config.projection or 2 * config.width
        features = sum(2 if config.is_periodic(axis) else 1 for axis in range(config.dimension))
        self.lift = Pointwise(config.in_channels + (features if config.coordinates else 0), width)
        self.convolutions = nn.ModuleList(SpectralConvolution(width, width, config.modes) for _ in range(config.depth))
        self.pointwise = nn.ModuleList(skip_connection(config.skip, width) for _ in range(config.depth))
        self.project = Pointwise(width, projection)
        self.read_out = Pointwise(projection, config.out_channels)
        self.mlps, self.gates = nn.ModuleList(), nn.ModuleList()
        for _ in range(config.depth if config.channel_mlp is not None else 0):
            self.mlps.append(ChannelMLP(width, config.mlp_channels, config.activation))
            self.gates.append(SoftGating(width))

    def forward(
        self, x: Float[Tensor, "batch in_channels *space"], layers: Layers | None = None
    ) -> Float[Tensor, "batch out_channels *space"]:
        """Maps input fields to output fields on the same nodes, at any resolution.

        Args:
            x: Input fields, at nodes with both ends of every axis included, or in cells, see ``FNOConfig.transform``.
            layers: A correction of the layers; None for no correction.

        Raises:
            InvalidArgumentError: If the input has another number of channels or axes, or outside autocast another dtype
                than the weights.
            TooManyModesError: If the grid is too coarse for the modes kept.
        """
        self._check(x)
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(self.lift.weight.dtype)
        layers = layers or PlainLayers()
        bases = layers.bases(self.config, x.shape[2:], x)
        v = self.lift(torch.cat([x, *self._coordinates(x)], dim=1) if self.config.coordinates else x)
        for index in range(self.config.depth):
            v = self._layer(index, layers.prepare(index, v), layers, bases)
        u = self.read_out(activate(self.project(v), self.config.activation))
        return u if self.config.increment is None else x[:, : u.shape[1]] + self.config.increment * u

    def _layer(self, index: int, v: Tensor, layers: Layers, bases: Sequence[Basis]) -> Tensor:
        """One Fourier layer on prepared features."""
        last = index + 1 == self.config.depth
        u = self.pointwise[index](v) + layers.kernel(self.convolution(index), v, bases)
        if not last:
            u = activate(u, self.config.activation)
        if not self.mlps:
            return u
        u = self.mlps[index](u) + self.gates[index](v)
        return u if last else activate(u, self.config.activation)

    @property
    def is_trained(self) -> bool:
        """Whether a spectral weight lies outside of the interval from which it was drawn: training moves some out."""
        weights = [self.convolution(layer).weight.detach() for layer in range(self.config.depth)]
        parts, limit = [torch.view_as_real(weight) for weight in weights], (1 + _ROUNDING) / self.config.width**2
        return are_readable(*self.parameters()) and any(bool(((part < 0) | (part > limit)).any()) for part in parts)

    def convolution(self, layer: int) -> SpectralConvolution:
        """The spectral convolution of a layer."""
        convolution = self.convolutions[layer]
        assert isinstance(convolution, SpectralConvolution)
        return convolution

    def _coordinates(self, a: Tensor) -> list[Tensor]:
        """The coordinates of every node, one or two channels per axis, expanded to the batch."""
        shape, channels = a.shape[2:], []
        for axis, count in enumerate(shape):
            position = positions(count, self.config.transform.cells)
            angle = 2 * pi * torch.where(position == 1.0, 0.0, position)
            values = (angle.cos(), angle.sin()) if self.config.is_periodic(axis) else (position,)
            for value in values:
                along = value.to(a).view([count if other == axis else 1 for other in range(len(shape))])
                channels.append(along.expand(a.shape[0], 1, *shape))
        return channels

    def _check(self, a: Tensor) -> None:
        check_tensor(a)
        config = self.config
        if a.ndim != config.dimension + 2 or a.shape[1] != config.in_channels:
            raise InvalidArgumentError(
                f"The input must be (batch, {config.in_channels}, *space) with {config.dimension} axes, "
                f"got {tuple(a.shape)}."
            )
        weights = self.lift.weight.dtype
        if a.dtype != weights and not torch.is_autocast_enabled(a.device.type):
            raise InvalidArgumentError(
                f"The input is {a.dtype}, the weights are {weights}; give the input as .to({weights}), call "
                "the operator under torch.autocast, or turn the operator to .double() for float64."
            )
