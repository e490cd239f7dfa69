"""Options of the layers: skip connections, channel MLPs, activations, many grids."""

import dataclasses
import json
import math
from itertools import pairwise

import pytest
import torch
from torch.nn import functional

from boon import BOON, FNO, FNOConfig, MixedTransform, Prescription, load, save
from boon.corrections.without_schur import EliminationWithoutSchur
from boon.errors import DataFileError, InvalidArgumentError
from boon.layers import activate
from boon.scores import boundary_error, relative_l2
from solvers import Dirichlet, Neumann
from solvers.tensor_files import encode_tensors
from tests.boon.networks.test_fno import smooth_field

OPTIONS = [
    {"skip": "identity"},
    {"skip": "soft-gating"},
    {"channel_mlp": 0.5},
    {"activation": "relu"},
    {"activation": "silu"},
    {"activation": "tanh"},
    {"skip": "identity", "channel_mlp": 2.0, "activation": "relu"},
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
    # relu has a kink, where integrals lose their order 4
    assert float((coarse - fine).abs().max()) < (1e-4 if "relu" in options.values() else 2e-5)


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


@pytest.mark.parametrize("option", [{"norm": "instance"}, {"factorisation": 2}])
def test_a_file_of_an_option_that_left_names_the_version_that_reads_it(tmp_path, option):
    path = tmp_path / "x.safetensors"
    config = dataclasses.asdict(build().config) | {"transform": {"class": "DomainFourier"}}
    description = json.dumps({"class": "FNO", "config": config | option})
    path.write_bytes(encode_tensors({}, {"format": "boon-2", "operator": description}))
    with pytest.raises(DataFileError, match=f"option {next(iter(option))}, which left with version 0.4; version 0.3"):
        load(path)


def test_a_file_must_hold_the_numbers_of_its_channel_mlps(tmp_path):
    operator = build(channel_mlp=1.0)
    object.__setattr__(operator.config, "channel_mlp", 1e6)
    save(operator, tmp_path / "x.safetensors")
    with pytest.raises(DataFileError, match="an operator of its configuration has at least"):
        load(tmp_path / "x.safetensors")


@pytest.mark.parametrize("kind", ["gelu", "relu", "silu", "tanh"])
def test_activations_are_those_of_torch(kind):
    x = torch.randn(9)
    assert torch.equal(activate(x, kind), getattr(torch, kind, getattr(functional, kind, None))(x))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"skip": "none"}, r"skip must be one of \('linear', 'identity', 'soft-gating'\), got 'none'"),
        ({"activation": "sine"}, "activation must be one of"),
        ({"projection": 0}, "projection and channel_mlp .* got 0 and None; None leaves them out"),
        ({"channel_mlp": 0.01}, "at least one channel, got None and 0.01"),
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
