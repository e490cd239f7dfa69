"""The posterior of a function, given values of it at some points and many functions of its kind.

Prior: Σ_i v_i N(x_i, h² C), x_i = m + √(1 − h²) (u_i − m), with m and C the mean and covariance of functions u_i of
weights v_i. It has mean m and covariance C for every bandwidth h; h = 1 is a Gaussian process (gappy POD), h → 0 a
search among the functions. Given y = H u + ε, ε ~ N(0, R), with S = h² H C Hᵀ + R,

    w_i ∝ v_i exp(−½ r_iᵀ S⁻¹ r_i),  r_i = y − H x_i,   c_i = x_i + h² C Hᵀ S⁻¹ r_i,
    P = h² C − h² C Hᵀ S⁻¹ H C h²

is the posterior Σ_i w_i N(c_i, P). All of it is made of factors of C at the observed and the wanted points,
C = BᵀB + D, never of C over the functions' own points.

All functions count alike, v_i = 1/F, or those that are near to what is seen count more:

    v_i ∝ exp(−½ λ Σ_j (y_j − s_ij)² / (var s_j + σ_j²)),   λ such that 1/Σ v_i² = N,

with s_ij the value of function i where y_j is seen. Right-hand sides of a law are among the y_j, with their variances
σ²; errors of observations are taken to be small against the spread of the functions, σ_j = 0. P and the spread of c_i
are then multiplied by

    g² = (1 + 1/N + r̄ᵀ S⁻¹ r̄ / (N − 1)) (N − 1) / (N − 1 − tr S⁻¹ h² H C Hᵀ),   r̄ = y − H m,

the variance of a forecast by a regression on N cases. Hybrids of particle and ensemble Kalman filters temper in this
way (Frei & Künsch 2013, Biometrika 100, 781); with h = 1 it is local linear regression on simulated cases (Beaumont,
Zhang & Balding 2002, Genetics 162, 2025).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from probconserv.errors import InvalidArgumentError

_DROPPED = 1e-9
"""Total weight of the components that are left out of a posterior."""
_ROUNDING = 64 * torch.finfo(torch.float64).eps
"""Of a root of P, relative to the prior's and to its mean, where observations determine each other little."""
_LEFT_OUT = 1e-3
"""Total weight of the functions that are too far from what is seen."""


class Points(NamedTuple):
    """The functions at some points: values ``(q, functions)``, B ``(r, q)`` or None, and the independent variance.

    Their mean is ``(q, 1)``; ``weights`` are v ``(functions,)``, None where all count alike.
    """

    values: Tensor
    mean: Tensor
    factor: Tensor | None
    independent: Tensor
    weights: Tensor | None = None


class Seen(NamedTuple):
    """One function: values of it with variances of their errors, and a law of it: rows ``(k, q)``, b and σ² ``(k,)``.

    The law is used to weigh functions alone.
    """

    y: Tensor
    noise: Tensor
    rows: Tensor
    totals: Tensor
    law_noise: Tensor


class Posterior(NamedTuple):
    """w ``(components,)``, falling, c ``(components, q)``, a root of P ``(q, r)`` and its independent part."""

    weights: Tensor
    centres: Tensor
    root: Tensor
    independent: Tensor

    @property
    def mean(self) -> Tensor:
        return self.centres[0] + self.weights @ (self.centres - self.centres[0])

    @property
    def variance(self) -> Tensor:
        apart = self.weights @ (self.centres - self.mean).square()
        return self.root.square().sum(dim=1) + apart + self.independent

    def scaled(self, factor: Tensor) -> "Posterior":
        """The same mean with all deviations from it multiplied."""
        mean = self.mean
        centres = mean + factor * (self.centres - mean)
        return Posterior(self.weights, centres, factor * self.root, factor.square() * self.independent)


def localised(observed: Points, wanted: Points, seen: Seen, effective: float) -> tuple[Points, Points]:
    """The functions that bear weight where ``effective`` of them are near to what is seen; all where there are fewer.

    Values and totals in which no two functions differ play no role.
    """
    s = torch.cat([observed.values, seen.rows @ wanted.values])
    if not len(s) or effective >= s.shape[1]:
        return observed, wanted
    spread = s.var(dim=1)
    differ = spread > 0
    if not bool(differ.any()):
        return observed, wanted
    y, noise = torch.cat([seen.y, seen.totals]), pad(seen.law_noise, (len(seen.y), 0))
    distance = ((s - y[:, None]).square() / (spread + noise)[:, None])[differ].sum(dim=0)
    weights = tempered(distance, effective)
    ordered, order = weights.sort(descending=True)
    count = int((ordered.cumsum(dim=0) < 1 - _LEFT_OUT).sum()) + 1
    near, weights = order[: max(count, 2)], ordered[: max(count, 2)]
    weights = weights / weights.sum()
    return _among(observed, near, weights), _among(wanted, near, weights)


def _among(points: Points, near: Tensor, weights: Tensor) -> Points:
    values = points.values[:, near]
    return Points(values, values @ weights[:, None], None, torch.zeros_like(points.independent), weights)


def tempered(distance: Tensor, effective: float) -> Tensor:
    """Weights ∝ exp(−½ λ distance) whose effective number 1/Σ v² is ``effective``, by bisection of log λ."""
    distance = distance - distance.min()
    scale = distance.mean()
    low, high = -30.0, 30.0
    weights = torch.full_like(distance, 1 / len(distance))
    for _ in range(50):
        middle = 0.5 * (low + high)
        weights = torch.softmax(-0.5 * math.exp(middle) * distance / scale, dim=0)
        too_many = float(weights.square().sum()) * effective < 1
        low, high = (middle, high) if too_many else (low, middle)
    return weights


