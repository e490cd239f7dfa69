"""The velocity of fields: a Gaussian with their modes, and a network that sees and moves those alone."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from probconserv import FlowMatching, InvalidArgumentError
from probconserv.surrogates.flow import FieldLatent, ResidualFieldVelocity, SamplingOptions, smooth_noise
from tests.strategies import normal


class Zero(nn.Module):
    """Nothing, and keeps what it was given."""

    def forward(self, z: Tensor, t: Tensor) -> Tensor:  # noqa: ARG002
        self.seen = z
        return torch.zeros_like(z)


def test_the_velocity_of_fields_starts_as_that_of_a_gaussian_with_their_modes() -> None:
    data = (normal(200, 6) * 2.0 ** -torch.arange(6)) @ normal(6, 24, seed=1) + 1e-3 * normal(200, 24, seed=2)
    fields = FieldLatent.of(data, 6)
    velocity = ResidualFieldVelocity.of(fields, Zero()).double()
    flow = FlowMatching(fields, velocity, draws=2)
    draws = flow.sample(4000, options=SamplingOptions(steps=100)).flatten(1)
    expected = (data - data.mean(dim=0)).square().mean(dim=0).sqrt()
    assert float((draws.std(dim=0) / expected - 1).abs().max()) < 0.06
    assert float(((draws.mean(dim=0) - data.mean(dim=0)) / expected).abs().max()) < 0.08


def test_what_is_rough_does_not_reach_the_network_and_goes_away() -> None:
    data = normal(50, 3) @ normal(3, 24, seed=1)
    fields = FieldLatent.of(data + 1e-4 * normal(50, 24, seed=2), 3)
    network = Zero()
    velocity = ResidualFieldVelocity.of(fields, network).double()
    basis = fields.modes.basis
    rough = normal(4, 24, seed=3)
    rough = rough - rough @ torch.linalg.pinv(basis) @ basis
    z, t = normal(4, 24, seed=4), torch.full((4,), 0.6, dtype=torch.float64)
    seen = []
    for state in (z, z + 100 * rough):
        out = velocity(state, t)
        seen.append(network.seen)
    assert torch.allclose(*seen, atol=1e-4)
    clean = z + 100 * rough + 0.4 * out - (z + 0.4 * velocity(z, t))
    assert float(clean.abs().max()) < 1e-3 * float((100 * rough).abs().max())


def test_a_velocity_of_fields_is_stored_with_its_modes(tmp_path: Path) -> None:
    fields = FieldLatent.of(normal(50, 12), 3, smooth_noise((12,), 0.2))
    flow = FlowMatching(fields, ResidualFieldVelocity.of(fields, FieldNetwork()))
    flow.save(tmp_path / "flow.safetensors")
    again = FlowMatching.load(tmp_path / "flow.safetensors", ResidualFieldVelocity(FieldNetwork(), 3, 12))
    assert torch.equal(again.sample(3, seed=1), flow.sample(3, seed=1))
    with pytest.raises(InvalidArgumentError, match="size must lie between 1 and the 12 points"):
        ResidualFieldVelocity(FieldNetwork(), 12, 12)


class FieldNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 12)

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return self.layer(z) * t[:, None]
