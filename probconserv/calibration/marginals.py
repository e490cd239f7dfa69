"""Scores of mixtures by their own distributions at every point, where Gaussians with their moments mislead.

A mixture of a likely narrow and an unlikely wide part has moments that neither part has; its intervals and its CRPS are
far smaller than theirs. A Gaussian is a mixture of one component.

``u`` is the true field, of the shape of the prediction or one that broadcasts with it, and the prediction a Gaussian or
a mixture of Gaussians. InvalidArgumentError is raised if the shapes fit only with each of them repeated, or the
prediction is under inequalities.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from probconserv._linalg.checks import joint_shape
from probconserv._linalg.gaussian import deviation_of, floored, rounding_of
from probconserv.errors import InvalidArgumentError
from probconserv.mixture import Mixture, is_bounded
from probconserv.prediction import Prediction

_FEW, _MOST = 150, 2000  # components up to which all together have _MOST values; the released scores rest on this
_STRATA = (20, 64)  # most values of one of few components, and of one of many
_VALUES = 2_000_000  # values that are sorted at once


def cumulative_probability(u: Float[Tensor, "*batch n"], prediction: Prediction) -> Float[Tensor, "*batch n"]:
    """Σ_c π_c Φ((u − μ_c)/s_c), the probability of values up to u: uniform over [0, 1] for a calibrated prediction.

    The central interval of a level holds u where the result lies within ½ (1 ∓ level).

    Returns:
        Probability ``(*batch, n)``, NaN where the truth or the prediction is.
    """
    weights, mean, deviation = _parts(u, prediction)
    z = (u - mean) / torch.maximum(deviation, rounding_of(u))
    return (weights * torch.special.ndtr(z)).sum(dim=0)


def marginal_log_likelihood(
    u: Float[Tensor, "*batch n"], prediction: Prediction, variance_floor: float | Tensor | None = None
) -> Float[Tensor, "*batch"]:
    """Mean over the points of log Σ_c π_c N(u; μ_c, max(v_c, floor)).

    For a Gaussian it is ``scores.log_likelihood``, which has the same floor.
    """
    weights, mean, deviation = _parts(u, prediction)
    variance = floored(deviation.square(), u, variance_floor)
    density = -0.5 * ((u - mean).square() / variance + (2 * math.pi * variance).log())
    return torch.logsumexp(weights.log() + density, dim=0).mean(dim=-1)


def marginal_crps(u: Float[Tensor, "*batch n"], prediction: Prediction) -> Float[Tensor, "*batch"]:
    """Continuous ranked probability score E|X − u| − ½ E|X − X′|, mean over the points (Grimit et al. 2006).

    The first expectation is exact, and so is the second for pairs of values of one component. For the other pairs each
    component is represented by equally likely values, the means of its parts, which makes the score too high wherever
    components overlap. Where all coincide, and the truth is at their centre, it is so by 1 % for up to 100 components
    (20 values each), by 2.2 % for 150 (13 values each), and by 0.1 % for more (64 values each). It is exact for one.
    For many, time grows with their number, and memory only with what the components themselves take.
    """
    weights, mean, deviation = _parts(u, prediction)
    first = (weights * _absolute(u - mean, deviation)).sum(dim=0)
    return (first - 0.5 * _distance(weights, mean, deviation)).mean(dim=-1)


def calibration_error(probability: Float[Tensor, "..."], levels: int = 19) -> float:
    """Root mean squared calibration error √(mean over levels of (coverage − level)²).

    Args:
        probability: ``cumulative_probability`` of all points that count.
        levels: Number of levels, equally spaced within (0, 1).

    Returns:
        The error; NaN if a probability is NaN.
    """
    if not probability.numel() or levels < 1:
        raise InvalidArgumentError(
            f"calibration_error needs points and levels, got {probability.numel()} and {levels}."
        )
    if bool(probability.isnan().any()):
        return math.nan
    level = torch.arange(1, levels + 1).to(probability) / (levels + 1)
    distance = (2 * probability.flatten() - 1).abs()
    covered = (distance[:, None] <= level).to(probability).mean(dim=0)
    return float((covered - level).square().mean().sqrt())


def require_gaussian(prediction: Prediction) -> None:
    """Raises InvalidArgumentError for predictions under inequalities, whose values pile up on the bounds."""
    if is_bounded(prediction):
        raise InvalidArgumentError(
            "A prediction under inequalities is no Gaussian; score its draws: crps_of_samples, interval_of_samples and "
            "coverage_of_samples of probconserv.scores."
        )


def _parts(u: Tensor, prediction: Prediction) -> tuple[Tensor, Tensor, Tensor]:
    """Weights ``(c, *batch, 1)`` or ones that broadcast to it, means and deviations ``(c, *batch, n)``, float64.

    Where the truth has more axes than the prediction, axes of length 1 follow that of the components. A value that is
    predicted without deviation has that of its rounding.
    """
    require_gaussian(prediction)
    if isinstance(prediction, Mixture):
        mean, deviation = prediction.components.mean.double(), deviation_of(prediction.components)
        weights = prediction.field_weights.double()[..., None]
    else:
        mean, deviation = prediction.mean.double()[None], deviation_of(prediction)[None]
        weights = mean.new_ones(1, *[1] * (mean.ndim - 1))
    joint = joint_shape(truth=u.shape, prediction=mean.shape[1:])
    added = [1] * (len(joint) - mean.ndim + 1)
    weights, mean, deviation = (part.reshape(len(part), *added, *part.shape[1:]) for part in (weights, mean, deviation))
    return weights, mean, torch.maximum(deviation, rounding_of(mean)).clamp_min(torch.finfo(torch.float64).tiny)


def _absolute(error: Tensor, deviation: Tensor) -> Tensor:
    """E|X| for X ~ N(error, deviation²)."""
    z = error / deviation
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    return error * torch.erf(z / math.sqrt(2)) + 2 * deviation * density


def _distance(weights: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """E|X − X′| of two draws of a mixture with parts ``(c, *batch, n)``, some points at a time; see marginal_crps."""
    components = len(mean)
    strata = min(_STRATA[0], _MOST // components) if components <= _FEW else _STRATA[1]
    values, within = _strata(strata)
    values = values.to(mean)[:, None, None]

    def of_some(weights: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
        ordered, order = (mean + deviation * values).flatten(0, 1).sort(dim=0)
        shares = (weights / strata).repeat(strata, 1).gather(0, order)
        pairs = 2 * (shares * ordered * (2 * shares.cumsum(dim=0) - shares - 1)).sum(dim=0)
        return pairs + (weights.square() * deviation * (2 / math.sqrt(math.pi) - within)).sum(dim=0)

    points = max(1, _VALUES // (strata * components))
    parts = (part.flatten(1).split(points, dim=1) for part in (weights.expand_as(mean), mean, deviation))
    return torch.cat([of_some(*some) for some in zip(*parts, strict=True)]).reshape(mean.shape[1:])


def _strata(count: int) -> tuple[Tensor, Tensor]:
    """Means of equally likely parts of N(0, 1) ``(count,)``, and the mean distance of two of them."""
    ends = torch.special.ndtri(torch.linspace(0.0, 1.0, count + 1, dtype=torch.float64))
    density = torch.exp(-0.5 * ends.square()) / math.sqrt(2 * math.pi)
    values = count * (density[:-1] - density[1:])
    return values, (values[:, None] - values).abs().mean()
