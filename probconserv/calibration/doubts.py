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

from probconserv._linalg.gaussian import FieldGaussian, structure_of, variance_of
from probconserv._linalg.values import as_tensor
from probconserv.constraints import LinearConstraint
from probconserv.errors import InvalidArgumentError
from probconserv.law_evidence import evidence, of_gaussian
from probconserv.mixture import Mixture
from probconserv.posterior import Posterior
from probconserv.prior import Prior, as_prior
from probconserv.update import check_axes_of_law, check_mixture_batch, condition

_LADDER = tuple(0.0025 * 2**i for i in range(7))
SCALES: Mapping[float, float] = MappingProxyType(
    {s: 0.01 * s**-0.5 / math.fsum(each**-0.5 for each in _LADDER) for s in _LADDER}
)
"""Prior probability of each standard deviation of the position, from .0025 to .16 lengths of the domain: together .01,
of fourfold s half as much; the rest is on 0.
"""
_COUNTED = 5.0  # largest shift, in standard deviations
_AT_ONCE = 2**22
"""Shifted values that are held at once."""
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

        δ ~ N(0, s²),   μ_s = E μ(x − δ),   Σ_s = Σ + diag(Var μ(x − δ) + max(E v(x − δ) − v, 0)),   v = diag Σ
        weight of s  ∝  π_s N(b; G μ_s, c (G Σ Gᵀ + σ²) + Var G μ(x − δ))

    The scales, 0 among them, are weighed by how well they foresee the right-hand side of the law, if the whole profile
    is displaced by one δ. That not all of the misfit is displacement the prediction under a scale admits: it is less
    sure where its profile is steep, at every point by itself, and where it is unsure next to it. The exact law is then
    imposed on each. σ² is the variance of the law and of its rule (``rule_variance``), without which a nearly exact
    prediction would seem displaced. Values without variance are certain and stay.

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
    *_, independent = of_gaussian(parts, _softened(law))
    components, of_rows = _displaced(
        parts, _positions(points, mean.shape[-1]), tuple(scales), bool(broad), independent.rows
    )
    prior = mean.new_tensor([unmoved, *scales.values(), *[0.0] * bool(broad)], dtype=torch.float64)
    foreseen = _foreseen(components, parts, of_rows, independent, usual_misfit)
    of_scale = _weights_of_scales(foreseen, weights, prior)
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


def _displaced(
    parts: MultivariateNormal, positions: Tensor, scales: tuple[float, ...], broad: bool, rows: Tensor
) -> tuple[FieldGaussian, Tensor]:
    """The prediction as it is, under each scale and, if wanted, a broad one ``(scales · components, *batch, n)``.

    And the covariance of its functionals G u from one displacement of it all ``(scales, components, *batch, k, k)``.
    """
    mean, variance = parts.mean.to(torch.float64), variance_of(parts).to(torch.float64)
    uncertain, nothing = variance > 0, torch.zeros_like(mean)
    moments = [_moments(mean, variance, positions, scale, rows) for scale in scales]
    still = torch.zeros_like(moments[0][2]) if moments else mean.new_zeros(*mean.shape[:-1], *[rows.shape[-2]] * 2)
    moments.insert(0, (mean, nothing, still))
    if broad:
        moments.append((mean, mean.var(dim=-1, correction=0, keepdim=True).expand(mean.shape), still))
    means, added, of_rows = (torch.stack(part) for part in zip(*moments, strict=True))
    centre = torch.where(uncertain, means, mean).flatten(0, 1).to(parts.mean.dtype)
    added = added.where(uncertain, 0.0)
    covariance = parts.lazy_covariance_matrix.to(torch.float64)
    if isinstance(covariance, DiagLinearOperator):
        return FieldGaussian(centre, DiagLinearOperator((added + covariance.diagonal()).flatten(0, 1))), of_rows
    repeated = covariance.repeat(len(added), *[1] * (covariance.ndim - 1))
    return FieldGaussian(centre, PsdSumLinearOperator(repeated, DiagLinearOperator(added.flatten(0, 1)))), of_rows