def deviations(points: Points) -> Tensor:
    """B of all functions ``(q, functions)``: B Bᵀ = C."""
    apart = points.values - points.mean
    if points.weights is None:
        return apart / (points.values.shape[1] - 1) ** 0.5
    return apart * (points.weights / (1 - points.weights.square().sum())).sqrt()


def factors(observed: Points, wanted: Points, split: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    """B at the observed ``(r, n)`` and at the wanted points ``(r, q)``; with the fewest rows r that C has there.

    Args:
        observed: The functions where one is seen.
        wanted: The functions where it is wanted.
        split: Q ``(functions, q)`` and R ``(q, q)`` of all functions at the wanted points, if they are known.
    """
    if observed.factor is not None and wanted.factor is not None:
        return observed.factor, wanted.factor
    seen, asked = deviations(observed).mT, deviations(wanted).mT
    if len(seen) <= seen.shape[1] + asked.shape[1]:
        return seen, asked
    basis, upper = torch.linalg.qr(asked) if split is None else split
    cross = basis.mT @ seen
    rest = torch.linalg.qr(seen - basis @ cross, mode="r")[1]
    return torch.cat([cross, rest]), torch.cat([upper, upper.new_zeros(len(rest), len(upper))])


def conditioned(
    observed: Points, wanted: Points, factors: tuple[Tensor, Tensor], seen: Seen, bandwidth: float
) -> Posterior:
    """The posterior of one function; B at observed and wanted points as ``factors`` gives them."""
    at_observed, at_wanted = factors
    factor, noise = bandwidth * at_observed, seen.noise + bandwidth**2 * observed.independent
    chol, scale, white, missing = _factorised(factor, noise, observed.values.shape[1])
    # P = h² Bᵀ (I − WᵀW) B, and (I − WᵀW)^½ = I − Wᵀ (I + (I − W Wᵀ)^½)⁻¹ W.
    left, values, _ = torch.linalg.svd(missing)
    turned = left.mT @ white
    root = bandwidth * (at_wanted - turned.mT @ ((turned @ at_wanted) / (1 + values[:, None]))).mT
    certain = _within_rounding(root, at_wanted, wanted.mean, chol)
    root = torch.where(certain[:, None], 0.0, root)
    spread = (1 - bandwidth**2) ** 0.5
    at_seen = observed.mean + spread * (observed.values - observed.mean)  # x_i
    apart = torch.linalg.solve_triangular(chol, scale[:, None] * (seen.y[:, None] - at_seen), upper=False)
    density = -0.5 * apart.square().sum(dim=0)
    if observed.weights is not None:
        density = density + observed.weights.log()
    weights = torch.softmax(density, dim=0)
    gain = bandwidth * at_wanted.mT @ white.mT  # (q, n)
    ordered, order = weights.sort(descending=True)
    count = 1 if spread == 0 else int((1 - ordered.cumsum(dim=0) > _DROPPED).sum()) + 1
    kept, order = ordered[:count] / ordered[:count].sum(), order[:count]
    centred = wanted.mean + spread * (wanted.values[:, order] - wanted.mean)
    centres = (centred + gain @ apart[:, order]).mT
    centres = torch.where(certain & (wanted.independent == 0), kept @ centres, centres)
    posterior = Posterior(kept, centres, root, bandwidth**2 * wanted.independent)
    if observed.weights is None:
        return posterior
    misfit = torch.linalg.solve_triangular(chol, scale[:, None] * (seen.y[:, None] - observed.mean), upper=False)
    return posterior.scaled(_forecast_factor(observed.weights, misfit, white))


def _factorised(factor: Tensor, noise: Tensor, functions: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """L with L Lᵀ = S scaled to a unit diagonal, the scales, W = L⁻¹ h H Bᵀ scaled and a root of I − W Wᵀ."""
    stacked = torch.cat([factor, noise.sqrt().diag()])  # MᵀM = S, without the rounding of squares
    scale = torch.linalg.vector_norm(stacked, dim=0).reciprocal()
    basis, upper = torch.linalg.qr(stacked * scale)
    if not bool((upper.diagonal().square() > 1e-13 * len(noise)).all()):
        raise InvalidArgumentError(
            f"The {len(noise)} observations of a function determine each other among the {functions} "
            "functions (there are as many of them as functions, two at one point, or one where no function varies); "
            "give the variance of their errors as noise_variance of the context."
        )
    return upper.mT, scale, basis[: len(factor)].mT, basis[len(factor) :].mT


def _within_rounding(root: Tensor, factor: Tensor, mean: Tensor, chol: Tensor) -> Tensor:
    """The points ``(q,)`` at which a root ``(q, r)`` is rounding of B ``(r, q)`` and means: all is determined there."""
    smallest = float(chol.diagonal().abs().min()) if len(chol) else 1.0
    size = torch.linalg.vector_norm(factor, dim=0) + mean[:, 0].abs()
    return torch.linalg.vector_norm(root, dim=1) <= _ROUNDING / smallest * size


def _forecast_factor(weights: Tensor, misfit: Tensor, white: Tensor) -> Tensor:
    """g; at least a fifth of N cases are taken to be left after the fit."""
    number = 1 / weights.square().sum()
    left = torch.maximum(number - 1 - white.square().sum(), 0.2 * number)
    return ((1 + 1 / number + misfit.square().sum() / (number - 1)) * (number - 1) / left).sqrt()
