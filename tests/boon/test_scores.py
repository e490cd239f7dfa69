"""Relative L2 and boundary errors of known fields."""

import re

import pytest
import torch

from boon import InvalidArgumentError, Part, boundary_error, relative_l2
from boon.conditions.discretisation import discretise
from boon.conditions.functionals import prescribe
from boon.scores import relative_residual
from solvers import Dirichlet, Neumann, Periodic


def test_relative_l2_is_the_mean_over_samples():
    truth = torch.tensor([[[3.0, 4.0]], [[0.0, 2.0]]])
    u = truth + torch.tensor([[[0.0, 5.0]], [[1.0, 0.0]]])
    assert relative_l2(u, truth).item() == pytest.approx((5 / 5 + 1 / 2) / 2)


def test_boundary_error_of_a_known_field():
    u = torch.zeros(1, 1, 5, dtype=torch.float64)
    u[..., 0] = 1.0
    boundary = discretise([(Dirichlet(4.0), Dirichlet(0.0))], (1.0,), None, u, 1)
    error = boundary_error(u, boundary)
    assert (error.maximum, error.relative_maximum, error.relative_l2) == (3.0, 3 / 5, 3 / 5)


def test_boundary_error_of_periodic_ends_and_of_free_axes():
    u = torch.tensor([[[1.0, 0.0, 3.0]]])
    assert boundary_error(u, discretise([(Periodic(), Periodic())], (1.0,), None, u, 1)).maximum == 2.0
    assert boundary_error(u, discretise([None], (1.0,), None, u, 1)).maximum == 0.0


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
    boundary = discretise(conditions, (1.0,) * len(grid), None, torch.rand(2, 1, *grid), 2)
    use(torch.rand(2, 1, *grid), boundary)
    match = rf"grid of {re.escape(str(grid))} nodes but the field has {re.escape(str(other))}"
    with pytest.raises(InvalidArgumentError, match=match):
        use(torch.rand(2, 1, *other), boundary)
