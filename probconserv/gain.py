"""The factorised update: S = G Σ Gᵀ + σ² I and what follows from it.

    correction of a field   u − Σ Gᵀ S⁻¹ (G u − b)
    reduction of variance   diag(Σ Gᵀ S⁻¹ G Σ)

(Hansen et al. 2023, sec. 3.) Rows are scaled so that S has a unit diagonal; every check is therefore independent of
the units of a row. For a diagonal Σ all work is O(n k) in time and memory. Long fields without gradients go through in
parts that fit the processor's cache, so that memory is read a few times and nothing of size n is held but the result.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from linear_operator.operators import DiagLinearOperator, LinearOperator
from torch import Tensor

from probconserv.covariance import is_factored, rows_times
from probconserv.errors import DependentConstraintsError, InvalidArgumentError

_PART = 1 << 15  # points of a part
_WHOLE = 1 << 18  # numbers up to which a field is one part
_EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True, kw_only=True, eq=False)
class Gain:
    """What the update of one prior by one constraint needs; build it with ``factorise``.

    Args:
        covariance: Σ ``(*batch, n, n)``.
        rows: G ``(*batch, k, n)``.
        noise: σ² ``(*batch, k)``.
        scale: d = 1/√S_ii ``(*batch, k)``.
        chol: Cholesky factor L of D S D ``(*batch, k, k)``.
        precision: Machine epsilon of the prior's own numbers.
    """

    covariance: LinearOperator
    rows: Tensor
    noise: Tensor
    scale: Tensor
    chol: Tensor
    precision: float

    @cached_property
    def cross(self) -> Tensor:
        """G Σ ``(*batch, k, n)``."""
        return rows_times(self.covariance, self.rows)

    @cached_property
    def whitened_cross(self) -> Tensor:
        """W = L⁻¹ D G Σ ``(*batch, k, n)``, so that Σ Gᵀ S⁻¹ G Σ = Wᵀ W."""
        return self._whiten(self.cross)

    @cached_property
    def pivot(self) -> float:
        """Smallest squared Cholesky pivot of D S D: 1 for independent rows, 0 for dependent ones."""
        return float(self.chol.detach().diagonal(dim1=-2, dim2=-1).amin().square())

    def multipliers(self, residual: Float[Tensor, "*batch s k"]) -> Float[Tensor, "*batch s k"]:
        """λ = S⁻¹ r for s residuals r."""
        if self.rows.shape[-2] == 1:
            return residual * self._inverse_root.square()
        scaled = residual * self.scale[..., None, :]
        return torch.cholesky_solve(scaled.mT, self.chol).mT * self.scale[..., None, :]

    def log_evidence(self, residual: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch"]:
        """log N(b; G μ, S) for the residual G μ − b."""
        white = torch.linalg.solve_triangular(self.chol, (residual * self.scale)[..., None], upper=False)[..., 0]
        log_pivots = self.chol.diagonal(dim1=-2, dim2=-1).log() - self.scale.log()
        return -(0.5 * white.square() + log_pivots + 0.5 * math.log(2 * math.pi)).sum(dim=-1)

    def correct(
        self, u: Float[Tensor, "*batch s n"], target: Float[Tensor, "*batch s k"]
    ) -> Float[Tensor, "*batch s n"]:
        """u − Σ Gᵀ S⁻¹ (G u − target), for a mean or for draws.

        Where the result misses exact rows by more than 1e-13 of the target (cancellation against a large u), the
        correction is applied to its own round-off once more.

        Raises:
            InvalidArgumentError: If a field is not finite.
        """
        parts = self._parts(u)
        multipliers = self.multipliers(_functional(u, self.rows, parts) - target)
        if not bool(torch.isfinite(multipliers).all()):
            raise InvalidArgumentError(
                "The mean of the prior (or a draw) holds entries that are not finite; repair the prediction before "
                "conditioning it."
            )
        corrected, functional = self._subtract(u, multipliers, parts)
        defect = functional - target - self.noise[..., None, :] * multipliers
        if bool((defect.abs() > 1e-13 * target.abs()).any()):
            corrected, _ = self._subtract(corrected, self.multipliers(defect), parts)
        return corrected

    def reduced_variance(self) -> Float[Tensor, "*batch n"]:
        """diag(Σ − Σ Gᵀ S⁻¹ G Σ), never negative and never above diag Σ.

        A negative result within round-off is zero: 64 k eps / (smallest pivot) relative to the prior's variance, and
        n eps(prior) of the largest variance where Σ is given by entries. Beyond that Σ is not positive semi-definite.

        Raises:
            InvalidArgumentError: If a variance is negative beyond round-off.
        """
        variance = self.covariance.diagonal()
        slack = 64 * self.rows.shape[-2] * _EPS / self.pivot
        floor = 0.0
        if not is_factored(self.covariance):
            floor = variance.shape[-1] * self.precision * float(variance.detach().max())
        parts = self._parts(variance)
        if len(parts) == 1:
            return _non_negative(_less_squares(variance, self.whitened_cross), variance, slack, floor)
        batch = torch.broadcast_shapes(variance.shape[:-1], self.rows.shape[:-2], self.chol.shape[:-2])
        reduced = variance.new_empty(*batch, variance.shape[-1])
        for part in parts:
            cross = self._whiten(self.rows[..., part] * variance[..., None, part])
            out = _less_squares(variance[..., part], cross, out=reduced[..., part])
            _non_negative(out, variance[..., part], slack, floor)
        return reduced

    def _subtract(self, u: Tensor, multipliers: Tensor, parts: list[slice]) -> tuple[Tensor, Tensor]:
        """u − Σ Gᵀ λ and G times it."""
        if not isinstance(self.covariance, DiagLinearOperator):
            corrected = u - multipliers @ self.cross
            return corrected, corrected @ self.rows.mT
        variance = self.covariance.diagonal()[..., None, :]
        if len(parts) == 1:
            corrected = torch.addcmul(u, _outer(multipliers, self.rows), variance, value=-1)
            return corrected, corrected @ self.rows.mT
        corrected, functional = u.new_empty(u.shape), torch.zeros_like(multipliers)
        for part in parts:
            rows, out = self.rows[..., part], corrected[..., part]
            torch.addcmul(u[..., part], _outer(multipliers, rows), variance[..., part], value=-1, out=out)
            functional += _inner(out, rows)
        return corrected, functional

    @cached_property
    def _inverse_root(self) -> Tensor:
        """1/√S of a single row ``(*batch, 1, 1)``; batched LAPACK calls on 1 × 1 systems would dominate."""
        return self.scale[..., None] / self.chol

    def _whiten(self, cross: Tensor) -> Tensor:
        if self.rows.shape[-2] == 1:
            return cross * self._inverse_root
        return torch.linalg.solve_triangular(self.chol, cross * self.scale[..., None], upper=False)

    def _parts(self, u: Tensor) -> list[slice]:
        return _parts(u, self.rows, self.covariance)


def factorise(covariance: LinearOperator, rows: Tensor, noise: Tensor, precision: float) -> Gain:
    """Forms and factorises S = G Σ Gᵀ + σ² I.

    Args:
        covariance: Σ ``(*batch, n, n)``, float64.
        rows: G ``(*batch, k, n)``, float64.
        noise: σ² ``(*batch, k)``, float64.
        precision: Machine epsilon of the numbers from which Σ was made.

    Returns:
        The factorised update.

    Raises:
        InvalidArgumentError: If Σ holds a negative variance or an entry that is not finite.
        DependentConstraintsError: If S is singular: relative to the size of its rows, whatever their units.
    """
    k = rows.shape[-2]
    innovation = _project(covariance, rows) + torch.diag_embed(noise)
    variance = covariance.diagonal()
    _check_covariance(innovation, variance)
    diagonal = innovation.diagonal(dim1=-2, dim2=-1)
    if not isinstance(covariance, DiagLinearOperator):
        # What is left of S after cancellation must stand above the rounding of the entries, or of the factors, of Σ.
        spread = (rows.detach().abs() @ variance.detach().sqrt()[..., None])[..., 0]
        rounding = (100 * precision) ** 2 if is_factored(covariance) else 100 * precision
        _require_independent((diagonal > rounding * spread.square()).all(), k)
    _require_independent((diagonal > 0).all(), k)
    scale = diagonal.rsqrt()
    chol, info = torch.linalg.cholesky_ex(scale[..., None] * innovation * scale[..., None, :])
    gain = Gain(covariance=covariance, rows=rows, noise=noise, scale=scale, chol=chol, precision=precision)
    if k > 1:
        _require_independent((info == 0).all() & (gain.pivot > 1e3 * k * _EPS), k)
    return gain


def _project(covariance: LinearOperator, rows: Tensor) -> Tensor:
    """G Σ Gᵀ ``(*batch, k, k)``."""
    if not isinstance(covariance, DiagLinearOperator):
        return rows_times(covariance, rows) @ rows.mT
    variance = covariance.diagonal()
    parts = _parts(variance, rows, covariance)
    if len(parts) == 1:
        return (rows * variance[..., None, :]) @ rows.mT
    return torch.stack([_inner(rows[..., p] * variance[..., None, p], rows[..., p]) for p in parts]).sum(dim=0)


def _functional(u: Tensor, rows: Tensor, parts: list[slice]) -> Tensor:
    """G u ``(*batch, s, k)``."""
    if len(parts) == 1:
        return u @ rows.mT
    return torch.stack([_inner(u[..., part], rows[..., part]) for part in parts]).sum(dim=0)


def _inner(u: Tensor, rows: Tensor) -> Tensor:
    """G u of one part; a BLAS call would wake all threads for a vector that fits a cache."""
    return (u * rows).sum(dim=-1, keepdim=True) if rows.shape[-2] == 1 else u @ rows.mT


def _outer(multipliers: Tensor, rows: Tensor) -> Tensor:
    return multipliers * rows if rows.shape[-2] == 1 else multipliers @ rows


def _less_squares(variance: Tensor, whitened: Tensor, out: Tensor | None = None) -> Tensor:
    """v − Σ_i W_i²."""
    if whitened.shape[-2] == 1:
        return torch.addcmul(variance, whitened[..., 0, :], whitened[..., 0, :], value=-1, out=out)
    return torch.sub(variance, whitened.square().sum(dim=-2), out=out)


def _non_negative(reduced: Tensor, variance: Tensor, slack: float, floor: float) -> Tensor:
    """Sets negative entries to zero in place if they are within ``slack * variance + floor``."""
    if float(reduced.detach().min()) >= 0:
        return reduced
    if bool((reduced < -(slack * variance + floor)).any()):
        raise InvalidArgumentError(
            f"The conditioned variance is negative ({float(reduced.min()):.3g}) beyond round-off: the prior covariance "
            "is not positive semi-definite. Check how it was computed."
        )
    return reduced.clamp_(min=0.0)


def _parts(u: Tensor, rows: Tensor, covariance: LinearOperator) -> list[slice]:
    """One slice for all points, or several where a diagonal update without gradients is larger than a cache."""
    n = u.shape[-1]
    stack = max(u[..., 0].numel(), 1) * rows.shape[-2]
    if n * stack <= _WHOLE or not isinstance(covariance, DiagLinearOperator):
        return [slice(0, n)]
    if torch.is_grad_enabled() and any(t.requires_grad for t in (u, rows, covariance.diagonal())):
        return [slice(0, n)]
    size = max(_PART // stack, 1024)
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _check_covariance(innovation: Tensor, variance: Tensor) -> None:
    if not bool(torch.isfinite(innovation).all()):
        raise InvalidArgumentError(
            "The prior covariance holds entries that are not finite (or G Σ Gᵀ overflows); repair the prediction "
            "before conditioning it."
        )
    smallest = float(variance.detach().min())
    if smallest < 0:
        raise InvalidArgumentError(f"The prior variance must not be negative, got a smallest entry of {smallest:g}.")


def _require_independent(independent: Tensor, k: int) -> None:
    if not bool(independent):
        raise DependentConstraintsError(
            f"The {k} constraint rows are not independent under this prior: S = G Σ Gᵀ + σ² I is singular. Drop "
            "redundant rows, do not condition twice on one exact law, or set noise_variance > 0."
        )
