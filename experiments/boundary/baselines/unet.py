"""A U-Net from fields to fields on any grid, in one to three dimensions."""

from itertools import pairwise
from math import gcd

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from experiments.boundary.baselines.layout import on_grid

_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_POOLINGS = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
_GROUPS = 8


class UNet(nn.Module):
    """A U-Net (Ronneberger et al. 2015) with coordinates as channels.

    The field is extended by its last nodes until the levels divide the grid, and cut at the end. Kernels cover three
    nodes an axis whatever their distance, so that on another grid it is another map.

    Args:
        dimension: Number of axes.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        width: Channels on the finest level; each coarser one has twice as many.
        levels: Levels below the finest.
    """

    def __init__(self, dimension: int, in_channels: int, out_channels: int, width: int, levels: int = 3) -> None:
        super().__init__()
        self.dimension, self.levels = dimension, levels
        widths = [width * 2**level for level in range(levels + 1)]
        entering = [in_channels + dimension, *widths[:-1]]
        self.down = nn.ModuleList(_block(dimension, *sizes) for sizes in zip(entering, widths, strict=True))
        self.up = nn.ModuleList(_block(dimension, fine + coarse, fine) for fine, coarse in pairwise(widths))
        self.read_out = _CONVOLUTIONS[dimension](width, out_channels, 1)

    def forward(self, a: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        """Maps input fields to output fields on the same nodes."""
        space = tuple(a.shape[2:])
        x = torch.cat([a, _coordinates(space, a).expand(len(a), -1, *space)], dim=1)
        v, passed = self._extend(x), []
        for level, block in enumerate(self.down):
            v = block(_POOLINGS[self.dimension](v, 2) if level else v)
            passed.append(v)
        for block, fine in zip(reversed(self.up), passed[-2::-1], strict=True):
            v = block(torch.cat([fine, on_grid(v, tuple(fine.shape[2:]))], dim=1))
        return self.read_out(v)[(..., *(slice(count) for count in space))]

    def _extend(self, v: Tensor) -> Tensor:
        missing = [-count % 2**self.levels for count in v.shape[2:]]
        return functional.pad(v, [each for count in reversed(missing) for each in (0, count)], mode="replicate")


def _block(dimension: int, entering: int, leaving: int) -> nn.Sequential:
    """Twice convolution, group normalisation and GELU."""
    convolution, groups = _CONVOLUTIONS[dimension], gcd(_GROUPS, leaving)
    layers: list[nn.Module] = []
    for channels in (entering, leaving):
        layers += [convolution(channels, leaving, 3, padding="same"), nn.GroupNorm(groups, leaving), nn.GELU()]
    return nn.Sequential(*layers)


def _coordinates(space: tuple[int, ...], like: Tensor) -> Tensor:
    """x/length of every node along every axis, between 0 and 1, ``(axes, *space)``."""
    lines = (torch.linspace(0.0, 1.0, count, dtype=like.dtype, device=like.device) for count in space)
    return torch.stack(torch.meshgrid(*lines, indexing="ij"))
