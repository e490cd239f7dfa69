"""Predictions whose position along x is uncertain: by a stated deviation, or as far as a conservation law says so."""

import math
from typing import NamedTuple

import torch
from gpytorch.distributions import MultivariateNormal
from jaxtyping import Float
from linear_operator.operators import DenseLinearOperator, DiagLinearOperator, LinearOperator
from torch import Tensor

from probconserv._linalg.covariance import as_double
from probconserv._linalg.gaussian import FieldGaussian, variance_of
from probconserv._linalg.values import floating
from probconserv.constraints import LinearConstraint
from probconserv.errors import IncompatibleQueryError, InvalidArgumentError
from probconserv.law_evidence import of_gaussian
from probconserv.mixture import Mixture, moments_of
from probconserv.posterior import Posterior
from probconserv.prediction import Prediction
from probconserv.prior import Gaussian, as_multivariate_normal
from probconserv.update import check_mixture_batch, condition

_COUNTED = 5.0  # largest shift of ``displaced``, in standardised deviations
_FARTHEST = 3.0  # largest shift of ``displaced_by_law``, in standard deviations
_SCALES = 9  # values of τ
_RISE = 0.5  # least difference of a profile's ends, as a part of its range
_NEGLIGIBLE = 1e-8  # weight below which a shift is left out of the mixture


def displaced(
    prediction: Prediction, points: Float[Tensor, " n"], deviation: float, shifts: int = 101
) -> MultivariateNormal:
    """The prediction with a random displacement along x: u(x) = ũ(x − δ), δ ~ N(0, s²), by its moments.

        mean      E_δ μ(x − δ)
        variance  E_δ [v(x − δ) + μ(x − δ)²] − mean²

    Where the field is flat nothing changes; at a front the variance accounts for the uncertain position of the front.
    The expectation is a sum over equally spaced shifts up to 5 s, weighted by their density; the prediction is
    interpolated linearly between points and extended by a constant beyond the ends.

    Args:
        prediction: Any prediction ``(*batch, n)``; its mean and variance are used.
        points: Equally spaced, increasing positions.
        deviation: Standard deviation s of the displacement, in the units of the points.
        shifts: Number of shifts.
    """
    mean, variance = prediction.mean, variance_of(prediction)
    spacing = spacing_of(points, mean.shape[-1])
    if not 0 <= deviation < math.inf or shifts < 3:
        raise InvalidArgumentError(
            f"deviation must be finite and not negative and shifts at least 3, got {deviation} and {shifts}."
        )
    standardised = torch.linspace(-_COUNTED, _COUNTED, shifts, dtype=mean.dtype, device=mean.device)
    probability = torch.softmax(-standardised.square() / 2, dim=0)[:, None]
    shift = deviation * standardised
    means = shifted(mean, shift / spacing)
    centre = (probability * means).sum(dim=-2)
    spread = (probability * (shifted(variance, shift / spacing) + (means - centre[..., None, :]).square())).sum(dim=-2)
    return FieldGaussian(centre, DiagLinearOperator(spread))


class _Displaced(NamedTuple):
    """The prediction by its moments at every shift ``(shifts, *batch, n)``; log-weights with the law's evidence."""

    mean: Tensor
    variance: Tensor
    log_weights: Tensor


