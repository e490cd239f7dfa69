"""CosineFNO has the given gradients as a function: on every grid, by every difference."""

import math
from itertools import pairwise

import pytest
import torch

from boon.conditions.functionals import DIFFERENCES
from boon.cosine import CosineConfig, CosineFNO
from boon.errors import InvalidArgumentError

SMALL = CosineConfig(channels=2, width=6, modes=9, depth=2, length=2.0)


def operator(config: CosineConfig = SMALL) -> CosineFNO:
    torch.manual_seed(0)
    return CosineFNO(config).double().requires_grad_(False)


def data(count: int) -> tuple[torch.Tensor, ...]:
    """A field whose slopes at the walls are those before the step, on [0, 2], and slopes after it."""
    x = torch.linspace(0.0, 2.0, count, dtype=torch.float64)
    field = torch.stack([torch.sin(2 * x), torch.exp(-x)]).expand(3, 2, count)
    before = torch.tensor([[2.0, 2 * math.cos(4.0)], [-1.0, -math.exp(-2.0)]], dtype=torch.float64).expand(3, 2, 2)
    after = torch.randn(3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return field, before, after


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_slopes_at_the_walls_converge_with_the_order_of_the_difference(order: int):
    model, missed = operator(), []
    for count in (129, 257, 513, 1025):
        field, before, after = data(count)
        u, weights = model(field, before, after), torch.tensor(DIFFERENCES[order, False], dtype=torch.float64)
        ends = u[..., : len(weights)], -u.flip(-1)[..., : len(weights)]
        slopes = torch.stack([end @ weights for end in ends], dim=-1) * (count - 1) / 2.0
        missed.append(float((slopes.detach() - after).norm() / after.norm()))
    rates = [math.log2(coarse / fine) for coarse, fine in pairwise(missed[1:])]
    assert min(rates) > order - 0.3


def test_the_answer_is_the_same_on_every_grid():
    model, fields = operator(), [data(count) for count in (65, 129, 257)]
    coarse, middle, fine = (model(*each) for each in fields)
    first, second = (coarse - middle[..., ::2]).abs().max(), (middle - fine[..., ::2]).abs().max()
    assert float(second) < 1e-3
    assert float(second) < 0.3 * float(first)


def test_without_a_change_the_field_has_other_slopes_and_nothing_else():
    model = operator()
    for weights in model.read_out.parameters():
        torch.nn.init.zeros_(weights)
    field, before, _ = data(257)
    assert float((model(field, before, before) - field).abs().max()) < 1e-3
    moved = model(field, before, before + 1.0) - model(field, before, before)
    y = torch.linspace(0.0, 1.0, 257, dtype=torch.float64)
    bump = 2.0 * y * torch.exp(-0.5 * (y / 0.08) ** 2)
    torch.testing.assert_close(moved, (bump - bump.flip(0)).expand_as(moved), rtol=0, atol=1e-7)  # spread in float32


def test_wrong_shapes_and_sizes_are_named():
    field, before, after = data(33)
    with pytest.raises(InvalidArgumentError, match=r"must be \(batch, 2, n\) .*got \(3, 2, 33\), \(3, 2\)"):
        operator()(field, before[..., 0], after)
    with pytest.raises(InvalidArgumentError, match="counts of at least 1 and positive numbers"):
        CosineConfig(size=0.0)
