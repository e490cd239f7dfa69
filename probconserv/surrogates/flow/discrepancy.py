"""Laws whose values no field of a flow has: measured with noise, rounded, or of a field outside the training range.

Few modes explain the values of training fields to round-off, so that the rows of a law look like measurements of the
coefficients with as little noise. Values that are off by a thousandth then move weak modes by hundreds of standard
deviations. For c = b − G m, with m and Σ the mean and covariance of the fields, in the eigenvectors of G Σ Gᵀ relative
to G Gᵀ and with eigenvalues λ, the mean of y²/λ is 1 for Gaussian fields and less on a curved set of them. Where it is
far more than chance allows, fields are given an independent error τ² at every point, the one with which Gaussian fields
have these values with the largest density, ∏ N(y; 0, λ + τ²): a discrepancy after Kennedy and O'Hagan (2001). The size
for which the mean of y²/(λ + τ²) is 1 (Mandel and Paule 1970) is as good for many rows; for few it is up to a hundred
times too large, where y²/λ of strong modes happens to be above 1. Every entry of a batch of laws is judged by itself,
so that one among many does not pass unseen and does not disturb the others.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from linear_operator.operators import LinearOperator
from torch import Tensor

from probconserv._linalg.covariance import covariance_of
from probconserv._linalg.rows import Rows, as_sparse_rows
from probconserv.constraints import LinearConstraint
from probconserv.nonlinear.law import AnyLaw, linear_part
from probconserv.surrogates.flow.corrections import exact_rows, part_of, with_points
from probconserv.surrogates.flow.latent import KarhunenLoeve, Latent, mean_of
from solvers._former import warn_at_caller

_SURPRISING = 3.0  # mean square of standardised values that a law without discrepancy may have; 1 is usual
_CHANCE = 1e-6  # of a larger mean square for Gaussian fields: 24 for a single row
_MOST, _MOST_EACH = 400, 64  # rows that are looked at, if all draws share them, and of every draw if not
_FEWEST, _ENTRIES = 8, 1 << 25  # observations that are looked at at least, and numbers of their rows at most
_FARTHER = 1.7  # than the farthest draw, from which observations are outside of what a flow knows
_DEPENDENT = 1e-12  # square of a combination of rows, relative to the largest, below which it is round-off


class AllowingLatent(Latent):
    """The coordinates of another latent, for fields with an error of variance τ² at every point."""

    def __init__(self, latent: Latent, variance: float) -> None:
        super().__init__(latent.shape, latent.state_shape)
        self.latent, self.variance = latent, variance

    def encode(self, fields: Float[Tensor, "s ..."]) -> Float[Tensor, "s ..."]:
        return self.latent.encode(fields)

    def decode(self, z: Float[Tensor, "s ..."]) -> Float[Tensor, "s n"]:
        return self.latent.decode(z)

    def clean_covariance(self, t: float) -> LinearOperator:
        covariance = self.latent.clean_covariance(t)
        if not covariance_of(covariance).splits:
            return covariance.add_jitter(self.variance)
        return with_points(covariance, lambda variances: variances + self.variance)


def allowing_for(latent: Latent, law: AnyLaw | None) -> list[tuple[slice | Tensor, Latent]]:
    """Draws with coordinates whose fields have as large an error at every point as their law needs, with a warning.

    ``(draws, coordinates)`` for every group of draws. Those that need no error come first, with the coordinates as they
    are; the others are together where the errors that they need are of one order of magnitude.
    """
    needed = discrepancy(latent, law)
    variances = needed.unique().tolist()
    if not variances[-1]:
        return [(slice(None), latent)]
    _warn(latent, [each for each in variances if each], int((needed > 0).sum()), len(needed))
    allowing = [_with_error(latent, each) if each else latent for each in variances]
    if len(needed) == 1:
        return [(slice(None), allowing[0])]
    return [((needed == each).nonzero()[:, 0], part) for each, part in zip(variances, allowing, strict=True)]


def _warn(latent: Latent, variances: list[float], far: int, count: int) -> None:
    mean = float(latent.clean_covariance(0.0).diagonal().mean())
    errors = [f"{(each / mean) ** 0.5:.2g}" for each in (min(variances), max(variances))]
    warn_at_caller(
        f"No field that the flow knows has the values of {'this law' if count == 1 else f'{far} of {count} laws'}: "
        "they are noisy or rounded, or those of a field outside of its training range. Draws meet them exactly, with "
        f"an independent error of {' to '.join(dict.fromkeys(errors))} of the fields' standard deviation at every "
        "point. Say how large their noise is (LinearConstraint(..., noise_variance)), or train on a range that holds "
        "the field.",
    )


def _with_error(latent: Latent, variance: float) -> Latent:
    """Coordinates for fields with an error of this variance at every point."""
    if isinstance(latent, KarhunenLoeve):
        noise = latent.noise_variance + variance
        return KarhunenLoeve(latent.mean, latent.basis, noise, latent.shape, latent.rest, latent.spread)
    return AllowingLatent(latent, variance)


def discrepancy(latent: Latent, law: AnyLaw | None) -> Float[Tensor, " entries"]:
    """τ² of every entry of a law's batch; 0 where its exact linear rows have values as the fields of a latent may."""
    linear = linear_part(law)
    linear = None if linear is None else exact_rows(linear)
    if linear is None:
        return torch.zeros(1, dtype=torch.float64)
    mean = mean_of(latent)
    covariance = latent.clean_covariance(0.0)
    seen: list[tuple[Tensor, Tensor]] = []
    for part in _with_shared_rows(linear):
        squares, variances = _standardised(covariance, mean, part, _MOST if part is linear else _MOST_EACH)
        seen.extend((each, variances) for each in squares)
    alike: dict[int, list[int]] = {}
    for entry, (squares, variances) in enumerate(seen):
        if float((squares / variances).mean()) > _usual(len(squares)):
            alike.setdefault(_order_of_error(squares, variances), []).append(entry)
    errors = torch.zeros(len(seen), dtype=torch.float64)
    for order, entries in alike.items():
        squares, variances = (torch.cat(each) for each in zip(*(seen[entry] for entry in entries), strict=True))
        errors[entries] = _likeliest_error(order, squares, variances)
    return errors