def _moments(
    mean: Tensor, variance: Tensor, positions: Tensor, scale: float, rows: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, added variance ``(*batch, n)`` and covariance of G u ``(*batch, k, k)`` over displacements δ ~ N(0, s²).

    Sums over equally spaced shifts up to 5 s, at most as far apart as points are on average, of differences from the
    profile as it is, which vanish where it is flat. Profiles are linear between points.
    """
    half = max(50, math.ceil(_COUNTED * scale * (mean.shape[-1] - 1)))
    standard = torch.linspace(-_COUNTED, _COUNTED, 2 * half + 1, dtype=torch.float64, device=mean.device)
    probability = torch.softmax(-standard.square() / 2, dim=0)
    uncertain = (variance > 0)[..., None, :]
    first, second, spread, of_rows = torch.zeros_like(mean), torch.zeros_like(mean), torch.zeros_like(mean), []
    size = max(1, _AT_ONCE // mean.numel())
    for shift, part in zip(standard.split(size), probability[:, None].split(size), strict=True):
        at = (positions[..., None, :] - scale * shift[:, None]).clamp(0.0, 1.0)
        moved = (_interpolated(mean, positions, at) - mean[..., None, :]).where(uncertain, 0.0)
        first = first + (part * moved).sum(dim=-2)
        second = second + (part * moved.square()).sum(dim=-2)
        spread = spread + (part * _interpolated(variance, positions, at)).sum(dim=-2)
        of_rows.append(moved @ rows.mT)
    totals = torch.cat(of_rows, dim=-2)
    totals = totals - (probability[:, None] * totals).sum(dim=-2, keepdim=True)
    added = (second - first.square()).clamp_min(0.0) + (spread - variance).clamp_min(0.0)
    return mean + first, added, (probability[:, None] * totals).mT @ totals


def _interpolated(values: Tensor, positions: Tensor, at: Tensor) -> Tensor:
    """Values ``(*batch, shifts, n)`` of piecewise linear profiles ``(*batch, n)`` at places ``(*batch, shifts, n)``."""
    flat = at.flatten(-2)
    left = (torch.searchsorted(positions.contiguous(), flat, right=True) - 1).clamp(0, positions.shape[-1] - 2)
    start, end = positions.gather(-1, left), positions.gather(-1, left + 1)
    weight, left = (flat - start) / (end - start), left.expand(*values.shape[:-1], -1)
    moved = values.gather(-1, left) * (1 - weight) + values.gather(-1, left + 1) * weight
    return moved.unflatten(-1, at.shape[-2:])


def _foreseen(
    components: FieldGaussian, parts: MultivariateNormal, of_rows: Tensor, law: LinearConstraint, usual_misfit: float
) -> Tensor:
    """log N(b; G μ_s, c (G Σ Gᵀ + σ²) + Var G μ(x − δ)) ``(scales, components, *batch)`` of independent rows."""
    rows = law.rows
    within = structure_of(parts).times(rows) @ rows.mT + torch.diag_embed(law.noise)
    root = torch.linalg.cholesky(usual_misfit * within + of_rows)
    residual = law.residual(components.mean.to(torch.float64)).unflatten(0, of_rows.shape[:2])
    standardised = torch.linalg.solve_triangular(root, residual[..., None], upper=False)[..., 0]
    return -0.5 * standardised.square().sum(dim=-1) - root.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)


def _weights_of_scales(log_evidence: Tensor, weights: Tensor, prior: Tensor) -> Tensor:
    """Probability of every scale ``(scales, *batch)`` given the law, and ones before it ``(scales,)``."""
    log_prior = prior.log().reshape(-1, *[1] * (weights.ndim - 1))
    return torch.softmax(torch.logsumexp(log_evidence + weights.log(), dim=1) + log_prior, dim=0)


def _tells_its_position(mean: Tensor) -> Tensor:
    """True where the ends of a field ``(*batch, n)`` differ by half of its range or more."""
    return (mean[..., -1] - mean[..., 0]).abs() >= _RISE * (mean.amax(dim=-1) - mean.amin(dim=-1))
