"""Lifting meets the data whatever the operator gives, and is interpolation plus envelope where values are given."""

import torch

from boon.conditions import discretise
from boon.functionals import residuals
from experiments.boundary.operator import lift
from solvers import Dirichlet, Neumann

GENERATOR = torch.Generator().manual_seed(0)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def test_with_values_at_both_ends_it_is_interpolation_plus_envelope() -> None:
    n, left, right = random(3, 2, 11), random(3, 2), random(3, 2)
    boundary = discretise([(Dirichlet(), Dirichlet())], (1.0,), [(left, right)], n, 2)
    x = torch.linspace(0, 1, 11, dtype=torch.float64)
    expected = left[..., None] * (1 - x) + right[..., None] * x + 4 * x * (1 - x) * n
    assert torch.allclose(lift(n, boundary), expected, rtol=0, atol=1e-13)  # values of order 1, a few roundings


def test_every_kind_of_sides_meets_its_data() -> None:
    for pairs, space in (
        ([(Dirichlet(), Neumann())], (13,)),
        ([(Neumann(), Dirichlet())], (13,)),
        ([(Neumann(), Neumann())], (13,)),
        ([(Dirichlet(), Dirichlet()), None], (13, 4)),
    ):
        n = random(2, 1, *space)
        values = [(random(2, 1, *space[1:]), random(2, 1, *space[1:])), *[None] * (len(space) - 1)]
        boundary = discretise(pairs, (1.0,) * len(space), values, n, 3)
        for residual, scale in residuals(lift(n, boundary), boundary):
            assert bool((residual.abs() <= 1e-13 * scale.clamp(min=1.0)).all()), pairs
