"""Laws with values that no field of a flow has: noisy, rounded, or of a field outside of the training range."""

import warnings
from contextlib import nullcontext

import pytest
import torch
from linear_operator.operators import DenseLinearOperator, LinearOperator
from torch import Tensor

from probconserv import Bounded, FlowMatching, LinearConstraint, NonlinearLaw
from probconserv._linalg.gaussian import FieldGaussian
from probconserv.law_evidence import evidence
from probconserv.surrogates.flow import KarhunenLoeve, SamplingOptions, conditioned, eci, twisted
from probconserv.surrogates.flow.discrepancy import AllowingLatent, allowing_for, discrepancy
from tests.probconserv.surrogates.exact_flows import of_gaussian
from tests.probconserv.surrogates.own_latent import Fields
from tests.strategies import normal

N, MODES = 41, 6
SEEN = torch.arange(0, N, 2)
NOISE = 1e-3
QUICK = SamplingOptions(steps=20)


def fields(count: int, seed: int = 0) -> Tensor:
    """Sums of ten sines, with amplitudes that fall to 1e-4."""
    x = torch.linspace(0, 1, N, dtype=torch.float64)
    frequency = torch.arange(1, 11, dtype=torch.float64)
    sines = torch.sin(torch.pi * frequency[:, None] * x) * 10.0 ** (-4 * (frequency[:, None] - 1) / 9)
    return 1.0 + normal(count, 10, seed=seed) @ sines


def latent() -> KarhunenLoeve:
    return KarhunenLoeve.of(fields(400), MODES)


def gaussian_flow() -> FlowMatching:
    """A flow with the exact velocity for its own Gaussian."""
    coordinates = latent()
    return of_gaussian(coordinates)


def value_rows(u: Tensor, noise: float = 0.0) -> LinearConstraint:
    """Every other value of a field or of one field per draw."""
    return LinearConstraint(torch.eye(N, dtype=torch.float64)[SEEN], u[..., SEEN], noise_variance=noise)


def noisy(noise: float = NOISE, count: int = 1) -> Tensor:
    """New fields with errors."""
    return (fields(count, seed=1) + noise * normal(count, N, seed=2)).squeeze(0)


@pytest.mark.parametrize("precision", [torch.float64, torch.float32])
def test_values_of_new_fields_are_taken_as_they_are(precision: torch.dtype) -> None:
    for u in fields(20, seed=1):
        assert discrepancy(latent(), value_rows(u.to(precision).double())) == 0.0
    assert not discrepancy(latent(), value_rows(fields(30, seed=1))).any()
    assert discrepancy(latent(), None) == discrepancy(latent(), Bounded(0.0, 1.0)) == 0.0


@pytest.mark.parametrize("noise", [1e-3, 1e-2, 0.1])
def test_the_noise_of_values_is_found(noise: float) -> None:
    for seed in range(5):
        u = fields(1, seed=seed + 1)[0] + noise * normal(N, seed=seed + 7)
        assert discrepancy(latent(), value_rows(u)) ** 0.5 == pytest.approx(noise, rel=0.5)
    each = discrepancy(latent(), value_rows(noisy(noise, count=50)))
    assert len(each) == 50
    assert float(each.mean()) ** 0.5 == pytest.approx(noise, rel=0.15)


@pytest.mark.parametrize("rows", [8, 10, 12])
def test_few_rows_do_not_mistake_the_size_of_fields_for_noise(rows: int) -> None:
    """A mean square of 1 asks for up to a hundred times the noise, where strong modes are above theirs by chance."""
    chosen = torch.linspace(0, N - 1, rows).round().long()
    for seed in range(40):
        u = fields(1, seed=seed + 1)[0] + NOISE * normal(N, seed=seed + 7)
        law = LinearConstraint(torch.eye(N, dtype=torch.float64)[chosen], u[chosen])
        assert 0.1 * NOISE <= float(discrepancy(latent(), law)) ** 0.5 <= 4 * NOISE


def test_a_single_row_is_surprising_from_five_standard_deviations_on() -> None:
    coordinates, row = latent(), torch.full((1, N), 1 / N, dtype=torch.float64)
    usual = float((row @ coordinates.clean_covariance(0.0).to_dense() @ row.mT).sqrt())
    mean = row @ coordinates.mean
    assert discrepancy(coordinates, LinearConstraint(row, mean + 4.5 * usual)) == 0.0
    assert discrepancy(coordinates, LinearConstraint(row, mean + 5.5 * usual)) > 0.0


