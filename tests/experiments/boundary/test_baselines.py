"""The networks that are no FNO: POD-DeepONet and U-Net."""

import pytest
import torch
from torch import Tensor

from experiments.boundary.baselines.networks import DeepONet, UNet
from experiments.boundary.baselines.sensors import Sensors, on_grid
from experiments.errors import InvalidArgumentError

GENERATOR = torch.Generator().manual_seed(0)
SQUARE = Sensors(space=(6, 5), constant=(None, 0, 1))


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def inputs(sensors: Sensors, count: int = 3) -> Tensor:
    """A field, and channels that are constant along their axes."""
    a = random(count, len(sensors.constant), *sensors.space)
    for channel, axis in enumerate(sensors.constant):
        if axis is not None:
            a[:, channel] = a[:, channel].mean(1 + axis, keepdim=True)
    return a


def test_sensors_read_fields_everywhere_and_data_once() -> None:
    a = inputs(SQUARE)
    assert SQUARE.blocks == (30, 5, 6)
    expected = torch.cat([a[:, 0].flatten(1), a[:, 1, 2], a[:, 2, :, 3]], dim=1)
    assert torch.allclose(SQUARE.read(a), expected, rtol=0, atol=1e-15)
    doubled = on_grid(a, (11, 9))
    assert torch.allclose(SQUARE.read(doubled), expected, rtol=0, atol=1e-14), "interpolated to their grid"
    with pytest.raises(InvalidArgumentError, match=r"must be \(batch, 3, \*space\) with 2 axes, got \(3, 2, 6, 5\)"):
        SQUARE.read(a[:, :2])


def test_a_deeponet_spans_the_training_outputs_by_its_branch() -> None:
    torch.manual_seed(0)
    model, outputs, a = DeepONet(SQUARE, 2, width=16, terms=6).double(), random(4, 2, 6, 5), inputs(SQUARE)
    model.set_basis(outputs)
    flat = (outputs - outputs.mean(0)).flatten(1)
    basis = model.basis.flatten(1)[:3]  # four samples leave three directions
    assert torch.allclose(model.mean, outputs.mean(0), rtol=0, atol=1e-14)
    assert torch.allclose(model.basis[3:], torch.zeros(()).double())
    coefficients = flat @ torch.linalg.pinv(basis)
    assert float((flat - coefficients @ basis).norm()) < 1e-12 * float(flat.norm())
    assert torch.allclose(coefficients.var(0), torch.ones(3).double()), "in units of their deviations"
    u, given = model(a), model.branch(SQUARE.read(a))[:, :3]
    assert torch.allclose(u.flatten(1), given @ basis + model.mean.flatten(), rtol=0, atol=1e-13)
    shared = model(on_grid(a, (11, 9)))[..., ::2, ::2]
    assert torch.allclose(shared, u, rtol=0, atol=1e-12), "the same function on every grid"


@pytest.mark.parametrize("space", [(9,), (16,), (10, 17), (5, 6, 8)])
def test_a_unet_takes_every_grid_and_sees_all_of_it(space: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model, a = UNet(len(space), 3, 2, width=4, levels=2).double(), random(2, 3, *space)
    u = model(a)
    assert u.shape == (2, 2, *space)
    u[0, :, ..., -1].sum().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in model.parameters())
    changed = a.clone()
    changed[0, 2] += 1.0
    differs = (model(changed) - u).abs() > 1e-6
    assert bool(differs[0].all()), "a channel with boundary data reaches every node"
    assert not bool(differs[1].any()), "samples do not mix"
