"""Bands of predictions under bounds end at the bounds, in every form that a prediction has."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from probconserv import Bounded, Mixture, NonNegative, condition, fit_band, truncate
from probconserv.fields import FieldLayout
from probconserv.fields.prediction import FieldPrediction
from probconserv.inequalities.inequality import Inequality

MEAN = torch.tensor([[0.05, 0.5, 3.0], [-0.4, 1.4, 0.0]], dtype=torch.float64)  # (2, n): two functions or components


def normal(mean: Tensor) -> Normal:
    return Normal(mean, torch.full_like(mean, 0.5))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("law", [NonNegative(), Bounded(0.0, 1.5), Bounded(torch.tensor([0.0, 0.2, 0.4]), 3.0)])
@pytest.mark.parametrize("conditioned", [condition, truncate])
def test_confidence_regions_lie_within_the_bounds(conditioned, law: Inequality, dtype: torch.dtype) -> None:
    prior = normal(MEAN.to(dtype))
    joined = law.joined()
    least, most = joined.lower.to(dtype), joined.upper.to(dtype)
    for given in (prior, Mixture(prior), Mixture(normal(MEAN.to(dtype)[:, None].expand(2, 4, 3)))):
        prediction = conditioned(given, law, keep_weights=isinstance(given, Mixture))
        lower, upper = prediction.confidence_region()
        width = 2 * prediction.stddev
        assert lower.dtype == dtype
        assert torch.equal(lower, torch.maximum(prediction.mean - width, least))
        assert torch.equal(upper, torch.minimum(prediction.mean + width, most))


def test_components_with_bounds_of_their_own_share_the_widest_band() -> None:
    lower = torch.tensor([[0.0], [-1.0]], dtype=torch.float64).expand(2, 3)
    mixture = Mixture(condition(normal(MEAN), Bounded(lower, torch.tensor(10.0))))
    assert torch.equal(mixture.confidence_region()[0], (mixture.mean - 2 * mixture.stddev).clamp_min(-1.0))
    band = fit_band(prediction=condition(normal(MEAN), NonNegative()), values=MEAN.abs(), level=0.5, kind="pointwise")
    assert bool((band.ends(mixture)[0] >= -1.0).all())
    assert band.ends(mixture)[0].shape == (3,)


def test_regions_of_fields_have_their_shape_and_their_bounds() -> None:
    prior, layout = normal(MEAN), FieldLayout(channels=1, shape=(3,))
    for law, least in ((NonNegative(), torch.zeros(3)), (Bounded(torch.tensor([-9.0, 0.0, 0.5]), 9.0), [-9.0, 0, 0.5])):
        fields = FieldPrediction(condition(prior, law), layout)
        lower, upper = fields.confidence_region()
        width = 2 * fields.stddev
        assert lower.shape == upper.shape == (2, 1, 3)
        assert torch.equal(lower, torch.maximum(fields.mean - width, torch.as_tensor(least).double()))
    free = FieldPrediction(condition(prior, NonNegative()).prior, layout)
    assert torch.equal(free.confidence_region()[0], free.mean - 2 * free.stddev)