def test_rows_with_noise_of_their_own_are_left_alone() -> None:
    assert discrepancy(latent(), value_rows(noisy(), NOISE**2)) == 0.0
    u, rows = noisy(), torch.eye(N, dtype=torch.float64)[SEEN]
    half = torch.where(torch.arange(len(SEEN)) < 10, 0.0, NOISE**2)
    law = LinearConstraint(rows, torch.where(half > 0, u[SEEN], fields(1, seed=1)[0, SEEN]), noise_variance=half)
    assert discrepancy(latent(), law) == 0.0


def test_rows_of_every_draw_many_rows_and_nonlinear_laws_are_looked_at_as_well() -> None:
    u = noisy(count=6)
    each = LinearConstraint(torch.eye(N, dtype=torch.float64)[SEEN].expand(6, -1, -1), u[:, SEEN])
    assert discrepancy(latent(), each).mean() ** 0.5 == pytest.approx(NOISE, rel=0.5)
    nonlinear = NonlinearLaw(residual_function=lambda u: u.square().mean(-1, keepdim=True) - 1.0, points=N)
    assert discrepancy(latent(), nonlinear & value_rows(noisy())) ** 0.5 == pytest.approx(NOISE, rel=0.5)
    assert discrepancy(latent(), nonlinear) == 0.0
    x = torch.linspace(0, 1, 900, dtype=torch.float64)
    many = torch.cos(2 * x) * normal(200, 1) + torch.sin(3 * x) * normal(200, 1, seed=1) + 1e-3 * normal(200, 900)
    rows = LinearConstraint(torch.eye(900, dtype=torch.float64), torch.cos(2 * x) + 0.03 * normal(900, seed=5))
    assert discrepancy(KarhunenLoeve.of(many, 2), rows) ** 0.5 == pytest.approx(0.03, rel=0.2)


@pytest.mark.parametrize("bounds", [None, Bounded(-20.0, 20.0)])
def test_draws_under_noisy_values_are_near_the_field_and_meet_them(bounds: Bounded | None) -> None:
    flow, truth = gaussian_flow(), fields(1, seed=1)[0]
    law = value_rows(noisy())
    with pytest.warns(UserWarning, match=r"noisy or rounded, or those of a field outside.*error of 0\.001[0-9]* of"):
        draws = flow.sample(40, law=law if bounds is None else law & bounds, sampler=conditioned, options=QUICK)
    told = flow.sample(40, law=value_rows(noisy(), NOISE**2), options=QUICK)
    assert float(law.residual(draws).abs().max()) <= 1e-13
    error, best = ((each.mean(dim=0) - truth).square().mean().sqrt() for each in (draws, told))
    assert float(error) <= 1.5 * float(best) + NOISE
    latent_of_fields = Fields(fields(400), MODES, error=1e-6)
    with pytest.warns(UserWarning, match="noisy or rounded"):
        [(_, wide)] = allowing_for(latent_of_fields, law)
    added = wide.clean_covariance(0.3).diagonal() - latent_of_fields.clean_covariance(0.3).diagonal()
    assert torch.allclose(added, added[0].expand(N), rtol=1e-6)
    assert torch.equal(
        wide.decode(wide.encode(truth[None])), latent_of_fields.decode(latent_of_fields.encode(truth[None]))
    )


@pytest.mark.parametrize("own_rows", [False, True])
def test_one_law_out_of_range_among_many_is_named_and_leaves_the_others_as_they_are(own_rows: bool) -> None:
    flow, usual = gaussian_flow(), fields(20, seed=1)
    far = usual.clone()
    far[7] += 0.02 * normal(N, seed=3)
    far[11] += 0.5 * normal(N, seed=4)

    def law(u: Tensor) -> LinearConstraint:
        each = value_rows(u)
        return LinearConstraint(each.rows.expand(len(u), -1, -1), each.b) if own_rows else each

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        others = flow.sample(18, law=law(usual[[i for i in range(20) if i not in (7, 11)]]), options=QUICK)
    with pytest.warns(UserWarning, match=r"2 of 20 laws.*error of 0\.02[0-9]* to 0\.[3-6][0-9]* of"):
        draws = flow.sample(20, law=law(far), options=QUICK)
    assert float(law(far).residual(draws).abs().max()) <= 1e-12
    kept = torch.cat([draws[:7], draws[8:11], draws[12:]])
    assert float((kept - others).abs().max()) <= 1e-12
    assert float((draws[7] - usual[7]).square().mean().sqrt()) <= 0.05


