"""Particles under a law: weights of modes, truncated Gaussians, evidence, steps of second order."""

import math
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from probconserv import Bounded, FlowMatching, LinearConstraint, NonNegative, condition
from probconserv._linalg.gaussian import FieldGaussian
from probconserv.law_evidence import evidence
from probconserv.surrogates.flow import (
    KarhunenLoeve,
    ResidualVelocity,
    SamplingOptions,
    conditioned,
    twisted,
    unconstrained,
)
from probconserv.surrogates.flow.matching import _generator
from probconserv.surrogates.flow.particles import Particles
from probconserv.training import TrainingConfig
from tests.probconserv.surrogates.exact_flows import (
    SEEN,
    TWENTY,
    UNIT,
    Mixed,
    coordinates,
    of_gaussian,
    smooth,
    two_bumps,
)


def prior_of(flow: FlowMatching) -> FieldGaussian:
    assert isinstance(flow.latent, KarhunenLoeve)
    return FieldGaussian(flow.latent.mean, flow.covariance())


def particles_of(flow: FlowMatching, law: Any, **options: Any) -> Particles:
    found = flow.draw(8, law=law, sampler=twisted, options=SamplingOptions(**options)).particles
    assert found is not None
    return found


# Weights of modes


@pytest.mark.parametrize(("seen", "noise"), [(0.6, 0.0), (0.9, 0.01), (-0.1, 0.01)])
def test_two_modes_have_the_weights_of_bayes_theorem(seen: float, noise: float) -> None:
    """Two bumps in two coefficients; ``conditioned`` leaves each draw in the mode where it began."""
    data = two_bumps()
    flow = FlowMatching(coordinates(2), data)
    law = LinearConstraint(torch.tensor([[1.0, 1.0]]), torch.tensor([seen]), noise_variance=noise)
    truth, log_evidence = data.given(law, 2e-8)
    for sampler, most in ((twisted, 0.03), (conditioned, math.inf)):
        missed = (data.shares(flow.sample(4096, law=law, sampler=sampler)) - truth.weights).abs().max()
        assert float(missed) <= most
    assert float(missed) > 0.1
    drawn = flow.draw(4096, law=law)
    assert torch.allclose(drawn.fields.mean(dim=0), truth.moments()[0], rtol=0, atol=0.06)
    assert drawn.particles is not None
    assert drawn.particles.log_evidence == pytest.approx(log_evidence, abs=0.2)


def eight_kinds() -> tuple[Mixed, Tensor]:
    """Eight Gaussians in twenty coefficients, and the deviations of these, from 1 to 0.1."""
    generator = torch.Generator().manual_seed(11)
    deviations = torch.logspace(0, -1, 20, dtype=torch.float64)
    weights = (0.7 * torch.randn(8, generator=generator, dtype=torch.float64)).softmax(dim=0)
    means = torch.randn(8, 20, generator=generator, dtype=torch.float64)
    means = means - weights @ means
    root = torch.randn(8, 20, 20, generator=generator, dtype=torch.float64) / 20**0.5
    size = 0.15 + 0.5 * torch.rand(8, 1, 1, generator=generator, dtype=torch.float64)
    covariances = size * (0.8 * root @ root.mT + 0.2 * TWENTY)
    scale = deviations / Mixed(weights, means, covariances).moments()[1].diagonal().sqrt()
    return Mixed(weights, means * scale, covariances * scale[:, None] * scale), deviations


def laws_of_kinds(data: Mixed, deviations: Tensor) -> list[LinearConstraint]:
    """One, three and ten rows, exact and with noise, of draws; and values of one and of three rows in the tails."""
    generator, laws = torch.Generator().manual_seed(5), list[LinearConstraint]()
    for count in (1, 3, 10):
        drawn = data.draws(400, torch.Generator().manual_seed(100 + count))
        for number, noise in ((3, 1e-6), (4, 0.09)):
            rows = torch.randn(count, 20, generator=generator, dtype=torch.float64) / 20**0.5 / deviations
            laws.append(LinearConstraint(rows, rows @ drawn[number], noise_variance=noise))
    many = data.draws(20_000, torch.Generator().manual_seed(9))
    one, three = (many @ law.rows.mT for law in (laws[0], laws[2]))
    tails = one[:, 0].quantile(0.995)[None], three[three.square().sum(dim=-1).argsort()[-100]]
    return [*laws, *(LinearConstraint(laws[2 * k].rows, value, noise_variance=1e-6) for k, value in enumerate(tails))]


