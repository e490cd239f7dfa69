"""Relative L2 and boundary errors of known fields; how much corrections amplify noise of the input."""

import re
from typing import Any

import pytest
import torch

from boon import BOON, FNO, ChannelBOON, FNOConfig, MixedTransform, Part, SmoothExtension
from boon.conditions.functionals import prescribe
from boon.errors import InvalidArgumentError
from boon.scores import boundary_error, relative_l2, relative_residual
from solvers import Dirichlet, Neumann, Periodic, Robin
from tests.boon.cases import EVERY, discretise, nodes_on


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


def test_arrays_are_refused_by_name():
    boundary = discretise([(Dirichlet(0.0), None)], nodes_on(1.0), None, torch.zeros(1, 1, 9), 2)
    array: Any = torch.zeros(1, 1, 9).numpy()
    with pytest.raises(InvalidArgumentError, match="are tensors, got ndarray"):
        boundary_error(array, boundary)


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


def noise_gain(operator, a, noise=1e-4):
    """|N(a + δ) − N(a)| over |δ| for white noise δ, of 16 draws."""
    a = a.repeat(16, 1, 1)
    delta = noise * a.square().mean().sqrt() * torch.randn(a.shape, generator=torch.Generator().manual_seed(1)).to(a)
    return float((operator(a + delta) - operator(a)).norm() / delta.norm())


def gains(correction, pair, nodes=NODES, dtype=torch.float64):
    """Gains of an untrained operator against the number of nodes."""
    torch.manual_seed(0)
    operator = FNO(FNOConfig(width=16, modes=(8,)))
    if correction is not None:
        operator = BOON(operator, [pair], correction=correction, order=4)
    operator = operator.to(dtype)
    with torch.no_grad():
        return [noise_gain(operator, field(n, dtype)) for n in nodes]


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
