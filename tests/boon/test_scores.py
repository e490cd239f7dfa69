"""Relative L2 and boundary errors of known fields; how much corrections amplify noise of the input."""

import re
from typing import Any

import pytest
import torch

from boon import BOON, FNO, ChannelBOON, FNOConfig, MixedTransform, Part, SmoothExtension
from boon.conditions.discretisation import discretise
from boon.conditions.functionals import prescribe
from boon.errors import InvalidArgumentError
from boon.scores import boundary_error, noise_gain, relative_l2, relative_residual, slope_error
from solvers import Dirichlet, Neumann, Periodic, Robin
from tests.boon.cases import EVERY, nodes_on


def test_relative_l2_is_the_mean_over_samples():
    truth = torch.tensor([[[3.0, 4.0]], [[0.0, 2.0]]])
    u = truth + torch.tensor([[[0.0, 5.0]], [[1.0, 0.0]]])
    assert relative_l2(u, truth).item() == pytest.approx((5 / 5 + 1 / 2) / 2)


def test_boundary_error_of_a_known_field():
    u = torch.zeros(1, 1, 5, dtype=torch.float64)
    u[..., 0] = 1.0
    boundary = discretise([(Dirichlet(4.0), Dirichlet(0.0))], nodes_on(1.0), None, u, 1)
    error = boundary_error(u, boundary)
    assert (error.maximum, error.relative_maximum, error.relative_l2) == (3.0, 3 / 5, 3 / 5)


def test_boundary_error_of_periodic_ends_and_of_free_axes():
    u = torch.tensor([[[1.0, 0.0, 3.0]]])
    assert boundary_error(u, discretise([(Periodic(), Periodic())], nodes_on(1.0), None, u, 1)).maximum == 2.0
    assert boundary_error(u, discretise([None], nodes_on(1.0), None, u, 1)).maximum == 0.0


def test_another_order_measures_a_slope_that_was_not_enforced():
    conditions, x = [(Neumann(0.0), Dirichlet(1.0))], torch.linspace(0, 1, 33, dtype=torch.float64)
    operator = BOON(torch.nn.Identity(), conditions)
    u = operator(torch.sin(9 * x)[None, None] + 0.1 * (x < 0.01)).detach()
    enforced, other = (boundary_error(u, operator.discretise(u, order=order)) for order in (2, 4))
    assert enforced.maximum < 1e-12
    stencil = torch.tensor([-25 / 12, 4, -3, 4 / 3, -1 / 4], dtype=torch.float64) * 32
    assert other.maximum == pytest.approx(abs(float(u[0, 0, :5] @ stencil)), rel=1e-12)
    channels = ChannelBOON(torch.nn.Identity(), [conditions])
    assert boundary_error(u, channels.discretise(u, order=4)).maximum == other.maximum
    with pytest.raises(InvalidArgumentError, match="must be 1, 2, 3 or 4, got 5"):
        operator.discretise(u, order=5)


def test_slope_error_is_the_mean_over_differences_of_four_orders():
    torch.manual_seed(0)
    truth, u = torch.randn(2, 3, 2, 6, 7, dtype=torch.float64)
    parts = [Part(Robin(1.0, 1.0, 0.0), where=(0.0, 0.5)), Part(Dirichlet(0.0))]
    missed, size = torch.zeros(2, 4, dtype=torch.float64)
    for order in (1, 2, 3, 4):
        for operator in (
            BOON(torch.nn.Identity(), [(Neumann(0.0), Dirichlet(0.0)), None]),
            BOON(torch.nn.Identity(), [None, (None, Neumann(0.0))]),
        ):
            (side,) = [s for s in operator.discretise(u, order=order).sides if len(s.weights) > 1]
            missed[order - 1] += side.read(u - truth).square().sum()
            size[order - 1] += side.read(truth).square().sum()
    conditions = [(Neumann(0.0), Dirichlet(0.0)), (None, parts)]
    assert float(slope_error(u, truth, conditions)) == pytest.approx(float((missed / size).sqrt().mean()), rel=1e-12)
    assert float(slope_error(u, truth, [(Dirichlet(0.0), Dirichlet(0.0)), None])) == 0.0
    assert torch.autograd.gradcheck(lambda v: slope_error(v, truth, conditions), u.clone().requires_grad_())
    with pytest.raises(InvalidArgumentError, match=r"at least 5 nodes along an axis, got \(3, 2, 4, 7\)"):
        slope_error(u[:, :, :4], truth[:, :, :4], conditions)
    one, three, both = (float(slope_error(u, truth, conditions, orders)) for orders in ((1,), (3,), (1, 3)))
    assert one != three
    assert both == pytest.approx((one + three) / 2, rel=1e-12)
    for orders in ((), (0,), (1, 5)):
        with pytest.raises(InvalidArgumentError, match="orders must be among 1, 2, 3, 4"):
            slope_error(u, truth, conditions, orders)


def test_slope_error_at_insulated_sides_is_measured_by_slopes_inside():
    """u = cos πx has no slope at its ends: an error of slope ε there counts as ε over a tenth of π/√2."""
    x = torch.linspace(0.0, 1.0, 401, dtype=torch.float64)
    truth, tilted = (torch.cos(torch.pi * x) + slope * x for slope in (0.0, 0.01))
    error = slope_error(tilted[None, None], truth[None, None], [(Neumann(0.0), Neumann(0.0))], (4,))
    assert float(error) == pytest.approx(0.01 / (0.1 * torch.pi / 2**0.5), rel=1e-3)


