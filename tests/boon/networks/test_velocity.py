"""The velocity of a flow of fields."""

from pathlib import Path

import numpy as np
import pytest
import torch

from boon import FNOConfig, FNOVelocity, InvalidArgumentError
from probconserv import FieldLatent, FlowMatching

CONFIG = FNOConfig(width=6, modes=(3, 4), depth=2)


def test_time_matters_and_every_field_has_its_own() -> None:
    velocity = FNOVelocity(CONFIG)
    z, t = torch.randn(3, 9, 11), torch.tensor([0.1, 0.5, 0.9])
    v = velocity(z, t)
    assert v.shape == z.shape
    assert torch.allclose(v[1:2], velocity(z[1:2], t[1:2]), rtol=1e-5, atol=1e-6)
    assert (velocity(z, 1 - t + 0.01) - v).abs().flatten(1).amax(dim=1).min() > 1e-4


def test_the_velocity_is_the_same_on_finer_grids() -> None:
    velocity = FNOVelocity(CONFIG).double()
    x, y = (torch.linspace(0, 1, n, dtype=torch.float64) for n in (41, 81))
    z = torch.sin(3 * x[:, None]) * torch.cos(2 * y)
    t = torch.tensor([0.3], dtype=torch.float64)
    coarse, fine = velocity(z[None, ::2, ::2], t), velocity(z[None], t)
    assert torch.allclose(coarse, fine[:, ::2, ::2], rtol=0, atol=1e-4)


def test_other_shapes_are_refused() -> None:
    t = torch.zeros(2)
    with pytest.raises(InvalidArgumentError, match="with 2 axes, got a field"):
        FNOVelocity(CONFIG)(torch.zeros(2, 9), t)
    with pytest.raises(InvalidArgumentError, match="must not be negative"):
        FNOVelocity(CONFIG, frequencies=-1)


def test_flows_in_double_precision_keep_their_fourier_weights(tmp_path: Path) -> None:
    def velocity() -> FNOVelocity:
        return FNOVelocity(FNOConfig(modes=(3,), width=4, depth=1))

    x = torch.linspace(0, 1, 17, dtype=torch.float64)
    coordinates = FieldLatent.of(torch.sin(x * torch.arange(1, 9)[:, None]), 4)
    flow = FlowMatching(coordinates, velocity().double())
    flow.save(tmp_path / "flow", steps=np.int64(3))
    again = FlowMatching.load(tmp_path / "flow", velocity(), coordinates)
    assert torch.complex128 in {each.dtype for each in again.velocity.parameters()}
    assert all(torch.equal(a, b) for a, b in zip(flow.velocity.parameters(), again.velocity.parameters(), strict=True))
    assert torch.equal(flow.sample(3), again.sample(3))