def displaced_by_law(
    prediction: Gaussian | Mixture,
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
        prediction: A Gaussian ``(*batch, n)`` or a mixture of Gaussians, before any law.
        law: One row; σ² > 0. The variance should be the mean square of the quadrature error over training functions.
        points: Equally spaced, increasing positions.
        deviation: s₀, a tenth of the distance between the ends by default.
        prior_weight: Probability of H₁ before b is seen, in (0, 1).
        shape_error: The fraction that bounds τ.

    Returns:
        A mixture, whose components meet G u = b, with weights ``(components, *batch)``, float64.
    """
    components, weights = _components(prediction, law)
    spacing = spacing_of(points, components.mean.shape[-1])
    deviation = (points.shape[0] - 1) * spacing / 10 if deviation is None else deviation
    _check(law, deviation, prior_weight, shape_error)
    prior = Mixture(components, weights)
    residual, variance, evidence, *_ = of_gaussian(components, law)
    unmoved = weights.log() + evidence  # π_c N(b; G μ_c, S_c)
    variance = moments_of(weights, residual[..., 0], variance[..., 0])[1]
    count = math.ceil(2 * _FARTHEST * deviation / spacing)
    shift = 0.5 * spacing * torch.arange(-count, count + 1).to(components.mean)
    moved = _hypothesis(prior, law, variance, shift, (spacing, deviation, shape_error))
    joint = torch.cat((unmoved + math.log1p(-prior_weight), moved.log_weights + math.log(prior_weight)))
    posterior = torch.softmax(joint, dim=0)
    counted = posterior.reshape(len(posterior), -1).amax(dim=1) > _NEGLIGIBLE
    counted[: len(unmoved)] = True
    mean = torch.cat((components.mean, moved.mean))[counted]
    covariance = _joined(components.lazy_covariance_matrix, moved.variance[counted[len(unmoved) :]])
    averaged = Mixture(FieldGaussian(mean, covariance), posterior[counted])
    return condition(averaged, LinearConstraint(law.G, law.b), keep_weights=True)


def _components(prediction: Gaussian | Mixture, law: LinearConstraint) -> tuple[MultivariateNormal, Tensor]:
    """Components ``(c, *batch, n)`` and weights ``(c, *batch)`` in float64; a Gaussian is its only component."""
    if isinstance(prediction, Mixture):
        check_mixture_batch(prediction, law)
        components, weights = prediction.components, prediction.weights
    else:
        components, weights = prediction, None
    if not isinstance(components, Gaussian) or isinstance(components, Posterior):
        raise InvalidArgumentError(
            "displaced_by_law takes a Gaussian or a mixture of Gaussians that meets no law yet, got "
            f"{type(prediction).__name__} of {type(components).__name__}; give it the black box's prediction."
        )
    components = as_multivariate_normal(components)
    mean, covariance = components.mean.double(), as_double(components.lazy_covariance_matrix)
    if weights is None:
        if torch.broadcast_shapes(mean.shape[:-1], law.batch_shape) != mean.shape[:-1]:
            raise IncompatibleQueryError(
                f"The prediction has the batch axes {tuple(mean.shape[:-1])} but the law {tuple(law.batch_shape)}; "
                "give one total per function."
            )
        mean, covariance, weights = mean[None], covariance.unsqueeze(0), mean.new_ones(1)
    weights = weights.double()
    weights = weights.reshape(-1, *[1] * (mean.ndim - 2)) if weights.ndim == 1 else weights
    return FieldGaussian(mean, covariance), weights.expand(mean.shape[:-1])


def _hypothesis(
    prediction: Mixture, law: LinearConstraint, variance: Tensor, shift: Tensor, lengths: tuple[float, float, float]
) -> _Displaced:
    """H₁, given the variance of G u ``(*batch,)`` and (spacing, s₀, bound of τ)."""
    spacing, deviation, shape_error = lengths
    mean = shifted(prediction.mean, shift / spacing).movedim(-2, 0)
    variances = shifted_variance(prediction.mean, prediction.variance, shift / spacing).movedim(-2, 0)
    residual = law.residual(mean)[..., 0]
    log_prior = torch.log_softmax(-0.5 * (shift / deviation).square(), dim=0)
    log_prior = log_prior.reshape(-1, *[1] * (residual.ndim - 1))
    average = (log_prior.exp() * residual).sum(dim=0)
    spread = (log_prior.exp() * (residual - average).square()).sum(dim=0).sqrt()
    smallest = law.noise[..., 0].sqrt()
    largest = torch.maximum(shape_error * spread, smallest)
    evidences = []
    for part in torch.linspace(0.0, 1.0, _SCALES).tolist():
        scale = variance + (smallest.log() * (1 - part) + largest.log() * part).mul(2).exp()
        evidences.append(-0.5 * (residual.square() / scale + (2 * math.pi * scale).log()))
    log_weights = log_prior + torch.logsumexp(torch.stack(evidences), dim=0) - math.log(_SCALES)
    profile = prediction.mean
    rise, span = (profile[..., -1] - profile[..., 0]).abs(), profile.amax(dim=-1) - profile.amin(dim=-1)
    tells = (rise >= _RISE * span) & (spread >= variance.sqrt())
    return _Displaced(mean, variances, log_weights.where(tells, -math.inf))


def _joined(covariance: LinearOperator, variance: Tensor) -> LinearOperator:
    """Covariances of components followed by those of shifts, whose values are independent."""
    if isinstance(covariance, DiagLinearOperator):
        return DiagLinearOperator(torch.cat((covariance.diagonal(dim1=-1, dim2=-2), variance)))
    return DenseLinearOperator(torch.cat((covariance.to_dense(), torch.diag_embed(variance))))


def _check(law: LinearConstraint, deviation: float, prior_weight: float, shape_error: float) -> None:
    if law.b.shape[-1] != 1 or not bool((law.noise > 0).all()):
        raise InvalidArgumentError(
            f"displaced_by_law takes a law of one row with a noise_variance above 0, got {law.b.shape[-1]} rows and a "
            f"smallest variance of {float(law.noise.min()):g}; give the variance of its quadrature error."
        )
    if not (0 < deviation < math.inf and 0 < prior_weight < 1 and 0 < shape_error < math.inf):
        raise InvalidArgumentError(
            "deviation and shape_error must be positive and finite and prior_weight between 0 and 1, got "
            f"{deviation}, {shape_error} and {prior_weight}."
        )


def shifted(values: Tensor, cells: Tensor) -> Tensor:
    """Values ``(*batch, n)`` moved by numbers of cells ``(shifts,)`` towards the end: ``(*batch, shifts, n)``."""
    left, weight = _neighbours(values, cells)
    return values[..., left] * (1 - weight) + values[..., left + 1] * weight


def shifted_variance(mean: Tensor, variance: Tensor, cells: Tensor) -> Tensor:
    """E u² − (E u)² of a moved prediction, with E u and E u² ``shifted``; by differences, so that nothing cancels."""
    left, weight = _neighbours(mean, cells)
    return shifted(variance, cells) + weight * (1 - weight) * (mean[..., left + 1] - mean[..., left]).square()


def _neighbours(values: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
    """Index of the left neighbour of every moved point, and the weight of the right one, ``(shifts, n)``."""
    last = values.shape[-1] - 1
    position = torch.arange(last + 1, dtype=values.dtype, device=values.device) - cells[:, None]
    position = position.clamp(0, last)
    left = position.floor().long().clamp_max(last - 1)
    return left, position - left


def spacing_of(points: Tensor, count: int) -> float:
    """The spacing, if the points are equally spaced up to rounding in their dtype."""
    points = floating(points)
    if points.shape == (count,) and count > 1:
        spacing = float(points[-1] - points[0]) / (count - 1)
        rounding = 4 * torch.finfo(points.dtype).eps * float(points.abs().max())
        if spacing > 0 and float((points.diff() - spacing).abs().max()) <= rounding:
            return spacing
    raise InvalidArgumentError(
        f"points must be {count} increasing, equally spaced numbers, at least 2, got shape {tuple(points.shape)}."
    )