def test_arrays_are_refused_by_name():
    boundary = discretise([(Dirichlet(0.0), None)], nodes_on(1.0), None, torch.zeros(1, 1, 9), 2)
    array: Any = torch.zeros(1, 1, 9).numpy()
    for call in (lambda: boundary_error(array, boundary), lambda: noise_gain(lambda a: a, array)):
        with pytest.raises(InvalidArgumentError, match="are tensors, got ndarray"):
            call()


@pytest.mark.parametrize(
    ("u", "truth", "message"),
    [
        (torch.ones(2, 3), torch.ones(2, 4), "two fields of one shape"),
        (torch.ones(2, 3), torch.zeros(2, 3), "zero everywhere"),
        (torch.ones(2, 3), torch.ones(2, 3, dtype=torch.int64), r"real numbers, got torch\.int64"),
        (torch.ones(2, 3).numpy(), torch.ones(2, 3), "are tensors, got ndarray"),
    ],
)
def test_relative_l2_refuses(u, truth, message):
    with pytest.raises(InvalidArgumentError, match=message):
        relative_l2(u, truth)


@pytest.mark.parametrize("use", [prescribe, boundary_error, relative_residual])
@pytest.mark.parametrize(
    ("conditions", "grid", "other"),
    [
        ([(Neumann(1.0), None)], (33,), (20,)),
        ([(Neumann(1.0), None), None], (9, 8), (8, 9)),
        ([((Part(Neumann(1.0)),), None), None], (9, 8), (12, 8)),
    ],
)
def test_conditions_of_another_grid_are_refused(use, conditions, grid, other):
    boundary = discretise(conditions, nodes_on(*[1.0] * len(grid)), None, torch.rand(2, 1, *grid), 2)
    use(torch.rand(2, 1, *grid), boundary)
    match = rf"grid of {re.escape(str(grid))} nodes but the field has {re.escape(str(other))}"
    with pytest.raises(InvalidArgumentError, match=match):
        use(torch.rand(2, 1, *other), boundary)


NODES = (64, 128, 512)
GRADIENTS, MIXED = (Neumann(0.3), Neumann(0.1)), (Robin(1.0, -0.3, 0.2), Dirichlet(0.1))
AMPLIFIED = [each for each in EVERY if getattr(each, "reach", 1.0) == 0.0]


def field(n, dtype=torch.float64):
    x = torch.linspace(0, 1, n, dtype=dtype)
    return torch.stack([torch.sin(3 * x) + 1, torch.cos(5 * x)])[:, None]


def gains(correction, pair, nodes=NODES, dtype=torch.float64):
    """Gains of an untrained operator against the number of nodes."""
    torch.manual_seed(0)
    operator = FNO(FNOConfig(width=16, modes=(8,)))
    if correction is not None:
        operator = BOON(operator, [pair], correction=correction, order=4)
    operator = operator.to(dtype)
    return [noise_gain(operator, field(n, dtype), generator=torch.Generator().manual_seed(1)) for n in nodes]


@pytest.mark.parametrize("pair", [GRADIENTS, MIXED])
@pytest.mark.parametrize("correction", [None, *(each for each in EVERY if each not in AMPLIFIED)])
def test_no_correction_amplifies_noise_more_on_finer_grids(correction, pair):
    found, plain = gains(correction, pair), gains(None, pair)
    assert all(gain <= 1.6 * found[0] for gain in found), found
    # Smooth extension reads a derivative from a quarter of the axis before each of four layers.
    largest = 60.0 if correction == SmoothExtension(hidden=True) else 4.0
    assert all(gain <= largest * alone for gain, alone in zip(found, plain, strict=True)), (found, plain)


def test_derivatives_from_neighbouring_nodes_do():
    found = gains(SmoothExtension(length=0.1, reach=0.0), GRADIENTS)
    assert found[-1] > 5 * found[0]


def test_float32_measures_the_same_gain():
    single, double = (gains(MixedTransform(), GRADIENTS, (64,), dtype)[0] for dtype in (torch.float32, torch.float64))
    assert single == pytest.approx(double, rel=0.3)  # other random numbers in float32


@pytest.mark.parametrize("count", [5, 40])
def test_the_gain_of_a_matrix_is_its_norm(count):
    # E‖A δ‖² = σ² ‖A‖², so the ratio of root mean squares is ‖A‖/√n_out, here with 2n rows.
    generator = torch.Generator().manual_seed(2)
    matrix = torch.randn(2 * count, count, generator=generator, dtype=torch.float64)
    a = torch.ones(1, 1, count, dtype=torch.float64)
    gain = noise_gain(lambda x: x @ matrix.mT, a, draws=4000, generator=generator)
    assert gain == pytest.approx(float(matrix.norm()) / (2 * count) ** 0.5, rel=0.03)


@pytest.mark.parametrize(("options", "a"), [({"noise": 0.0}, field(9)), ({"draws": 0}, field(9)), ({}, 0 * field(9))])
def test_what_has_no_gain(options, a):
    with pytest.raises(InvalidArgumentError, match="noise_gain needs noise > 0, at least one draw and a field that is"):
        noise_gain(lambda x: x, a, **options)


def test_noise_that_half_precision_rounds_away_is_not_counted():
    a = torch.randn(2, 1, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert noise_gain(lambda field: field, a) == 1.0
