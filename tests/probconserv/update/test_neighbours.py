"""Predictions of torch and gpytorch under other names, and arrays with labels."""

import pytest
import torch
from gpytorch.distributions import MultitaskMultivariateNormal, MultivariateNormal
from linear_operator.operators import PsdSumLinearOperator
from torch.distributions import Categorical, Independent, LowRankMultivariateNormal, MixtureSameFamily, Normal

from probconserv import LinearConstraint, Mixture, NonNegative, condition, from_samples, integral, truncate
from probconserv.errors import InvalidArgumentError
from probconserv.fields import FieldLayout, condition_fields
from probconserv.law_evidence import evidence
from solvers import NodeGrid

double = torch.float64
G = torch.Generator().manual_seed(0)
LOC, SCALE = torch.rand(2, 4, 6, dtype=double, generator=G)
FACTOR = torch.rand(4, 6, 2, dtype=double, generator=G)
LAW = LinearConstraint(torch.ones(1, 6), torch.tensor([2.0]))
WEIGHTS = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=double)
DENSE = FACTOR @ FACTOR.mT + torch.diag_embed(SCALE.square())


class Labelled:
    """What xarray and pandas have in common."""

    def __init__(self, values):
        self._values, self.values = values, values

    def to_numpy(self):
        return self._values


