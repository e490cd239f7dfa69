"""A prediction that doubts its position as far as a conservation law says."""

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
from gpytorch.distributions import MultivariateNormal
from jaxtyping import Float
from linear_operator.operators import DiagLinearOperator, PsdSumLinearOperator
from torch import Tensor
from torch.distributions import Normal

from probconserv._linalg.gaussian import FieldGaussian, variance_of
from probconserv._linalg.values import as_tensor
from probconserv.constraints import LinearConstraint
from probconserv.errors import InvalidArgumentError
from probconserv.law_evidence import evidence, of_gaussian
from probconserv.mixture import Mixture
from probconserv.posterior import Posterior
from probconserv.prior import Prior, as_prior
from probconserv.update import check_axes_of_law, check_mixture_batch, condition

SCALES: Mapping[float, float] = MappingProxyType(dict.fromkeys((0.0025, 0.005, 0.01, 0.02, 0.03), 0.002))
"""Prior probability of each standard deviation of the position, in lengths of the domain; the rest is on 0."""
_COUNTED = 5.0  # largest shift, in standard deviations
_RISE = 0.5  # least difference of the ends of a field whose total tells its position, as a part of its range


class Doubted(Mixture):
    """The mixture that ``doubt`` returns: a ``Mixture`` whose components meet the law.

    Args:
        components: See ``Mixture``.
        weights: See ``Mixture``.
        displaced_weight: Probability that the profile is displaced, given the law ``(*batch,)``: near 0 where the law
            is missed by no more than usual, near 1 where the prediction deserves no trust in its position.
    """

    def __init__(
        self, components: MultivariateNormal, weights: Float[Tensor, " components *batch"], displaced_weight: Tensor
    ) -> None:
        super().__init__(components, weights)
        self.displaced_weight = displaced_weight


def doubt(
    prediction: Prior,
    law: LinearConstraint,
    points: Float[Tensor, "*batch n"],
    *,
    usual_misfit: float = 1.0,
    scales: Mapping[float, float] = SCALES,
    broad: float = 0.0,
) -> Doubted:
    """The prediction under a law, and under the doubt that its profile is where it says.

        u_i = μ(x_i − δ_i) + e_i,   e ~ N(0, Σ),   δ_i ~ N(0, s²) independent
        weight of s  ∝  π_s N(b; G μ_s, c (G Σ_s Gᵀ + σ²))

    For every scale s the prediction gets the mean μ_s = E μ(x − δ) and the covariance Σ_s = Σ + diag Var μ(x − δ), so
    that it is less sure where its profile is steep. The scales, 0 among them, are weighed by how well they foresee the
    right-hand side of the law; the exact law is then imposed on each. σ² is the variance of the law and of its rule
    (``rule_variance``), without which a nearly exact prediction would seem displaced. Values without variance are
    certain and stay.

    A total tells the position of a front, not that of a bump or a wave, which has the same total wherever it is: a
    field whose ends differ by less than half of its range is conditioned without doubt.

    Args:
        prediction: A Gaussian ``(*batch, n)`` with any covariance, or a mixture of Gaussians, whose weights under one
            scale stay as they are; before any law.
        law: Its rows, such as ``integral(points, total)``; as for ``condition``.
        points: Increasing positions along the one axis of the field.
        usual_misfit: c ≥ 1, by how much the prediction usually misses the law, from ``law_misfit``. With 1 a prediction
            that ignores how its errors are correlated doubts its position where it need not.
        scales: π_s by s > 0 in lengths of the domain; 0 has the rest.
        broad: Weight of one more component, as wide as the field varies over its points, in [0, 1). It bounds the loss
            of a density (``log_prob``) where the truth is far off, and makes the standard deviation useless for bands.

    Returns:
        A mixture whose components and draws meet the law; ``displaced_weight`` says how much it doubts.

    Raises:
        InvalidArgumentError: If the prediction meets a law already or is no Gaussian, points do not increase or do not
            fit, or a number is out of its range.
        IncompatibleQueryError, DependentConstraintsError: As ``condition`` does.
    """
    if not 1 <= usual_misfit < math.inf or not 0 <= broad < 1:
        raise InvalidArgumentError(
            f"usual_misfit must be a finite number from 1 on and broad lie in [0, 1), got {usual_misfit} and {broad}."
        )
    unmoved = 1 - math.fsum(scales.values())
    if not (unmoved > 0 and all(0 < s < math.inf and weight > 0 for s, weight in scales.items())):
        raise InvalidArgumentError(
            f"scales must map standard deviations above 0 to probabilities above 0 with a sum below 1, got {scales}."
        )
    parts, weights = _parts(prediction, law)
    mean = (weights[..., None] * parts.mean).sum(dim=0)
    components = _displaced(parts, _positions(points, mean.shape[-1]), tuple(scales), bool(broad))
    prior = mean.new_tensor([unmoved, *scales.values(), *[0.0] * bool(broad)])
    of_scale = _weights_of_scales(components, weights, law, prior, usual_misfit)
    first, last = torch.eye(len(prior)).to(of_scale)[[0, -1]].reshape(2, -1, *[1] * (of_scale.ndim - 1))
    of_scale = torch.where(_tells_its_position(mean), of_scale, first)
    joint = ((1 - broad) * of_scale + broad * last)[:, None] * weights
    conditioned = condition(Mixture(components, joint.flatten(0, 1)), law, keep_weights=True)
    return Doubted(conditioned.components, conditioned.weights, 1 - of_scale[0])


