"""Corrections of boundary nodes: exact data, orders of stencils, invariants, derivatives, float32 against float64."""

import math

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from boon import BOON, FNO, FNOConfig, Part, Prescription, SmoothExtension
from boon.conditions.functionals import Boundary, functional, harmonise, prescribe, set_nodes
from boon.corrections.correction import Correction
from boon.corrections.without_schur import EliminationWithoutSchur
from boon.errors import IncompatibleCornersError, InvalidArgumentError
from boon.scores import residuals
from solvers import Dirichlet, Neumann, Periodic, Robin
from tests.boon.cases import ONE_OF_A_KIND, discretise, nodes_on


def field(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def corrected(u, conditions, lengths=None, values=None, order=2):
    boundary = discretise(conditions, nodes_on(*(lengths or [1.0] * len(conditions))), values, u, order)
    return prescribe(u, boundary), boundary


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("last", [False, True])
def test_neumann_recovers_the_boundary_value_at_the_order_of_its_stencil_plus_one(order, last):
    # u_0 = (g − Σ w_j u_j)/w_0 with w_0 ~ 1/h: the error of the gradient, O(hᵖ), is multiplied by h.
    errors, sizes = [], (16, 32, 64, 128)
    for n in sizes:
        x = torch.linspace(0.0, 1.0, n + 1, dtype=torch.float64)
        exact = torch.exp(2 * x).view(1, 1, -1)
        end = 1.0 if last else 0.0
        gradient = 2 * math.exp(2 * end)
        pair = (Dirichlet(exact[0, 0, 0].item()), Neumann(gradient)) if last else (Neumann(gradient), Dirichlet(0.0))
        damaged = exact.clone()
        damaged[..., -1 if last else 0] = 7.0
        result, _ = corrected(damaged, [pair], order=order)
        errors.append(abs(float(result[0, 0, -1 if last else 0] - exact[0, 0, -1 if last else 0])))
    slope = math.log2(errors[-2] / errors[-1])
    assert slope == pytest.approx(order + 1, abs=0.2)


def test_robin_is_exact_for_a_straight_line():
    # u = 1 + 2x: a u + b u' at x = 0 is a + 2b, and one-sided differences are exact for straight lines.
    x = torch.linspace(0.0, 1.0, 8, dtype=torch.float64)
    exact = (1 + 2 * x).view(1, 1, -1)
    damaged = exact.clone()
    damaged[..., [0, -1]] = 9.0
    result, _ = corrected(damaged, [(Robin(2.0, -0.5, 1.0), Robin(1.0, 3.0, 9.0))], order=3)
    assert torch.allclose(result, exact, atol=1e-14)


def test_corners_of_two_neumann_axes_hold_when_the_data_come_from_one_field():
    # Data read from one field are compatible (B₂ B₁ = B₁ B₂), so both sides hold at the corner too and are not changed.
    u, source = field(2, 1, 7, 8), field(2, 1, 7, 8, seed=1)
    sides = [(Neumann(), Robin(1.0, 1.0)), (Robin(2.0, -1.0), Neumann())]
    zero = [(0.0, 0.0), (0.0, 0.0)]
    functionals = discretise(sides, nodes_on(1.0, 2.0), zero, u, 2).functionals
    data = {(side.axis, side.last): side.read(source) for side in functionals}
    values = [(data[0, False], data[0, True]), (data[1, False], data[1, True])]
    result, boundary = corrected(u, sides, (1.0, 2.0), values)
    for side, kept in zip(boundary.functionals, boundary.data, strict=True):
        assert torch.allclose(kept, data[side.axis, side.last], atol=1e-12)
        assert torch.allclose(side.read(result), data[side.axis, side.last], atol=1e-12)


def test_dirichlet_wins_over_neumann_at_the_corner_whatever_the_order_of_axes():
    u = field(1, 1, 6, 7)
    result, boundary = corrected(u, [(Neumann(5.0), Neumann(5.0)), (Dirichlet(1.0), Dirichlet(2.0))])
    assert (result[..., 0] == 1.0).all()
    assert (result[..., -1] == 2.0).all()
    gradient = boundary.functionals[2].read(result)
    assert boundary.functionals[2].axis == 0
    assert torch.allclose(gradient[..., 1:-1], torch.full((1, 1, 5), 5.0, dtype=torch.float64), atol=1e-12)
    assert gradient[..., 0].item() == pytest.approx(0.0, abs=1e-12)  # along a constant side the gradient is 0


def test_prescription_is_a_projection():
    u = field(2, 2, 6, 7, 5)
    sides = [(Neumann(0.3), Robin(1.0, 0.5, 0.1)), (Periodic(), Periodic()), (Dirichlet(0.2), Neumann(0.0))]
    once, boundary = corrected(u, sides, order=3)
    assert torch.allclose(prescribe(once, boundary), once, atol=1e-13)


def test_corner_values_that_differ_by_round_off_are_accepted_and_the_earlier_axis_wins():
    near = torch.full((1, 1, 6), 1.0 + 1e-15, dtype=torch.float64)
    result, _ = corrected(field(1, 1, 6, 7), [(Dirichlet(1.0), Dirichlet(1.0)), (Dirichlet(near), Dirichlet(1.0))])
    assert (result[:, :, 0] == 1.0).all()


def test_invalid_arguments_raise_with_reason():
    y = torch.linspace(0.0, 1.0, 7, dtype=torch.float64)
    with pytest.raises(IncompatibleCornersError, match=r"first side of axis 0 disagree by 0\.5"):
        corrected(field(1, 1, 6, 7), [(Dirichlet(y), Dirichlet(0.0)), (Periodic(), Periodic())])
    # First order, h = 1/8: a + b·(−1/h) = 8 − 8 = 0.
    with pytest.raises(InvalidArgumentError, match=r"first side of axis 0 cannot be solved .* a \+ b·c₀/h = 0"):
        functional(Part(Robin(8.0, 1.0)), axis=0, last=False, spacing=0.125, order=1)
    # 0.08 of 1.6e7: nothing is left of the boundary node but round-off of the data.
    with pytest.raises(InvalidArgumentError, match=r"cannot be solved"):
        functional(Part(Robin(8e6 + 0.08, 1e6)), axis=0, last=False, spacing=0.125, order=1)
    functional(Part(Robin(8e-6 + 1e-9, 1e-6)), axis=0, last=False, spacing=0.125, order=1)


SIDES = [(Neumann(0.3), Robin(1.0, 0.5, 0.1)), (Periodic(), Periodic()), (Dirichlet(0.2), Neumann(-0.4))]


@pytest.mark.parametrize("axis", [0, 1])
def test_residuals_and_their_scales_in_float64_whatever_the_field(axis):
    turned = field(2, 2, 6, 7).float()
    u, order = (turned, slice(None)) if axis == 0 else (turned.mT.contiguous(), slice(None, None, -1))
    conditions, lengths = [(Neumann(0.25), Dirichlet(-0.5)), (Periodic(), Periodic())], (1.0, 2.0)
    boundary = discretise(conditions[order], nodes_on(*lengths[order]), None, u, 1)
    wide = turned.double()
    (value, value_scale), (slope, slope_scale), (gap, gap_scale) = residuals(u, boundary)
    assert torch.allclose(value, wide[:, :, -1] + 0.5, rtol=1e-14, atol=0)
    assert torch.allclose(value_scale, wide[:, :, -1].abs() + 0.5, rtol=1e-14, atol=0)
    assert torch.allclose(slope, 5 * (wide[:, :, 1] - wide[:, :, 0]) - 0.25, rtol=0, atol=1e-13)
    assert torch.allclose(slope_scale, 5 * (wide[:, :, 1].abs() + wide[:, :, 0].abs()) + 0.25, rtol=1e-14, atol=0)
    assert torch.equal(gap, wide[..., 0] - wide[..., -1])
    assert torch.equal(gap_scale, wide[..., 0].abs() + wide[..., -1].abs())


def test_float32_fields_are_prescribed_in_float64_and_set_in_float32():
    u = field(2, 2, 6, 7, 5).float()
    boundary = discretise(SIDES, nodes_on(1.0, 2.0, 0.5), None, u, 3)
    assert torch.equal(prescribe(u, boundary), prescribe(u.double(), boundary).float())
    assert set_nodes(u, boundary).dtype == torch.float32
    assert boundary.functionals[1].read(u).dtype == torch.float64


@pytest.mark.parametrize("before", [(), (4,)])
def test_periodic_ends_become_their_average_and_corners_that_of_all_four(before):
    u, both = field(3, 2, *before, 6, 7), [(Periodic(), Periodic())] * 2
    result, _ = corrected(u, [None] * len(before) + both)
    corners = result[..., [0, 0, -1, -1], [0, -1, 0, -1]]
    expected = u[..., [0, 0, -1, -1], [0, -1, 0, -1]].mean(dim=-1, keepdim=True)
    assert torch.allclose(corners, expected.expand_as(corners), atol=1e-15)
    assert torch.equal(result[..., 0, 1:-1], 0.5 * (u[..., 0, 1:-1] + u[..., -1, 1:-1]))
    assert torch.equal(result[..., 0, :], result[..., -1, :])
    assert torch.equal(result[..., 0], result[..., -1])
    assert torch.equal(result[..., 1:-1, 1:-1], u[..., 1:-1, 1:-1])


@pytest.mark.parametrize("seed", range(5))
def test_dirichlet_values_hold_to_the_last_bit_beside_derivatives(seed):
    values = field(2, 1, 6, seed=seed)
    sides = [(Neumann(0.3), Robin(1.0, 0.7, 0.1)), (Dirichlet(), Neumann(0.2))]
    result, boundary = corrected(field(2, 1, 6, 7, seed=seed + 9), sides, (0.7, 1.3), [None, (values, None)], 3)
    assert torch.equal(result[..., 0], boundary.data[0])
    assert torch.equal(boundary.data[0], values)


def test_the_tolerance_of_corners_is_relative_to_the_values():
    sides = [(Dirichlet(1000.0), Neumann(0.0)), (Dirichlet(1000.5), Neumann(0.0))]
    raw = discretise([(Dirichlet(1000.0), Neumann(0.0)), None], nodes_on(1.0, 1.0), None, field(1, 1, 6, 7), 2)
    other = functional(Part(sides[1][0]), axis=1, last=False, spacing=1.0, order=2)
    both = Boundary(
        functionals=(raw.functionals[0], other), data=(raw.data[0], torch.full((1, 1, 6), 1000.5, dtype=torch.float64))
    )
    assert harmonise(both, 1e-3).data[1][0, 0, 0] == 1000.0
    with pytest.raises(IncompatibleCornersError, match=r"disagree by 0\.5"):
        harmonise(both, 1e-4)


CORRECTIONS = [Prescription(), SmoothExtension(length=0.3), *ONE_OF_A_KIND, EliminationWithoutSchur()]
every_correction = pytest.mark.parametrize("correction", CORRECTIONS, ids=str)


def build(correction: Correction) -> BOON:
    torch.manual_seed(0)
    operator = FNO(FNOConfig(width=2, modes=(2, 2), depth=2, projection=3))
    conditions = [(Dirichlet(), Robin(1.0, 0.4871)), (Neumann(), Neumann(0.0))]
    return BOON(operator, conditions, (1.0, 2.0), correction)


def sides(left: Tensor, right: Tensor, lower: Tensor) -> list[tuple[Tensor, Tensor | None]]:
    return [(left, right), (lower, None)]


def data(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


INPUTS = (data(1, 1, 7, 6, seed=1), data(1, 1, 6, seed=2), data(1, 1, 6, seed=3), data(1, 1, 7, seed=4))


@every_correction
def test_corrected_operators_are_differentiable_in_field_and_boundary_values(correction: Correction) -> None:
    operator = build(correction).double()
    operator.requires_grad_(False)

    def call(a: Tensor, *values: Tensor) -> Tensor:
        return operator(a, boundary=sides(*values))

    inputs = tuple(tensor.clone().requires_grad_() for tensor in INPUTS)
    assert torch.autograd.gradcheck(call, inputs, atol=1e-6)


@every_correction
def test_corrected_operators_are_differentiable_in_their_weights(correction: Correction) -> None:
    """Along a random direction of all weights at once."""
    operator = build(correction).double()
    a, *values = INPUTS
    generator = torch.Generator().manual_seed(5)
    weights = {name: weight.detach() for name, weight in operator.named_parameters()}
    direction = {name: torch.randn(w.shape, dtype=w.dtype, generator=generator) for name, w in weights.items()}

    def total(step: Tensor) -> Tensor:
        moved = {name: weight + step * direction[name] for name, weight in weights.items()}
        return functional_call(operator, moved, (a,), {"boundary": sides(*values)}).square().sum()

    assert torch.autograd.gradcheck(total, torch.zeros((), dtype=torch.float64, requires_grad=True), atol=1e-6)


@every_correction
def test_corrected_operators_in_float32_agree_with_float64(correction: Correction) -> None:
    a, *values = INPUTS
    single = build(correction)(a.float(), boundary=sides(*(value.float() for value in values)))
    double = build(correction).double()(a, boundary=sides(*values))
    assert single.dtype == torch.float32
    # eps = 1.2e-7 over two layers; K_BB, whose condition is some hundreds, multiplies it in an elimination.
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-4 * float(double.detach().abs().max()))
