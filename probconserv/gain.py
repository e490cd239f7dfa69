"""The factorised update: S = G Σ Gᵀ + σ² I and what follows from it.

    correction of a field   u − Σ Gᵀ S⁻¹ (G u − b)
    reduction of variance   diag(Σ Gᵀ S⁻¹ G Σ)

(Hansen et al. 2023, sec. 3.) Rows are scaled so that S has a unit diagonal; every check is therefore independent of
the units of a row. For a diagonal Σ all work is O(n k) in time and memory. Long fields and large
batches without gradients go through in tiles that fit the processor's cache: memory is read a few times, and nothing of
the size of the field is held but the result.
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

_Tile = tuple[slice, slice]  # batch entries and points
_TILE = 1 << 15  # numbers of a tile
_WHOLE: list[_Tile] = [(slice(None), slice(None))]
_EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True, kw_only=True, eq=False)
class Gain:
    """What the update of one prior by one constraint needs; build it with ``factorise``.

    Args:
        covariance: Σ ``(*batch, n, n)``.
        variance: Its diagonal ``(*batch, n)``.
        rows: G ``(*batch, k, n)``.
        noise: σ² ``(*batch, k)``.
        scale: d = 1/√S_ii ``(*batch, k)``.
        chol: Cholesky factor L of D S D ``(*batch, k, k)``.
        precision: Machine epsilon of the prior's own numbers.
    """

    covariance: LinearOperator
    variance: Tensor
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
        return _whiten(self.cross, (self.scale[..., None], self.chol))

    def multipliers(self, residual: Float[Tensor, "*batch s k"]) -> Float[Tensor, "*batch s k"]:
        """λ = S⁻¹ r for s residuals r."""
        if self.rows.shape[-2] == 1:
            return residual * (self.scale[..., None] / self.chol).square()
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
        tiles = self._tiles(u)
        multipliers = self.multipliers(_functional(u, self.rows, tiles) - target)
        if not bool(torch.isfinite(multipliers).all()):
            raise InvalidArgumentError(
                "The mean of the prior (or a draw) holds entries that are not finite; repair the prediction before "
                "conditioning it."
            )
        corrected, functional = self._subtract(u, multipliers, tiles)
        defect = functional - target - self.noise[..., None, :] * multipliers
        if bool((defect.abs() > 1e-13 * target.abs()).any()):
            corrected, _ = self._subtract(corrected, self.multipliers(defect), tiles)
        return corrected

    def reduced_variance(self) -> Float[Tensor, "*batch n"]:
        """diag(Σ − Σ Gᵀ S⁻¹ G Σ), never negative and never above diag Σ.

        A negative result within round-off is zero: 64 k eps / (smallest pivot) relative to the prior's variance, and
        n eps(prior) of the largest variance where Σ is given by entries. Beyond that Σ is not positive semi-definite.

        Raises:
            InvalidArgumentError: If a variance is negative beyond round-off.
        """
        variance = self.variance
        batch = common_shape(variance.shape[:-1], self.rows.shape[:-2], self.chol.shape[:-2])
        variance = variance.expand(*batch, variance.shape[-1])[..., None, :]
        slack = 64 * self.rows.shape[-2] * _EPS / _smallest_pivot(self.chol)
        floor = 0.0
        if not is_factored(self.covariance):
            floor = variance.shape[-1] * self.precision * float(variance.detach().max())
        tiles = self._tiles(variance)
        if len(tiles) == 1:
            return _non_negative(_less_squares(variance, self.whitened_cross), variance, slack, floor)[..., 0, :]
        reduced = variance.new_empty(variance.shape)
        for tile in tiles:
            prior, out = _cut(variance, tile), _cut(reduced, tile)
            cross = _cut(self.rows, tile) * prior
            _less_squares(prior, _whiten(cross, self._cut_factors(tile)), out=out)
            _non_negative(out, prior, slack, floor)
        return reduced[..., 0, :]

    def _subtract(self, u: Tensor, multipliers: Tensor, tiles: list[_Tile]) -> tuple[Tensor, Tensor]:
        """u − Σ Gᵀ λ and G times it."""
        if not isinstance(self.covariance, DiagLinearOperator):
            corrected = u - multipliers @ self.cross
            return corrected, corrected @ self.rows.mT
        variance = self.variance[..., None, :]
        if len(tiles) == 1:
            corrected = torch.addcmul(u, _outer(multipliers, self.rows), variance, value=-1)
            return corrected, corrected @ self.rows.mT
        corrected, functional = u.new_empty(u.shape), torch.zeros_like(multipliers)
        for tile in tiles:
            rows, out, weights = _cut(self.rows, tile), _cut(corrected, tile), _cut_batch(multipliers, tile)
            torch.addcmul(_cut(u, tile), _outer(weights, rows), _cut(variance, tile), value=-1, out=out)
            _cut_batch(functional, tile).add_(_inner(out, rows))
        return corrected, functional

    def _tiles(self, u: Tensor) -> list[_Tile]:
        if not isinstance(self.covariance, DiagLinearOperator):
            return _WHOLE
        return _tiles(u, self.rows, self.variance)

    def _cut_factors(self, tile: _Tile) -> tuple[Tensor, Tensor]:
        return _cut_batch(self.scale[..., None], tile), _cut_batch(self.chol, tile)


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
    variance = covariance.diagonal()
    innovation = _project(covariance, variance, rows) + torch.diag_embed(noise)
    _check_covariance(innovation, variance, rows)
    diagonal = innovation.diagonal(dim1=-2, dim2=-1)
    if not isinstance(covariance, DiagLinearOperator):
        # What is left of S after cancellation must stand above the rounding of the entries, or of the factors, of Σ.
        spread = (rows.detach().abs() @ variance.detach().sqrt()[..., None])[..., 0]
        rounding = (100 * precision) ** 2 if is_factored(covariance) else 100 * precision
        _require_independent((diagonal > rounding * spread.square()).all(), k)
    _require_independent((diagonal > 0).all(), k)
    scale = diagonal.rsqrt()
    if k == 1:
        chol = torch.ones_like(innovation)
    else:
        chol, info = torch.linalg.cholesky_ex(scale[..., None] * innovation * scale[..., None, :])
        _require_independent((info == 0).all() & (_smallest_pivot(chol) > 1e3 * k * _EPS), k)
    return Gain(
        covariance=covariance, variance=variance, rows=rows, noise=noise, scale=scale, chol=chol, precision=precision
    )


def _smallest_pivot(chol: Tensor) -> float:
    """Smallest squared pivot of D S D: 1 for independent rows, 0 for dependent ones."""
    return float(chol.detach().diagonal(dim1=-2, dim2=-1).min().square())


def _project(covariance: LinearOperator, variance: Tensor, rows: Tensor) -> Tensor:
    """G Σ Gᵀ ``(*batch, k, k)``."""
    if not isinstance(covariance, DiagLinearOperator):
        return rows_times(covariance, rows) @ rows.mT
    batch = common_shape(variance.shape[:-1], rows.shape[:-2])
    variance = variance.expand(*batch, rows.shape[-1])[..., None, :]
    tiles = _tiles(variance, rows)
    if len(tiles) == 1:
        return (rows * variance) @ rows.mT
    projected = rows.new_zeros(*batch, rows.shape[-2], rows.shape[-2])
    for tile in tiles:
        part = _cut(rows, tile)
        _cut_batch(projected, tile).add_(_inner(part * _cut(variance, tile), part))
    return projected


def _functional(u: Tensor, rows: Tensor, tiles: list[_Tile]) -> Tensor:
    """G u ``(*batch, s, k)``."""
    if len(tiles) == 1:
        return u @ rows.mT
    functional = u.new_zeros(*u.shape[:-1], rows.shape[-2])
    for tile in tiles:
        _cut_batch(functional, tile).add_(_inner(_cut(u, tile), _cut(rows, tile)))
    return functional


def _inner(u: Tensor, rows: Tensor) -> Tensor:
    """G u of one tile; a BLAS call would wake all threads for numbers that fit a cache."""
    return (u * rows).sum(dim=-1, keepdim=True) if rows.shape[-2] == 1 else u @ rows.mT


def _outer(multipliers: Tensor, rows: Tensor) -> Tensor:
    return multipliers * rows if rows.shape[-2] == 1 else multipliers @ rows


def _whiten(cross: Tensor, factors: tuple[Tensor, Tensor]) -> Tensor:
    """L⁻¹ D (G Σ); a division for a single row, since batched LAPACK calls on 1 × 1 systems would dominate."""
    scale, chol = factors
    if cross.shape[-2] == 1:
        return cross * (scale / chol)
    return torch.linalg.solve_triangular(chol, cross * scale, upper=False)


def _less_squares(variance: Tensor, whitened: Tensor, out: Tensor | None = None) -> Tensor:
    """v − Σ_i W_i² ``(*batch, 1, n)``."""
    if whitened.shape[-2] == 1:
        return torch.addcmul(variance, whitened, whitened, value=-1, out=out)
    return torch.sub(variance, whitened.square().sum(dim=-2, keepdim=True), out=out)


def _non_negative(reduced: Tensor, variance: Tensor, slack: float, floor: float) -> Tensor:
    """Sets negative entries to zero in place if they are within ``slack * variance + floor``."""
    if float(reduced.detach().min()) >= 0:
        return reduced
    if bool((reduced < -(slack * variance + floor)).any()):
        raise InvalidArgumentError(
            f"The conditioned variance is negative ({float(reduced.detach().min()):.3g}) beyond round-off: the prior "
            "covariance is not positive semi-definite. Check how it was computed."
        )
    return reduced.clamp_(min=0.0)


def common_shape(*shapes: torch.Size) -> torch.Size:
    """Broadcast batch shape; ``torch.broadcast_shapes`` costs as much as a small update."""
    first = max(shapes, key=len)
    return first if all(not shape or shape == first for shape in shapes) else torch.broadcast_shapes(*shapes)


def _tiles(u: Tensor, rows: Tensor, *others: Tensor) -> list[_Tile]:
    """One tile, or several where work on ``(*batch, s, n)`` without gradients exceeds a cache."""
    n = u.shape[-1]
    per_point = u.shape[-2] * rows.shape[-2]
    entries = u.shape[0] if u.ndim == 3 else 1
    if entries * n * per_point <= _TILE or u.ndim > 3 or u.device.type != "cpu":
        return _WHOLE
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (u, rows, *others)):
        return _WHOLE
    step = max(_TILE // (n * per_point), 1)
    length = n if step > 1 else max(_TILE // per_point, 1024)
    return [
        (slice(first, first + step), slice(start, start + length))
        for first in range(0, entries, step)
        for start in range(0, n, length)
    ]


def _cut(values: Tensor, tile: _Tile) -> Tensor:
    """The tile of values ``(*batch, …, n)``."""
    return _cut_batch(values, tile)[..., tile[1]]


def _cut_batch(values: Tensor, tile: _Tile) -> Tensor:
    """The batch entries of a tile; values shared by all entries stay whole."""
    return values[tile[0]] if values.ndim == 3 and values.shape[0] > 1 else values


def _check_covariance(innovation: Tensor, variance: Tensor, rows: Tensor) -> None:
    if not bool(torch.isfinite(innovation).all()):
        raise InvalidArgumentError(
            "The prior covariance holds entries that are not finite (or G Σ Gᵀ overflows); repair the prediction "
            "before conditioning it."
        )
    stacked = variance.detach()[..., None, :]
    smallest = min(float(_cut(stacked, tile).min()) for tile in _tiles(stacked, rows))
    if smallest < 0:
        raise InvalidArgumentError(f"The prior variance must not be negative, got a smallest entry of {smallest:g}.")


def _require_independent(independent: Tensor, k: int) -> None:
    if not bool(independent):
        raise DependentConstraintsError(
            f"The {k} constraint rows are not independent under this prior: S = G Σ Gᵀ + σ² I is singular. Drop "
            "redundant rows, do not condition twice on one exact law, or set noise_variance > 0."
        )
