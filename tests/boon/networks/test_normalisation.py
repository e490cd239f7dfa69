"""Normalisation per channel and by a mean field of the place."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from boon import BOON, FNO, FNOConfig, Normalised, boundary_error, load, save
from boon.corrections.without_schur import EliminationWithoutSchur
from boon.errors import DataFileError, InvalidArgumentError
from boon.normalisation import interpolate
from solvers import Dirichlet, Neumann, Periodic, Robin
from tests.boon.cases import ONE_OF_A_KIND
from tests.strategies import seeds

CORRECTIONS = [*ONE_OF_A_KIND, EliminationWithoutSchur()]
SMALL = FNOConfig(width=4, modes=(3,), depth=2)


def fields(samples=12, n=17, dtype=torch.float64, seed=0):
    """Inputs of unit size about 3 and outputs of size 200 about a parabola."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.linspace(0, 1, n, dtype=torch.float64)
    a = 3 + torch.randn(samples, 1, n, generator=generator, dtype=torch.float64)
    u = 200 * torch.randn(samples, 1, n, generator=generator, dtype=torch.float64) + 1000 * x * x
    return a.to(dtype), u.to(dtype)


def fitted(config=SMALL, dtype=torch.float64, **options):
    torch.manual_seed(0)
    return Normalised.fit(FNO(config).to(dtype), *fields(dtype=dtype, **options))


def test_training_fields_are_normalised_per_channel_and_outputs_per_place():
    a, u = fields()
    a, u = torch.cat([a, -5e3 * a, torch.full_like(a, 0.7)], 1), torch.cat([u, 1e-3 * u], 1)
    normalised = Normalised.fit(nn.Identity(), a, u)
    inside, outside = normalised.normalise(a), (u - normalised.restore(torch.zeros_like(u)))
    assert torch.allclose(inside.mean((0, 2)), torch.zeros(3).double(), atol=1e-13)
    assert torch.allclose(inside[:, :2].square().mean((0, 2)), torch.ones(2).double(), rtol=1e-12)
    assert (inside[:, 2] == 0).all(), "a channel without deviation keeps its unit"
    assert torch.allclose(outside.mean(0), torch.zeros(2, 17).double(), atol=1e-11)
    scale = outside.square().mean((0, 2)).sqrt()
    assert torch.allclose(normalised.restore(torch.ones_like(u)) - u, scale[:, None] - outside, rtol=1e-12)


def test_the_operator_inside_sees_normalised_fields():
    a, u = fields()
    normalised = Normalised.fit(nn.Identity(), a, u)
    expected = u.mean(0) + (u - u.mean(0)).square().mean().sqrt() * (a - a.mean()) / a.std(correction=0)
    assert torch.allclose(normalised(a), expected, rtol=1e-12)


@pytest.mark.parametrize("shape", [(17, 9), (9, 17), (40, 11), (3, 4)])
def test_cubic_fields_are_interpolated_exactly(shape):
    def cubic(n, m):
        x, y = (torch.linspace(0, 1, count, dtype=torch.float64) for count in (n, m))
        x = x[:, None]
        return torch.stack([x**3 * y - 2 * y**3, 1 + x * x * y**3])

    assert torch.allclose(interpolate(cubic(11, 8), shape), cubic(*shape), rtol=0, atol=1e-13)
    assert interpolate(cubic(*shape), shape).equal(cubic(*shape))


