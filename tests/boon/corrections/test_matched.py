"""Matched functions at an end: orthogonal, homogeneous, and their kernel as a convolution."""

import math

import pytest
import torch

from boon import BOON, FNO, FNOConfig, MixedTransform
from boon.conditions.sides import check_conditions
from boon.corrections.matched import matched_bases, matched_basis, matched_weight
from boon.errors import TooManyModesError
from boon.spectral import SpectralConvolution, analyse, fourier_basis, multiply, synthesise
from boon.transforms import NodeFourier
from solvers import Dirichlet, Neumann, Robin
from tests.oracles import padded_spectral_convolution

LIKE = torch.zeros((), dtype=torch.float64)
SYMMETRIES = [(False, False), (True, True), (True, False), (False, True)]


def extend(x, odd):
    """The field on its full period: even or odd about both ends."""
    inner = x[..., 1:-1].flip(-1)
    return torch.cat([x, -inner if odd else inner], -1)


@pytest.mark.parametrize("odd", SYMMETRIES)
def test_functions_are_orthogonal_and_reproduce_their_span(odd):
    basis = matched_basis(13, 6, odd, LIKE)
    assert torch.allclose(basis.analysis @ basis.synthesis, torch.eye(6, dtype=torch.float64), atol=1e-14)


@pytest.mark.parametrize("odd", SYMMETRIES)
def test_functions_meet_homogeneous_conditions(odd):
    n = 2001
    synthesis = matched_basis(n, 4, odd, LIKE).synthesis
    values = synthesis * (n - 1)
    for end, inner, vanishes in ((0, 1, odd[0]), (-1, -2, odd[1])):
        if vanishes:
            assert (values[end] == 0).all()
        else:  # the derivative vanishes: one step of 1/2000 changes cos by (4π/2000)²/2 at most
            assert torch.allclose(values[end], values[inner], atol=2 * (4 * torch.pi / 2000) ** 2)


@pytest.mark.parametrize("even", [True, False])
def test_kernel_is_a_convolution_of_the_extended_field(even):
    # Oracle: extend evenly (cosine) or oddly (sine) over the period 2(n − 1) and apply the full FFT with real weights.
    torch.manual_seed(0)
    n, m = 14, 4
    x = torch.randn(2, 2, n, dtype=torch.float64)
    weight = SpectralConvolution(2, 2, (m,)).double().weight.detach()
    if not even:
        x[..., [0, -1]] = 0.0
    basis = (matched_basis(n, 2 * m - 1, (not even, not even), LIKE),)
    result = synthesise(multiply(analyse(x, basis), matched_weight(weight, basis)), basis)
    full = torch.cat([weight.real, weight.imag[1:]]).to(weight.dtype)
    if not even:  # sines start at frequency 1
        full = torch.cat([torch.zeros_like(full[:1]), full])
    extended = extend(x, not even)
    expected = padded_spectral_convolution(extended.numpy(), full.numpy(), [2 * (n - 1)])[..., :n]
    assert torch.allclose(result, torch.from_numpy(expected), atol=1e-12)


def test_mixed_ends_expand_in_quarter_waves():
    n = 9
    x = torch.linspace(0, 1, n, dtype=torch.float64)
    basis = (matched_basis(n, 3, (True, False), LIKE),)
    wave = torch.sin(1.5 * torch.pi * x).view(1, 1, -1)
    assert torch.allclose(analyse(wave, basis)[0, 0] * 2 / (n - 1), torch.tensor([0.0, 1.0, 0.0]).double(), atol=1e-14)


@pytest.mark.parametrize("matched", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("odd", [(False, False), (True, True), (True, False)])
def test_two_axes_are_a_kernel_in_the_functions_of_each(matched, odd):
    # Oracle: the product of the two bases as explicit functions; a kernel multiplies cos kx, sin kx by the same weight
    # and its conjugate mirror, cosines by a number each.
    torch.manual_seed(1)
    shape, m = (8, 9), 3
    weight = SpectralConvolution(1, 1, (m, m)).double().weight.detach()
    bases = tuple(
        matched_basis(n, 2 * m - 1, odd, LIKE) if on else fourier_basis(n, m, like=LIKE, transform=NodeFourier())
        for n, on in zip(shape, matched, strict=True)
    )
    expected = torch.zeros(math.prod(shape), math.prod(shape), dtype=torch.complex128)
    for first, wave_1, dual_1 in waves(shape[0], m, odd if matched[0] else None):
        for second, wave_2, dual_2 in waves(shape[1], m, odd if matched[1] else None):
            factor = weight_of(weight[..., 0, 0], (first, second), matched, m)
            expected += factor * torch.outer(torch.kron(wave_1, wave_2), torch.kron(dual_1, dual_2))
    unit = torch.eye(math.prod(shape), dtype=torch.float64).view(-1, 1, *shape)
    result = synthesise(multiply(analyse(unit, bases), matched_weight(weight, bases)), bases).flatten(1).mT
    assert torch.allclose(result, expected.real, atol=1e-13)


def waves(n, m, odd):
    """(number or frequency, function, its dual) of every function along an axis; Fourier's where odd is None."""
    if odd:
        basis = matched_basis(n, 2 * m - 1, odd, LIKE)
        return [(j, basis.synthesis[:, j] + 0j, basis.analysis[j] + 0j) for j in range(2 * m - 1)]
    angle = 2 * torch.pi / n * torch.arange(n, dtype=torch.float64)
    return [(k, torch.exp(1j * k * angle), torch.exp(-1j * k * angle) / n) for k in range(1 - m, m)]


def weight_of(weight, numbers, matched, m):
    """Factors of a function; all frequencies of the first axis are stored, −1 after the highest."""
    first, second = numbers
    index = {k: k if k >= 0 else m - 1 - k for k in range(1 - m, m)}
    if matched == (True, False):
        return weight[first, second] if second >= 0 else weight[first, -second].conj()
    if matched == (True, True):
        return weight[first, second].real if second < m else weight[first, second - m + 1].imag
    low, part = (second, 1.0) if second < m else (second - m + 1, 1j)
    return (weight[index[first], low] / part + (weight[index[-first], low] / part).conj()) / 2


def test_constant_neumann_field_stays_constant_under_the_kernel():
    torch.manual_seed(2)
    config = FNOConfig(width=4, modes=(4,), depth=2, coordinates=False)
    operator = BOON(FNO(config), [(Neumann(0.0), Robin(0.0, 1.0, 0.0))], correction=MixedTransform(share=0.0)).double()
    u = operator(torch.full((1, 1, 17), 0.3, dtype=torch.float64))
    assert torch.allclose(u, u[..., :1].expand_as(u), atol=1e-12)


@pytest.mark.parametrize(("odd", "largest"), [((False, False), 8), ((True, True), 7), ((True, False), 8)])
def test_largest_number_of_functions_on_nine_nodes(odd, largest):
    matched_basis(9, largest, odd, LIKE)
    with pytest.raises(TooManyModesError, match=f"{largest + 1} sines or cosines need more than"):
        matched_basis(9, largest + 1, odd, LIKE)


def test_mixed_conditions_choose_the_transform_of_each_axis():
    config = FNOConfig(width=4, modes=(3, 3), depth=1)
    first, second = matched_bases(check_conditions([(Dirichlet(), Dirichlet()), None]), config, (9, 9), LIKE)
    assert (first.fourier, second.fourier) == (False, True)
    assert (first.synthesis[[0, -1]] == 0).all()
