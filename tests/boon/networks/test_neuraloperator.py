"""BOON around the FNO of the neuraloperator package; skipped without it (``pip install '.[neuraloperator]'``)."""

from dataclasses import replace

import pytest
import torch

from boon import (
    BOON,
    Elimination,
    InvalidArgumentError,
    MatchedTransform,
    MixedTransform,
    Prescription,
    SmoothExtension,
    boundary_error,
    prescribe,
)
from boon.conditions.discretisation import discretise
from boon.neuraloperator import kernel_of
from boon.spectral import fourier_basis
from boon.transforms import NodeFourier
from solvers import Dirichlet, Neumann, Periodic, Robin
from tests import neuralop_stub
from tests.boon.networks.test_neuraloperator_stub import CORRECTIONS, Unchanged
from tests.oracles import eliminate_densely

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


def restated(layer):
    weight = layer.weight.to_tensor().to(torch.complex128)
    return lambda unit, *_: neuralop_stub.convolve(torch.from_numpy(unit), weight).numpy()


def their_own(layer):
    return lambda unit, *_: (layer(torch.from_numpy(unit).float()) - layer.bias).double().numpy()


@pytest.mark.parametrize(
    ("shape", "n_modes", "axes", "margin", "convolution", "tolerance"),
    [
        ((14,), (6,), (0,), 2, restated, 1e-9),
        ((8, 7), (4, 4), (0, 1), 1, restated, 1e-9),
        ((6, 6, 6), (2, 2, 3), (0, 2), 1, restated, 1e-9),
        # Float32 round-off of their layer times the condition number of K_BB, here some hundreds. In one axis only:
        # in more, round-off fills the modes that are not kept and the oracle's pseudo-inverse cannot tell them.
        ((14,), (6,), (0,), 2, their_own, 1e-4),
        ((15,), (7,), (0,), 1, their_own, 1e-4),
    ],
)
def test_elimination_equals_the_dense_kernel_of_their_layer(shape, n_modes, axes, margin, convolution, tolerance):
    torch.manual_seed(1)
    layer = layers.SpectralConv(2, 2, n_modes).requires_grad_(False)
    x = torch.randn(2, 2, *shape, dtype=torch.float64)
    kernel, bases = kernel_of(layer, x.dtype), bases_of(layer, shape, margin, torch.float64)
    conditions = [(Dirichlet(0.0), Dirichlet(0.0)) if axis in axes else None for axis in range(len(shape))]
    inner = x[(..., *(slice(margin, n - margin) for n in shape))]
    boundary = discretise(conditions, [1.0] * len(shape), None, inner, 2).inside([margin] * len(shape))
    result = Elimination().kernel(kernel, x, bases, boundary)
    ends = ((margin, -1 - margin),)
    expected = torch.from_numpy(eliminate_densely(x.numpy(), None, shape, axes, ends, convolution(layer)))
    for axis in axes:  # T₁: Dirichlet faces keep the input
        for node in (margin, shape[axis] - 1 - margin):
            expected.select(2 + axis, node).copy_(x.select(2 + axis, node))
    assert torch.allclose(result, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


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


MIXED = [
    [(Dirichlet(0.7), Neumann(0.3))],
    [(Robin(1.0, -0.3, 0.2), Dirichlet(1.0))],
    [(Periodic(), Periodic()), (Neumann(0.0), Robin(-2.0, 0.1, 0.0))],
    [(Dirichlet(0.0), Neumann(0.0)), (Robin(1.0, 0.4, 0.0), Dirichlet(0.0))],
    [None, (Dirichlet(0.0), Dirichlet(0.0)), (Neumann(0.0), Dirichlet(0.0))],
]


@pytest.mark.parametrize("conditions", MIXED, ids=range(len(MIXED)))
@pytest.mark.parametrize("correction", [Prescription(), SmoothExtension(), *CORRECTIONS], ids=str)
def test_untrained_operators_meet_their_conditions_to_round_off(conditions, correction):
    torch.manual_seed(0)
    padded = not isinstance(correction, MatchedTransform)
    padding = [0.2 if padded and pair and not isinstance(pair[0], Periodic) else 0.0 for pair in conditions]
    model = build([4] * len(conditions), domain_padding=padding)
    inside = correction.hidden or correction.acts_on_kernels
    for double in (False, True) if inside else (False,):  # their own layers take no float64
        operator = BOON(model, conditions, correction=correction)
        operator = operator.double() if double else operator
        for nodes in (12, 15):
            a = torch.randn(2, 1, *(nodes + axis for axis in range(len(conditions))))
            u = operator(a.double() if double else a)
            boundary = operator.discretise(u)
            assert boundary_error(u, boundary).relative_maximum <= (1e-12 if double else 1e-6)
            for side, values in zip(boundary.functionals, boundary.data, strict=True):
                if side.is_value:
                    assert torch.equal(u.select(2 + side.axis, -1 if side.last else 0).double(), values)
            for axis in boundary.periodic:
                assert torch.equal(u.select(2 + axis, 0), u.select(2 + axis, -1))


@pytest.mark.parametrize("options", [{}, {"factorization": "cp", "rank": 0.5}], ids=str)
@pytest.mark.parametrize("correction", CORRECTIONS, ids=str)
def test_every_parameter_gets_a_gradient(correction, options):
    torch.manual_seed(0)
    padding = None if isinstance(correction, MatchedTransform) else 0.2
    model = build((6,), out_channels=1, domain_padding=padding, **options)
    operator = BOON(model, [(Robin(1.0, -0.3), Neumann())], correction=correction)
    u = operator(torch.randn(3, 1, 20), boundary=[(torch.randn(3, 1), torch.randn(3, 1))])
    u.square().sum().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in operator.parameters())
    assert all(bool(p.grad.abs().sum() > 0) for p in operator.parameters())


