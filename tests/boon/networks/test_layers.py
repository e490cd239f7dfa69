"""Options of the layers: skip connections, norms, channel MLPs, factorised weights, activations, many grids."""

import math
from itertools import pairwise

import pytest
import torch
from torch.nn import functional

from boon import BOON, FNO, FNOConfig, MixedTransform, Prescription, load, save
from boon.corrections.without_schur import EliminationWithoutSchur
from boon.errors import DataFileError, InvalidArgumentError
from boon.layers import FieldNorm, activate
from boon.scores import boundary_error, relative_l2
from boon.spectral import FactorisedConvolution, SpectralConvolution
from solvers import Dirichlet, Neumann
from tests.boon.networks.test_fno import smooth_field

OPTIONS = [
    {"skip": "identity"},
    {"skip": "soft-gating"},
    {"norm": "instance"},
    {"norm": "group"},
    {"channel_mlp": 0.5},
    {"factorisation": 3},
    {"activation": "relu"},
    {"activation": "silu"},
    {"activation": "tanh"},
    {"skip": "identity", "norm": "group", "channel_mlp": 2.0, "factorisation": 2, "activation": "relu"},
]


def build(**options):
    torch.manual_seed(0)
    return FNO(FNOConfig(**{"width": 4, "modes": (3,), "depth": 3, **options}))


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("periodic", [False, True])
def test_every_option_leaves_the_operator_a_function_of_the_field(options, periodic):
    def field(n):
        x = torch.linspace(0, 1, n, dtype=torch.float64)
        return torch.exp(torch.sin(2 * math.pi * x)).view(1, 1, -1) if periodic else smooth_field(n)

    operator = build(periodic=(periodic,), **options).double()
    coarse, fine = operator(field(65)).detach(), operator(field(257)).detach()[..., ::4]
    # Norms divide by small deviations; relu has a kink, where integrals lose their order 4.
    assert float((coarse - fine).abs().max()) < (1e-4 if "relu" in options.values() or "norm" in options else 2e-5)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("correction", [Prescription(hidden=True), MixedTransform(), EliminationWithoutSchur()])
def test_every_option_works_under_every_kind_of_correction(options, correction):
    operator = BOON(build(modes=(3, 3), **options), [(Dirichlet(0.3), Neumann(0.1)), None], correction=correction)
    u = operator.double()(torch.randn(2, 1, 12, 11, dtype=torch.float64))
    u.square().sum().backward()
    assert boundary_error(u, operator.discretise(u)).relative_maximum <= 1e-12
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in operator.operator.parameters() if p.ndim > 1)


@pytest.mark.parametrize("options", OPTIONS)
def test_every_option_is_stored(tmp_path, options):
    operator = build(**options)
    save(operator, tmp_path / "x.safetensors")
    twin, a = load(tmp_path / "x.safetensors"), smooth_field(20, torch.float32)
    assert torch.equal(twin(a), operator(a))
    assert twin.config == operator.config


def test_a_file_must_hold_the_numbers_of_its_channel_mlps(tmp_path):
    operator = build(channel_mlp=1.0)
    object.__setattr__(operator.config, "channel_mlp", 1e6)
    save(operator, tmp_path / "x.safetensors")
    with pytest.raises(DataFileError, match="an operator of its configuration has at least"):
        load(tmp_path / "x.safetensors")


@pytest.mark.parametrize(("kind", "rows"), [("instance", (2, 3, 1, 1)), ("group", (2, 1, 1, 1))])
@pytest.mark.parametrize("periodic", [(False, False), (True, False)])
def test_a_norm_gives_mean_0_and_variance_1_in_the_sense_of_integrals(kind, rows, periodic):
    norm = FieldNorm(3, kind, periodic).double()
    x = 5 + 3 * torch.randn(2, 3, 9, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if periodic[0]:
        x[:, :, -1] = x[:, :, 0]
    y = norm(x)
    ends = [0.5] if periodic[0] else [3 / 8, 7 / 6, 23 / 24]
    first = torch.tensor([*ends, *[1.0] * (9 - 2 * len(ends)), *reversed(ends)], dtype=torch.float64)
    last = torch.tensor([3 / 8, 7 / 6, 23 / 24, *[1.0] * 5, 23 / 24, 7 / 6, 3 / 8], dtype=torch.float64)
    weights = first[:, None] * last / (first.sum() * last.sum())
    dims = (2, 3) if kind == "instance" else (1, 2, 3)
    count = 1 if kind == "instance" else 3
    assert torch.allclose((weights * y).sum(dims).view(rows) / count, torch.zeros(rows).double(), atol=1e-12)
    assert torch.allclose((weights * y * y).sum(dims).view(rows) / count, torch.ones(rows).double(), atol=1e-4)


def test_the_scale_and_the_shift_of_a_norm_belong_to_channels():
    norm = FieldNorm(2, "instance", (False,))
    x = torch.randn(1, 2, 9)
    before = norm(x)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2.0, 3.0]))
        norm.bias.copy_(torch.tensor([-1.0, 4.0]))
    assert torch.allclose(norm(x), before * torch.tensor([[2.0], [3.0]]) + torch.tensor([[-1.0], [4.0]]), atol=1e-6)