def errors_under_laws(data: Mixed, flow: FlowMatching, deviations: Tensor) -> Tensor:
    """Total variation of the kinds, error of the mean in deviations and of the covariance, mean over the laws."""
    errors = []
    for law in laws_of_kinds(data, deviations):
        given, _ = data.given(law, 0.0)
        z = flow.sample(1024, law=law, sampler=twisted, options=SamplingOptions(particles=2048))
        mean, covariance = given.moments()
        scale = deviations[:, None] * deviations
        missed = (z.mT.cov() - covariance) / scale
        variation = 0.5 * (data.shares(z) - given.weights).abs().sum()
        of_mean = ((z.mean(dim=0) - mean) / deviations).square().mean().sqrt()
        errors.append(torch.stack([variation, of_mean, missed.norm() / (covariance / scale).norm()]))
    return torch.stack(errors).mean(dim=0)


@pytest.mark.long
def test_a_mixture_in_many_coefficients_is_drawn_under_few_and_many_rows() -> None:
    data, deviations = eight_kinds()
    latent = coordinates(20, deviations)
    errors = errors_under_laws(data, FlowMatching(latent, data), deviations)
    assert bool((errors <= torch.tensor([0.03, 0.07, 0.25])).all()), errors


@pytest.mark.slow
def test_a_learnt_mixture_is_drawn_as_closely(tmp_path: Path) -> None:
    """At most a second of processor time for 1,024 draws."""
    data, deviations = eight_kinds()
    torch.manual_seed(0)
    flow = FlowMatching(coordinates(20, deviations), ResidualVelocity(20, width=128, blocks=3, spread=deviations))
    config = TrainingConfig(steps=7000, peak_rate=2e-3, checkpoint_every=7000, precision="32-true")
    flow.fit(
        data.draws(8192, torch.Generator().manual_seed(77)), config=config, folder=tmp_path, batch=256, progress=False
    )
    start = time.process_time()
    errors = errors_under_laws(data, flow, deviations)
    assert (time.process_time() - start) / 8 <= 1.0
    assert bool((errors <= torch.tensor([0.03, 0.07, 0.25])).all()), errors


# Gaussians


@pytest.mark.parametrize("spread", [1.0, 0.1])
@pytest.mark.parametrize("sampler", [twisted, conditioned])
def test_moments_are_those_of_the_conditioned_gaussian_with_25_evaluations(sampler: Any, spread: float) -> None:
    flow, count = smooth(spread), 4096
    posterior = condition(prior_of(flow), SEEN)
    draws = flow.sample(count, law=SEEN, sampler=sampler, options=SamplingOptions(steps=25))
    variance = posterior.covariance_matrix
    keeps = variance.diagonal() > 1e-6
    scale = variance.diagonal()[keeps].sqrt()
    error = (draws.mean(dim=0) - posterior.mean)[keeps] / scale
    assert float(error.square().mean().sqrt()) <= 2 / count**0.5 * (2.0 if sampler is twisted else 1.0)
    correlation = (draws.mT.cov() - variance)[keeps][:, keeps] / scale[:, None] / scale
    # A covariance of n draws is off by √((1 + ρ²)/n); particles that share ancestors count for fewer.
    assert float(correlation.square().mean().sqrt()) <= 2 * (1.5 / count) ** 0.5 * (2.0 if sampler is twisted else 1.0)
    assert float(SEEN.residual(draws)[:, 0].abs().max()) <= 1e-13


