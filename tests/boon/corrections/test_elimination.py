"""Kernel elimination by blocks against the dense kernel, and by scalars against the authors' form."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boon.conditions.discretisation import discretise
from boon.conditions.functionals import read
from boon.corrections.elimination import Elimination, boundary_kernel, hermitian
from boon.corrections.elimination import eliminate as eliminate_ends
from boon.corrections.scalar import ScalarElimination, eliminate_by_scalars, end_scalars
from boon.errors import SingularKernelError
from boon.fno import FNO, FNOConfig
from boon.operator import BOON
from boon.spectral import SpectralConvolution, analyse, fourier_basis, multiply, synthesise
from boon.transforms import DomainFourier, NodeFourier
from solvers import Dirichlet, Neumann, Periodic, Robin
from tests.oracles import eliminate_as_the_authors, eliminate_densely
from tests.strategies import seeds

NODES, DOMAIN = NodeFourier(), DomainFourier()


def setting(shape, modes, padding, channels, seed, transform=NODES):
    torch.manual_seed(seed)
    x = torch.randn(2, channels, *shape, dtype=torch.float64)
    weight = SpectralConvolution(channels, channels, modes).double().weight.detach()
    bases = tuple(
        fourier_basis(n, m, p, like=x, transform=transform) for n, m, p in zip(shape, modes, padding, strict=True)
    )
    return x, weight, bases


def eliminate(x, weight, bases, axes, block=None):
    """By blocks or one end at a time; by scalars where nothing is said."""
    ends = {axis: x.index_select(2 + axis, torch.tensor([0, x.shape[2 + axis] - 1])) for axis in axes}
    if block is None:
        return synthesise(eliminate_by_scalars(x, ends, weight, bases), bases)
    return synthesise(eliminate_ends(x, ends, weight, bases, block), bases)


def weighted(x, bases):
    """The field times its weights in the modes, on which the kernel of a whole period acts."""
    for axis, basis in enumerate(bases):
        x = x * basis.analysis[0].view([-1 if other == axis else 1 for other in range(len(bases))])
    return x


def dense(x, weight, bases, axes):
    periods = [round(basis.period) for basis in bases]
    return torch.from_numpy(eliminate_densely(weighted(x, bases).numpy(), weight.numpy(), periods, axes))


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


every_case = pytest.mark.parametrize(
    ("shape", "modes", "padding", "axes", "transform"),
    [(*case, NODES) for case in CASES] + [(*case, DOMAIN) for case in WHOLE_PERIODS],
)


@every_case
def test_block_elimination_equals_the_dense_kernel(shape, modes, padding, axes, transform):
    x, weight, bases = setting(shape, modes, padding, 2, 3, transform)
    result = eliminate(x, weight, bases, axes, block=True)
    expected = dense(x, weight, bases, axes)
    assert torch.allclose(result, expected, rtol=0, atol=1e-9 * float(expected.abs().max()))


@settings(deadline=None, max_examples=15)
@given(
    n=st.integers(6, 12), modes=st.integers(2, 3), padding=st.sampled_from([0.2, 0.5]), c=st.integers(1, 3), seed=seeds
)
def test_block_elimination_equals_the_dense_kernel_in_one_axis(n, modes, padding, c, seed):
    x, weight, bases = setting((n,), (modes,), (padding,), c, seed)
    block = boundary_kernel(hermitian(weight, bases), bases, 0, (0, n - 1))
    result, expected = eliminate(x, weight, bases, (0,), block=True), dense(x, weight, bases, (0,))
    # The dense pseudo-inverse and the solve both lose digits in proportion to cond(K_BB).
    tolerance = 1e-13 * float(torch.linalg.cond(block)) * float(expected.abs().max() + x.abs().max())
    assert torch.allclose(result, expected, rtol=0, atol=max(tolerance, 1e-12))


def test_scalar_elimination_of_one_channel_is_the_block_form_of_one_end_after_the_other():
    # With one channel the authors' scalar is K_00 itself; the dense form eliminates first and last end in turn.
    x, weight, bases = setting((9,), (3,), (0.5,), 1, seed=1)
    first = eliminate_densely(x.numpy(), weight.numpy(), [round(bases[0].period)], (0,), ends=((0,), (-1,)))
    assert torch.allclose(eliminate(x, weight, bases, (0,), block=False), torch.from_numpy(first), atol=1e-11)


def test_boundary_rows_keep_their_values_where_the_period_is_no_whole_number():
    # (K T₂ x)_B = K_BB x_B with K_BB of the rows and columns of K itself.
    x, weight, bases = setting((12,), (4,), (0.17,), 2, 3, DOMAIN)
    unit = torch.eye(24, dtype=torch.float64).view(24, 2, 12)
    kernel = synthesise(multiply(analyse(unit, bases), weight), bases).flatten(1).mT
    ends = [0, 11, 12, 23]
    expected = kernel[ends][:, ends] @ x.flatten(1).mT[ends]
    result = eliminate(x, weight, bases, (0,), block=True).flatten(1).mT[ends]
    assert torch.allclose(result, expected, atol=1e-11)


def test_boundary_functionals_are_carried_through():
    x, weight, bases = setting((9, 8), (3, 3), (0.25, 0.25), 2, seed=5)
    conditions = [(Neumann(0.0), Dirichlet(0.0)), (Robin(1.0, -0.3, 0.0), Neumann(0.0))]
    boundary = discretise(conditions, (1.0, 1.0), None, x, 3)
    convolution = SpectralConvolution(2, 2, (3, 3)).double()
    with torch.no_grad():
        convolution.weight.copy_(weight)
    result = Elimination(block=True).kernel(convolution, x, bases, boundary).detach()
    inner = (..., slice(1, -1), slice(1, -1))
    assert torch.equal(result[inner], eliminate(x, weight, bases, (0, 1), block=True)[inner])
    for side in boundary.functionals:
        assert torch.allclose(read(side, result), read(side, x), atol=1e-10)


def test_messages():
    # One mode: the kernel is constant, K_BB has four equal blocks.
    x, weight, bases = setting((9,), (1,), (0.5,), 1, seed=9)
    with pytest.raises(SingularKernelError, match="two ends of axis 0 is singular"):
        eliminate(x, weight, bases, (0,), block=True)
    x, weight, bases = setting((9,), (3,), (0.5,), 2, seed=9)
    weight = torch.zeros_like(weight)
    with pytest.raises(SingularKernelError, match="too small to eliminate with; use the block form"):
        eliminate(x, weight, bases, (0,), block=False)


@pytest.mark.parametrize("block", [True, False])
def test_an_untrained_operator_on_a_square_has_features_of_order_one(block: bool) -> None:
    """Each of the 16 eliminations of the four layers multiplies them by K_BB⁻¹ K, so K_BB must not start small."""
    a = torch.randn(2, 1, 33, 33)
    operator = BOON(
        FNO(FNOConfig(modes=(6, 6), width=16)),
        [(Dirichlet(0.0), Dirichlet(0.0))] * 2,
        correction=Elimination(block=block),
    )
    with torch.no_grad():
        assert 1e-3 < operator(a).abs().max() < 10


@pytest.mark.parametrize("channels", [1, 2, 3])
@every_case
def test_scalar_elimination_is_that_of_the_authors(shape, modes, padding, axes, transform, channels):
    x, weight, bases = setting(shape, modes, padding, channels, 3, transform)
    periods = [round(basis.period) for basis in bases]
    expected = torch.from_numpy(eliminate_as_the_authors(weighted(x, bases).numpy(), weight.numpy(), periods, axes))
    result = eliminate(x, weight, bases, axes)
    assert torch.allclose(result, expected, rtol=0, atol=1e-10 * float(expected.abs().max()))


def test_with_one_channel_the_last_end_carries_its_value():
    # (K z)_N = k_NN x_N exactly; the first end is carried before the last one is changed.
    x, weight, bases = setting((12,), (4,), (0.25,), 1, 3, DOMAIN)
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
    x, weight, bases = setting((9,), (1,), (0.5,), 2, 3)  # one mode: the ends cannot be told apart, s = 0
    with pytest.raises(SingularKernelError, match="of the ends of axis 0 are too small to divide by; keep"):
        eliminate(x, weight, bases, (0,))
