"""BOON around the FNO of the neuraloperator package; skipped without it (``pip install '.[neuraloperator]'``)."""

from dataclasses import replace

import pytest
import torch

from boon import BOON, Elimination
from boon.conditions.functionals import prescribe
from boon.errors import InvalidArgumentError
from boon.neuraloperator import kernel_of
from boon.spectral import fourier_basis
from boon.transforms import NodeFourier
from solvers import Dirichlet, Neumann
from tests import neuralop_stub
from tests.boon.networks.test_neuraloperator_stub import Unchanged

models = pytest.importorskip("neuralop.models")
layers = pytest.importorskip("neuralop.layers.spectral_convolution")


def bases_of(layer, shape, margin=0, dtype=torch.float32):
    like = torch.zeros((), dtype=dtype)
    counts = [*(m // 2 + 1 for m in layer.n_modes[:-1]), layer.n_modes[-1]]
    plain = (fourier_basis(n, m, like=like, transform=NodeFourier()) for n, m in zip(shape, counts, strict=True))
    return tuple(replace(basis, margin=margin) for basis in plain)


def agree(layer, x):
    """Largest difference of the adapter's kernel and the layer without its bias, relative to the largest value."""
    with torch.no_grad():
        expected = layer(x) - layer.bias
        result = kernel_of(layer, x.dtype)(x, bases_of(layer, x.shape[2:]))
        return float((result - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(
    ("shape", "n_modes"),
    [
        ((64,), (16,)),
        ((33,), (7,)),
        ((32, 33), (12, 12)),
        ((20, 24), (5, 7)),
        ((6, 8), (1, 4)),
        ((12, 10, 16), (6, 5, 8)),
        ((8, 10, 9), (3, 4, 5)),
    ],
)
def test_kernel_equals_their_layer(shape, n_modes):
    torch.manual_seed(0)
    assert agree(layers.SpectralConv(4, 3, n_modes), torch.randn(2, 4, *shape)) <= 1e-6


@pytest.mark.parametrize("shape", [(33, 32), (9, 11, 10)])
def test_kernel_equals_their_layer_on_odd_numbers_of_nodes_once_its_shift_is_undone(shape, monkeypatch):
    # Release 2.0.0 calls fftshift twice, which on odd numbers of nodes is no identity.
    torch.manual_seed(0)
    shift, calls = torch.fft.fftshift, []

    def there_and_back(x, dim=None):
        calls.append(dim)
        return shift(x, dim=dim) if len(calls) % 2 else torch.fft.ifftshift(x, dim=dim)

    monkeypatch.setattr(torch.fft, "fftshift", there_and_back)
    assert agree(layers.SpectralConv(3, 3, [4] * len(shape)), torch.randn(2, 3, *shape)) <= 1e-6


@pytest.mark.parametrize("factorization", ["tucker", "cp", "tt"])
@pytest.mark.parametrize("implementation", ["factorized", "reconstructed"])
def test_kernel_equals_a_factorised_layer(factorization, implementation):
    torch.manual_seed(0)
    layer = layers.SpectralConv(4, 4, (6, 6), factorization=factorization, implementation=implementation, rank=0.5)
    assert agree(layer, torch.randn(2, 4, 12, 13)) <= 1e-6


@pytest.mark.parametrize("n_modes", [(4, 4), (5, 6), (7, 3)])
def test_kernel_equals_a_layer_that_uses_some_of_its_modes(n_modes):
    torch.manual_seed(0)
    layer = layers.SpectralConv(3, 3, n_modes, max_n_modes=(8, 8))
    assert agree(layer, torch.randn(2, 3, 20, 21)) <= 1e-6


@pytest.mark.parametrize(
    ("shape", "n_modes"), [((33,), (7,)), ((20, 24), (5, 8)), ((9, 13), (4, 6)), ((8, 7, 9), (4, 3, 5))]
)
def test_kernel_in_float64_equals_the_convolution_with_their_weights(shape, n_modes):
    # Their layer itself computes in complex64; the oracle is the re-statement of it, which takes float64.
    torch.manual_seed(0)
    layer = layers.SpectralConv(3, 3, n_modes)
    x = torch.randn(2, 3, *shape, dtype=torch.float64)
    with torch.no_grad():
        expected = neuralop_stub.convolve(x, layer.weight.to_tensor().to(torch.complex128))
        result = kernel_of(layer, x.dtype)(x, bases_of(layer, shape, dtype=torch.float64))
    assert torch.allclose(result, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))


def build(n_modes, **options):
    defaults = {"in_channels": 1, "out_channels": 2, "hidden_channels": 4, "n_layers": 2}
    return models.FNO(n_modes=n_modes, **(defaults | options))


VARIANTS = [
    {},
    {"domain_padding": 0.2},
    {"domain_padding": [0.1, 0.0]},
    {"positional_embedding": None},
    {"use_channel_mlp": False},
    {"stabilizer": "tanh"},
    {"fno_skip": "identity", "channel_mlp_skip": "linear"},
    {"fno_skip": None, "channel_mlp_skip": None},
    {"factorization": "tucker", "rank": 0.5},
    {"max_n_modes": (8, 8)},
    {"n_layers": 1, "non_linearity": torch.tanh},
]


@pytest.mark.parametrize("options", VARIANTS, ids=lambda options: "-".join(options) or "defaults")
def test_the_whole_operator_is_evaluated_as_it_is_but_for_its_kernels(options):
    torch.manual_seed(0)
    model = build((4, 6), **options).requires_grad_(False)
    names = list(model.state_dict())
    operator = BOON(model, [(Dirichlet(0.5), Neumann(0.0)), None], correction=Unchanged())
    a = torch.randn(2, 1, 20, 19)
    expected = prescribe(model(a), operator.discretise(model(a)))
    # float32: eps = 1.2e-7 over the layers with sums of about fifty terms.
    assert torch.allclose(operator(a), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert list(model.state_dict()) == names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "group_norm"}, "no normalisation"),
        ({"norm": "instance_norm"}, "no normalisation"),
        ({"complex_data": True}, "real data"),
        ({"separable": True}, "full weight matrices"),
        ({"preactivation": True}, "activations after the kernel"),
        ({"fno_block_precision": "mixed"}, "full precision"),
        ({"resolution_scaling_factor": 2}, "one grid"),
    ],
)
def test_options_that_corrections_inside_the_layers_do_not_support(options, message):
    with pytest.raises(InvalidArgumentError, match=message):
        BOON(build((6,), **options), [(Dirichlet(0.0), Dirichlet(0.0))], correction=Elimination())
