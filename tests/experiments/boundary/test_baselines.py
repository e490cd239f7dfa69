"""The networks that are no FNO: DeepONet and U-Net."""

import pytest
import torch
from torch import Tensor, nn

from experiments.boundary.baselines.deeponet import DeepONet, DeepONetConfig, fourier_features
from experiments.boundary.baselines.sensors import Sensors, on_grid
from experiments.boundary.baselines.unet import UNet, UNetConfig
from experiments.errors import InvalidArgumentError

GENERATOR = torch.Generator().manual_seed(0)
LINE = Sensors(space=(9,), constant=(None, 0, 0))
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


def deeponet(sensors: Sensors, **options: int) -> DeepONet:
    torch.manual_seed(0)
    return DeepONet(DeepONetConfig(sensors=sensors, out_channels=2, width=16, terms=6, **options)).double()


def unet(dimension: int, **options: int) -> UNet:
    torch.manual_seed(0)
    return UNet(UNetConfig(dimension=dimension, in_channels=3, out_channels=2, width=4, **options)).double()


def test_sensors_read_fields_everywhere_and_data_once() -> None:
    a = inputs(SQUARE)
    assert SQUARE.blocks == (30, 5, 6)
    expected = torch.cat([a[:, 0].flatten(1), a[:, 1, 2], a[:, 2, :, 3]], dim=1)
    assert torch.allclose(SQUARE.read(a), expected, rtol=0, atol=1e-15)
    doubled = on_grid(a, (11, 9))
    assert torch.allclose(SQUARE.read(doubled), expected, rtol=0, atol=1e-14), "interpolated to their grid"
    with pytest.raises(InvalidArgumentError, match=r"must be \(batch, 3, \*space\) with 2 axes, got \(3, 2, 6, 5\)"):
        SQUARE.read(a[:, :2])
    with pytest.raises(InvalidArgumentError, match=r"one to three axes, and axes of these for constant channels"):
        Sensors(space=(4,), constant=(1,))


@pytest.mark.parametrize("frequencies", [0, 3])
@pytest.mark.parametrize("sensors", [LINE, SQUARE])
def test_a_deeponet_is_the_sum_of_products_of_branch_and_trunk(sensors: Sensors, frequencies: int) -> None:
    model, a = deeponet(sensors, frequencies=frequencies), inputs(sensors)
    nn.init.normal_(model.bias)
    u, coefficients = model(a), model.branch(sensors.read(a))
    assert u.shape == (3, 2, *sensors.space)
    last = torch.ones(1, len(sensors.space), dtype=torch.float64)
    trunk = model.trunk(fourier_features(last, frequencies))[0]
    for channel in range(2):
        value = coefficients[0, 6 * channel : 6 * channel + 6] @ trunk + model.bias[channel]
        assert torch.allclose(u[(0, channel, *(-1 for _ in sensors.space))], value, rtol=0, atol=1e-13)
    finer = tuple(2 * count - 1 for count in sensors.space)
    shared = model(on_grid(a, finer))[(..., *(slice(None, None, 2) for _ in finer))]
    assert torch.allclose(shared, u, rtol=0, atol=1e-12), "the same function on every grid"


def test_fourier_features_have_the_stated_frequencies() -> None:
    x = torch.tensor([[0.5, 0.25]], dtype=torch.float64)
    half = 0.5**0.5
    expected = torch.tensor([0.5, 0.25, 1.0, 0.0, half, 1.0, 0.0, -1.0, half, 0.0], dtype=torch.float64)
    assert torch.allclose(fourier_features(x, 2)[0], expected, rtol=0, atol=1e-15)


def test_a_pod_deeponet_spans_the_training_outputs() -> None:
    model = deeponet(SQUARE, pod=True)
    outputs = random(4, 2, 6, 5)
    model.set_basis(outputs)
    flat = (outputs - outputs.mean(0)).flatten(1)
    basis = model.basis.flatten(1)[:3]  # four samples leave three directions
    assert torch.allclose(model.mean, outputs.mean(0), rtol=0, atol=1e-14)
    assert torch.allclose(model.basis[3:], torch.zeros(()).double())
    rest = flat - (flat @ torch.linalg.pinv(basis)) @ basis
    assert float(rest.norm()) < 1e-12 * float(flat.norm())
    coefficients = flat @ torch.linalg.pinv(basis)
    assert torch.allclose(coefficients.var(0), torch.ones(3).double()), "in units of their deviations"
    with pytest.raises(InvalidArgumentError, match=r"outputs \(samples, 2, 6, 5\), got pod=True and \(4, 1, 6, 5\)"):
        model.set_basis(outputs[:, :1])
    with pytest.raises(InvalidArgumentError, match=r"needs pod=True"):
        deeponet(SQUARE).set_basis(outputs)


@pytest.mark.parametrize("space", [(9,), (16,), (10, 17), (5, 6, 8)])
def test_a_unet_takes_every_grid_and_sees_all_of_it(space: tuple[int, ...]) -> None:
    model, a = unet(len(space), levels=2), random(2, 3, *space)
    u = model(a)
    assert u.shape == (2, 2, *space)
    u[0, :, ..., -1].sum().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in model.parameters())
    changed = a.clone()
    changed[0, 2] += 1.0
    differs = (model(changed) - u).abs() > 1e-6
    assert bool(differs[0].all()), "a channel with boundary data reaches every node"
    assert not bool(differs[1].any()), "samples do not mix"


def test_a_unet_refuses_what_does_not_fit() -> None:
    with pytest.raises(InvalidArgumentError, match=r"dimension must be 1, 2 or 3, got 4"):
        unet(4)
    with pytest.raises(InvalidArgumentError, match=r"must be \(batch, 3, \*space\) with 1 axes, got \(2, 2, 9\)"):
        unet(1)(random(2, 2, 9))
