"""The Fourier transform of fields on nodes: quadrature weights, bases, and agreement with the FFT."""

import cmath
import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boon.errors import InvalidArgumentError, TooManyModesError
from boon.spectral import SpectralConvolution, analyse, fourier_basis, multiply_modes
from boon.transforms import NodeFourier
from tests.oracles import padded_spectral_convolution
from tests.strategies import seeds

LIKE = torch.zeros((), dtype=torch.float64)


def draw(shape, seed, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def expected_output(x, weight, periods):
    return torch.from_numpy(padded_spectral_convolution(x.numpy(), weight.detach().numpy(), periods))


def bases_of(shape, modes, padding, like):
    axes = zip(shape, modes, strict=True)
    return tuple(fourier_basis(n, m, padding, like=like, transform=NodeFourier()) for n, m in axes)


@pytest.mark.parametrize(("padding", "mode"), [(0.0, 3), (0.125, 5), (0.3, 0)])
def test_coefficients_are_integrals_of_order_four(padding, mode):
    # ∫₀¹ eˣ exp(−iωx) dx / P = (e^{1 − iω} − 1)/((1 − iω) P), ω = 2πk/P.
    omega, intervals = 2 * torch.pi * mode / (1 + padding), (64, 128, 256, 512)
    expected = (cmath.exp(1 - 1j * omega) - 1) / ((1 - 1j * omega) * (1 + padding))
    errors = []
    for count in intervals:
        x = torch.linspace(0, 1, count + 1, dtype=torch.float64)
        basis = fourier_basis(count + 1, 6, padding, like=x)
        found = analyse(x.exp().view(1, 1, -1), (basis,))[0, 0, mode] / basis.period
        errors.append(float((found - expected).abs()))
    slopes = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert all(3.8 < slope < 4.2 for slope in slopes), slopes


def test_few_nodes_have_the_weights_of_the_trapezoid_rule():
    assert torch.equal(fourier_basis(5, 1, like=LIKE).analysis[0], torch.tensor([0.5, 1, 1, 1, 0.5]).double())
    weights = torch.tensor([3 / 8, 7 / 6, 23 / 24, 23 / 24, 7 / 6, 3 / 8], dtype=torch.float64)
    assert torch.equal(fourier_basis(6, 1, like=LIKE).analysis[0], weights)


def test_bases_are_kept_by_shape_dtype_and_device():
    basis = fourier_basis(11, 3, 0.1, like=LIKE)
    assert fourier_basis(11, 3, 0.1, like=LIKE).analysis is basis.analysis
    assert fourier_basis(11, 3, 0.1, like=LIKE.float()).analysis.dtype == torch.float32
    others = [fourier_basis(11, 3, 0.2, like=LIKE), fourier_basis(11, 3, 0.1, like=LIKE, transform=NodeFourier())]
    assert not any(torch.equal(other.synthesis, basis.synthesis) for other in others)


@settings(deadline=None, max_examples=25)
@given(
    shape=st.lists(st.integers(7, 12), min_size=1, max_size=3),
    padding=st.sampled_from([0.0, 0.125, 0.5]),
    seed=seeds,
    data=st.data(),
)
def test_convolution_equals_fft_of_the_zero_padded_field(shape, padding, seed, data):
    modes = [data.draw(st.integers(1, 4)) for _ in shape]
    torch.manual_seed(seed)
    convolution = SpectralConvolution(2, 3, modes).double()
    x = draw((2, 2, *shape), seed)
    bases = bases_of(shape, modes, padding, x)
    expected = expected_output(x, convolution.weight, [round(basis.period) for basis in bases])
    # Two orderings of sums of at most 12³ products: round-off grows like eps times the number of terms at worst.
    assert torch.allclose(convolution(x, bases), expected, rtol=0, atol=1e-12 * float(expected.abs().max() + 1))


def test_convolution_in_float32_stays_within_float32_round_off():
    torch.manual_seed(1)
    convolution = SpectralConvolution(3, 3, (5, 4))
    x = draw((2, 3, 20, 15), 2, torch.float32)
    expected = expected_output(x.double(), convolution.weight, [20, 15])
    result = convolution(x, bases_of((20, 15), (5, 4), 0.0, x))
    assert result.dtype == torch.float32
    assert torch.allclose(result.double(), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_periodic_basis_ignores_how_often_the_shared_node_is_stored():
    # With equal ends, n nodes with a period of n − 1 are the n − 1 distinct nodes without the last one.
    x = draw((1, 1, 13), 4)
    x[..., -1] = x[..., 0]
    convolution = SpectralConvolution(1, 1, (5,)).double()
    result = convolution(x, (fourier_basis(13, 5, periodic=True, like=x),))
    expected = expected_output(x[..., :-1], convolution.weight, [12])
    assert torch.allclose(result[..., :-1], expected, atol=1e-13)
    assert torch.allclose(result[..., -1], result[..., 0], atol=1e-14)


def test_invalid_arguments_raise_with_reason():
    fourier_basis(9, 5, like=torch.zeros(()), transform=NodeFourier())
    with pytest.raises(
        TooManyModesError, match=r"modes=6 needs .* more than 10 intervals .*, got 9 .* keep at most 5 modes"
    ):
        fourier_basis(9, 6, like=torch.zeros(()), transform=NodeFourier())
    with pytest.raises(InvalidArgumentError, match="modes needs one entry of at least 1 per axis"):
        SpectralConvolution(1, 1, ())


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_product_of_modes_and_its_gradient(dtype):
    torch.manual_seed(0)
    x = torch.randn(3, 2, 4, dtype=dtype, requires_grad=True)
    weight = torch.randn(4, 2, 5, dtype=dtype, requires_grad=True)
    assert torch.allclose(multiply_modes(x, weight), torch.einsum("bck,kco->bok", x, weight), atol=1e-14)
    assert torch.autograd.gradcheck(multiply_modes, (x, weight))
    assert torch.autograd.gradgradcheck(multiply_modes, (x, weight))
