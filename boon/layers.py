"""Parts of the layers of an operator beside its kernels: maps at every node, and norms that see no grid."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from boon._tensors.tables import cached_table
from boon.transforms import DomainFourier

Skip = Literal["linear", "identity", "soft-gating"]
Activation = Literal["gelu", "relu", "silu", "tanh"]
Norm = Literal["instance", "group"]
SKIPS, ACTIVATIONS, NORMS = get_args(Skip), get_args(Activation), get_args(Norm)
_SMALL = 1e-5


class Pointwise(nn.Module):
    """y = W x + b at every node: ``(batch, in, *space)`` → ``(batch, out, *space)``."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        bound = in_channels**-0.5
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out_channels).uniform_(-bound, bound))

    def forward(self, x: Float[Tensor, "batch in *space"]) -> Float[Tensor, "batch out *space"]:
        """Applies the map."""
        weight = self.weight.expand(x.shape[0], -1, -1)
        return torch.baddbmm(self.bias[:, None], weight, x.flatten(2)).unflatten(-1, x.shape[2:])


class SoftGating(nn.Module):
    """y = w x with one number w for every channel, 1 at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Float[Tensor, "batch channels *space"]) -> Float[Tensor, "batch channels *space"]:
        """Scales the channels."""
        return self.weight.view(-1, *[1] * (x.ndim - 2)) * x


class ChannelMLP(nn.Module):
    """Two affine maps with an activation between them at every node, channels → hidden → channels.

    Args:
        channels: Channels of input and output.
        hidden: Channels between the two maps.
        activation: The activation between them.
    """

    def __init__(self, channels: int, hidden: int, activation: Activation) -> None:
        super().__init__()
        self.first, self.second = Pointwise(channels, hidden), Pointwise(hidden, channels)
        self.activation: Activation = activation

    def forward(self, x: Float[Tensor, "batch channels *space"]) -> Float[Tensor, "batch channels *space"]:
        """Applies the maps."""
        return self.second(activate(self.first(x), self.activation))


def skip_connection(kind: Skip, channels: int) -> nn.Module:
    """The skip connection of a layer, ``(batch, channels, *space)`` to the same."""
    if kind == "linear":
        return Pointwise(channels, channels)
    return nn.Identity() if kind == "identity" else SoftGating(channels)


def activate(x: Tensor, kind: Activation) -> Tensor:
    """The activation of this name."""
    if kind == "gelu":
        return functional.gelu(x)
    if kind == "silu":
        return functional.silu(x)
    return x.relu() if kind == "relu" else x.tanh()


class FieldNorm(nn.Module):
    """y = γ (x − μ)/√(σ² + 1e-5) + β with means μ and σ² of every sample over the domain.

    Means are integrals: sums over cells; at nodes of order 4 along axes that are not periodic (``DomainFourier``), the
    trapezoid rule along periodic ones. A mean over nodes would give the end nodes twice the part of the domain that
    they stand for and make the network depend on the grid.

    Args:
        channels: Channels of the features; each has a γ (1 at first) and a β (0 at first).
        kind: "instance" has μ and σ of every channel, "group" those of all channels together.
        periodic: Whether each axis is periodic.
        cells: Whether fields are averages over cells.
    """

    def __init__(self, channels: int, kind: Norm, periodic: Sequence[bool], cells: bool = False) -> None:
        super().__init__()
        self.kind: Norm = kind
        self.cells = cells
        self.periodic = tuple(periodic)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Float[Tensor, "batch channels *space"]) -> Float[Tensor, "batch channels *space"]:
        """Applies the norm, under autocast in the dtype of its weights."""
        if torch.is_autocast_enabled(x.device.type):
            with torch.autocast(x.device.type, enabled=False):
                return self(x.to(self.weight.dtype))
        mean = self._mean(x)
        centred = x - mean
        variance = self._mean(centred.square())
        channel = (-1, *[1] * (x.ndim - 2))
        return centred * (variance + _SMALL).rsqrt() * self.weight.view(channel) + self.bias.view(channel)

    def _mean(self, x: Tensor) -> Tensor:
        """``(batch, channels or 1, *1)``."""
        means = x
        for axis, periodic in reversed(list(enumerate(self.periodic))):
            means = means @ mean_weights(x.shape[2 + axis], periodic, self.cells).to(x)
        if self.kind == "group":
            means = means.mean(1, keepdim=True)
        return means.view(*means.shape, *[1] * (x.ndim - 2))


@cached_table
def mean_weights(count: int, periodic: bool, cells: bool = False) -> Float[Tensor, " n"]:
    """Weights of the nodes or cells in a mean over an axis, float64.

    Args:
        count: Number n of nodes, both ends included, or of cells.
        periodic: Whether the last node equals the first.
        cells: Whether fields are averages over cells.
    """
    weights = torch.ones(count, dtype=torch.float64)
    ends = () if cells else (0.5,) if periodic else DomainFourier().end_weights(count)
    for node, factor in enumerate(ends):
        weights[[node, count - 1 - node]] = factor
    return weights / weights.sum()
