"""Two exact rows and bounds on both sides: random sets, all of which can be drawn from."""

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from probconserv import Bounded, LinearConstraint, condition

double = torch.float64
EPS = torch.finfo(double).eps


def statements(seed):
    """A prior, two rows and bounds that a field is strictly within; the mean is often far from it."""
    rng = np.random.default_rng(seed)
    n = int(rng.choice([3, 4, 6]))

    def normal(*shape):
        return torch.from_numpy(rng.standard_normal(shape))

    field, first = normal(n), torch.full((n,), 1 / n, dtype=double) if rng.random() < 0.5 else normal(n)
    rows = torch.stack([first, normal(n)])
    lower, upper = field - 0.01 - 0.5 * normal(n).abs(), field + (3.0 if rng.random() < 0.5 else 0.01 + normal(n).abs())
    return Normal(1.5 * normal(n), (0.5 * normal(n)).exp()), LinearConstraint(rows, rows @ field), (lower, upper)


def check(seed):
    """Mode, moments and draws exist and meet the law to the rounding of the numbers in it, and bounds exactly."""
    prior, law, (lower, upper) = statements(seed)
    prediction = condition(prior, law & Bounded(lower, upper))
    draws = prediction.rsample((20,), generator=torch.Generator().manual_seed(seed))
    for fields in (prediction.mode, prediction.mean, draws):
        assert bool(((fields >= lower) & (fields <= upper)).all()), seed
        size = law.rows.abs() @ torch.maximum(lower.abs(), upper.abs()) + law.b.abs()
        assert bool((law.residual(fields).abs() <= 1e3 * EPS * size).all()), seed
    assert bool((prediction.variance >= 0).all()), seed


@pytest.mark.parametrize("seed", range(16))
def test_sets_of_two_rows_and_bounds_can_be_drawn_from(seed):
    check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("hundred", range(20))
def test_all_of_two_thousand_sets_can_be_drawn_from(hundred):
    for seed in range(100 * hundred, 100 * (hundred + 1)):
        check(seed)


def test_a_climb_does_not_go_round_in_circles():
    """A field for which full steps alternate between two pieces of the dual; its nearest one is on a line."""
    prior = Normal(
        torch.tensor([-1.8996468287885815, -1.940069758804618, -1.4105191377011428], dtype=double),
        torch.tensor([1.979305708172554, 1.4115253106473147, 1.4265560431515925], dtype=double),
    )
    rows = torch.tensor([[1 / 3] * 3, [-0.8217351679261383, -1.1125961597528327, 0.921824752586832]], dtype=double)
    inside = torch.tensor([0.14462172530109357, 0.03585454131076013, 0.4705255929899118], dtype=double)
    lower = torch.tensor([-0.06798557115433734, 0.008237793862759035, -0.21517682606410427], dtype=double)
    upper = inside + 3.0
    prediction = condition(prior, LinearConstraint(rows, rows @ inside) & Bounded(lower, upper))

    field = torch.tensor([3.1612231861970086, -4.510329407735565, -0.4056558601741851], dtype=double)
    along = torch.linalg.svd(rows).Vh[-1]
    weights = prior.scale**-2
    ends = torch.stack([(lower - inside) / along, (upper - inside) / along])
    best = ((field - inside) * weights * along).sum() / (along.square() * weights).sum()
    expected = inside + best.clamp(ends.amin(dim=0).max(), ends.amax(dim=0).min()) * along
    actual = prediction.project(field[None])[0]
    assert torch.allclose(actual, expected, rtol=0, atol=1e3 * EPS)
    assert bool(torch.isfinite(prediction.mean).all())
