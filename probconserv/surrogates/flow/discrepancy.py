"""Laws whose values no field of a flow has: measured with noise, rounded, or of a field outside the training range.

Few modes explain the values of training fields to round-off, so that the rows of a law look like measurements of the
coefficients with as little noise. Values that are off by a thousandth then move weak modes by hundreds of standard
deviations. For c = b − G m, with m and Σ the mean and covariance of the fields, in the eigenvectors of G Σ Gᵀ relative
to G Gᵀ and with eigenvalues λ, the mean of y²/λ is 1 for Gaussian fields and less on a curved set of them. Where it is
far more than chance allows, fields are given an independent error τ² at every point, the smallest for which the mean of
y²/(λ + τ²) is 1: a discrepancy after Kennedy and O'Hagan (2001), of the size of Mandel and Paule (1970).
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from linear_operator.operators import LinearOperator
from scipy.optimize import root_scalar
from scipy.special import chdtri
from torch import Tensor

from probconserv._linalg.rows import Rows, as_sparse_rows
from probconserv._linalg.structured import splits
from probconserv.constraints import LinearConstraint
from probconserv.nonlinear.projection import AnyLaw, linear_part
from probconserv.surrogates.flow.corrections import exact_rows, part_of, with_points
from probconserv.surrogates.flow.latent import KarhunenLoeve, Latent

_SURPRISING = 3.0  # mean square of standardised values that a law without discrepancy may have; 1 is usual
_CHANCE = 1e-6  # of a larger mean square for Gaussian fields: 24 for a single row
_MOST = 400  # rows that are looked at, and of draws with rows of their own
_DRAWS = 4
_FEWEST, _ENTRIES = 8, 1 << 25  # observations that are looked at at least, and numbers of their rows at most
_FARTHER = 1.7  # than the farthest draw, from which observations are outside of what a flow knows
_DEPENDENT = 1e-12  # square of a combination of rows, relative to the largest, below which it is round-off


class AllowingLatent(Latent):
    """The coordinates of another latent, for fields with an error of variance τ² at every point."""

    def __init__(self, latent: Latent, variance: float) -> None:
        super().__init__(latent.shape, latent.state_shape)
        self.latent, self.variance = latent, variance

    def encode(self, fields: Float[Tensor, "s ..."]) -> Float[Tensor, "s ..."]:
        """See ``Latent``."""
        return self.latent.encode(fields)

    def decode(self, z: Float[Tensor, "s ..."]) -> Float[Tensor, "s n"]:
        """See ``Latent``."""
        return self.latent.decode(z)

    def clean_covariance(self, t: float) -> LinearOperator:
        """See ``Latent``."""
        covariance = self.latent.clean_covariance(t)
        if not splits(covariance):
            return covariance.add_jitter(self.variance)
        return with_points(covariance, lambda variances: variances + self.variance)


def allowing_for(latent: Latent, law: AnyLaw | None) -> Latent:
    """A latent whose fields have as large an error at every point as a law needs, with a warning; else as it is."""
    variance = discrepancy(latent, law)
    if not variance:
        return latent
    mean = float(latent.clean_covariance(0.0).diagonal().mean())
    warnings.warn(
        "No field that the flow knows has the values of this law: they are noisy or rounded, or those of a field "
        "outside of its training range. Draws meet them exactly, with an independent error of "
        f"{(variance / mean) ** 0.5:.2g} of the fields' standard deviation at every point. Say how large their noise "
        "is (LinearConstraint(..., noise_variance)), or train on a range that holds the field.",
        stacklevel=4,
    )
    if isinstance(latent, KarhunenLoeve):
        noise = latent.noise_variance + variance
        return KarhunenLoeve(latent.mean, latent.basis, noise, latent.shape, latent.rest, latent.spread)
    return AllowingLatent(latent, variance)


def discrepancy(latent: Latent, law: AnyLaw | None) -> float:
    """τ²; 0 where the exact linear rows of a law have values as the fields of a latent may have."""
    linear = linear_part(law)
    linear = None if linear is None else exact_rows(linear)
    if linear is None:
        return 0.0
    mean = latent.decode(torch.zeros(1, *latent.state_shape, dtype=torch.float64))[0]
    covariance = latent.clean_covariance(0.0)
    own = [] if len(linear.G.shape) == 2 else range(min(_DRAWS, linear.batch_shape[0]))
    parts = [part_of(linear, slice(draw, draw + 1)) for draw in own] or [linear]
    seen = [_standardised(covariance, mean, part) for part in parts if isinstance(part, LinearConstraint)]
    squares = torch.cat([each.mean(dim=0) for each, _ in seen])
    return _least_error(squares, torch.cat([variances for _, variances in seen]))


def distances(
    latent: Latent, observations: LinearConstraint, draws: Callable[[], Float[Tensor, "s n"]]
) -> tuple[float, float] | None:
    """How far observations are from what a flow knows; None where they are not.

    The distance is the root of the mean y²/λ, with the noise of the observations in λ. On a curved set some fields are
    far from the mean, as those of an early front. Observations are far only if no draw comes near their distance.

    Args:
        latent: Coordinates of the flow.
        observations: Rows without batch axes, with their noise.
        draws: Gives fields drawn without a law; called only for distances that would surprise in a Gaussian.

    Returns:
        The distances of the observations and of the farthest draw, in standard deviations.
    """
    mean = latent.decode(torch.zeros(1, *latent.state_shape, dtype=torch.float64))[0]
    covariance = latent.clean_covariance(0.0)
    most = min(_MOST, max(_FEWEST, _ENTRIES // latent.points))
    squares, variances = _standardised(covariance, mean, observations, most)
    distance = float((squares / variances).mean())
    if not distance > _usual(len(variances)):
        return None
    rows, fields = observations.G, draws()
    values = rows.functional(fields) if isinstance(rows, Rows) else fields @ observations.rows.mT
    squares, variances = _standardised(covariance, mean, replace(observations, b=values), most)
    farthest = float((squares / variances).mean(dim=-1).max())
    return (distance**0.5, farthest**0.5) if distance > _FARTHER**2 * farthest else None


def _standardised(
    covariance: LinearOperator, mean: Tensor, law: LinearConstraint, most: int = _MOST
) -> tuple[Tensor, Tensor]:
    """y² ``(s, k)`` of every draw, and λ with the noise ``(k,)``; rows that follow from others are left out."""
    chosen = torch.arange(law.b.shape[-1])
    if len(chosen) > most:
        chosen = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(0))[:most].sort().values
    residual = law.residual(mean)[..., chosen].reshape(-1, len(chosen))
    rows = torch.from_numpy(
        as_sparse_rows(law.G if isinstance(law.G, Rows) else law.rows).matrix(0)[chosen.numpy()].toarray()
    )
    sizes, turned = torch.linalg.eigh(rows @ rows.mT)
    own = sizes > _DEPENDENT * sizes[-1]
    whitening = (turned[:, own] / sizes[own].sqrt()).mT
    noise = law.noise.reshape(-1, law.noise.shape[-1])[0, chosen]
    noisy = (whitening * noise) @ whitening.mT
    rows, residual = whitening @ rows, residual @ whitening.mT
    values, vectors = torch.linalg.eigh(rows @ covariance.matmul(rows.mT) + noisy)
    return (residual @ vectors).square(), values.clamp_min(torch.finfo(values.dtype).eps * values[-1])


def _usual(count: int) -> float:
    """The mean square of so many standardised values above which it is more than chance."""
    return max(_SURPRISING, float(chdtri(count, _CHANCE)) / count)


def _least_error(squares: Tensor, variances: Tensor) -> float:
    """The smallest τ² with mean(y²/(λ + τ²)) = 1, or 0."""

    def excess(logarithm: float) -> float:
        return float((squares / (variances + math.exp(logarithm))).mean()) - 1.0

    if not float((squares / variances).mean()) > _usual(len(squares)):
        return 0.0
    low, high = math.log(float(variances[0])) - 40.0, math.log(2 * float(squares.mean()))
    return math.exp(root_scalar(excess, bracket=(low, high)).root)
