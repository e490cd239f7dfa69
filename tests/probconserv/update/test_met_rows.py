"""Rows that a prediction or other rows meet already ask for nothing; certain rows that are missed are refused."""

import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from torch.distributions import Normal

from probconserv import LinearConstraint, Mixture, NonNegative, condition, from_samples
from probconserv.errors import DependentConstraintsError
from probconserv.fields import block_means, sphere_areas
from probconserv.sampling import draw

double = torch.float64
G = torch.Generator().manual_seed(0)
TOTAL = LinearConstraint(torch.ones(1, 12), torch.zeros(1))


def centred(*shape: int) -> torch.Tensor:
    """Fields of zero mean."""
    fields = torch.randn(*shape, dtype=double, generator=G)
    return fields - fields.mean(dim=-1, keepdim=True)


def same(first, second, tolerance=1e-9):
    assert torch.allclose(first.mean, second.mean, atol=tolerance)
    assert torch.allclose(first.variance, second.variance, atol=tolerance)
    torch.manual_seed(0)
    means = [draw(each, (400,)).mean(dim=0) for each in (first, second)]
    assert float((means[0] - means[1]).abs().max()) < 0.5 * float(first.stddev.max())


def test_members_that_agree_on_a_total_stay_as_they_are():
    prior = from_samples(centred(5, 12))
    posterior = condition(prior, TOTAL)
    same(posterior, prior)
    assert float(TOTAL.residual(posterior.rsample((20,))).abs().max()) < 1e-12
    more = LinearConstraint(torch.eye(12)[:1], torch.ones(1))
    same(condition(prior, TOTAL & more), condition(prior, more))


def test_zonal_and_global_means_together():
    prior = Normal(torch.randn(12, dtype=double, generator=G), torch.rand(12, dtype=double, generator=G) + 0.1)
    zonal = block_means(torch.arange(3.0), (4,))
    whole = LinearConstraint(torch.full((1, 12), 1 / 12, dtype=double), torch.ones(1))
    expected = condition(prior, zonal)
    for law in (zonal & whole, LinearConstraint(zonal.rows, zonal.b) & whole, whole & zonal):
        found = condition(prior, law)
        same(found, expected)
        assert float(law.residual(found.rsample((20,))).abs().max()) < 1e-12
    batch = Normal(prior.loc.expand(2, 12), torch.stack([prior.scale, 2 * prior.scale]))
    same(condition(batch, zonal & whole), condition(batch, zonal))
    assert torch.allclose(condition(batch, zonal & whole).mean[0], expected.mean)


@pytest.mark.parametrize("dtype", [torch.float32, double])
def test_an_exact_law_given_twice(dtype):
    root = torch.randn(12, 12, dtype=double, generator=G)
    prior = MultivariateNormal(torch.zeros(12, dtype=dtype), (root @ root.mT).to(dtype))
    posterior = condition(prior, TOTAL)
    same(condition(posterior, TOTAL), posterior, 1e-9 if dtype == double else 1e-4)


def test_rows_that_are_met_hold_under_bounds_too():
    prior = from_samples(0.3 + centred(5, 12))
    law = LinearConstraint(torch.ones(1, 12), torch.tensor([3.6], dtype=double))
    independent = Normal(torch.rand(12, dtype=double, generator=G), torch.ones(12, dtype=double))
    once = condition(independent, law & NonNegative())
    for bounded in (
        condition(condition(prior, law), NonNegative()),
        condition(condition(prior, law).expand(torch.Size([2])), NonNegative()),
        condition(condition(prior.expand(torch.Size([2])), law)[1], NonNegative()),
        condition(prior, law & NonNegative()),
        condition(condition(independent, law & law), NonNegative()),
        condition(independent, law & law & NonNegative()),
    ):
        draws = bounded.rsample(torch.Size([50]))
        assert float(law.residual(draws).abs().max()) < 1e-13
        assert float(draws.min()) == 0.0
    assert torch.allclose(bounded.mode, once.mode, rtol=0, atol=1e-14)
    assert float(law.residual(bounded.with_draws(5).mean).abs()) < 1e-13


def test_weights_of_a_mixture_see_only_what_was_open():
    components = torch.stack([centred(12), centred(12)])
    scale = torch.tensor([[0.5], [2.0]], dtype=double).expand(2, 12)
    row = LinearConstraint(torch.eye(12)[:1], torch.ones(1))
    twice = condition(Mixture(Normal(components, scale)), row & row)
    once = condition(Mixture(Normal(components, scale)), row)
    assert torch.allclose(twice.weights, once.weights, rtol=1e-6)
    assert torch.allclose(twice.mean, once.mean)


def test_certain_rows_that_are_missed_are_refused():
    with pytest.raises(DependentConstraintsError, match="singular"):
        condition(from_samples(centred(5, 12)), LinearConstraint(torch.ones(1, 12), torch.ones(1)))
    fixed = Normal(torch.zeros(12, dtype=double), (torch.arange(12) > 3).double(), validate_args=False)
    wall = LinearConstraint(torch.eye(12)[:1], torch.zeros(1))
    same(
        condition(fixed, wall & LinearConstraint(torch.ones(1, 12), torch.ones(1))),
        condition(fixed, LinearConstraint(torch.ones(1, 12), torch.ones(1))),
    )
    with pytest.raises(DependentConstraintsError, match=r"prediction is certain of row 0 .* misses it by 1"):
        condition(fixed, LinearConstraint(torch.eye(12)[:1], torch.ones(1)))


def test_what_is_certain_in_a_part_of_a_batch_is_refused():
    scale = torch.ones(2, 12, dtype=double)
    scale[0, 0] = 0.0
    with pytest.raises(DependentConstraintsError):
        condition(
            Normal(torch.zeros(2, 12).double(), scale, validate_args=False),
            LinearConstraint(torch.eye(12)[:1], torch.zeros(1)),
        )


def test_a_global_mean_before_the_zonal_ones_leaves_rounding_of_the_last():
    """Weights of zones next to poles are small, so that what the global mean leaves of the last zone is rounding."""
    zones, length = 48, 96
    areas = sphere_areas(torch.linspace(90, -90, zones + 1).double(), torch.linspace(0, 360, length + 1).double())
    areas /= areas.sum()
    latitude = torch.deg2rad(torch.linspace(88, -88, zones).double())[:, None]
    truth = (300 - 40 * latitude.sin().square()).expand(zones, length)
    waves, random = torch.arange(length).double() * (2 * torch.pi / length), torch.Generator().manual_seed(0)
    a, b, c = torch.randn(3, 20, 1, 1, generator=random, dtype=torch.float64)
    members = truth + 1.5 + (a * waves.sin() + b * waves.cos() + c) * latitude.cos()
    prior = from_samples(members.flatten(1), shrinkage=1.0)
    zonal = block_means(truth.mean(dim=1)[:, None], (1, length))
    whole = LinearConstraint(areas.reshape(1, -1), (areas * truth).sum()[None])
    for law, most in ((zonal & whole, 1e-12), (whole & zonal, 1e-7)):
        mean = condition(prior, law).mean
        assert float(zonal.residual(mean).abs().max()) < most
        assert float(whole.residual(mean).abs().max()) < 1e-10
