"""The error of slopes at sides."""

import pytest
import torch

from boon import BOON, Part
from boon.slopes import slope_error
from experiments.errors import InvalidArgumentError
from solvers import Dirichlet, Neumann, Robin


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
