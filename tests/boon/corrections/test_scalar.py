"""The scalar elimination of the paper's authors, against theirs and against the dense kernel."""

import pytest
import torch

from boon import DomainFourier, FNOConfig, NodeFourier, ScalarElimination, SingularKernelError
from boon.corrections.elimination import hermitian
from boon.corrections.scalar import eliminate_by_scalars, end_scalars
from boon.spectral import SpectralConvolution, fourier_basis, synthesise
from solvers import Dirichlet, Periodic
from tests.oracles import eliminate_as_the_authors

NODES, DOMAIN = NodeFourier(), DomainFourier()
CASES = [
    ((9,), (3,), (0.5,), (0,), 1, NODES),
    ((9,), (3,), (0.5,), (0,), 3, NODES),
    ((9,), (3,), (0.25,), (0,), 2, DOMAIN),
    ((7, 9), (3, 2), (0.5, 0.25), (0,), 2, DOMAIN),
    ((7, 6), (3, 2), (0.3, 0.6), (1,), 2, NODES),
    ((7, 6), (3, 2), (0.3, 0.6), (0, 1), 2, NODES),
    ((9, 7), (3, 2), (0.25, 0.5), (0, 1), 2, DOMAIN),
    ((5, 4, 4), (2, 2, 2), (0.3, 0.4, 0.4), (0, 2), 2, NODES),
]


def setting(shape, modes, padding, channels, transform, dtype=torch.float64):
    torch.manual_seed(3)
    x = torch.randn(2, channels, *shape, dtype=torch.float64)
    weight = SpectralConvolution(channels, channels, modes).double().weight.detach()
    sizes = zip(shape, modes, padding, strict=True)
    bases = tuple(fourier_basis(n, m, p, like=x.to(dtype), transform=transform) for n, m, p in sizes)
    return x, weight, bases


def eliminate(x, weight, bases, axes):
    ends = {axis: x.index_select(2 + axis, torch.tensor([0, x.shape[2 + axis] - 1])) for axis in axes}
    return synthesise(eliminate_by_scalars(x, ends, weight, bases), bases)


@pytest.mark.parametrize(("shape", "modes", "padding", "axes", "channels", "transform"), CASES)
def test_scalar_elimination_is_that_of_the_authors(shape, modes, padding, axes, channels, transform):
    x, weight, bases = setting(shape, modes, padding, channels, transform)
    weighted = x
    for axis, basis in enumerate(bases):
        weighted = weighted * basis.analysis[0].view([-1 if other == axis else 1 for other in range(len(bases))])
    periods = [round(basis.period) for basis in bases]
    expected = torch.from_numpy(eliminate_as_the_authors(weighted.numpy(), weight.numpy(), periods, axes))
    result = eliminate(x, weight, bases, axes)
    assert torch.allclose(result, expected, rtol=0, atol=1e-10 * float(expected.abs().max()))


def test_with_one_channel_the_last_end_carries_its_value():
    # (K z)_N = k_NN x_N exactly; the first end is carried before the last one is changed.
    x, weight, bases = setting((12,), (4,), (0.25,), 1, DOMAIN)
    k = end_scalars(hermitian(weight, bases), bases, 0)
    result = eliminate(x, weight, bases, (0,))
    assert torch.allclose(result[..., -1], k[1, 1] * bases[0].end_weight * x[..., -1], atol=1e-12)
    inner = torch.cat([x[..., :1], torch.randn_like(x[..., 1:-1]), x[..., -1:]], -1)
    assert torch.allclose(eliminate(inner, weight, bases, (0,))[..., [0, -1]], result[..., [0, -1]], atol=1e-11)


def test_periodic_axes_are_not_padded():
    config = FNOConfig(modes=(3, 3), width=4)
    like = torch.zeros((), dtype=torch.float64)
    bases = ScalarElimination().bases([(Periodic(), Periodic()), (Dirichlet(), Dirichlet())], config, (13, 9), like)
    assert [basis.period for basis in bases] == [12, 9.0]


def test_scalars_that_vanish():
    x, weight, bases = setting((9,), (1,), (0.5,), 2, NODES)  # one mode: the ends cannot be told apart, s = 0
    with pytest.raises(SingularKernelError, match="of the ends of axis 0 are too small to divide by; keep"):
        eliminate(x, weight, bases, (0,))
