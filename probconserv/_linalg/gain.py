"""The factorised update: S = G Σ Gᵀ + σ² I and what follows from it.

    correction of a field   u − Σ Gᵀ S⁻¹ (G u − b)
    reduction of variance   diag(Σ Gᵀ S⁻¹ G Σ)

(Hansen et al. 2023, sec. 3.) Rows are scaled so that S has a unit diagonal; every check is therefore independent of
the units of a row. For a diagonal Σ all work is O(n k) in time and memory.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from linear_operator.operators import (
    ConstantMulLinearOperator,
    LinearOperator,
    RootLinearOperator,
    SumLinearOperator,
)
from torch import Tensor

from probconserv._linalg.covariance import Covariance
from probconserv._linalg.rank import (
    EPS,
    NEARLY_DEPENDENT,
    cholesky_of_rows,
    exceed_rounding,
    least_pivot,
    require_independent,
    smallest_pivot,
    triangular_factor,
)
from probconserv._linalg.values import are_finite, square_root
from probconserv.errors import InvalidArgumentError
from solvers.recording import are_readable, overwritable

_PART = 1 << 15  # numbers of a row that are summed at once


@dataclass(frozen=True, kw_only=True, eq=False)
class Gain:
    """Factors of the update of one prior by one constraint; build them with ``factorise``.

    Args:
        covariance: Σ ``(*batch, n, n)``.
        variance: Its diagonal ``(*batch, n)``.
        rows: G ``(*batch, k, n)``.
        cross: G Σ ``(*batch, k, n)``; None for a diagonal Σ, where it would be one more array of the field's size.
        noise: σ² ``(*batch, k)``.
        scale: d = 1/√S_ii ``(*batch, k, 1)``.
        chol: Cholesky factor L of D S D ``(*batch, k, k)``.
        epsilon: Machine epsilon of the prior's dtype.
        checked: Whether values are checked.
    """

    covariance: Covariance
    variance: Tensor
    rows: Tensor
    cross: Tensor | None
    noise: Tensor
    scale: Tensor
    chol: Tensor
    epsilon: float
    checked: bool

    def whitened_cross(self) -> Tensor:
        """W = L⁻¹ D G Σ ``(*batch, k, n)``, so that Σ Gᵀ S⁻¹ G Σ = Wᵀ W."""
        cross, scale = self._cross(), self.scale
        fits = self.cross is None and scale.shape[:-2] == cross.shape[:-2]
        scaled = torch.mul(cross, scale, out=overwritable(cross, scale) if fits else None)
        if scaled.shape[-2] == 1:  # L = 1, and batched calls of LAPACK would dominate
            return scaled
        return torch.linalg.solve_triangular(self.chol, scaled, upper=False)

    def multipliers(self, residual: Float[Tensor, "*batch s k"]) -> Float[Tensor, "*batch s k"]:
        """λ = S⁻¹ r for s residuals r."""
        if self.rows.shape[-2] == 1:
            return residual * self.scale * self.scale
        scaled = residual * self.scale.mT
        return torch.cholesky_solve(scaled.mT, self.chol).mT * self.scale.mT

    def log_evidence_peak(self) -> Float[Tensor, "*batch"]:
        """log N(b; b, S), the largest log-density that a target can have."""
        log_pivots = self.chol.diagonal(dim1=-2, dim2=-1).log() - self.scale.squeeze(-1).log()
        return -(log_pivots + 0.5 * math.log(2 * math.pi)).sum(dim=-1)

    def functional(self, u: Float[Tensor, "*batch s n"]) -> Float[Tensor, "*batch s k"]:
        """G u."""
        return u @ self.rows.mT

    def size(self, u: Float[Tensor, "*batch s n"]) -> Float[Tensor, "*batch s k"]:
        """Σ_j |G_j u_j|."""
        return u.abs() @ self.rows.abs().mT

    def log_area(self, exact: Tensor) -> Float[Tensor, "*batch"]:
        """½ log det G_E G_Eᵀ over the nodes with positive variance, for the rows marked exact ``(*batch, k)``."""
        active = (self.covariance.variance != 0)[..., None, :]
        rows = torch.where(active & exact[..., None], self.rows, 0.0)
        norms = torch.where(exact, torch.linalg.vector_norm(rows, dim=-1), 1.0)
        unit = rows / norms[..., None]
        others = torch.diag_embed((~exact).to(unit.dtype))
        chol, info = torch.linalg.cholesky_ex(unit @ unit.mT + others)
        if are_readable(chol) and (bool(info.any()) or smallest_pivot(chol) < NEARLY_DEPENDENT):
            chol = triangular_factor(torch.cat([unit, others.expand(*unit.shape[:-1], -1)], dim=-1))
        return (chol.diagonal(dim1=-2, dim2=-1).log() + norms.log()).sum(dim=-1)

    def correct(
        self, u: Float[Tensor, "*batch s n"], target: Float[Tensor, "*batch s k"]
    ) -> Float[Tensor, "*batch s n"]:
        """u − Σ Gᵀ S⁻¹ (G u − target), for a mean or for draws.

        If the result misses an exact row by more than 1e-13 of the target (cancellation against a large u), or numbers
        cannot be read, a second correction removes that round-off.

        Raises:
            InvalidArgumentError: If a field is not finite.
        """
        columns = self.rows.mT
        multipliers = self.multipliers(u @ columns - target)
        corrected = self._subtract(u, multipliers)
        missed = torch.addcmul(corrected @ columns - target, self.noise.unsqueeze(-2), multipliers, value=-1)
        readable = are_readable(u)
        if readable and largest_of(missed / target) <= 1e-13:
            return corrected
        if readable and self.checked:
            require_finite_multipliers(multipliers)
        return self._subtract(corrected, self.multipliers(missed))

    def reduced_variance(self) -> Float[Tensor, "*batch n"]:
        """diag(Σ − Σ Gᵀ S⁻¹ G Σ), never negative and never above diag Σ.

        Negative values within round-off become zero: up to 64 k ε₆₄ / (smallest pivot) of the prior's variance, or over
        its root where whitened rows gave it, plus n ε of the largest variance if Σ is stored by its entries, with ε₆₄
        and ε the machine epsilons of float64 and of the prior. Larger negative values mean that Σ is not positive
        semi-definite.

        Raises:
            InvalidArgumentError: If a variance is negative beyond round-off.
        """
        variance = self.variance.unsqueeze(-2)
        whitened = self.whitened_cross()
        if whitened.shape[-2] == 1:
            reduced = torch.addcmul(variance, whitened, whitened, value=-1, out=overwritable(whitened))
        else:
            reduced = variance - whitened.square().sum(dim=-2, keepdim=True)
        if are_readable(reduced) and smallest_of(reduced) >= 0:
            return reduced.squeeze(-2)
        if not self.checked:
            beyond_round_off = reduced < -1e-6 * variance.amax(dim=-1, keepdim=True)
            return torch.where(beyond_round_off, torch.nan, reduced.clamp_min(0.0)).squeeze(-2)
        pivot = smallest_pivot(self.chol)
        slack = 64 * self.rows.shape[-2] * EPS / (pivot if pivot >= NEARLY_DEPENDENT else pivot**0.5)
        floor = (
            0.0 if self.covariance.is_factored else variance.shape[-1] * self.epsilon * float(variance.detach().max())
        )
        return non_negative(reduced, variance, slack, floor).squeeze(-2)

    def conditioned(self, batch: torch.Size, dtype: torch.dtype) -> LinearOperator:
        """Σ′ = Σ − Wᵀ W ``(*batch, n, n)``, never formed."""
        root, prior = self.whitened_cross().mT, self.covariance.operator.to(dtype)
        root = root.expand(*batch, *root.shape[-2:]).to(dtype)
        prior = prior if prior.batch_shape == batch else prior.expand(*batch, *prior.shape[-2:])
        minus_one = torch.full(batch, -1.0, dtype=dtype, device=root.device)
        return SumLinearOperator(prior, ConstantMulLinearOperator(RootLinearOperator(root), minus_one))

    def _cross(self) -> Tensor:
        """G Σ ``(*batch, k, n)``, made anew for a diagonal Σ."""
        return self.rows * self.variance.unsqueeze(-2) if self.cross is None else self.cross

    def _subtract(self, u: Tensor, multipliers: Tensor) -> Tensor:
        """u − Σ Gᵀ λ."""
        if self.rows.shape[-2] == 1:
            cross = self._cross()
            fits = self.cross is None and cross.shape == u.shape
            return torch.addcmul(
                u, multipliers, cross, value=-1, out=overwritable(cross, multipliers) if fits else None
            )
        if self.cross is not None:
            return u - multipliers @ self.cross
        combined = multipliers @ self.rows
        return torch.addcmul(u, combined, self.variance.unsqueeze(-2), value=-1, out=overwritable(combined))


@torch.enable_grad()  # derivatives of a variance may be asked for after a mean without them
def factorise(
    covariance: Covariance,
    rows: Tensor,
    noise: Tensor,
    epsilon: float,
    validate: bool = True,
) -> Gain:
    """Forms and factorises S = G Σ Gᵀ + σ² I.

    Args:
        covariance: Σ ``(*batch, n, n)``, float64.
        rows: G ``(*batch, k, n)``, float64.
        noise: σ² ``(*batch, k)``, float64.
        epsilon: Machine epsilon of the dtype in which Σ was computed.
        validate: Whether values are checked, where they can be read.

    Returns:
        The factorised update.

    Raises:
        InvalidArgumentError: If Σ holds a negative variance or an entry that is not finite.
        DependentConstraintsError: If S is singular, measured independently of the units of the rows.
    """
    independent, k, variance = covariance.is_independent, rows.shape[-2], covariance.variance
    readable = are_readable(variance, rows, noise)
    checked = validate and readable
    variance = non_negative_variance(variance, readable, checked)
    cross = None if independent else covariance.times(rows)
    innovation = _gram(rows, variance) if cross is None else cross @ rows.mT
    innovation = innovation + (noise.unsqueeze(-1) if k == 1 else torch.diag_embed(noise))
    diagonal = innovation if k == 1 else innovation.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
    if checked:
        require_finite(innovation)
    if not (readable and independent and smallest_of(diagonal) > 0):
        varies = exceed_rounding(diagonal.detach()[..., 0], covariance, variance.detach(), rows.detach(), epsilon)
        if checked:
            require_independent(varies.all(), k, covariance.members)
        else:
            diagonal = torch.where(varies[..., None], diagonal, torch.nan)
    scale = diagonal.rsqrt()
    chol = torch.ones_like(innovation) if k == 1 else scale * innovation * scale.mT
    if k > 1 and not checked:
        chol = _cholesky(chol)
    elif k > 1:
        chol = cholesky_of_rows(chol, covariance, scale * rows, scale[..., 0] * square_root(noise), epsilon)
    return Gain(
        covariance=covariance,
        variance=variance,
        rows=rows,
        cross=cross,
        noise=noise,
        scale=scale,
        chol=chol,
        epsilon=epsilon,
        checked=checked,
    )


def _gram(rows: Tensor, variance: Tensor) -> Tensor:
    """G V Gᵀ ``(*batch, k, k)`` for a diagonal V, part by part, so that what is not a result stays in the cache."""
    parts = [(rows, variance)]
    if rows.shape[-1] > _PART and are_readable(rows, variance):
        parts = zip(rows.split(_PART, dim=-1), variance.split(_PART, dim=-1), strict=True)
    if rows.shape[-2] == 1:
        products = [v.unsqueeze(-2) @ g.square().mT for g, v in parts]
    else:
        products = [(g * v.unsqueeze(-2)) @ g.mT for g, v in parts]
    return sum(products[1:], start=products[0])


def _cholesky(innovation: Tensor) -> Tensor:
    """Cholesky factor of D S D where values are not checked, NaN where it is singular."""
    chol, info = torch.linalg.cholesky_ex(innovation)
    pivots = chol.detach().diagonal(dim1=-2, dim2=-1).square().amin(dim=-1)
    return torch.where(((info == 0) & (pivots > least_pivot(innovation.shape[-1])))[..., None, None], chol, torch.nan)


def non_negative(reduced: Tensor, variance: Tensor, slack: float, floor: float) -> Tensor:
    """Sets negative entries to zero in place if they are within ``slack * variance + floor``."""
    smallest = smallest_of(reduced)
    if smallest >= 0:
        return reduced
    if bool((reduced < -(slack * variance + floor)).any()):
        raise indefinite(smallest)
    return reduced.clamp_(min=0.0)


def smallest_of(values: Tensor) -> float:
    """The smallest number, ∞ of none."""
    return values.min().item() if values.numel() else math.inf


def largest_of(values: Tensor) -> float:
    """The largest absolute number, 0 of none, NaN if one is NaN."""
    if not values.numel():
        return 0.0
    smallest, largest = torch.aminmax(values.detach())  # without derivatives forward, which torch 2.6 lacks here
    return max(-smallest.item(), largest.item())


def indefinite(smallest: float) -> InvalidArgumentError:
    """The error for a conditioned variance that is negative beyond round-off."""
    return InvalidArgumentError(
        f"The conditioned variance is negative ({smallest:.3g}) beyond round-off: the prior covariance is not positive "
        "semi-definite. Check how it was computed."
    )


def require_finite_multipliers(multipliers: Tensor) -> None:
    """Raises InvalidArgumentError if S⁻¹ (G u − b) is not finite, as u is not."""
    if not are_finite(multipliers):
        raise InvalidArgumentError(
            "The mean of the prior (or a draw) holds entries that are not finite; repair the prediction before "
            "conditioning it."
        )


def require_finite(innovation: Tensor) -> None:
    """Raises InvalidArgumentError if S is not finite."""
    if not are_finite(innovation):
        raise InvalidArgumentError(
            "The prior covariance holds entries that are not finite (or G Σ Gᵀ overflows); repair the prediction "
            "before conditioning it."
        )


def non_negative_variance(variance: Tensor, readable: bool, checked: bool) -> Tensor:
    """The variances of the prior, NaN for negative ones where values are not checked.

    Raises:
        InvalidArgumentError: If values are checked and one is negative.
    """
    smallest = smallest_of(variance) if readable else -math.inf
    if not smallest < 0:
        return variance
    if checked:
        raise InvalidArgumentError(f"The prior variance must not be negative, got a smallest entry of {smallest:g}.")
    return torch.where(variance < 0, math.nan, variance)
