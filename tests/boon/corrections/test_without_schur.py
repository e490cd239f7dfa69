"""Elimination without the Schur term, as stored operators have it, against the dense kernel."""

import pytest
import torch

from boon.corrections.without_schur import EliminationWithoutSchur, eliminate
from boon.errors import SingularKernelError
from boon.fno import FNO, FNOConfig
from boon.operator import BOON
from boon.spectral import SpectralConvolution, fourier_basis
from boon.transforms import DomainFourier, NodeFourier
from solvers import Dirichlet, Neumann, Robin
from tests.boon.cases import discretise, nodes_on
from tests.oracles import eliminate_densely

NODES, DOMAIN = NodeFourier(), DomainFourier()


def setting(shape, modes, padding, channels, seed, transform=NODES):
    torch.manual_seed(seed)
    x = torch.randn(2, channels, *shape, dtype=torch.float64)
    weight = SpectralConvolution(channels, channels, modes).double().weight.detach()
    bases = tuple(
        fourier_basis(n, m, p, like=x, transform=transform) for n, m, p in zip(shape, modes, padding, strict=True)
    )
    return x, weight, bases


def eliminated(x, weight, bases, axes):
    return eliminate(x, weight, bases, axes)


def dense(x, weight, bases, axes):
    """The kernel of a whole period acts on the field times its weights in the modes."""
    periods = [round(basis.period) for basis in bases]
    for axis, basis in enumerate(bases):
        x = x * basis.analysis[0].view([-1 if other == axis else 1 for other in range(len(bases))])
    return torch.from_numpy(eliminate_densely(x.numpy(), weight.numpy(), periods, axes))


CASES = [
    ((9,), (3,), (0.5,), (0,)),
    ((8, 7), (3, 2), (0.4, 0.0), (0,)),
    ((8, 7), (2, 3), (0.0, 0.4), (1,)),
    ((7, 6), (3, 2), (0.3, 0.6), (0, 1)),
    ((6, 5, 4), (2, 2, 2), (0.4, 0.0, 0.3), (0,)),
    ((6, 5, 4), (2, 2, 2), (0.4, 0.3, 0.3), (0, 1)),
    ((4, 5, 5), (2, 2, 2), (0.4, 0.3, 0.3), (2,)),
    ((5, 4, 4), (2, 2, 2), (0.3, 0.4, 0.4), (0, 1, 2)),
]
WHOLE_PERIODS = [
    ((9,), (3,), (0.5,), (0,)),
    ((9, 7), (3, 2), (0.25, 0.5), (0, 1)),
    ((7, 9), (2, 3), (0.5, 0.25), (1,)),
    ((6, 5, 5), (2, 2, 2), (0.4, 0.25, 0.25), (0, 2)),
]


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize(
    ("shape", "modes", "padding", "axes", "transform"),
    [(*case, NODES) for case in CASES] + [(*case, DOMAIN) for case in WHOLE_PERIODS],
)
def test_elimination_equals_the_dense_kernel(shape, modes, padding, axes, transform, channels):
    x, weight, bases = setting(shape, modes, padding, channels, 3, transform)
    result, expected = eliminated(x, weight, bases, axes), dense(x, weight, bases, axes)
    assert torch.allclose(result, expected, rtol=0, atol=1e-10 * float(expected.abs().max()))


def test_boundary_functionals_are_carried_through():
    x, weight, bases = setting((9, 8), (3, 3), (0.25, 0.25), 2, seed=5)
    conditions = [(Neumann(0.0), Dirichlet(0.0)), (Robin(1.0, -0.3, 0.0), Neumann(0.0))]
    boundary = discretise(conditions, nodes_on(1.0, 1.0), None, x, 3)
    convolution = SpectralConvolution(2, 2, (3, 3)).double()
    with torch.no_grad():
        convolution.weight.copy_(weight)
    result = EliminationWithoutSchur().kernel(convolution, x, bases, boundary).detach()
    inner = (..., slice(1, -1), slice(1, -1))
    assert torch.equal(result[inner], eliminated(x, weight, bases, (0, 1))[inner])
    for side in boundary.functionals:
        assert torch.allclose(side.read(result), side.read(x), atol=1e-10)


def test_invalid_arguments_raise_with_reason():
    x, weight, bases = setting((9,), (3,), (0.5,), 2, seed=9)
    with pytest.raises(SingularKernelError, match="too small to eliminate with; use another correction"):
        eliminated(x, torch.zeros_like(weight), bases, (0,))


def test_an_untrained_operator_on_a_square_has_features_of_order_one() -> None:
    """Each of the 16 eliminations of the four layers multiplies them by K/s, so s must not start small."""
    a = torch.randn(2, 1, 33, 33)
    conditions = [(Dirichlet(0.0), Dirichlet(0.0))] * 2
    operator = BOON(FNO(FNOConfig(modes=(6, 6), width=16)), conditions, correction=EliminationWithoutSchur())
    with torch.no_grad():
        assert 1e-3 < operator(a).abs().max() < 10
