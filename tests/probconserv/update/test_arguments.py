"""Arguments of the update that are of another kind: tensors for laws, lists and arrays for samples, swapped ones."""

import pytest
import torch
from torch.distributions import Normal

from probconserv import Mixture, NonNegative, boundary_value, condition, from_samples, integral
from probconserv.errors import IncompatibleQueryError, InvalidArgumentError
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


@pytest.mark.parametrize("samples", [["a", "b"], "abc", None, PRIOR])
def test_samples_are_numbers(samples):
    with pytest.raises(InvalidArgumentError, match=rf"samples must hold numbers, got {type(samples).__name__} of"):
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


AMBIGUOUS = Normal(torch.zeros(2, 2, 8), torch.ones(2, 2, 8))


@pytest.mark.parametrize(
    "prior",
    [
        AMBIGUOUS,
        condition(AMBIGUOUS, boundary_value(NodeGrid(0.0, 1.0, 8), 0.5, side="first")),
        from_samples(torch.rand(5, 2, 2, 8), noise_variance=100.0),
        condition(AMBIGUOUS, NonNegative()),
        Mixture(Normal(torch.zeros(3, 2, 2, 8), torch.ones(3, 2, 2, 8))),
    ],
)
@pytest.mark.parametrize("inequality", [None, NonNegative()])
def test_totals_that_fit_functions_and_channels_are_refused(prior, inequality):
    def law(totals):
        rows = integral(NodeGrid(0.0, 1.0, 8), totals)
        return rows if inequality is None else rows & inequality

    totals = torch.tensor([1.0, 5.0])
    with pytest.raises(
        IncompatibleQueryError, match=r"axes \(2,\) .* fit the first .* \(2, 2\) .* \(2, 1\) .* \(1, 2\)"
    ):
        condition(prior, law(totals))
    more = law(totals[:, None].expand(2, 2))  # one per function, the same for its channels
    assert condition(prior, more).batch_shape == (2, 2)


def test_totals_that_fit_one_way_broadcast_along_the_last_axes():
    prior = Normal(torch.zeros(4, 2, 8), torch.ones(4, 2, 8))
    law = integral(NodeGrid(0.0, 1.0, 8), torch.tensor([1.0, 5.0]))
    assert float(law.residual(condition(prior, law).mean).abs().max()) < 1e-6
    with pytest.raises(IncompatibleQueryError, match="do not broadcast"):
        condition(prior, integral(NodeGrid(0.0, 1.0, 8), torch.ones(4)))


def test_components_of_a_mixture_are_no_functions():
    mixture = Mixture(Normal(torch.zeros(2, 2, 8), torch.ones(2, 2, 8)))
    law = integral(NodeGrid(0.0, 1.0, 8), torch.tensor([1.0, 5.0]))
    assert float(law.residual(condition(mixture, law).mean).abs().max()) < 1e-6
