"""Arguments of the update that are of another kind: tensors for laws, lists and arrays for samples, swapped ones."""

import pytest
import torch
from torch.distributions import Normal

from probconserv import InvalidArgumentError, Mixture, NonNegative, condition, from_samples, integral
from probconserv.fields import FieldLayout, block_means, condition_fields
from solvers import NodeGrid

LAW = integral(NodeGrid(0.0, 1.0, 8), 1.0)
PRIOR = Normal(torch.zeros(8), torch.ones(8))
PRIORS = {
    "normal": PRIOR,
    "conditioned": condition(PRIOR, LAW),
    "members": torch.rand(5, 8),
    "under inequalities": condition(PRIOR, NonNegative()),
    "mixture": Mixture(Normal(torch.zeros(3, 8), torch.ones(3, 8))),
}
LAYOUT = FieldLayout(channels=1, shape=(8,))


@pytest.mark.parametrize("prior", PRIORS)
def test_a_law_that_is_none_is_refused(prior):
    with pytest.raises(InvalidArgumentError, match=r"must be a LinearConstraint, .* got Tensor; integral and"):
        condition(PRIORS[prior], torch.ones(8))


@pytest.mark.parametrize("swap", [condition, lambda *swapped: condition_fields(*swapped, LAYOUT)])
@pytest.mark.parametrize("law", [LAW, NonNegative(), LAW & NonNegative()])
def test_swapped_arguments_are_refused(swap, law):
    with pytest.raises(InvalidArgumentError, match=r"got Normal; give the prediction first, then the constraint"):
        swap(law, PRIOR)


@pytest.mark.parametrize("members", [[torch.rand(1, 8)] * 3, None])
def test_fields_are_a_prediction_or_one_tensor(members):
    name = type(members).__name__
    with pytest.raises(InvalidArgumentError, match=rf"\*space\), got {name}; join members by torch\.stack"):
        condition_fields(members, LAW, LAYOUT)


@pytest.mark.parametrize("samples", [[torch.rand(8)] * 3, "abc"])
def test_samples_are_tensors(samples):
    with pytest.raises(InvalidArgumentError, match=rf"samples must be a tensor, got {type(samples).__name__}; use"):
        from_samples(samples)


@pytest.mark.parametrize("law", [LAW, NonNegative(), block_means(torch.zeros(4), (2,))])
def test_negative_standard_deviations_are_refused_where_values_are_checked(law):
    prior = Normal(torch.ones(8), torch.linspace(-0.25, 1, 8), validate_args=False)
    with pytest.raises(InvalidArgumentError, match=r"deviations of the prior must not be negative, .* of -0\.25"):
        condition(prior, law)
    assert bool(torch.isfinite(condition(prior, law, validate=False).mean).all())


def test_draws_of_an_ensemble_take_a_tuple_as_their_shape():
    ensemble = from_samples(torch.rand(4, 8), noise_variance=0.1)
    assert ensemble.rsample((3, 2)).shape == ensemble.sample((3, 2)).shape == (3, 2, 8)
    assert ensemble.rsample().shape == (8,)
