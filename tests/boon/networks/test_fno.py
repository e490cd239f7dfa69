"""The Fourier neural operator: shapes, precision, symmetries, messages."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from boon import BOON, FNO, FNOConfig, load, save
from boon.errors import InvalidArgumentError
from boon.transforms import NodeFourier
from solvers import Dirichlet, Neumann


def small(**options):
    torch.manual_seed(0)
    return FNO(FNOConfig(**{"width": 6, "modes": (4,), "depth": 2, **options}))


def test_double_precision_reaches_every_weight():
    operator = small().double()
    assert {p.dtype for p in operator.parameters()} == {torch.float64, torch.complex128}
    assert operator(torch.randn(1, 1, 20, dtype=torch.float64)).dtype == torch.float64


def test_without_modes_of_higher_order_and_coordinates_a_constant_stays_constant():
    # Without padding and coordinates the operator commutes with shifts, so a constant maps to a constant.
    operator = small(padding=0.0, coordinates=False, transform=NodeFourier()).double()
    u = operator(torch.full((1, 1, 20), 0.7, dtype=torch.float64))
    assert torch.allclose(u, u[..., :1].expand_as(u), atol=1e-13)


def test_periodic_axis_commutes_with_shifts_of_the_distinct_nodes():
    operator = small(periodic=(True,), coordinates=False).double()
    a = torch.randn(1, 1, 21, dtype=torch.float64)
    a[..., -1] = a[..., 0]
    shifted = torch.cat([a[..., 5:-1], a[..., :6]], dim=-1)
    u, v = operator(a), operator(shifted)
    assert torch.allclose(v, torch.cat([u[..., 5:-1], u[..., :6]], dim=-1), atol=1e-12)
    assert torch.allclose(u[..., 0], u[..., -1], atol=1e-12)


def smooth_field(n, dtype=torch.float64):
    x = torch.linspace(0, 1, n, dtype=dtype)
    return (x * (1 - x) * torch.exp(x) + 0.3).view(1, 1, -1)


def test_an_operator_is_a_function_of_the_field_at_fourth_order():
    operator = small(width=4).double()
    results = {n: operator(smooth_field(n + 1)).detach()[..., :: n // 32] for n in (32, 64, 128, 256, 4096)}
    errors = [float((results[n] - results[4096]).abs().max()) for n in (32, 64, 128, 256)]
    slopes = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert all(3.7 < slope < 4.3 for slope in slopes), slopes


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 2e-6)])
def test_one_node_more_or_less_and_finer_grids_give_the_same_answer(dtype, tolerance):
    # The error of the integrals with 16 modes on 128 nodes; in float32, round-off.
    operator = small(modes=(16,), width=16, depth=4).to(dtype)
    ends = {n: operator(smooth_field(n, dtype)).detach()[..., [0, -1]] for n in (128, 127, 129, 256, 512)}
    for n, values in ends.items():
        assert torch.allclose(values, ends[512], rtol=0, atol=tolerance), n


def test_operators_of_version_0_1_belong_to_one_grid():
    # The sum over nodes counts the ends fully, O(h), and its period rounds.
    operator = small(width=4, transform=NodeFourier()).double()
    results = {n: operator(smooth_field(n + 1)).detach()[..., :: n // 32] for n in (32, 64, 128, 256, 4096)}
    errors = [float((results[n] - results[4096]).abs().max()) for n in (32, 64, 128, 256)]
    assert all(0.35 * earlier < later < 0.65 * earlier for earlier, later in pairwise(errors))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "every count at least 1"),
        ({"modes": ()}, "one number of modes per axis"),
        ({"padding": (0.1, 0.1)}, "padding must be one number"),
        ({"padding": -0.1}, "padding must be one number"),
        ({"periodic": (True, False)}, "periodic must be empty or have one entry per axis"),
        ({"width": 4.5}, r"needs whole numbers as sizes, .* got width=4.5"),
        ({"increment": 0.2, "out_channels": 2}, "must begin with the channels of the output, got 0.2 with 1 channels"),
        ({"increment": 0.0}, "increment must be positive"),
        ({"modes": 16}, r"one number of modes per axis, .* got modes=16"),
        ({"padding": "wide"}, r"numbers as padding and channel_mlp, got padding='wide'"),
    ],
)
def test_wrong_configurations(options, message):
    with pytest.raises(InvalidArgumentError, match=message):
        FNOConfig(**options)


@pytest.mark.parametrize("shape", [(2, 2, 16), (2, 1, 16, 16)])
def test_input_of_the_wrong_shape(shape):
    with pytest.raises(InvalidArgumentError, match=r"input must be \(batch, 1, \*space\) with 1 axes"):
        small()(torch.zeros(shape))


@pytest.mark.parametrize("wrapped", [False, True])
def test_inputs_of_another_precision_name_both(wrapped):
    operator = FNO(FNOConfig(width=4, modes=(4,)))
    operator = BOON(operator, [(Dirichlet(0.0), Neumann(0.0))]) if wrapped else operator
    a = torch.ones(2, 1, 33)
    for other in (torch.float16, torch.bfloat16, torch.float64):
        with pytest.raises(InvalidArgumentError, match=f"The input is {other}, the weights are torch.float32; give"):
            operator(a.to(other))
    with torch.autocast("cpu", torch.bfloat16):
        assert operator(a.half()).shape == (2, 1, 33)


def test_an_operator_of_increments_adds_what_the_plain_one_gives(tmp_path):
    config = FNOConfig(in_channels=2, width=4, modes=(3,), depth=2)
    plain, stepping = FNO(config).double(), FNO(replace(config, increment=0.2)).double()
    stepping.load_state_dict(plain.state_dict())
    a = torch.randn(3, 2, 17, dtype=torch.float64)
    torch.testing.assert_close(stepping(a), a[:, :1] + 0.2 * plain(a), rtol=0, atol=1e-14)
    under = BOON(stepping, [(Dirichlet(1.0), Dirichlet(0.0))])
    assert torch.equal(under(a)[..., 0], torch.ones(3, 1, dtype=torch.float64))
    save(under, tmp_path / "operator")
    assert torch.equal(load(tmp_path / "operator")(a), under(a))
