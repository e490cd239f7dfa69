"""An operator of one step whose output has the given gradients at both walls as a function, not on one stencil.

The field is a part that carries the gradients and an even one, whose derivative is zero at both walls:

    e = P (u − Σ g_before ψ),    u' = e + change · N(e/size, g_before, g_after, cos πx) + Σ g_after ψ.

ψ is x exp(−x²/2ℓ²) at the first wall, where its derivative is 1, and the same at the last, with a learnt ℓ each. P
keeps cosines up to about the 48th, exp(−4 (k/48)⁸). All features of N are even, and so are their convolutions with
cosines and all functions of them at a point: N has no slope at the walls either, on any grid.
"""

from dataclasses import dataclass
from math import isfinite, log

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boon._tensors.tables import cached_table
from boon._tensors.values import check_tensor
from boon.corrections.matched import matched_basis
from boon.errors import InvalidArgumentError
from boon.layers import Pointwise
from boon.spectral import convolve

_KEPT, _SHARPNESS = 48, 8  # cosines of a field, and the power of their filter


@dataclass(frozen=True, kw_only=True)
class CosineConfig:
    """Sizes of a ``CosineFNO`` and of its fields.

    Args:
        channels: Channels c of the field.
        width: Channels of the features.
        modes: Cosines in every kernel.
        depth: Number of layers.
        length: Length of the axis.
        size: About the root mean square of the fields.
        change: About that of their change in a step.
        slope: About that of the gradients at the walls.
        spread: Initial ℓ as a fraction of the length of the axis.

    Raises:
        InvalidArgumentError: If a count is below 1 or another number not positive.
    """

    channels: int = 1
    width: int = 32
    modes: int = 32
    depth: int = 4
    length: float = 1.0
    size: float = 0.5
    change: float = 0.2
    slope: float = 1.0
    spread: float = 0.08

    def __post_init__(self) -> None:
        counts = self.channels, self.width, self.modes, self.depth
        numbers = self.length, self.size, self.change, self.slope, self.spread
        if min(counts) < 1 or not all(number > 0 and isfinite(number) for number in numbers):
            raise InvalidArgumentError(f"CosineConfig needs counts of at least 1 and positive numbers, got {self}.")


class CosineFNO(nn.Module):
    """The field one step on, with given gradients at both ends of its axis.

    Train it by fields that it has made itself (``probconserv.training.loop.pushforward``): operators that predict
    changes diverge otherwise when they are applied many times.

    Args:
        config: Sizes.
    """

    def __init__(self, config: CosineConfig) -> None:
        super().__init__()
        self.config, width = config, config.width
        self.log_spread = nn.Parameter(torch.full((2,), log(config.spread)))
        self.lift = Pointwise(5 * config.channels + 1, width)
        self.pointwise = nn.ModuleList(Pointwise(width, width) for _ in range(config.depth))
        self.kernels = nn.ParameterList(torch.rand(config.modes, width, width) / width**2 for _ in range(config.depth))
        self.project = Pointwise(width, 2 * width)
        self.read_out = Pointwise(2 * width, config.channels)

    def forward(
        self,
        field: Float[Tensor, "batch c n"],
        before: Float[Tensor, "batch c 2"],
        after: Float[Tensor, "batch c 2"],
    ) -> Float[Tensor, "batch c n"]:
        """The field at the end of a step.

        Args:
            field: The field at the start.
            before: ∂u/∂x at the first and last wall at the start.
            after: The same at the end.

        Raises:
            InvalidArgumentError: If a shape is wrong.
            TooManyModesError: If the grid is too coarse for the cosines kept.
        """
        config, count = self.config, field.shape[-1]
        check_tensor(field)
        given = (*field.shape[:1], config.channels, 2)
        if field.ndim != 3 or field.shape[1] != config.channels or before.shape != given or after.shape != given:
            raise InvalidArgumentError(
                f"The field must be (batch, {config.channels}, n) and the gradients (batch, {config.channels}, 2), got "
                f"{tuple(field.shape)}, {tuple(before.shape)} and {tuple(after.shape)}."
            )
        carried = config.length * self._carriers(count)
        even = (field - before @ carried) @ _filter(count, field.dtype, field.device)
        points = torch.linspace(0.0, torch.pi, count, dtype=torch.float64).cos().to(field).expand(len(field), 1, count)
        slopes = torch.cat([before, after], dim=2).flatten(1)[..., None] / config.slope
        v = self.lift(torch.cat([even / config.size, slopes.expand(-1, -1, count), points], dim=1))
        basis = matched_basis(count, config.modes, (False, False), field)
        for pointwise, kernel in zip(self.pointwise, self.kernels, strict=True):
            v = nn.functional.gelu(pointwise(v) + convolve(v, kernel, (basis,)))
        changed = self.read_out(nn.functional.gelu(self.project(v)))
        return even + config.change * changed + after @ carried

    def _carriers(self, count: int) -> Float[Tensor, "2 n"]:
        """ψ of both walls for an axis of length 1."""
        points = torch.linspace(0.0, 1.0, count, dtype=torch.float64).to(self.log_spread)
        distances = torch.stack([points, 1 - points])
        bumps = distances * torch.exp(-0.5 * (distances / self.log_spread.exp()[:, None]).square())
        return torch.stack([bumps[0], -bumps[1]])


@cached_table
def _filter(count: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "n n"]:
    """Pᵀ on the nodes."""
    most = min(count - 1, 2 * _KEPT)
    basis = matched_basis(count, most, (False, False), torch.zeros((), dtype=torch.float64))
    kept = torch.exp(-4 * (torch.arange(most, dtype=torch.float64) / _KEPT) ** _SHARPNESS)
    return (basis.analysis.mT @ (kept[:, None] * basis.synthesis.mT)).to(device, dtype)
