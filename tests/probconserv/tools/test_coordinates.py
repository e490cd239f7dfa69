"""Coordinate networks that meet initial value, walls and total for any weights."""

import math

import pytest
import torch
from torch import nn

from probconserv.baselines import soft_penalty
from probconserv.errors import InvalidArgumentError
from probconserv.tools import ExactField
from solvers import CellGrid, Diffusion, Dirichlet, Neumann, NodeGrid

GRID = NodeGrid(0.0, 1.0, 65)
double = torch.float64


class Wild(nn.Module):
    """A network with weights far from any solution."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1)).double()

    def forward(self, points):
        return 10 * self.layers(points)


def sine(x):
    return torch.sin(math.pi * x)


def lost(t):
    """What heat with cold walls has lost by t."""
    return (torch.exp(-(math.pi**2) * t) - 1) * 2 / math.pi


def heat(**options):
    arguments = {"initial": sine, "walls": (Dirichlet(0.0), Dirichlet(0.0)), "gain": lost, "time_scale": 0.3}
    return ExactField(Wild(), GRID, **arguments | options)


def at(field, t, grid=GRID, dtype=double):
    x = grid.points.flatten().to(dtype)
    return field(torch.stack([torch.full_like(x, t), x], dim=-1)).detach()


@pytest.mark.parametrize("dtype", [double, torch.float32])
def test_initial_value_walls_and_total_hold_for_any_weights(dtype):
    field = heat().to(dtype)
    tolerance = 8 * torch.finfo(dtype).eps
    x = GRID.points.to(dtype)
    assert (at(field, 0.0, dtype=dtype) - sine(x)).abs().max() <= tolerance
    for t in (0.01, 0.2, 1.0):
        u = at(field, t, dtype=dtype)
        assert u[[0, -1]].abs().max() <= tolerance
        expected = (sine(GRID.points) @ GRID.weights) + lost(torch.tensor(t, dtype=double))
        assert abs(float(u.double() @ GRID.weights - expected)) <= tolerance
        assert (u - sine(x)).abs().max() > 0.05, "the network has its say in between"


@pytest.mark.parametrize(
    "walls",
    [(None, None), (Dirichlet(1.0), None), (None, Dirichlet(lambda t: 2 + torch.sin(t))), (Dirichlet(torch.exp), None)],
)
@pytest.mark.parametrize("grid", [NodeGrid(-1.0, 3.0, 33), CellGrid(-1.0, 3.0, 32)], ids=["nodes", "cells"])
def test_free_walls_and_values_that_move(walls, grid):
    field = ExactField(Wild(), grid, initial=lambda x: 1 + (x + 1) / 4, walls=walls, gain=0.0, start=0.0)
    start = at(field, 0.0, grid) @ grid.weights.flatten()
    ends = torch.tensor([[0.7, -1.0], [0.7, 3.0]], dtype=double)
    assert (at(field, 0.7, grid) @ grid.weights.flatten() - start).abs() < 1e-13
    for wall, u in zip(walls, field(ends).detach(), strict=True):
        if wall is not None:
            value = wall.value(torch.tensor(0.7, dtype=double)) if callable(wall.value) else wall.value
            assert float(u) == pytest.approx(float(value), abs=1e-14)


def test_without_a_law_the_total_is_free():
    assert abs(float(at(heat(gain=None), 0.2) @ GRID.weights - at(heat(), 0.2) @ GRID.weights)) > 0.01


def test_derivatives_are_those_of_the_constrained_field():
    field, h = heat(), 1e-5
    points = torch.tensor([[0.1, 0.3], [0.2, 0.8]], dtype=double)
    residual = soft_penalty(Diffusion(1.0), field, points)

    def u(dt, dx):
        return field(points + torch.tensor([dt, dx]))

    u_t, u_xx = (u(h, 0) - u(-h, 0)) / (2 * h), (u(0, 1e-4) - 2 * u(0, 0) + u(0, -1e-4)) / 1e-8
    assert float(residual.detach()) == pytest.approx(float((u_t - u_xx).square().mean().detach()), rel=1e-4)
    residual.backward()
    assert all(parameter.grad is not None for parameter in field.parameters())


@pytest.mark.long
def test_training_on_the_residual_alone_finds_the_solution():
    field = heat()
    optimizer = torch.optim.Adam(field.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(400):
        optimizer.zero_grad()
        points = torch.rand(64, 2, dtype=double, generator=generator) * torch.tensor([0.3, 1.0])
        soft_penalty(Diffusion(1.0), field, points).backward()
        optimizer.step()
    truth = math.exp(-(math.pi**2) * 0.15) * sine(GRID.points)
    assert (at(field, 0.15) - truth).abs().max() < 0.02
    assert abs(float(at(field, 0.15) @ GRID.weights - truth @ GRID.weights)) < 1e-3  # the rule's own error


POINTS = torch.tensor([[0.5, 0.5]], dtype=double)
WRONG = {
    "walls that contradict the start": (lambda: heat(walls=(Dirichlet(1.0), None)), "first wall has the value 1, but"),
    "a moving wall that does": (lambda: heat(walls=(None, Dirichlet(torch.cos))), "last wall has the value 1, but"),
    "a gain at the start": (lambda: heat(gain=lambda t: t + 1), "gain must be 0 at the start, got 1"),
    "a total for a gain": (lambda: heat(gain=0.6366), "gain must be 0 at the start"),
    "a given slope": (lambda: heat(walls=(Neumann(0.0), None)), "two of Dirichlet"),
    "a wall without a value": (lambda: heat(walls=(Dirichlet(), None)), "walls need their values here"),
    "one wall": (lambda: heat(walls=(Dirichlet(0.0),)), "two of Dirichlet"),
    "a square": (lambda: ExactField(Wild(), NodeGrid((0, 0), (1, 1), (5, 5)), initial=sine), "a grid of one axis"),
    "no time scale": (lambda: heat(time_scale=0.0), "time_scale > 0"),
    "x before t": (
        lambda: heat()(torch.tensor([[0.5, 1.5]])),
        "points must have t ≥ 0 in the first column and x from 0",
    ),
    "times before the start": (lambda: heat(start=1.0, gain=0.0)(POINTS), "t ≥ 1 in the first column"),
    "points without time": (lambda: heat()(POINTS[..., :1]), r"\(\*batch, n, 2\) with columns t and x"),
    "NaN": (lambda: heat()(POINTS * torch.nan), "points must have t"),
    "two outputs": (lambda: ExactField(nn.Linear(2, 2).double(), GRID, initial=sine)(POINTS[None]), "got"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused(case):
    act, message = WRONG[case]
    with pytest.raises(InvalidArgumentError, match=message):
        act()
