"""Predictions averaged over whether, and how far, their profile is displaced, by the evidence of a conservation law."""

import math

import torch
from gpytorch.distributions import MultivariateNormal
from jaxtyping import Float
from linear_operator.operators import DiagLinearOperator
from torch import Tensor

from probconserv import LinearConstraint, Mixture, condition
from probconserv.calibration.displacement import neighbours_of, shifted, spacing_of

FARTHEST = 3.0  # largest shift, in standard deviations
SCALES = 9  # values of τ
RISE = 0.5  # least difference of a profile's ends, as a part of its range
NEGLIGIBLE = 1e-8  # weight below which a shift is left out of the mixture


def displaced_by_law(
    prediction: Mixture,
    law: LinearConstraint,
    points: Float[Tensor, " n"],
    *,
    deviation: float | None = None,
    prior_weight: float = 0.1,
    shape_error: float = 0.05,
) -> Mixture:
    """The prediction averaged over whether, and how far, its profile is displaced, and conditioned on the exact law.

    Two hypotheses are weighed by the evidence of the law, which is used once:

        H₀  u = ũ:                           p(b) = Σ_c π_c N(b; G μ_c, G Σ_c Gᵀ + σ²)
        H₁  u(x) = ũ(x − δ), δ ~ N(0, s₀²):  p(b | δ) = mean over τ of N(b; G μ_δ, G Σ Gᵀ + σ² + τ²)

    σ² is the law's variance, that of its quadrature error. τ admits that not all of the residual is displacement; it is
    log-uniform, before b is seen, from σ to a fraction of the standard deviation of G μ_δ over the prior of δ. Under H₁
    the prediction enters by its mean and variance. After that the exact law is imposed on every component and the
    weights are kept. Where the law is met about as well as the prediction claims, H₁ ends with a weight of about 0.01.

    H₁ has no weight where the total says nothing about a displacement. Moving a profile by δ changes its total by about
    δ times the difference of its ends. So this difference has to be half of the profile's range at least, as at a front
    and unlike in a bump or a wave, and the standard deviation of G μ_δ has to be that of G u under H₀ at least.

    Args:
        prediction: Mixture of Gaussians of independent values, before any law.
        law: One row; σ² > 0. The variance should be the mean square of the quadrature error over training functions.
        points: Equally spaced, increasing positions.
        deviation: s₀, a tenth of the distance between the ends by default.
        prior_weight: Probability of H₁ before b is seen, in (0, 1).
        shape_error: The fraction that bounds τ.

    Returns:
        A mixture, whose components meet G u = b, with weights ``(components, *batch)``, float64.
    """
    means, variances = prediction.components.mean.double(), prediction.components.variance.double()
    spacing = spacing_of(points, means.shape[-1])
    deviation = (len(points) - 1) * spacing / 10 if deviation is None else deviation
    weights = prediction.field_weights.double().expand(means.shape[:-1])
    residual = law.residual(means)[..., 0]
    scale = (law.rows[..., 0, :].square() * variances).sum(dim=-1) + law.noise[..., 0]
    unmoved = weights.log() - 0.5 * (residual.square() / scale + (2 * math.pi * scale).log())  # π_c N(b; G μ_c, S_c)
    average = (weights * residual).sum(dim=0)
    of_total = (weights * (scale + (residual - average).square())).sum(dim=0)

    count = math.ceil(2 * FARTHEST * deviation / spacing)
    shift = 0.5 * spacing * torch.arange(-count, count + 1).to(means)
    profile = (weights[..., None] * means).sum(dim=0)
    variance = (weights[..., None] * (variances + (means - profile).square())).sum(dim=0)
    displaced = shifted(profile, shift / spacing).movedim(-2, 0)
    moved_variance = _shifted_variance(profile, variance, shift / spacing).movedim(-2, 0)
    log_weights = _evidence(profile, displaced, law, of_total, shift / deviation, shape_error)

    joint = torch.cat((unmoved + math.log1p(-prior_weight), log_weights + math.log(prior_weight)))
    posterior = torch.softmax(joint, dim=0)
    counted = posterior.reshape(len(posterior), -1).amax(dim=1) > NEGLIGIBLE
    counted[: len(unmoved)] = True
    covariance = DiagLinearOperator(torch.cat((variances, moved_variance))[counted])
    components = MultivariateNormal(torch.cat((means, displaced))[counted], covariance)
    exact = LinearConstraint(law.G, law.b)
    return condition(Mixture(components, posterior[counted]), exact, keep_weights=True)


def _evidence(
    profile: Tensor,
    displaced: Tensor,
    law: LinearConstraint,
    variance: Tensor,
    standardised: Tensor,
    shape_error: float,
) -> Tensor:
    """Log-weights of H₁ ``(shifts, *batch)``, given the variance of G u ``(*batch,)`` and shifts in units of s₀."""
    residual = law.residual(displaced)[..., 0]
    log_prior = torch.log_softmax(-0.5 * standardised.square(), dim=0)
    log_prior = log_prior.reshape(-1, *[1] * (residual.ndim - 1))
    average = (log_prior.exp() * residual).sum(dim=0)
    spread = (log_prior.exp() * (residual - average).square()).sum(dim=0).sqrt()
    smallest = law.noise[..., 0].sqrt()
    largest = torch.maximum(shape_error * spread, smallest)
    evidences = []
    for part in torch.linspace(0.0, 1.0, SCALES).tolist():
        scale = variance + (smallest.log() * (1 - part) + largest.log() * part).mul(2).exp()
        evidences.append(-0.5 * (residual.square() / scale + (2 * math.pi * scale).log()))
    rise, span = (profile[..., -1] - profile[..., 0]).abs(), profile.amax(dim=-1) - profile.amin(dim=-1)
    tells = (rise >= RISE * span) & (spread >= variance.sqrt())
    log_weights = log_prior + torch.logsumexp(torch.stack(evidences), dim=0) - math.log(SCALES)
    return log_weights.where(tells, -math.inf)


def _shifted_variance(mean: Tensor, variance: Tensor, cells: Tensor) -> Tensor:
    """E u² − (E u)² of a displaced prediction, with E u and E u² ``shifted``; by differences, without cancellation."""
    left, weight = neighbours_of(mean, cells)
    return shifted(variance, cells) + weight * (1 - weight) * (mean[..., left + 1] - mean[..., left]).square()