def test_interpolation_is_of_order_four():
    fine, errors = torch.linspace(0, 1, 4001, dtype=torch.float64), []
    for n in (17, 33, 65, 129):
        found = interpolate(torch.sin(7 * torch.linspace(0, 1, n, dtype=torch.float64))[None], (4001,))
        errors.append(float((found - torch.sin(7 * fine)).abs().max()))
    slopes = [math.log2(coarse / after) for coarse, after in pairwise(errors)]
    assert all(3.8 < slope < 4.2 for slope in slopes), slopes


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("pair", [(Dirichlet(), Neumann()), (Robin(1.0, -0.3), Dirichlet())])
def test_another_unit_of_the_output_changes_nothing_but_the_unit(correction, pair):
    # u → 1000 u + 5, conditions with it: B(1000 u + 5) = 1000 g + 5 B1.
    a, u = fields()
    g = torch.randn(12, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    results = []
    for unit, shift in ((1.0, 0.0), (1000.0, 5.0)):
        torch.manual_seed(0)
        normalised = Normalised.fit(FNO(SMALL).double(), a, unit * u + shift)
        operator = BOON(normalised, [pair], correction=correction).double()
        if operator.hidden_conditions is not None:
            nn.init.ones_(operator.hidden_conditions.bias)
        ones = [1.0 if isinstance(side, Dirichlet) else getattr(side, "a", 0.0) for side in pair]
        values = [tuple(unit * g + shift * one for one in ones)]
        results.append((operator(a, values).detach() - shift) / unit)
    assert torch.allclose(*results, rtol=0, atol=1e-9 * float(results[0].abs().max()))


def test_hidden_conditions_are_those_of_the_normalised_field():
    a, u = fields()
    normalised = Normalised.fit(nn.Identity(), a, u)
    of_field = BOON(nn.Identity(), [(Robin(2.0, 0.3, 0.0), Dirichlet(0.0))]).discretise(u)
    boundary = replace(of_field, data=tuple(side.read(u) for side in of_field.functionals))
    inside = (u - normalised.restore(torch.zeros_like(u))) / normalised.output_scale
    for side, values in zip(boundary.functionals, normalised.inside(boundary, (17,)).data, strict=True):
        assert torch.allclose(values, side.read(inside), atol=1e-11)


@settings(deadline=None, max_examples=25)
@given(correction=st.sampled_from(CORRECTIONS), double=st.booleans(), n=st.integers(9, 30), seed=seeds)
def test_conditions_hold_for_the_physical_field_on_every_grid(correction, double, n, seed):
    dtype = torch.float64 if double else torch.float32
    operator = BOON(fitted(dtype=dtype), [(Dirichlet(), Neumann())], (2.0,), correction, order=3).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    left, right = 1e3 * torch.randn(2, 4, 1, generator=generator, dtype=dtype)
    u = operator(torch.randn(4, 1, n, generator=generator, dtype=dtype), [(left, right)])
    assert torch.equal(u[..., 0], left)
    assert boundary_error(u, operator.discretise(u, [(left, right)])).relative_maximum <= (1e-12 if double else 1e-6)


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_walls_corners_and_a_circle(correction):
    a, u = (torch.randn(5, 2, 9, 10).double() for _ in range(2))
    config = FNOConfig(in_channels=2, out_channels=2, width=4, modes=(3, 3), depth=1)
    for second in ((Neumann(0.3), Dirichlet(0.1)), (Periodic(), Periodic())):
        operator = BOON(
            Normalised.fit(FNO(config).double(), a, 50 * u + 7),
            [(Dirichlet(0.1), Neumann(1.0)), second],
            correction=correction,
        )
        result = operator.double()(torch.randn(2, 2, 12, 11).double())
        assert boundary_error(result, operator.discretise(result)).relative_maximum <= 1e-12
        assert (result[:, :, 0] == 0.1).all()


def test_a_normalised_operator_is_trained_like_its_operator():
    operator = BOON(fitted(dtype=torch.float32), [(Dirichlet(1.0), Neumann(0.0))])
    operator(fields(dtype=torch.float32)[0]).square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in operator.parameters())
    assert not any("mean" in name or "scale" in name for name, _ in operator.named_parameters())


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("conditions", [None, [(Dirichlet(0.5), Neumann(0.0))]])
def test_a_loaded_operator_is_normalised_alike_on_every_grid(tmp_path, conditions, double):
    dtype = torch.float64 if double else torch.float32
    normalised = fitted(dtype=dtype)
    operator = BOON(normalised, conditions).to(dtype) if conditions else normalised
    save(operator, tmp_path / "x")
    loaded = load(tmp_path / "x")
    assert type(loaded) is type(operator)
    for n in (17, 30):
        a = torch.randn(2, 1, n, dtype=dtype)
        assert torch.equal(loaded(a), operator(a))


