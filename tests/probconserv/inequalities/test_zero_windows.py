"""Laws on overlapping windows with bounds, where some windows hold nothing or nearly nothing of the field."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from probconserv import Bounded, LinearConstraint, NonNegative, condition

double = torch.float64
EPS = torch.finfo(double).eps


def programme(seed: int) -> tuple[Normal, Tensor, Tensor]:
    """A prediction near a pulse whose tail is 0 or tiny, overlapping windows with its totals, and the pulse."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(length: int = 1) -> Tensor:
        return torch.rand(length, dtype=double, generator=generator)

    def integer(first: int, end: int) -> int:
        return int(torch.randint(first, end, (1,), generator=generator))

    n, k = (50, 100, 200)[integer(0, 3)], integer(2, 11)
    kind, x, centre, width = integer(0, 3), torch.linspace(0, 1, n, dtype=double), uniform(), 0.02 + 0.2 * uniform()
    away = (x - centre).abs() / width
    pulse = ((1 - away.square()).clamp_min(0), torch.exp(-4.5 * away.square()), torch.exp(-((4 * away) ** 3)))[kind]
    pulse = pulse * (uniform() + 0.1) if kind == 2 else pulse
    rows = torch.zeros(k, n, dtype=double)
    for row in rows:
        length = integer(n // 12, n // 3)
        first = integer(0, n - length)
        row[first : first + length] = 1.0 if integer(0, 2) else uniform(length)
    mean = pulse + 0.05 * torch.randn(n, dtype=double, generator=generator) * uniform()
    return Normal(mean, 0.01 + 0.1 * uniform(n)), rows / n, pulse


def check(seed: int, tolerance: float = 1e-12) -> None:
    """The nearest field meets bounds and totals within the rounding of the prediction, and is no farther than the
    pulse, which meets them as well."""
    prior, rows, pulse = programme(seed)
    law = LinearConstraint(rows, rows @ pulse)
    for bounds in (NonNegative(), Bounded(0.0, 1.5)):
        mode = condition(prior, law & bounds).mode
        assert float(mode.min()) >= 0
        size = rows @ (prior.loc.abs() + prior.scale)
        assert bool((law.residual(mode).abs() <= tolerance * size).all()), seed
        distance, of_pulse = (((u - prior.loc) / prior.scale).square().sum() for u in (mode, pulse))
        assert float(distance) <= float(of_pulse) * (1 + 1e-9), seed


@pytest.mark.parametrize("seed", [22, 26, 27, 35, 39, 345, 423, 678, 895, 929])
def test_windows_that_hold_nearly_nothing_are_met(seed):
    check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("hundred", range(10))
def test_of_a_thousand_feasible_programmes_none_is_refused(hundred):
    for seed in range(100 * hundred, 100 * (hundred + 1)):
        check(seed)


@pytest.mark.parametrize("total", [0.0, 1e-323, 1e-315, 1e-300, 1e-166, 1e-104, 1e-20, 1e-17, 1e-15, 1e-12, 1e-6])
@pytest.mark.parametrize("overlap", [False, True])
def test_a_total_of_any_size_is_met_within_the_rounding_of_the_prediction(total, overlap):
    rows = torch.zeros(2, 30, dtype=double)
    rows[0, :12], rows[1, 10 if overlap else 12 :] = 1.0, 1.0
    law = LinearConstraint(rows, torch.tensor([total, 3.0], dtype=double))
    generator = torch.Generator().manual_seed(0)
    prior = Normal(0.1 * torch.randn(30, dtype=double, generator=generator), torch.full((30,), 0.1, dtype=double))
    posterior = condition(prior, law & NonNegative())
    for fields in (posterior.mode, posterior.rsample((20,)), posterior.mean):
        assert float(fields.min()) >= 0
        assert float(law.residual(fields).abs().max()) < 1e3 * EPS
    batch = condition(prior.expand((3, 30)), law & NonNegative())
    assert torch.allclose(batch.mode, posterior.mode, rtol=0, atol=1e3 * EPS)


def test_points_that_one_window_fixes_leave_another_no_choice():
    """Both bounds: a full and an empty window fix all points of a third one, whose total then follows."""
    rows = torch.zeros(3, 9, dtype=double)
    rows[0, :4] = rows[1, 4:8] = rows[2, 2:6] = 1.0
    prior = Normal(torch.full((9,), 0.4, dtype=double), torch.ones(9, dtype=double))
    law = LinearConstraint(rows, torch.tensor([4.0, 0.0, 2.0], dtype=double))
    mode = condition(prior, law & Bounded(0.0, 1.0)).mode
    assert mode.tolist() == [1.0] * 4 + [0.0] * 4 + [0.4]


def test_gradients_with_a_window_that_holds_nearly_nothing():
    rows = torch.zeros(2, 8, dtype=double)
    rows[0, :3] = rows[1, 2:] = 1.0
    law = LinearConstraint(rows, torch.tensor([1e-40, 2.0], dtype=double))

    def mode(mean: Tensor) -> Tensor:
        return condition(Normal(mean, torch.ones(8, dtype=double)), law & NonNegative()).mode

    mean = torch.linspace(-0.1, 0.6, 8, dtype=double).requires_grad_()
    assert torch.autograd.gradcheck(mode, mean)
