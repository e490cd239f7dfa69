"""Scores of predictions, one value per function ``(*batch,)``.

Arguments that several scores share:

* ``truth``: the true field u ``(*batch, n)``;
* ``mean`` and ``variance``: μ and v ≥ 0 of the prediction at every point ``(*batch, n)``;
* ``samples``: at least two draws of the prediction ``(draws, *batch, n)``, draws first;
* ``level``: the probability of an interval, strictly between 0 and 1.

Scores are float64, and smaller is better where nothing else is said. Truth and prediction broadcast, for instance one
true field ``(n,)`` against predictions ``(*batch, n)``. Scores of a prediction against a truth are NaN where one of the
two is. InvalidArgumentError is raised for shapes that do not fit, or fit only with each of them repeated, such as
``(batch, 1, n)`` and ``(batch, n)``; for fewer than two samples, or samples with fewer axes than the truth; for a level
out of range; and for arrays and lists: use ``torch.as_tensor``.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probconserv._linalg.checks import joint_shape, require_tensors
from probconserv._linalg.gaussian import floored
from probconserv.constraints import LinearConstraint
from probconserv.errors import InvalidArgumentError
from solvers._former import renamed

Field = Float[Tensor, "*batch n"]
Draws = Float[Tensor, "s *batch n"]
Score = Float[Tensor, "*batch"]


def conservation_error(mean: Field, constraint: LinearConstraint) -> Score:
    """G μ − b of the first row, in float64 (CE of Hansen et al. 2023).

    Args:
        mean: Predicted mean ``(*batch, n)``.
        constraint: The law, one row.
    """
    if constraint.b.shape[-1] != 1:
        raise InvalidArgumentError(
            f"The conservation error is that of one law, got {constraint.b.shape[-1]} rows; use constraint.residual."
        )
    joint_shape(mean=mean.shape[:-1], law=constraint.batch_shape)
    return constraint.residual(mean)[..., 0]


@renamed(u="truth")
def log_likelihood(truth: Field, mean: Field, variance: Field, variance_floor: float | Tensor | None = None) -> Score:
    """Mean over the points of log N(u; μ, max(v, floor)).

    Without a floor the score is unbounded where the variance vanishes. In another unit of the field the score differs
    by the logarithm of the unit.

    Args:
        truth: The true field u.
        mean: μ.
        variance: v.
        variance_floor: In squared units of the field, a number or ``(*batch, n)``, to be the same for every method; by
            default a millionth of the variance of each true field over its points. Give one for fields whose points
            have several units, or for true fields that are constant.

    Returns:
        Score ``(*batch,)``, larger is better.
    """
    _check_fit(truth, mean, variance)
    truth, mean, variance = truth.to(torch.float64), mean.to(torch.float64), floored(variance, truth, variance_floor)
    return -0.5 * ((truth - mean).square() / variance + (2 * math.pi * variance).log()).mean(dim=-1)


@renamed(u="truth")
def nll(truth: Field, mean: Field, variance: Field, variance_floor: float | Tensor | None = None) -> Score:
    """The marginal negative log-likelihood −``log_likelihood``: a loss to train through the update with.

    ``-posterior.log_prob(u)`` is no such loss: it is infinite, without a gradient, wherever u misses an exact law,
    for instance by its quadrature error. ``crps`` is the other marginal loss, less sensitive to outliers. No gradient
    reaches the variance where it is below the floor.
    """
    return -log_likelihood(truth, mean, variance, variance_floor)


@renamed(u="truth")
def mse(truth: Field, mean: Field) -> Score:
    """Mean over the points of the squared error (u − μ)²."""
    _check_fit(truth, mean)
    return (truth.to(torch.float64) - mean.to(torch.float64)).square().mean(dim=-1)


@renamed(u="truth")
def crps(truth: Field, mean: Field, variance: Field) -> Score:
    """Continuous ranked probability score of a Gaussian, mean over the points.

    σ [z (2Φ(z) − 1) + 2φ(z) − 1/√π], z = (u − μ)/σ (Gneiting & Raftery 2007, eq. 21); |u − μ| where σ = 0.
    Differentiable, so it serves as a training loss, as ``nll`` does; values with σ = 0 have no derivative with respect
    to σ².
    """
    _check_fit(truth, mean, variance)
    error, variance = truth.to(torch.float64) - mean.to(torch.float64), variance.to(torch.float64)
    exact = variance == 0
    sigma = torch.where(exact, 1.0, variance).sqrt()  # σ and z have no derivative where σ = 0
    z = error / sigma
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    score = error * torch.erf(z / math.sqrt(2)) + sigma * (2 * density - 1 / math.sqrt(math.pi))
    return torch.where(exact, error.abs(), score).mean(dim=-1)


@renamed(u="truth")
def crps_of_samples(truth: Field, samples: Draws) -> Score:
    """Continuous ranked probability score of samples, E|X − u| − ½ E|X − X′|, unbiased, mean over the points."""
    count = _sample_count(samples, truth)
    ordered = _draws(truth, samples).sort(dim=0).values
    rank = torch.arange(1, count + 1, dtype=torch.float64, device=samples.device)
    # Σ_{i<j} (x_j − x_i) = Σ_i (2i − s − 1) x_i for ordered x
    gini = torch.tensordot(2 * rank - count - 1, ordered, dims=1) / (count * (count - 1))
    return ((ordered - truth).abs().mean(dim=0) - gini).mean(dim=-1)


@renamed(u="truth")
def coverage(truth: Field, mean: Field, variance: Field, level: float) -> Score:
    """Fraction of points whose true value lies in the central Gaussian interval of a level.

    Returns:
        Fraction ``(*batch,)``; equals the level for a calibrated prediction, NaN where a point is NaN.
    """
    _check_level(level)
    _check_fit(truth, mean, variance)
    half_width = math.sqrt(2) * float(torch.erfinv(torch.tensor(level, dtype=torch.float64)))
    width = half_width * variance.sqrt()
    return _fraction_inside(truth - mean, -width, width)


def interval_of_samples(samples: Draws, level: float) -> tuple[Field, Field]:
    """The central interval of samples, between their quantiles ½ (1 ∓ level).

    For predictions that are not Gaussian, such as those with inequalities, whose draws lie on bounds.

    Returns:
        Lower and upper end, interpolated linearly between ordered samples, float64; NaN where a sample is.
    """
    _check_level(level)
    count = _sample_count(samples)
    ordered = samples.to(torch.float64).sort(dim=0).values
    ends = []
    for probability in ((1 - level) / 2, (1 + level) / 2):
        position = probability * (count - 1)
        left = min(int(position), count - 2)
        end = torch.lerp(ordered[left], ordered[left + 1], position - left)
        ends.append(torch.where(ordered[-1].isnan(), math.nan, end))  # NaN sorts last
    return ends[0], ends[1]


@renamed(u="truth")
def coverage_of_samples(truth: Field, samples: Draws, level: float) -> Score:
    """Fraction of points whose true value lies in ``interval_of_samples``, ends included.

    The interval of s draws covers (s − 1)/(s + 1) of its level.

    Returns:
        Fraction ``(*batch,)``; about the level for a calibrated prediction without point masses, more where truth and
        draws share a bound; NaN where a point or a draw of it is NaN.
    """
    _sample_count(samples, truth)
    lower, upper = interval_of_samples(samples, level)
    joint_shape(truth=truth.shape, draw=samples.shape[1:])
    return _fraction_inside(truth, lower, upper)


@renamed(u="truth")
def energy_score(truth: Field, samples: Draws) -> Score:
    """Energy score E‖X − u‖ − ½ E‖X − X′‖ with the norm ‖v‖ = √(mean over points of v²), unbiased."""
    count = _sample_count(samples, truth)
    draws = _draws(truth, samples)
    root_n = math.sqrt(draws.shape[-1])
    to_truth = torch.linalg.vector_norm(draws - truth, dim=-1).mean(dim=0)
    stacked = draws.movedim(0, -2)
    pairs = torch.cdist(stacked, stacked, compute_mode="donot_use_mm_for_euclid_dist").sum(dim=(-2, -1))
    return (to_truth - 0.5 * pairs / (count * (count - 1))) / root_n


def shock_position(samples: Draws, points: Field, threshold: float = 0.0) -> Float[Tensor, " s *batch"]:
    """First point where a sample is at or below a threshold; the last point if it stays above everywhere.

    Args:
        samples: Any number of fields.
        points: Increasing positions ``(n,)`` or ``(*batch, n)``.
        threshold: 0 for porous medium and Stefan, ½ for advection.
    """
    require_tensors(samples=samples, points=points)
    below = samples <= threshold
    first = below.to(torch.uint8).argmax(dim=-1)
    last = torch.full_like(first, samples.shape[-1] - 1)
    first = torch.where(below.any(dim=-1), first, last)
    return points.expand(samples.shape).gather(-1, first[..., None])[..., 0]


def has_shock(samples: Draws, threshold: float = 0.0) -> Bool[Tensor, " s *batch"]:
    """Whether a sample reaches the threshold at any point, so that it has a shock position."""
    require_tensors(samples=samples)
    return (samples <= threshold).any(dim=-1)


def _check_fit(truth: Tensor, mean: Tensor, variance: Tensor | None = None) -> None:
    """Refuses a truth and the moments of a prediction that are no tensors or do not fit together."""
    moments = {"mean": mean} if variance is None else {"mean": mean, "variance": variance}
    require_tensors(truth=truth, **moments)
    joint_shape(truth=truth.shape, **{name: moment.shape for name, moment in moments.items()})


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise InvalidArgumentError(f"level must lie strictly between 0 and 1, got {level}.")


def _sample_count(samples: Tensor, truth: Tensor | None = None) -> int:
    """The number of draws, refusing a truth in their place, which has fewer axes."""
    require_tensors(samples=samples, **({} if truth is None else {"truth": truth}))
    if truth is not None and samples.ndim < max(truth.ndim, 2):
        raise InvalidArgumentError(
            "Scores of draws take the truth (*batch, n), then samples (draws, *batch, n) with no fewer axes, got truth "
            f"{tuple(truth.shape)} and samples {tuple(samples.shape)}; are they swapped? Give draws of one prediction "
            "for several truths batch axes of length 1."
        )
    if samples.ndim < 2:
        raise InvalidArgumentError(f"Samples are (draws, *batch, n), draws first, got shape {tuple(samples.shape)}.")
    if samples.shape[0] < 2:
        raise InvalidArgumentError(f"At least two samples are needed along the first axis, got {samples.shape[0]}.")
    return samples.shape[0]


def _draws(truth: Tensor, samples: Tensor) -> Tensor:
    """The samples in float64 for every true field: ``(s, *joint)`` with the joint shape of the truth and one draw."""
    joint = joint_shape(truth=truth.shape, draw=samples.shape[1:])
    added = [1] * (len(joint) - samples.ndim + 1)
    return samples.to(torch.float64).reshape(len(samples), *added, *samples.shape[1:]).expand(-1, *joint)


def _fraction_inside(values: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Fraction of the points with lower ≤ value ≤ upper; NaN where one of the three is NaN at some point."""
    inside = ((values >= lower) & (values <= upper)).to(torch.float64)
    missing = values.isnan() | lower.isnan() | upper.isnan()
    return torch.where(missing, math.nan, inside).mean(dim=-1)
