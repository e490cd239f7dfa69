"""Lifting by polynomials of the boundary data."""

from dataclasses import replace

import pytest
import torch

from boon.errors import SingularKernelError
from experiments.boundary.lifting import lift, polynomial_columns
from solvers import Dirichlet, Neumann, Periodic, Robin
from tests.boon.cases import discretise, nodes_on

POWERS = [
    ((Dirichlet(), Dirichlet()), (0, 1)),
    ((Dirichlet(), Neumann()), (0, 1)),
    ((Neumann(), Dirichlet()), (0, 1)),
    ((Neumann(), Neumann()), (1, 2)),
    ((Robin(1.0, -0.2), Neumann()), (0, 1)),
    ((Robin(1.0, 1.0), Dirichlet()), (0, 2)),  # 1 − x is nothing to either
]


@pytest.mark.parametrize(("pair", "powers"), POWERS)
@pytest.mark.parametrize("order", [1, 2, 4])
def test_columns_are_polynomials_of_the_lowest_powers_that_carry_one_datum_each(pair, powers, order):
    zero = torch.zeros(1, 1, 30, dtype=torch.float64)
    sides = discretise([pair], nodes_on(1.0), [(0.0, 0.0)], zero, order).functionals
    columns = polynomial_columns(sides, 30)
    x = torch.linspace(0, 1, 30, dtype=torch.float64)
    span = torch.stack([x**power for power in powers], 1)
    assert torch.allclose(span @ torch.linalg.lstsq(span, columns).solution, columns, atol=1e-12)
    carried = torch.stack([side.read(columns.mT[:, None])[:, 0] for side in sides])
    assert torch.allclose(carried, torch.eye(2, dtype=torch.float64), atol=1e-11)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_two_values_are_joined_by_straight_lines_along_their_axis(axis):
    torch.manual_seed(0)
    shape = (5, 6, 7)
    first, last = torch.randn(2, 2, 3, *shape[:axis], *shape[axis + 1 :], dtype=torch.float64)
    u = torch.zeros(2, 3, *shape, dtype=torch.float64)
    conditions = [(Dirichlet(), Dirichlet()) if other == axis else None for other in range(3)]
    values = [(first, last) if other == axis else None for other in range(3)]
    result = lift(u, discretise(conditions, nodes_on(1.0, 1.0, 1.0), values, u, 2))
    x = torch.linspace(0, 1, shape[axis], dtype=torch.float64)
    lines = torch.stack([first, last], -1) @ torch.stack([1 - x, x])
    assert torch.allclose(result, lines.movedim(-1, 2 + axis), atol=1e-13)


@pytest.mark.parametrize(
    "conditions", [[POWERS[3][0]], [POWERS[1][0], POWERS[0][0]], [POWERS[4][0], (Periodic(),) * 2]]
)
def test_lifted_fields_meet_their_conditions(conditions):
    torch.manual_seed(1)
    shape = (9, 8)[: len(conditions)]
    u, source = torch.randn(2, 2, 2, *shape, dtype=torch.float64)
    values = [None if isinstance(pair[0], Periodic) else (0.0, 0.0) for pair in conditions]
    boundary = discretise(conditions, nodes_on(*[1.0] * len(shape)), values, u, 2)
    boundary = replace(boundary, data=tuple(side.read(source) for side in boundary.functionals))  # fit at corners
    result = lift(u, boundary)
    for side, data in zip(boundary.functionals, boundary.data, strict=True):
        assert torch.allclose(side.read(result), data, atol=1e-11)


def test_conditions_that_are_one():
    u = torch.zeros(1, 1, 20, dtype=torch.float64)
    (side, _) = discretise([(Dirichlet(), Dirichlet())], nodes_on(1.0), [(0.0, 0.0)], u, 2).functionals
    with pytest.raises(SingularKernelError, match="conditions of axis 0 are dependent on parabolas with 20 nodes"):
        polynomial_columns((side, side), 20)