def test_factorised_weights_are_a_sum_of_products():
    torch.manual_seed(0)
    layer = FactorisedConvolution(3, 5, (2, 4), rank=6)
    first, second, inputs, outputs = layer.factors
    assert layer.weight.shape == SpectralConvolution(3, 5, (2, 4)).weight.shape == (3, 4, 3, 5)
    assert torch.allclose(layer.weight, torch.einsum("ar,br,cr,or->abco", first, second, inputs, outputs))
    assert layer.double().weight.dtype == torch.complex128


@pytest.mark.parametrize("modes", [(8,), (6, 6)])
def test_factorised_weights_start_like_full_ones(modes):
    torch.manual_seed(0)
    product, full = (
        m.weight.detach() for m in (FactorisedConvolution(8, 8, modes, 16), SpectralConvolution(8, 8, modes))
    )
    for part in (product.real, product.imag):
        assert float(part.min()) > 0
        assert 0.5 < float(part.mean() / full.real.mean()) < 2.0


@pytest.mark.parametrize("kind", ["gelu", "relu", "silu", "tanh"])
def test_activations_are_those_of_torch(kind):
    x = torch.randn(9)
    assert torch.equal(activate(x, kind), getattr(torch, kind, getattr(functional, kind, None))(x))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"skip": "none"}, r"skip must be one of \('linear', 'identity', 'soft-gating'\), got 'none'"),
        ({"norm": "batch"}, "norm must be one of .* got 'batch'"),
        ({"activation": "sine"}, "activation must be one of"),
        ({"factorisation": 0}, "factorisation needs a rank, projection and channel_mlp"),
        ({"projection": 0}, "got None, 0 and None; None leaves them out"),
        ({"factorisation": -1}, "every count at least 1"),
        ({"channel_mlp": 0.01}, "at least one channel, got None, None and 0.01"),
        ({"channel_mlp": float("inf")}, "at least one channel"),
    ],
)
def test_options_that_do_not_exist(options, match):
    with pytest.raises(InvalidArgumentError, match=match):
        build(**options)


def smoothing(n, count, generator):
    """Random cosine series and the same with amplitudes multiplied by exp(−k²/4), on n nodes."""
    amplitudes = torch.randn(count, 6, generator=generator)
    k = torch.arange(6)
    waves = torch.cos(math.pi * k[:, None] * torch.linspace(0, 1, n))
    return (amplitudes @ waves)[:, None], (amplitudes * torch.exp(-0.25 * k**2) @ waves)[:, None]


def test_batches_on_different_grids_train_one_operator():
    torch.manual_seed(0)
    operator = BOON(FNO(FNOConfig(width=8, modes=(8,), depth=2)), [(Neumann(0.0), Neumann(0.0))])
    optimiser, generator = torch.optim.Adam(operator.parameters(), 1e-2), torch.Generator().manual_seed(1)
    for step in range(40):
        a, u = smoothing((33, 49, 65)[step % 3], 8, generator)
        loss = relative_l2(operator(a), u)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    errors = []
    for n in (33, 49, 65, 129):
        a, u = smoothing(n, 64, torch.Generator().manual_seed(2))
        errors.append(float(relative_l2(operator(a).detach(), u)))
    assert errors[0] < 0.3  # 1 for an operator that gives 0
    assert all(abs(error / before - 1) < 0.05 for before, error in pairwise(errors)), errors


def test_norms_are_taken_in_the_dtype_of_their_weights_under_autocast():
    torch.manual_seed(0)
    norm, x = FieldNorm(3, "instance", (False,)), 10 + 0.1 * torch.randn(2, 3, 33)
    with torch.autocast("cpu", torch.bfloat16):
        found = norm(x)
    assert torch.equal(found, norm(x))