def law_misfit(predictions: Prior, law: LinearConstraint) -> float:
    """The usual misfit c of ``doubt``: the mean of χ²/k over validation functions, at least 1.

    A law's misfit is surprising only against the usual one. Of a calibrated prediction the mean is 1; one of
    independent values, whose errors are correlated, usually misses its total by more.

    Args:
        predictions: Of functions inside the training range that the model was not trained on, before any law.
        law: Their law with k rows, one right-hand side per function; the variance of its rule counts as in ``doubt``.
    """
    found = evidence(predictions, _softened(law))
    return max(1.0, float(found.chi_square.detach().mean()) / found.degrees_of_freedom)


def _softened(law: LinearConstraint) -> LinearConstraint:
    return law if law.rule_variance is None else law.softened()


def _parts(prediction: Prior, law: LinearConstraint) -> tuple[MultivariateNormal, Tensor]:
    """The Gaussians ``(components, *batch, n)`` of a prediction and their weights ``(components, *batch)``."""
    given = as_prior(prediction)
    parts = given.components if isinstance(given, Mixture) else given
    if isinstance(parts, Normal):
        parts = as_prior(parts)
    if not isinstance(parts, MultivariateNormal) or isinstance(parts, Posterior):
        raise InvalidArgumentError(
            f"doubt takes a Gaussian or a mixture of Gaussians before any law, got {type(parts).__name__}; give the "
            "prediction, and all linear laws joined by &."
        )
    if not isinstance(law, LinearConstraint):
        raise InvalidArgumentError(f"doubt takes a LinearConstraint, got {type(law).__name__}; impose others after it.")
    check_axes_of_law(given, law)
    if isinstance(given, Mixture):
        check_mixture_batch(given, law)
        return parts, given.field_weights.to(torch.float64).expand(parts.mean.shape[:-1])
    batch = torch.broadcast_shapes(parts.batch_shape, law.batch_shape)
    mean, n = parts.mean, parts.mean.shape[-1]
    covariance = parts.lazy_covariance_matrix.expand(1, *batch, n, n)
    return FieldGaussian(mean.expand(1, *batch, n), covariance), mean.new_ones(1, *batch, dtype=torch.float64)


def _positions(points: Tensor, n: int) -> Tensor:
    """Positions ``(*batch, n)`` from 0 to 1."""
    points = as_tensor(points)
    if points.ndim == 0 or points.shape[-1] != n or n < 2 or not bool((points.diff(dim=-1) > 0).all()):
        raise InvalidArgumentError(
            f"points must be {n} increasing positions along the axis of the field, at least 2, got shape "
            f"{tuple(points.shape)}; fields of several axes are not displaced."
        )
    return (points - points[..., :1]) / (points[..., -1:] - points[..., :1])