@pytest.mark.parametrize("options", [{}, {"factorization": "tucker", "rank": 0.5}], ids=str)
@pytest.mark.parametrize("correction", [MixedTransform(), *CORRECTIONS], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_corrected_layers_under_autocast(dtype, correction, options):
    torch.manual_seed(0)
    operator = BOON(build((6,), out_channels=1, **options), [(Dirichlet(0.3), Neumann(0.1))], correction=correction)
    a = torch.randn(2, 1, 129)
    with torch.autocast("cpu", dtype=dtype):
        u = operator(a)
    expected = operator(a).detach()
    assert float((u.detach().float() - expected).norm() / expected.norm()) < 4 * torch.finfo(dtype).eps
    assert (u[..., 0] == torch.tensor(0.3).to(u.dtype)).all()


def test_a_step_of_training_lowers_the_loss():
    torch.manual_seed(0)
    operator = BOON(build((6,), out_channels=1, domain_padding=0.2), [(Dirichlet(), Neumann(0.0))], (2.0,))
    hidden = BOON(operator.operator, [(Dirichlet(), Neumann(0.0))], (2.0,), correction=Elimination())
    a, left = torch.randn(4, 1, 20), torch.randn(4, 1)
    target = torch.linspace(0, 1, 20).expand(4, 1, 20)
    for wrapped in (operator, hidden):
        optimiser = torch.optim.Adam(wrapped.parameters(), lr=1e-2)
        losses = []
        for _ in range(20):
            optimiser.zero_grad()
            loss = (wrapped(a, boundary=[(left, None)]) - target)[..., 2:].square().mean()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < 0.5 * losses[0]


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


def test_unsupported_options_are_fine_at_the_output():
    operator = BOON(build((6,), norm="group_norm", preactivation=True), [(Dirichlet(1.0), Neumann(0.0))])
    assert (operator(torch.randn(2, 1, 20))[..., 0] == 1.0).all()