class Dense(KarhunenLoeve):
    """Coordinates whose covariance has no structure."""

    def clean_covariance(self, t: float) -> LinearOperator:
        return DenseLinearOperator(super().clean_covariance(t).to_dense())


def test_covariances_without_structure_are_allowed_an_error_as_well() -> None:
    own = latent()
    dense = AllowingLatent(Dense(own.mean, own.basis, own.noise_variance, own.shape, own.rest), NOISE)
    low_rank = AllowingLatent(own, NOISE)
    expected = own.clean_covariance(0.2).to_dense() + NOISE * torch.eye(N, dtype=torch.float64)
    for each in (dense, low_rank):
        assert torch.allclose(each.clean_covariance(0.2).to_dense(), expected, rtol=0, atol=1e-14)


def test_draws_under_values_of_a_field_are_unchanged_and_published_samplers_say_nothing() -> None:
    flow, law = gaussian_flow(), value_rows(fields(1, seed=1)[0])
    assert allowing_for(flow.latent, law) == [(slice(None), flow.latent)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flow.sample(4, law=law, options=QUICK)
        flow.sample(4, law=value_rows(noisy()), sampler=eci, options=QUICK)


@pytest.mark.parametrize("bounds", [None, Bounded(-1e9, 1e9)])
def test_the_evidence_of_values_that_no_field_has_is_out_of_range_and_falls_with_their_distance(
    bounds: Bounded | None,
) -> None:
    """The error that draws are allowed is no property of the flow: the evidence is that of fields without it."""
    flow, row = gaussian_flow(), torch.full((1, N), 1 / N, dtype=torch.float64)
    prior = FieldGaussian(latent().mean, flow.covariance())
    deviation = (row @ flow.covariance().to_dense() @ row.mT).sqrt()[0]
    for size in (1.0, 5.5, 8.0, 30.0, 300.0):
        law = LinearConstraint(row, row @ prior.mean + size * deviation)
        expected, whole = evidence(prior, law), law if bounds is None else law & bounds
        with nullcontext() if size < 5 else pytest.warns(UserWarning, match="No field that the flow knows") as caught:
            drawn = flow.draw(8, law=whole, sampler=twisted, options=QUICK).particles
            particles = flow.evidence(whole, options=QUICK)
        assert drawn is not None
        assert drawn.in_range == particles.in_range == (size < 5)
        assert caught is None or len(caught) == 2, "one warning for the draws and one for the evidence"
        for found in (drawn, particles):
            assert found.log_evidence == pytest.approx(float(expected.log_evidence), rel=1e-3, abs=0.05)
            assert 2 * found.surprise == pytest.approx(float(expected.chi_square), rel=1e-3, abs=0.05)


def test_where_few_ancestors_are_left_the_discrepancy_is_all_that_is_said() -> None:
    flow, row = gaussian_flow(), torch.full((1, N), 1 / N, dtype=torch.float64)
    law = LinearConstraint(row, row @ latent().mean + 8.0)
    with pytest.warns(UserWarning, match="No field that the flow knows"):  # another warning would raise
        drawn = flow.draw(2, law=law, options=SamplingOptions(steps=4, particles=4))
    assert drawn.sampler == "conditioned"


def test_values_that_only_what_the_modes_leave_out_contradicts_are_out_of_range() -> None:
    """Two modes see nothing of a field between them."""
    x = torch.linspace(0, 1, N, dtype=torch.float64)
    few = torch.cos(2 * x) * normal(200, 1) + torch.sin(3 * x) * normal(200, 1, seed=1) + 1e-6 * normal(200, N)
    coordinates = KarhunenLoeve.of(few, 2)
    flow = of_gaussian(coordinates)
    other = normal(N, seed=5)
    other -= torch.linalg.lstsq(coordinates.basis.mT, other[:, None]).solution[:, 0] @ coordinates.basis
    law = LinearConstraint(torch.eye(N, dtype=torch.float64), coordinates.mean + 0.1 * other)
    with pytest.warns(UserWarning, match="No field that the flow knows"):
        found = flow.evidence(law, options=QUICK)
    assert found.probability > 0.01
    assert not found.in_range


@pytest.mark.parametrize("value", [1e6, 1e8, 1e12])
def test_values_beyond_all_digits_are_named_too(value: float) -> None:
    law = LinearConstraint(torch.full((1, N), 1 / N, dtype=torch.float64), torch.tensor([value], dtype=torch.float64))
    assert discrepancy(latent(), law) == pytest.approx(value**2 * N, rel=0.1)