@pytest.mark.parametrize("spread", [1.0, 0.01])
def test_steps_of_second_order_carry_a_gaussian_exactly(spread: float) -> None:
    flow = smooth(spread)
    assert isinstance(flow.latent, KarhunenLoeve)
    drawn = [
        flow.latent.encode(flow.sample(300, sampler=unconstrained, options=SamplingOptions(steps=5, order=order)))
        for order in (2, 1)
    ]
    start = torch.randn(300, 12, dtype=torch.float64, generator=_generator(0, 0, 0))
    assert torch.allclose(drawn[0] / flow.latent.spread, start, rtol=0, atol=1e-4)  # the velocity is in float32
    assert float((drawn[1] / flow.latent.spread - start).abs().max()) > 0.1


def test_errors_of_second_order_steps_fall_with_their_square() -> None:
    """On a mixture, against many steps."""
    flow = FlowMatching(coordinates(2), two_bumps())

    def drawn(steps: int) -> Tensor:
        return flow.sample(200, sampler=unconstrained, options=SamplingOptions(steps=steps))

    exact = drawn(1600)
    errors = [float((drawn(steps) - exact).square().mean().sqrt()) for steps in (25, 50, 100, 200)]
    slopes = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert 1.8 <= sum(slopes) / 3 <= 2.2, errors


# Bounds


@pytest.mark.parametrize("with_mean", [False, True])
def test_draws_within_bounds_are_those_of_the_truncated_gaussian(with_mean: bool) -> None:
    flow, law = smooth(), NonNegative()
    free = prior_of(flow)
    rows = LinearConstraint(torch.full((1, 12), 1 / 12).double(), torch.tensor([0.3]), noise_variance=1e-4)
    truth = free if not with_mean else condition(free, rows)
    generator = torch.Generator().manual_seed(0)
    root = torch.linalg.cholesky(truth.covariance_matrix + 1e-10 * UNIT)
    accepted = truth.mean + torch.randn(400_000, 12, dtype=torch.float64, generator=generator) @ root.mT
    accepted = accepted[(accepted >= 0).all(dim=-1)]
    drawn = flow.draw(4096, law=(rows & law) if with_mean else law)
    assert drawn.sampler == "twisted"
    u = drawn.fields
    assert float(u.min()) >= 0.0
    assert float((u.mean(dim=0) - accepted.mean(dim=0)).square().mean().sqrt()) <= 0.04
    assert float((u.mean() - accepted.mean()).abs()) <= 0.03
    assert float((u.std(dim=0) - accepted.std(dim=0)).square().mean().sqrt()) <= 0.04
    assert float((u < 1e-3).double().mean()) <= float((accepted < 1e-3).double().mean()) + 1e-3
    moved = flow.sample(500, law=(rows & law) if with_mean else law, sampler=conditioned)
    assert float((moved < 1e-3).double().mean()) > 0.3, "conditioned moves what is outside onto the bound"
    expected = math.log(len(accepted) / 400_000) + (float(evidence(free, rows).log_evidence) if with_mean else 0.0)
    assert drawn.particles is not None
    assert drawn.particles.log_evidence == pytest.approx(expected, abs=0.35)


def test_bounds_that_no_particle_meets_are_met_by_a_move_and_named() -> None:
    law = Bounded(3.0, 3.2)
    with pytest.warns(UserWarning, match="None of 64 particles lies within the bounds"):
        u = smooth().sample(5, law=law, options=SamplingOptions(particles=64, steps=5))
    torch.testing.assert_close(u, u.clamp(3.0, 3.2), rtol=0, atol=0)


# Evidence and what else particles say