PAIRS = {
    "independent": (Independent(Normal(LOC, SCALE), 1), Normal(LOC, SCALE)),
    "independent, two axes": (
        Independent(Normal(LOC.view(4, 2, 3), SCALE.view(4, 2, 3)), 2),
        Normal(LOC, SCALE),
    ),
    "low rank": (LowRankMultivariateNormal(LOC, FACTOR, SCALE.square()), MultivariateNormal(LOC, DENSE)),
    "mixture of independent values": (
        MixtureSameFamily(Categorical(WEIGHTS), Independent(Normal(LOC, SCALE), 1)),
        Mixture(Normal(LOC, SCALE), WEIGHTS),
    ),
    "mixture of dense ones": (
        MixtureSameFamily(Categorical(WEIGHTS), torch.distributions.MultivariateNormal(LOC, DENSE)),
        Mixture(MultivariateNormal(LOC, DENSE), WEIGHTS),
    ),
    "mixture of low rank": (
        MixtureSameFamily(Categorical(WEIGHTS), LowRankMultivariateNormal(LOC, FACTOR, SCALE.square())),
        Mixture(MultivariateNormal(LOC, DENSE), WEIGHTS),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_same_as_its_own_kind(name):
    theirs, ours = PAIRS[name]
    first, second = condition(theirs, LAW), condition(ours, LAW)
    assert torch.allclose(first.mean, second.mean, atol=1e-10)
    assert torch.allclose(first.variance, second.variance, atol=1e-10)
    first, second = condition(theirs, LAW & NonNegative()), condition(ours, LAW & NonNegative())
    if "mixture" in name:
        first, second = first.components, second.components
    assert torch.allclose(first.mode, second.mode, atol=1e-10)
    assert torch.allclose(evidence(theirs, LAW).log_evidence, evidence(ours, LAW).log_evidence)
    if "mixture" not in name:
        first, second = truncate(theirs, NonNegative()), truncate(ours, NonNegative())
        assert torch.allclose(first.mode, second.mode, atol=1e-10)
    if name == "low rank":
        assert isinstance(condition(theirs, LAW).prior.lazy_covariance_matrix, PsdSumLinearOperator)


def test_batches_of_mixtures():
    """Their component axis is the last of the batch, ours the first."""
    loc, scale = LOC.expand(3, 4, 6) + torch.arange(3.0)[:, None, None], SCALE.expand(3, 4, 6)
    weights = torch.softmax(torch.rand(3, 4, dtype=double, generator=G), dim=1)
    theirs = condition(MixtureSameFamily(Categorical(weights), Independent(Normal(loc, scale), 1)), LAW)
    ours = condition(Mixture(Normal(loc.movedim(1, 0), scale.movedim(1, 0)), weights.mT), LAW)
    assert theirs.mean.shape == (3, 6)
    assert torch.allclose(theirs.mean, ours.mean)


@pytest.mark.parametrize("interleaved", [True, False])
def test_multitask_gaussians_are_read_task_by_task(interleaved):
    root = torch.rand(12, 12, dtype=double, generator=G)
    mean = torch.rand(4, 3, dtype=double, generator=G)
    prior = MultitaskMultivariateNormal(mean, root @ root.mT, interleaved=interleaved)
    total = LinearConstraint(torch.eye(3).repeat_interleave(4, dim=1), torch.tensor([1.0, 2.0, 3.0]))
    posterior = condition(prior, total)
    assert torch.allclose(posterior.mean.view(3, 4).sum(dim=1), torch.tensor([1.0, 2.0, 3.0], dtype=double))
    order = torch.arange(12).view(4, 3).mT.flatten() if interleaved else torch.arange(12)
    expected = condition(MultivariateNormal(mean.mT.flatten(), (root @ root.mT)[order][:, order]), total)
    assert torch.allclose(posterior.mean, expected.mean)
    assert torch.allclose(posterior.variance, expected.variance)
    assert torch.allclose(prior.variance.mT.flatten(), posterior.prior.variance)


def test_arrays_and_arrays_with_labels():
    samples = torch.rand(5, 6, dtype=double, generator=G)
    expected = condition(from_samples(samples), LAW).mean
    for given in (samples.numpy(), Labelled(samples.numpy())):
        assert torch.equal(condition(from_samples(given), LAW).mean, expected)
    layout = FieldLayout(channels=1, shape=(2, 3))
    fields = Labelled(samples.view(5, 1, 2, 3).numpy())
    assert torch.equal(condition_fields(fields, LAW, layout).mean.flatten(), expected)
    totals = integral(NodeGrid(0.0, 1.0, 6), Labelled(torch.tensor([0.5, 0.6]).numpy()))
    assert totals.b.shape == (2, 1)


class LabelledField(Labelled):
    """The members of a DataArray that a labelled result needs."""

    dims = ("channel", "lat", "lon")

    @property
    def shape(self):
        return self._values.shape

    def copy(self, data):
        return LabelledField(data)


def test_labels_come_out_again():
    samples = torch.rand(5, 1, 2, 3, dtype=double, generator=G)
    prediction = condition_fields(samples, LAW, FieldLayout(channels=1, shape=(2, 3)))
    mean, deviation = prediction.labelled(LabelledField(samples[0].numpy()))
    assert mean.dims == ("channel", "lat", "lon")
    assert torch.equal(torch.as_tensor(mean.values), prediction.mean)
    assert torch.equal(torch.as_tensor(deviation.values), prediction.stddev)
    with pytest.raises(InvalidArgumentError, match="without the axis of the members"):
        prediction.labelled(LabelledField(samples.numpy()))
    with pytest.raises(InvalidArgumentError, match="a DataArray of xarray, got Tensor"):
        prediction.labelled(samples[0])


def test_xarray_itself():
    xarray = pytest.importorskip("xarray")
    samples = xarray.DataArray(
        torch.rand(5, 1, 2, 3, dtype=double, generator=G).numpy(),
        dims=("member", "level", "lat", "lon"),
        coords={"lat": [-45.0, 45.0], "lon": [0.0, 120.0, 240.0]},
    )
    prediction = condition_fields(samples, LAW, FieldLayout(channels=1, shape=(2, 3)))
    mean, _ = prediction.labelled(samples[0])
    assert mean.dims == ("level", "lat", "lon")
    assert mean.sel(lat=45.0, lon=0.0).item() == pytest.approx(float(prediction.mean[0, 1, 0]))
    assert integral(NodeGrid(0.0, 1.0, 6), samples.mean(("lat", "lon"))).b.shape == (5, 1, 1)


def test_invalid_arguments_raise_with_reason():
    with pytest.raises(InvalidArgumentError, match=r"has components of its own at every point; wrap"):
        condition(MixtureSameFamily(Categorical(torch.ones(6, 4)), Normal(LOC.mT, SCALE.mT)), LAW)
    with pytest.raises(InvalidArgumentError, match=r"over a torch.distributions.Normal, got one over Laplace"):
        condition(Independent(torch.distributions.Laplace(LOC, SCALE), 1), LAW)
    student = Independent(torch.distributions.StudentT(3.0, LOC, SCALE), 1)
    with pytest.raises(InvalidArgumentError, match="got one over StudentT"):
        condition(MixtureSameFamily(Categorical(WEIGHTS), student), LAW)
