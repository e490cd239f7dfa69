"""The networks that are no FNO: a U-Net and POD-DeepONet, field to field on any grid.

They map ``(batch, in_channels, *space)`` to ``(batch, out_channels, *space)``, in one to three dimensions.
"""

from itertools import pairwise
from math import gcd

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from experiments.boundary.baselines.regressions import Components
from experiments.boundary.baselines.sensors import Sensors, coordinates, on_grid

_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_POOLINGS = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
_GROUPS = 8
_HIDDEN = 3  # layers of the branch network


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
        x = torch.cat([a, coordinates(space, a).expand(len(a), -1, *space)], dim=1)
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


class DeepONet(nn.Module):
    """POD-DeepONet (Lu et al. 2022, sec. 3.1.4): u(x) = ū(x) + Σ_k b_k(a) φ_k(x).

    b is a branch network of the input at the sensors of the training grid; φ_k are the leading principal components of
    the training outputs, each in units of its deviation, which are interpolated linearly to other grids.
    """

    basis: Tensor
    mean: Tensor

    def __init__(self, sensors: Sensors, out_channels: int, width: int, terms: int) -> None:
        super().__init__()
        self.sensors, layers = sensors, list[nn.Module]()
        for number in range(_HIDDEN):
            layers += [nn.Linear(width if number else sum(sensors.blocks), width), nn.GELU()]
        self.branch = nn.Sequential(*layers, nn.Linear(width, terms))
        self.register_buffer("basis", torch.zeros(terms, out_channels, *sensors.space))
        self.register_buffer("mean", torch.zeros(out_channels, *sensors.space))

    def set_basis(self, outputs: Float[Tensor, "samples out_channels *space"]) -> None:
        """Takes the principal components of training outputs; there may be fewer than terms."""
        rows = outputs.double().flatten(1).cpu().numpy()
        components = Components.fit(rows, (rows.shape[1],)).leading(len(self.basis))
        scaled = components.directions * components.deviation[:, None] * components.scale
        self.basis.zero_()
        self.basis[: len(components)] = torch.from_numpy(scaled).unflatten(1, self.mean.shape).to(self.basis)
        self.mean.copy_(torch.from_numpy(components.mean).view(self.mean.shape))

    def forward(self, a: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        """Maps input fields to output fields on the same nodes."""
        coefficients, space = self.branch(self.sensors.read(a)), tuple(a.shape[2:])
        u = torch.einsum("bk,kc...->bc...", coefficients, on_grid(self.basis, space))
        return u + on_grid(self.mean[None], space)


def _block(dimension: int, entering: int, leaving: int) -> nn.Sequential:
    """Twice convolution, group normalisation and GELU."""
    convolution, groups = _CONVOLUTIONS[dimension], gcd(_GROUPS, leaving)
    layers: list[nn.Module] = []
    for channels in (entering, leaving):
        layers += [convolution(channels, leaving, 3, padding="same"), nn.GroupNorm(groups, leaving), nn.GELU()]
    return nn.Sequential(*layers)