@pytest.mark.parametrize("spread", [1.0, 0.1])
def test_the_evidence_of_a_gaussian_flow_is_that_of_its_gaussian(spread: float) -> None:
    flow = smooth(spread)
    for law in (SEEN, LinearConstraint(UNIT[:1], torch.tensor([4.0]), noise_variance=0.01)):
        expected = float(evidence(prior_of(flow), law).log_evidence)
        found = particles_of(flow, law)
        assert found.log_evidence == pytest.approx(expected, abs=0.02)
        assert found.gaussian_log_evidence == pytest.approx(expected, abs=1e-9)
        assert found.effective_size == pytest.approx(1024, rel=0.01), "nothing to weigh in a Gaussian"
        assert found.log_weights.shape == (1024,)
        assert float(found.log_weights.logsumexp(dim=0)) == pytest.approx(0.0, abs=1e-12)


def test_a_law_that_no_field_of_the_flow_meets_is_named() -> None:
    """A Gaussian has χ² of its own: the surprise is half of it."""
    flow = smooth()
    usual, far = (LinearConstraint(UNIT[:1], torch.tensor([value]), noise_variance=0.01) for value in (1.0, 6.0))
    assert flow.evidence(usual).in_range
    found, expected = flow.evidence(far), evidence(prior_of(flow), far)
    assert not found.in_range
    assert 2 * found.surprise == pytest.approx(float(expected.chi_square), rel=0.01)
    assert found.probability == pytest.approx(float(expected.probability), rel=0.1)
    assert not flow.evidence(Bounded(3.0, 3.2)).in_range
    with pytest.warns(UserWarning, match="outside of what the flow knows: its log evidence is 16") as caught:
        flow.sample(2, law=far)
    assert caught[0].filename == __file__


def test_draws_of_few_ancestors_are_named() -> None:
    law = LinearConstraint(UNIT[:2, :2], torch.tensor([-0.6, 0.4]), noise_variance=1e-4)
    flow = FlowMatching(coordinates(2), two_bumps())
    with pytest.warns(UserWarning, match="All draws descend from [1-4] of 4 particles"):
        flow.sample(2, law=law, sampler=twisted, options=SamplingOptions(particles=4))


def test_there_are_as_many_particles_as_draws() -> None:
    drawn = smooth().draw(100, law=SEEN, options=SamplingOptions(particles=10, steps=5))
    assert drawn.particles is not None
    assert drawn.particles.log_weights.shape == (100,)
    assert len(drawn.fields.unique(dim=0)) == 100


def test_a_tolerance_is_a_deviation_of_the_fields() -> None:
    flow, law = of_gaussian(coordinates(3)), LinearConstraint(UNIT[:1, :3], torch.tensor([0.5]), noise_variance=1e-6)
    u = flow.sample(4000, law=law, sampler=twisted, options=SamplingOptions(tolerance=0.5, steps=10))
    assert float(u[:, 0].std()) == pytest.approx((0.25 / 1.25) ** 0.5, rel=0.1)


def test_the_evidence_of_a_mixture_is_extrapolated_to_small_steps() -> None:
    """Of 16 seeds the mean is within four standard errors; that of the particles of draws is .24 too large."""
    mixture = two_bumps()
    flow = FlowMatching(coordinates(2), mixture)
    law = LinearConstraint(torch.tensor([[1.0, 0.0]]), torch.tensor([0.35]), noise_variance=0.02)
    found = torch.tensor([flow.evidence(law, seed=seed).log_evidence for seed in range(16)], dtype=torch.float64)
    standard_error = float(found.std()) / 4
    assert standard_error < 0.05  # the error of first order would show
    assert abs(float(found.mean()) - mixture.given(law, 1e-8)[1]) <= 4 * standard_error


def test_evidence_without_a_second_population_stays() -> None:
    """One step cannot be halved, and without particles within the bounds there is nothing to extrapolate."""
    flow, options = smooth(), SamplingOptions(steps=1)
    particles = flow.draw(2, law=SEEN, sampler=twisted, options=options).particles
    assert particles is not None
    assert flow.evidence(SEEN, options=options).log_evidence == particles.log_evidence
    none = replace(particles, log_evidence=-math.inf)
    assert none.extrapolated(particles, 2.0) is none
    assert particles.extrapolated(none, 2.0) is particles
