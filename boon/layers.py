"""Parts of the layers of an operator other than its kernels: maps at every node."""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

Skip = Literal["linear", "identity", "soft-gating"]
Activation = Literal["gelu", "relu", "silu", "tanh"]
SKIPS, ACTIVATIONS = get_args(Skip), get_args(Activation)


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
