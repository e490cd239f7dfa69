"""DeepONet (Lu et al. 2021) on the sensors of the training grid, and POD-DeepONet (Lu et al. 2022, sec. 3.1.4).

    u_c(x) = Σ_k b_ck(a) t_k(x) + β_c

with the branch network b of the input at the sensors and the trunk network t of the coordinates. In the variant with
POD the trunk is replaced by the leading principal components of the training outputs, each in units of its deviation,
which are interpolated linearly to other grids.
"""

from dataclasses import dataclass
from math import pi

import torch
from jaxtyping import Float
from torch import Tensor, nn

from experiments.boundary.baselines.components import Components
from experiments.boundary.baselines.sensors import Sensors, coordinates, on_grid
from experiments.errors import InvalidArgumentError, require_at_least


@dataclass(frozen=True, kw_only=True)
class DeepONetConfig:
    """Sizes of a DeepONet.

    Args:
        frequencies: F of the features sin πfx, cos πfx, f = 1 … F, of every coordinate in the trunk; 0 for none.
        pod: Whether principal components take the place of the trunk; see ``DeepONet.set_basis``.
    """

    sensors: Sensors
    out_channels: int
    width: int = 128
    depth: int = 3
    terms: int = 64
    frequencies: int = 0
    pod: bool = False

    def __post_init__(self) -> None:
        require_at_least(self, out_channels=1, width=1, depth=1, terms=1, frequencies=0)


class DeepONet(nn.Module):
    """Field to field, ``(batch, in_channels, *space)`` → ``(batch, out_channels, *space)``, on any grid."""

    basis: Tensor
    mean: Tensor

    def __init__(self, config: DeepONetConfig) -> None:
        super().__init__()
        self.config = config
        space, channels, terms = config.sensors.space, config.out_channels, config.terms
        coefficients = terms if config.pod else terms * channels
        self.branch = _network(sum(config.sensors.blocks), config, coefficients)
        if config.pod:
            self.register_buffer("basis", torch.zeros(terms, channels, *space))
            self.register_buffer("mean", torch.zeros(channels, *space))
            return
        self.bias = nn.Parameter(torch.zeros(channels))
        self.trunk = _network(len(space) * (1 + 2 * config.frequencies), config, terms)

    def set_basis(self, outputs: Float[Tensor, "samples out_channels *space"]) -> None:
        """Takes the principal components of training outputs; there may be fewer than terms."""
        if not self.config.pod or outputs.shape[1:] != self.mean.shape:
            expected = ", ".join(map(str, (self.config.out_channels, *self.config.sensors.space)))
            raise InvalidArgumentError(
                f"A basis needs pod=True and outputs (samples, {expected}), got pod={self.config.pod} and "
                f"{tuple(outputs.shape)}."
            )
        rows = outputs.double().flatten(1).cpu().numpy()
        components = Components.fit(rows, (rows.shape[1],)).leading(self.config.terms)
        scaled = components.directions * components.deviation[:, None] * components.scale
        self.basis.zero_()
        self.basis[: len(components)] = torch.from_numpy(scaled).unflatten(1, self.mean.shape).to(self.basis)
        self.mean.copy_(torch.from_numpy(components.mean).view(self.mean.shape))

    def forward(self, a: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        """Maps input fields to output fields on the same nodes."""
        coefficients, space = self.branch(self.config.sensors.read(a)), tuple(a.shape[2:])
        if self.config.pod:
            basis = on_grid(self.basis, space)
            return torch.einsum("bk,kc...->bc...", coefficients, basis) + on_grid(self.mean[None], space)
        x = coordinates(space, a).flatten(1).T
        trunk = self.trunk(fourier_features(x, self.config.frequencies))
        u = coefficients.unflatten(1, (self.config.out_channels, -1)) @ trunk.T + self.bias[:, None]
        return u.view(len(a), -1, *space)


def fourier_features(x: Float[Tensor, "points axes"], frequencies: int) -> Float[Tensor, "points features"]:
    """The coordinates, and sin πfx, cos πfx of each for f = 1 … F."""
    angles = pi * torch.arange(1, frequencies + 1, dtype=x.dtype, device=x.device) * x[..., None]
    return torch.cat([x, angles.sin().flatten(1), angles.cos().flatten(1)], dim=1)


def _network(inputs: int, config: DeepONetConfig, outputs: int) -> nn.Sequential:
    """A multilayer perceptron with GELU."""
    layers: list[nn.Module] = []
    for number in range(config.depth):
        layers += [nn.Linear(config.width if number else inputs, config.width), nn.GELU()]
    return nn.Sequential(*layers, nn.Linear(config.width, outputs))
