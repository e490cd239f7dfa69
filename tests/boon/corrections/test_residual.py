"""The residual of an operator before its conditions are enforced, as a term of the loss."""

import pytest
import torch
from torch import nn

from boon import BOON, FNO, ChannelBOON, Elimination, FNOConfig, MixedTransform, Prescription, SmoothExtension
from boon.normalisation import Normalised
from boon.scores import boundary_error, relative_residual
from solvers import Dirichlet, Neumann, Periodic

SIDES = [(Dirichlet(), Neumann())]
VALUES = [(torch.tensor([[1.0], [2.0]]), 0.5)]


def fno(out_channels=1):
    torch.manual_seed(0)
    return FNO(FNOConfig(in_channels=1, out_channels=out_channels, width=6, modes=(4,), depth=2)).double()


@pytest.mark.parametrize("correction", [MixedTransform(), SmoothExtension(), Elimination()])
def test_the_output_is_that_of_a_call_and_the_residual_that_of_the_operator_itself(correction):
    operator, a = BOON(fno(), SIDES, correction=correction).double(), torch.randn(2, 1, 33, dtype=torch.float64)
    given = []
    operator.step.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0]))
    u, missed = operator.with_residual(a, VALUES)
    assert torch.equal(u, operator(a, VALUES))
    conditions = operator.discretise(u, VALUES)
    assert missed.item() == relative_residual(given[0], conditions).item()
    assert missed.item() == pytest.approx(boundary_error(given[0], conditions).relative_l2, rel=0.02)
    assert 0.01 < missed.item() <= 1


def test_it_is_of_the_physical_field_under_a_normalisation():
    torch.manual_seed(0)
    a = torch.randn(2, 1, 33, dtype=torch.float64)
    operator = BOON(Normalised.fit(nn.Identity(), a, 3 + 2 * a), [(Dirichlet(3.0), Dirichlet(3.0))])
    operator.operator.operator = FNO(FNOConfig(in_channels=1, out_channels=1, width=4, modes=(4,), depth=1)).double()
    given = []
    operator.step.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0]))
    missed = operator.double().with_residual(a)[1]
    ends = given[0][..., [0, -1]] - 3
    assert missed.item() == pytest.approx((ends.norm() / (given[0][..., [0, -1]].abs() + 3).norm()).item(), rel=1e-12)


class Nodes(nn.Module):
    """A field of its own, whatever the input is."""

    def __init__(self):
        super().__init__()
        self.field = nn.Parameter(torch.full((33,), 0.3))

    def forward(self, a):
        return self.field.expand(a.shape)


@pytest.mark.parametrize("sides", [(1.0, -1.0), (0.0, 0.0)])
@pytest.mark.parametrize(("weight", "least", "most"), [(0.0, 0.5, 10.0), (0.1, 0.0, 0.1)])
def test_only_with_it_does_training_bring_the_operator_itself_to_its_conditions(sides, weight, least, most):
    """A loss of the output has no gradient at the sides: there the output is right already."""
    conditions = [tuple(Dirichlet(value) for value in sides)]
    operator, a = BOON(Nodes(), conditions, correction=Prescription()), torch.ones(1, 1, 33)
    target = torch.linspace(*sides, 33)[None, None] + torch.sin(torch.linspace(0, torch.pi, 33))
    optimiser = torch.optim.Adam(operator.parameters(), lr=0.05)
    for _ in range(100):
        u, missed = operator.with_residual(a)
        optimiser.zero_grad()
        ((u - target).norm() / target.norm() + weight * missed).backward()
        optimiser.step()
    assert least <= operator.with_residual(a)[1].item() <= most


def test_conditions_per_channel():
    conditions = [[(Dirichlet(1.0), Dirichlet(0.0))], [(Neumann(0.0), Dirichlet(2.0))]]
    operator, a = ChannelBOON(fno(2), conditions).double(), torch.randn(3, 1, 33, dtype=torch.float64)
    u, missed = operator.with_residual(a)
    assert torch.equal(u, operator(a))
    raw = operator.operator(a)
    channels = zip(raw.split(1, dim=1), operator.discretise(raw), strict=True)
    expected = sum(relative_residual(channel, conditions).item() for channel, conditions in channels) / 2
    assert missed.item() == pytest.approx(expected, rel=1e-12)
    missed.backward()
    assert all(parameter.grad is not None for parameter in operator.operator.parameters())


def test_the_unit_of_a_channel_does_not_matter():
    u = torch.randn(3, 3, 33, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for size in (1.0, 1e5):
        conditions = [[(Dirichlet(2.0), None)], [(Dirichlet(size), Neumann(0.0))], [None]]
        field = u * torch.tensor([1.0, size, 1.0])[:, None]
        missed = relative_residual(field, ChannelBOON(nn.Identity(), conditions).discretise(field))
        assert missed.item() == pytest.approx(0.6, abs=0.3)
        first = relative_residual(field[:, :1], BOON(nn.Identity(), conditions[0]).discretise(field[:, :1]))
        second = relative_residual(field[:, 1:2], BOON(nn.Identity(), conditions[1]).discretise(field[:, 1:2]))
        assert missed.item() == pytest.approx((first + second).item() / 2, rel=1e-12)


@pytest.mark.parametrize("sides", [(Dirichlet(0.0), Dirichlet(0.0)), (Periodic(), Periodic()), None])
def test_a_field_of_zeros_or_without_sides_misses_nothing_and_has_gradients(sides):
    u = torch.zeros(2, 1, 9, requires_grad=True)
    missed = relative_residual(u, BOON(nn.Identity(), [sides]).discretise(u))
    assert missed.item() == 0
    if sides:
        missed.backward()
        assert torch.equal(u.grad, torch.zeros_like(u))