def test_invalid_arguments_raise_with_reason(tmp_path):
    normalised = fitted(dtype=torch.float32)
    normalised.output_scale.zero_()
    save(normalised, tmp_path / "x")
    with pytest.raises(DataFileError, match="output_scale must be positive"):
        load(tmp_path / "x")
    a, u = fields()
    for inputs, outputs in ((a, u[1:]), (a, u[..., 1:]), (a[:0], u[:0]), (a[:, 0], u[:, 0])):
        with pytest.raises(InvalidArgumentError, match="as many samples of both on one grid"):
            Normalised.fit(nn.Identity(), inputs, outputs)
    with pytest.raises(InvalidArgumentError, match="outputs hold NaN or infinity"):
        Normalised.fit(nn.Identity(), a, u * torch.nan)
    for inputs, outputs in ((a.long(), u), (a, u.long())):
        with pytest.raises(InvalidArgumentError, match=r"real numbers, got torch\.int64; .* integers as floats"):
            Normalised.fit(nn.Identity(), inputs, outputs)
    with pytest.raises(InvalidArgumentError, match=r"are tensors, got ndarray; use torch\.as_tensor"):
        Normalised.fit(nn.Identity(), a, u.numpy())
    one = torch.ones(1)
    with pytest.raises(InvalidArgumentError, match=r"needs means and scales .* got \(1,\), \(1,\), \(1,\), \(1,\)"):
        Normalised(nn.Identity(), one, one, one, one)
    with pytest.raises(InvalidArgumentError, match=r"input_scale must be positive and finite, got \[-1.0\]"):
        Normalised(nn.Identity(), one, -one, one[:, None], one)


@pytest.mark.parametrize("shape", [(2, 2, 17), (2, 1, 5, 5)])
def test_an_input_of_the_wrong_shape(shape):
    with pytest.raises(InvalidArgumentError, match=r"input must be \(batch, 1, \*space\) with 1 axes"):
        fitted()(torch.zeros(shape).double())


def test_a_channel_that_is_constant_up_to_rounding_has_scale_1():
    torch.manual_seed(0)
    flat, varying = torch.full((50, 1, 17), 0.1, dtype=torch.float64), torch.randn(50, 1, 17, dtype=torch.float64)
    fields = torch.cat([varying, flat, 300.0 + 1e-3 * varying], 1)
    operator = Normalised.fit(nn.Identity(), fields, fields)
    for scale in (operator.input_scale, operator.output_scale):
        assert scale[1] == 1
        assert torch.allclose(scale[::2], torch.tensor([1.0, 1e-3], dtype=torch.float64), rtol=0.1)


def test_the_mean_field_is_interpolated_in_its_own_dtype_under_autocast():
    torch.manual_seed(0)
    a = torch.randn(20, 1, 33)
    operator = Normalised.fit(FNO(SMALL), a, 300.7 + a)
    finer = torch.randn(2, 1, 65)
    with torch.no_grad():
        expected = operator(finer)
        with torch.autocast("cpu", torch.bfloat16):
            found = operator(finer)
    assert (found - expected).abs().max() < 0.02


def test_values_are_exact_in_the_dtype_of_the_output_for_inputs_in_half_precision():
    torch.manual_seed(0)
    a = torch.randn(20, 1, 33)
    operator = BOON(Normalised.fit(FNO(SMALL), a, a), [(Dirichlet(0.1), Neumann(0.0))])
    with torch.autocast("cpu", torch.bfloat16):
        u = operator(a.bfloat16())
    assert u.dtype == torch.float32
    assert torch.equal(u[..., 0], torch.full((20, 1), 0.1))
