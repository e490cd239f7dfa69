"""A U-Net (Ronneberger et al. 2015) for fields in one to three dimensions, with coordinates as channels."""

from dataclasses import dataclass
from itertools import pairwise
from math import gcd

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from experiments.boundary.baselines.sensors import coordinates, on_grid
from experiments.errors import InvalidArgumentError, require_at_least

_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_POOLINGS = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
_GROUPS = 8


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Sizes of a U-Net.

    Args:
        width: Channels on the finest level; each coarser one has twice as many.
    """

    dimension: int
    in_channels: int
    out_channels: int
    width: int = 16
    levels: int = 3

    def __post_init__(self) -> None:
        require_at_least(self, in_channels=1, out_channels=1, width=1, levels=1)
        if self.dimension not in _CONVOLUTIONS:
            raise InvalidArgumentError(f"dimension must be 1, 2 or 3, got {self.dimension}.")


class UNet(nn.Module):
    """Field to field, ``(batch, in_channels, *space)`` → ``(batch, out_channels, *space)``, on any grid.

    The field is extended by its last nodes until the levels divide the grid, and cut at the end. Kernels cover three
    nodes an axis whatever their distance, so that on another grid it is another map.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.width * 2**level for level in range(config.levels + 1)]
        entering = [config.in_channels + config.dimension, *widths[:-1]]
        self.down = nn.ModuleList(_block(config.dimension, *sizes) for sizes in zip(entering, widths, strict=True))
        self.up = nn.ModuleList(_block(config.dimension, fine + coarse, fine) for fine, coarse in pairwise(widths))
        self.read_out = _CONVOLUTIONS[config.dimension](config.width, config.out_channels, 1)

    def forward(self, a: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        """Maps input fields to output fields on the same nodes."""
        axes, space = self.config.dimension, tuple(a.shape[2:])
        if a.ndim != axes + 2 or a.shape[1] != self.config.in_channels:
            raise InvalidArgumentError(
                f"The input must be (batch, {self.config.in_channels}, *space) with {axes} axes, got {tuple(a.shape)}."
            )
        x = torch.cat([a, coordinates(space, a).expand(len(a), -1, *space)], dim=1)
        v, passed = self._extend(x), []
        for level, block in enumerate(self.down):
            v = block(_POOLINGS[axes](v, 2) if level else v)
            passed.append(v)
        for block, fine in zip(reversed(self.up), passed[-2::-1], strict=True):
            v = block(torch.cat([fine, on_grid(v, tuple(fine.shape[2:]))], dim=1))
        return self.read_out(v)[(..., *(slice(count) for count in space))]

    def _extend(self, v: Tensor) -> Tensor:
        multiple = 2**self.config.levels
        missing = [-count % multiple for count in v.shape[2:]]
        return functional.pad(v, [each for count in reversed(missing) for each in (0, count)], mode="replicate")


def _block(dimension: int, entering: int, leaving: int) -> nn.Sequential:
    """Twice convolution, group normalisation and GELU."""
    convolution, groups = _CONVOLUTIONS[dimension], gcd(_GROUPS, leaving)
    layers: list[nn.Module] = []
    for channels in (entering, leaving):
        layers += [convolution(channels, leaving, 3, padding="same"), nn.GroupNorm(groups, leaving), nn.GELU()]
    return nn.Sequential(*layers)