def _with_shared_rows(law: LinearConstraint) -> list[LinearConstraint]:
    """The law, or the laws of the draws one by one where their rows differ."""
    if len(law.G.shape) == 2:
        return [law]
    parts = [part_of(law, slice(draw, draw + 1)) for draw in range(law.batch_shape[0])]
    return [part for part in parts if isinstance(part, LinearConstraint)]


def distances(
    latent: Latent, observations: LinearConstraint, draws: Callable[[], Float[Tensor, "s n"]]
) -> tuple[float, float] | None:
    """How far observations and the farthest draw are from what a flow knows, in standard deviations; None if not far.

    The distance is the root of the mean y²/λ, with the noise of the observations in λ. On a curved set some fields are
    far from the mean, as those of an early front, so observations are far only if no draw comes near their distance.
    ``draws`` gives fields drawn without a law; it is called only for distances that would surprise in a Gaussian.
    """
    mean = mean_of(latent)
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
    rows = torch.from_numpy(as_sparse_rows(law.G).matrix(0)[chosen.numpy()].toarray())
    sizes, turned = torch.linalg.eigh(rows @ rows.mT)
    independent = sizes > _DEPENDENT * sizes[-1]
    whitening = (turned[:, independent] / sizes[independent].sqrt()).mT
    noise = law.noise.reshape(-1, law.noise.shape[-1])[0, chosen]
    noisy = (whitening * noise) @ whitening.mT
    rows, residual = whitening @ rows, residual @ whitening.mT
    values, vectors = torch.linalg.eigh(rows @ covariance.matmul(rows.mT) + noisy)
    return (residual @ vectors).square(), values.clamp_min(torch.finfo(values.dtype).eps * values[-1])


def _usual(count: int) -> float:
    """The mean square of ``count`` standardised values that chance hardly exceeds."""
    from scipy.special import chdtri  # slow to import, rarely needed

    return max(_SURPRISING, float(chdtri(count, _CHANCE)) / count)


def _order_of_error(squares: Tensor, variances: Tensor) -> int:
    """The power of ten of the likeliest τ."""
    low, high = (math.floor(math.log10(float(each)) / 2) for each in (variances.min(), squares.max()))
    orders = range(min(low, high), high + 2)
    return min(orders, key=lambda order: _misfit(order, squares, variances))


def _likeliest_error(order: int, squares: Tensor, variances: Tensor) -> float:
    """The likeliest τ², for the power of ten of the likeliest τ."""
    from scipy.optimize import minimize_scalar  # slow to import, rarely needed

    bounds = (order - 1.0, order + 1.0)
    minimum = minimize_scalar(
        _misfit, bounds=bounds, args=(squares, variances), method="bounded", options={"xatol": 1e-3}
    )
    return 100.0**minimum.x


def _misfit(exponent: float, squares: Tensor, variances: Tensor) -> float:
    """Twice the negative logarithm of the density of the values with τ a power of ten, up to a constant."""
    total = variances + 100.0**exponent
    return float((total.log() + squares / total).sum())
