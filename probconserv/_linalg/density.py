"""Log-densities of Gaussians that may be singular: zero-variance nodes, and fields confined to {G u = b}.

The density is taken over the nodes with positive variance. It is −∞ if a zero-variance node differs from its mean.
"""

import math

import torch
from jaxtyping import Float
from linear_operator.operators import LinearOperator
from torch import Tensor

from probconserv._linalg.covariance import Covariance, definite_root, singular
from probconserv._linalg.gain import Gain
from probconserv._linalg.roots import log_det_gram
from probconserv._linalg.structured import StructuredGain

_LOG_2PI = math.log(2 * math.pi)


def surface_tolerance(dtype: torch.dtype) -> float:
    """Largest |G u − b|, relative to |b| + Σ_j |G_j u_j|, at which u counts as on the constraint.

    1e-9 in float64, 1e-5 in single and two machine epsilons in half precision: well above the round-off of a field that
    was conditioned on it, well below the error of one that was not.
    """
    return 1e-9 if dtype == torch.float64 else max(1e-5, 2 * torch.finfo(dtype).eps)


def log_density_given_constraint(
    gain: Gain | StructuredGain,
    updated: Float[Tensor, "*batch n"],
    target: Float[Tensor, "*batch k"],
    u: Float[Tensor, "*batch s n"],
    tolerance: float,
) -> Float[Tensor, "*batch s"]:
    """Log-density of N(μ, Σ) given G u = b + ε.

    Rows with σ² > 0 (N) and exact rows (E) together:

        log N(u; μ, Σ) + log N(b_N; G_N u, σ_N² I) − log N(b; G μ, S) − ½ log det G_E G_Eᵀ

    on the surface {G_E u = b_E}, with respect to surface area, and −∞ off it. The determinant comes from the co-area
    formula, du = dA db / √det G Gᵀ, and makes the density independent of the scaling of the rows.

    The quadratic forms of the first three terms add up to dᵀ Σ⁻¹ d + |G_N d|² / σ_N² with d = u − μ′. This sum is
    computed directly, since the separate terms are huge and cancel if μ is far from the constraint.

    Args:
        gain: The factorised update.
        updated: μ′.
        target: b.
        u: Fields, s of them per batch entry.
        tolerance: See ``surface_tolerance``.

    Returns:
        Log-densities.
    """
    difference = u - updated[..., None, :]
    slack = tolerance * (u.abs() + updated.abs()[..., None, :])
    density = log_density(gain.covariance, difference, slack)
    exact = gain.noise == 0
    noise = torch.where(exact, 1.0, gain.noise)[..., None, :]
    likelihood = -0.5 * (gain.functional(difference).square() / noise + noise.log() + _LOG_2PI)
    density = density + torch.where(exact[..., None, :], 0.0, likelihood).sum(dim=-1)
    density = density - (gain.log_area(exact) + gain.log_evidence_peak())[..., None]
    size = target.abs()[..., None, :] + gain.size(u)
    residual = gain.functional(u) - target[..., None, :]
    off = (exact[..., None, :] & (residual.abs() > tolerance * size)).any(dim=-1)
    return torch.where(off, -math.inf, density)


def entropy_given_noise(gain: Gain | StructuredGain) -> Float[Tensor, "*batch"]:
    """Differential entropy of N(μ, Σ) given G u = b + ε with noise in every row: log det Σ′ = log det Σ + log det N −
    log det S, none of which loses digits where Σ′ is nearly singular.

    Raises:
        InvalidArgumentError: If Σ is singular.
    """
    n, k = gain.covariance.points, gain.noise.shape[-1]
    fixed = gain.covariance.variance == 0
    if bool(fixed.any()):
        raise singular()
    prior = gain.covariance.whiten(gain.noise.new_zeros(1, n), fixed)[1]
    lost = 2 * gain.log_evidence_peak() + k * _LOG_2PI  # −log det S
    return 0.5 * (n * (1 + _LOG_2PI) + prior + gain.noise.log().sum(dim=-1) + lost)


def divergence(
    difference: Float[Tensor, "*batch n"], first: LinearOperator, second: LinearOperator
) -> Float[Tensor, "*batch"]:
    """KL(N(d, Σ₁) ‖ N(0, Σ₂)) = ½ (tr Σ₂⁻¹ Σ₁ + dᵀ Σ₂⁻¹ d − n + log det Σ₂ − log det Σ₁), with dense factors.

    Raises:
        InvalidArgumentError: If Σ₁ or Σ₂ is singular.
    """
    root, other = definite_root(first), definite_root(second)
    batch = torch.broadcast_shapes(root.shape[:-2], other.shape[:-2], difference.shape[:-1])
    columns = [part.expand(*batch, *part.shape[-2:]) for part in (root, difference[..., None])]
    white = torch.linalg.solve_triangular(other, torch.cat(columns, dim=-1), upper=False)
    squares = white.square().sum(dim=(-2, -1)) - difference.shape[-1]
    return 0.5 * (squares + log_det_gram(other) - log_det_gram(root))


def log_density(
    covariance: Covariance, difference: Float[Tensor, "*batch s n"], tolerance: Float[Tensor, "*batch s n"]
) -> Float[Tensor, "*batch s"]:
    """log N(d; 0, Σ) over the nodes with positive variance; −∞ if a zero-variance node has d ≠ 0.

    Args:
        covariance: Σ ``(*batch, n, n)``, float64.
        difference: d = u − μ.
        tolerance: Largest |d| that counts as zero at a zero-variance node.

    Returns:
        Log-density with respect to Lebesgue measure on the nodes with positive variance.

    Raises:
        InvalidArgumentError: If Σ is singular on the nodes with positive variance.
    """
    fixed = covariance.variance == 0
    quadratic, log_determinant = covariance.whiten(torch.where(fixed[..., None, :], 0.0, difference), fixed)
    active = (~fixed).sum(dim=-1, dtype=difference.dtype)
    density = -0.5 * (quadratic + (log_determinant + active * _LOG_2PI)[..., None])
    off = (fixed[..., None, :] & (difference.abs() > tolerance)).any(dim=-1)
    return torch.where(off, -math.inf, density)