def _displaced(parts: MultivariateNormal, positions: Tensor, scales: tuple[float, ...], broad: bool) -> FieldGaussian:
    """The prediction as it is, under each scale and, if wanted, a broad one ``(scales · components, *batch, n)``."""
    mean, uncertain = parts.mean.to(torch.float64), variance_of(parts) > 0
    moments = [(mean, torch.zeros_like(mean)), *(_moments(mean, positions, scale) for scale in scales)]
    if broad:
        moments.append((mean, mean.var(dim=-1, correction=0, keepdim=True).expand(mean.shape)))
    means, added = (torch.stack(part) for part in zip(*moments, strict=True))
    centre = torch.where(uncertain, means, mean).flatten(0, 1).to(parts.mean.dtype)
    added = added.where(uncertain, 0.0)
    covariance = parts.lazy_covariance_matrix.to(torch.float64)
    if isinstance(covariance, DiagLinearOperator):
        return FieldGaussian(centre, DiagLinearOperator((added + covariance.diagonal()).flatten(0, 1)))
    repeated = covariance.repeat(len(added), *[1] * (covariance.ndim - 1))
    return FieldGaussian(centre, PsdSumLinearOperator(repeated, DiagLinearOperator(added.flatten(0, 1))))


def _moments(mean: Tensor, positions: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Mean and variance over δ ~ N(0, s²) of a profile μ(x − δ) ``(*batch, n)``, linear between points.

    A sum over equally spaced shifts up to 5 s, at most as far apart as points are on average.
    """
    half = max(50, math.ceil(_COUNTED * scale * (mean.shape[-1] - 1)))
    standard = torch.linspace(-_COUNTED, _COUNTED, 2 * half + 1, dtype=torch.float64, device=mean.device)
    probability = torch.softmax(-standard.square() / 2, dim=0)[:, None]
    at = (positions[..., None, :] - scale * standard[:, None]).clamp(0.0, 1.0)
    moved = _interpolated(mean, positions, at)
    centre = (probability * moved).sum(dim=-2)
    return centre, (probability * (moved - centre[..., None, :]).square()).sum(dim=-2)


def _interpolated(values: Tensor, positions: Tensor, at: Tensor) -> Tensor:
    """Values ``(*batch, shifts, n)`` of piecewise linear profiles ``(*batch, n)`` at places ``(*batch, shifts, n)``."""
    flat = at.flatten(-2)
    left = (torch.searchsorted(positions.contiguous(), flat, right=True) - 1).clamp(0, positions.shape[-1] - 2)
    start, end = positions.gather(-1, left), positions.gather(-1, left + 1)
    weight, left = (flat - start) / (end - start), left.expand(*values.shape[:-1], -1)
    moved = values.gather(-1, left) * (1 - weight) + values.gather(-1, left + 1) * weight
    return moved.unflatten(-1, at.shape[-2:])


def _weights_of_scales(
    components: FieldGaussian, weights: Tensor, law: LinearConstraint, prior: Tensor, usual_misfit: float
) -> Tensor:
    """Probability of every scale ``(scales, *batch)`` given the law, and ones before it ``(scales,)``."""
    _, _, log_evidence, chi_square, _ = of_gaussian(components, _softened(law))
    log_evidence = log_evidence + 0.5 * (1 - 1 / usual_misfit) * chi_square  # with c S for S, up to a constant
    of_component = log_evidence.unflatten(0, (len(prior), len(weights))) + weights.log()
    log_prior = prior.log().reshape(-1, *[1] * (weights.ndim - 1))
    return torch.softmax(torch.logsumexp(of_component, dim=1) + log_prior, dim=0)


def _tells_its_position(mean: Tensor) -> Tensor:
    """True where the ends of a field ``(*batch, n)`` differ by half of its range or more."""
    return (mean[..., -1] - mean[..., 0]).abs() >= _RISE * (mean.amax(dim=-1) - mean.amin(dim=-1))
