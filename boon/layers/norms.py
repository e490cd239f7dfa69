"""Norms of features whose means are integrals over the domain, so that a network is the same on every grid."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boon._tensors.tables import cached_table
from boon.transforms import DomainFourier

Norm = Literal["instance", "group"]
NORMS = get_args(Norm)
_SMALL = 1e-5


class FieldNorm(nn.Module):
    """y = γ (x − μ)/√(σ² + 1e-5) + β with means μ and σ² of every sample over the domain.

    Means are integrals, of order 4 along axes that are not periodic (``DomainFourier``) and by the trapezoid rule along
    periodic ones. A mean over nodes would give the end nodes twice the part of the domain that they stand for and make
    the network depend on the grid.

    Args:
        channels: Channels of the features; each has a γ (1 at first) and a β (0 at first).
        kind: "instance" has μ and σ of every channel, "group" those of all channels together.
        periodic: Whether each axis is periodic.
    """

    def __init__(self, channels: int, kind: Norm, periodic: Sequence[bool]) -> None:
        super().__init__()
        self.kind: Norm = kind
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
            means = means @ mean_weights(x.shape[2 + axis], periodic).to(x)
        if self.kind == "group":
            means = means.mean(1, keepdim=True)
        return means.view(*means.shape, *[1] * (x.ndim - 2))


@cached_table
def mean_weights(count: int, periodic: bool) -> Float[Tensor, " n"]:
    """Weights of the nodes in a mean over an axis, float64.

    Args:
        count: Number n of nodes, both ends included.
        periodic: Whether the last node equals the first.
    """
    weights = torch.ones(count, dtype=torch.float64)
    for node, factor in enumerate((0.5,) if periodic else DomainFourier().end_weights(count)):
        weights[[node, count - 1 - node]] = factor
    return weights / weights.sum()
