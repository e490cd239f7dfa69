"""The factorised update: S = G Σ Gᵀ + σ² I and what follows from it.

    correction of a field   u − Σ Gᵀ S⁻¹ (G u − b)
    reduction of variance   diag(Σ Gᵀ S⁻¹ G Σ)

(Hansen et al. 2023, sec. 3.) Rows are scaled so that S has a unit diagonal; every check is therefore independent of
the units of a row. For a diagonal Σ all work is O(n k) in time and memory; long fields go through in blocks that fit
the processor's cache, so that memory is read a few times and nothing of size n is held but the result.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from linear_operator.operators import DiagLinearOperator, LinearOperator
from torch import Tensor

from probconserv.covariance import is_factored, rows_times
from probconserv.errors import DependentConstraintsError, InvalidArgumentError

_BLOCK = 1 << 15
_EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True, kw_only=True, eq=False)
class Gain:
    """What the update of one prior by one constraint needs; build it with ``factorise``.

    Args:
        covariance: Σ ``(*batch, n, n)``.
        rows: G ``(*batch, k, n)``.
        noise: σ² ``(*batch, k)``.
        scale: d = 1/√S_ii ``(*batch, k)``.
        chol: Cholesky factor of D S D ``(*batch, k, k)``, unit diagonal of the product.
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

    @property
    def pivot(self) -> Tensor:
        """Smallest squared Cholesky pivot of D S D: 1 for independent rows, 0 for dependent ones."""
        return self.chol.diagonal(dim1=-2, dim2=-1).amin().square()

    def multipliers(self, residual: Float[Tensor, "*batch s k"]) -> Float[Tensor, "*batch s k"]:
        """λ = S⁻¹ r for s residuals r."""
        scaled = (residual * self.scale[..., None, :]).mT
        return torch.cholesky_solve(scaled, self.chol).mT * self.scale[..., None, :]

    def correct(
        self, u: Float[Tensor, "*batch s n"], target: Float[Tensor, "*batch s k"]
    ) -> Float[Tensor, "*batch s n"]:
        """u − Σ Gᵀ S⁻¹ (G u − target), once more on its own round-off when that exceeds 1e-13 of the target."""
        multipliers = self.multipliers(self._functional(u) - target)
        corrected = self._subtract(u, multipliers)
        defect = self._functional(corrected) - target - self.noise[..., None, :] * multipliers
        if bool((defect.abs() > 1e-13 * target.abs()).any()):
            corrected = self._subtract(corrected, self.multipliers(defect))
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
        reduced = torch.cat(
            [variance[..., part] - self._whitened(part).square().sum(dim=-2) for part in _blocks(self.rows, variance)],
            dim=-1,
        )
        bound = slack * variance
        if not is_factored(self.covariance):
            bound = bound + variance.shape[-1] * self.precision * variance.amax(dim=-1, keepdim=True)
        if bool((reduced < -bound).any()):
            raise InvalidArgumentError(
                f"The conditioned variance is negative ({float(reduced.min()):.3g}) beyond round-off: the prior "
                "covariance is not positive semi-definite. Check how it was computed."
            )
        return reduced.clamp_min(0.0)

    def _functional(self, u: Tensor) -> Tensor:
        return u @ self.rows.mT

    def _subtract(self, u: Tensor, multipliers: Tensor) -> Tensor:
        if isinstance(self.covariance, DiagLinearOperator):
            return u - (multipliers @ self.rows) * self.covariance.diagonal()[..., None, :]
        return u - multipliers @ self.cross

    def _whiten(self, cross: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(self.chol, cross * self.scale[..., None], upper=False)

    def _whitened(self, part: slice) -> Tensor:
        if isinstance(self.covariance, DiagLinearOperator):
            return self._whiten(self.rows[..., part] * self.covariance.diagonal()[..., None, part])
        return self.whitened_cross[..., part]


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
    variance = covariance.diagonal()
    cross = rows_times(covariance, rows)
    innovation = cross @ rows.mT + torch.diag_embed(noise)
    _check_covariance(innovation, variance)
    diagonal = innovation.diagonal(dim1=-2, dim2=-1)
    if not is_factored(covariance):
        spread = (rows.abs() @ variance.sqrt()[..., None])[..., 0]
        _require_independent((diagonal > 100 * precision * spread.square()).all(), rows.shape[-2])
    _require_independent((diagonal > 0).all(), rows.shape[-2])
    scale = diagonal.rsqrt()
    chol, info = torch.linalg.cholesky_ex(scale[..., None] * innovation * scale[..., None, :])
    gain = Gain(covariance=covariance, rows=rows, noise=noise, scale=scale, chol=chol, precision=precision)
    _require_independent(~info.any() & (gain.pivot > 1e3 * rows.shape[-2] * _EPS), rows.shape[-2])
    return gain


def _check_covariance(innovation: Tensor, variance: Tensor) -> None:
    if not bool(torch.isfinite(innovation).all()):
        raise InvalidArgumentError(
            "The prior covariance holds entries that are not finite (or G Σ Gᵀ overflows); repair the prediction "
            "before conditioning it."
        )
    if bool((variance < 0).any()):
        raise InvalidArgumentError(
            f"The prior variance must not be negative, got a smallest entry of {float(variance.min()):g}."
        )


def _require_independent(independent: Tensor, k: int) -> None:
    if not bool(independent):
        raise DependentConstraintsError(
            f"The {k} constraint rows are not independent under this prior: S = G Σ Gᵀ + σ² I is singular. Drop "
            "redundant rows, do not condition twice on one exact law, or set noise_variance > 0."
        )


def _blocks(rows: Tensor, variance: Tensor) -> Iterator[slice]:
    size = max(_BLOCK // max(1, rows.shape[-2] * variance[..., 0].numel()), 1024)
    n = variance.shape[-1]
    return (slice(start, min(start + size, n)) for start in range(0, n, size))
