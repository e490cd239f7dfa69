"""The factorised update: S = G Σ Gᵀ + σ² I and what follows from it.

    correction of a field   u − Σ Gᵀ S⁻¹ (G u − b)
    reduction of variance   diag(Σ Gᵀ S⁻¹ G Σ)

(Hansen et al. 2023, sec. 3.) Rows are scaled so that S has a unit diagonal; every check is therefore independent of
the units of a row. For a diagonal Σ all work is O(n k) in time and memory. Long fields and large batches without
gradients use compiled passes if there is one row, and tiles that fit the processor's cache if there are several: memory
is read a few times, and no array of the field's size is allocated except the result.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from linear_operator.operators import (
    ConstantMulLinearOperator,
    DiagLinearOperator,
    LinearOperator,
    RootLinearOperator,
    SumLinearOperator,
)
from torch import Tensor

from probconserv._linalg.checks import (
    indefinite,
    negative_variance,
    non_negative,
    require_finite,
    require_finite_multipliers,
    require_independent,
)
from probconserv._linalg.covariance import is_factored, rounding, rows_times
from probconserv._linalg.values import cached, square_root
from solvers.recording import are_plain, are_readable

_Tile = tuple[slice, slice]  # batch entries and points
_TILE = 1 << 15  # numbers of a tile
_EPS = torch.finfo(torch.float64).eps
_REFINED = 1e-7  # squared pivot below which L is computed again from whitened rows


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
        epsilon: Machine epsilon of the prior's dtype.
        checked: Whether values are checked.
    """

    covariance: LinearOperator
    variance: Tensor
    rows: Tensor
    noise: Tensor
    scale: Tensor
    chol: Tensor
    epsilon: float
    checked: bool

    @cached
    def cross(self) -> Tensor:
        """G Σ ``(*batch, k, n)``."""
        if isinstance(self.covariance, DiagLinearOperator):
            return self.rows * self.variance[..., None, :]
        return rows_times(self.covariance, self.rows)

    @cached
    def whitened_cross(self) -> Tensor:
        """W = L⁻¹ D G Σ ``(*batch, k, n)``, so that Σ Gᵀ S⁻¹ G Σ = Wᵀ W."""
        return _whiten(self.cross, (self.scale[..., None], self.chol))

    def multipliers(self, residual: Float[Tensor, "*batch s k"]) -> Float[Tensor, "*batch s k"]:
        """λ = S⁻¹ r for s residuals r."""
        if self.rows.shape[-2] == 1:
            return residual * self.scale[..., None].square()
        scaled = residual * self.scale[..., None, :]
        return torch.cholesky_solve(scaled.mT, self.chol).mT * self.scale[..., None, :]

    def log_evidence_peak(self) -> Float[Tensor, "*batch"]:
        """log N(b; b, S), the largest log-density that a target can have."""
        log_pivots = self.chol.diagonal(dim1=-2, dim2=-1).log() - self.scale.log()
        return -(log_pivots + 0.5 * math.log(2 * math.pi)).sum(dim=-1)

    def functional(self, u: Float[Tensor, "*batch s n"]) -> Float[Tensor, "*batch s k"]:
        """G u."""
        return u @ self.rows.mT

    def size(self, u: Float[Tensor, "*batch s n"]) -> Float[Tensor, "*batch s k"]:
        """Σ_j |G_j u_j|."""
        return u.abs() @ self.rows.abs().mT

    def log_area(self, exact: Tensor) -> Float[Tensor, "*batch"]:
        """½ log det G_E G_Eᵀ over the nodes with positive variance, for the rows marked exact ``(*batch, k)``."""
        active = (self.covariance.diagonal() != 0)[..., None, :]
        rows = torch.where(active & exact[..., None], self.rows, 0.0)
        norms = torch.where(exact, torch.linalg.vector_norm(rows, dim=-1), 1.0)
        unit = rows / norms[..., None]
        gram = unit @ unit.mT + torch.diag_embed((~exact).to(unit.dtype))
        chol = torch.linalg.cholesky(gram)
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
        large = isinstance(self.covariance, DiagLinearOperator) and _is_large(
            u, self.rows, self.variance[..., None, :], target
        )
        multipliers = self.multipliers(_functional(u, self.rows, large) - target)
        if self.checked:
            require_finite_multipliers(multipliers)
        corrected, functional = self._subtract(u, multipliers, large)
        defect = functional - target - self.noise[..., None, :] * multipliers
        if not are_readable(u) or bool((defect.abs() > 1e-13 * target.abs()).any()):
            corrected, _ = self._subtract(corrected, self.multipliers(defect), large)
        return corrected

    def reduced_variance(self) -> Float[Tensor, "*batch n"]:
        """diag(Σ − Σ Gᵀ S⁻¹ G Σ), never negative and never above diag Σ.

        Negative values within round-off become zero: up to 64 k ε₆₄ / (smallest pivot) of the prior's variance, plus
        n ε of the largest variance if Σ is stored by its entries, with ε₆₄ and ε the machine epsilons of float64 and of
        the prior. Larger negative values mean that Σ is not positive semi-definite.

        Raises:
            InvalidArgumentError: If a variance is negative beyond round-off.
        """
        variance = self.variance
        batch = common_shape(variance.shape[:-1], self.rows.shape[:-2], self.chol.shape[:-2])
        variance = variance.expand(*batch, variance.shape[-1])[..., None, :]
        if not self.checked:
            reduced = _less_squares(variance, self.whitened_cross)[..., 0, :]
            beyond_round_off = reduced < -1e-6 * variance.amax(dim=-1)
            return torch.where(beyond_round_off, torch.nan, reduced.clamp_min(0.0))
        slack = 64 * self.rows.shape[-2] * _EPS / _smallest_pivot(self.chol)
        floor = 0.0
        if not is_factored(self.covariance) and variance.numel():
            floor = variance.shape[-1] * self.epsilon * float(variance.detach().max())
        if not isinstance(self.covariance, DiagLinearOperator) or not _is_large(
            variance, self.rows, self.scale[..., None]
        ):
            return non_negative(_less_squares(variance, self.whitened_cross), variance, slack, floor)[..., 0, :]
        if self.rows.shape[-2] == 1:
            return self._reduce_by_kernel(variance, slack)[..., 0, :]
        reduced = variance.new_empty(variance.shape)
        for tile in _tiles(variance, self.rows):
            prior, out = _cut(variance, tile), _cut(reduced, tile)
            cross = _cut(self.rows, tile) * prior
            _less_squares(prior, _whiten(cross, self._cut_factors(tile)), out=out)
            non_negative(out, prior, slack, floor)
        return reduced[..., 0, :]

    def conditioned(self, batch: torch.Size, dtype: torch.dtype) -> LinearOperator:
        """Σ′ = Σ − Wᵀ W ``(*batch, n, n)``, never formed."""
        root, prior = self.whitened_cross.mT, self.covariance.to(dtype)
        root = root.expand(*batch, *root.shape[-2:]).to(dtype)
        prior = prior if prior.batch_shape == batch else prior.expand(*batch, *prior.shape[-2:])
        minus_one = torch.tensor(-1.0, dtype=dtype, device=root.device)
        return SumLinearOperator(prior, ConstantMulLinearOperator(RootLinearOperator(root), minus_one))

    def _reduce_by_kernel(self, variance: Tensor, slack: float) -> Tensor:
        """``reduced_variance`` of many numbers and one row, ``(*batch, 1, n)``."""
        from probconserv._linalg import kernels  # numba, which is slow to import and rarely needed

        reduced = variance.new_empty(variance.shape)
        factors = self.scale[..., None].expand(*variance.shape[:-1], 1)
        prior = _array(self.rows), _array(variance)
        smallest = kernels.reduce(prior, _vector(factors), slack, _array(reduced), torch.get_num_threads())
        if smallest < 0:
            raise indefinite(smallest)
        return reduced

    def _subtract(self, u: Tensor, multipliers: Tensor, large: bool) -> tuple[Tensor, Tensor]:
        """u − Σ Gᵀ λ and G times it."""
        if not isinstance(self.covariance, DiagLinearOperator):
            corrected = u - multipliers @ self.cross
            return corrected, corrected @ self.rows.mT
        variance = self.variance[..., None, :]
        if not large:
            corrected = torch.addcmul(u, _outer(multipliers, self.rows), variance, value=-1)
            return corrected, corrected @ self.rows.mT
        corrected = u.new_empty(u.shape)
        if self.rows.shape[-2] == 1:
            from probconserv._linalg import kernels

            prior, weights = (_array(self.rows), _array(variance)), _vector(multipliers)
            sums = kernels.subtract(_array(u), prior, weights, u.shape[-2], _array(corrected), torch.get_num_threads())
            return corrected, torch.from_numpy(sums).reshape(multipliers.shape)
        functional = torch.zeros_like(multipliers)
        for tile in _tiles(u, self.rows):
            rows, out, weights = _cut(self.rows, tile), _cut(corrected, tile), _cut_batch(multipliers, tile)
            torch.addcmul(_cut(u, tile), weights @ rows, _cut(variance, tile), value=-1, out=out)
            _cut_batch(functional, tile).add_(out @ rows.mT)
        return corrected, functional

    def _cut_factors(self, tile: _Tile) -> tuple[Tensor, Tensor]:
        return _cut_batch(self.scale[..., None], tile), _cut_batch(self.chol, tile)


def factorise(covariance: LinearOperator, rows: Tensor, noise: Tensor, epsilon: float, validate: bool = True) -> Gain:
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
    variance = covariance.diagonal()
    checked = validate and are_readable(variance, rows, noise)
    if not checked:
        variance = torch.where(variance < 0, torch.nan, variance)
    projected, negative = _project(covariance, variance, rows, checked)
    innovation = projected + torch.diag_embed(noise)
    if checked:
        require_finite(innovation)
        if negative:
            raise negative_variance(variance)
    members = covariance.root.shape[-1] if isinstance(covariance, RootLinearOperator) else None
    diagonal = innovation.diagonal(dim1=-2, dim2=-1)
    positive = _exceed_rounding(diagonal.detach(), covariance, variance.detach(), rows.detach(), epsilon)
    if checked:
        require_independent(positive.all(), rows.shape[-2], members)
    scale = (diagonal if checked else torch.where(positive, diagonal, torch.nan)).rsqrt()
    chol = _cholesky(scale[..., None] * innovation * scale[..., None, :], checked, members)
    if checked and _smallest_pivot(chol) < _REFINED:
        chol = _refine(chol, covariance, variance, scale[..., None] * rows, scale * square_root(noise))
    return Gain(
        covariance=covariance,
        variance=variance,
        rows=rows,
        noise=noise,
        scale=scale,
        chol=chol,
        epsilon=epsilon,
        checked=checked,
    )


def _exceed_rounding(
    diagonal: Tensor, covariance: LinearOperator, variance: Tensor, rows: Tensor, epsilon: float
) -> Tensor:
    """Which S_ii ``(*batch, k)`` are more than what rounding leaves of a zero; arguments are those of ``Gain``."""
    if isinstance(covariance, DiagLinearOperator):
        return diagonal > 0
    relative = min(100 * epsilon, 0.1)
    if are_readable(diagonal):  # a bound that is cheaper, and decides nearly always
        largest = (rows.abs() @ variance.sqrt()[..., None])[..., 0].square()
        if bool((diagonal > relative * largest).all()):
            return torch.ones_like(diagonal, dtype=torch.bool)
    return diagonal > rounding(covariance.detach(), rows, relative)


def _cholesky(innovation: Tensor, checked: bool, members: int | None) -> Tensor:
    """Cholesky factor of D S D; where it is singular, an error if values are checked, else NaN."""
    k = innovation.shape[-1]
    if k == 1:
        return torch.ones_like(innovation)
    chol, info = torch.linalg.cholesky_ex(innovation)
    if checked:
        require_independent((info == 0).all() & (_smallest_pivot(chol) > 1e3 * k * _EPS), k, members)
        return chol
    pivots = chol.detach().diagonal(dim1=-2, dim2=-1).square().amin(dim=-1)
    return torch.where(((info == 0) & (pivots > 1e3 * k * _EPS))[..., None, None], chol, torch.nan)


def _refine(chol: Tensor, covariance: LinearOperator, variance: Tensor, rows: Tensor, deviation: Tensor) -> Tensor:
    """L of nearly dependent rows, from the covariance of L⁻¹ D G u, which is close to the unit matrix.

    S loses the square of what distinguishes such rows; the whitened rows keep it (Cholesky QR, done twice).
    """
    white = torch.linalg.solve_triangular(chol, rows, upper=False)
    noise = torch.linalg.solve_triangular(chol, torch.diag_embed(deviation), upper=False)
    projected, _ = _project(covariance, variance, white, False)
    return chol @ torch.linalg.cholesky(projected + noise @ noise.mT)


def _smallest_pivot(chol: Tensor) -> float:
    """Smallest squared pivot of D S D: 1 for independent rows (or one), 0 for dependent ones."""
    if chol.shape[-1] == 1 or not chol.numel():
        return 1.0
    return float(chol.detach().diagonal(dim1=-2, dim2=-1).min().square())


def _project(covariance: LinearOperator, variance: Tensor, rows: Tensor, checked: bool) -> tuple[Tensor, bool]:
    """G Σ Gᵀ ``(*batch, k, k)``, and whether an entry of diag Σ is negative, if that is checked."""
    if not isinstance(covariance, DiagLinearOperator):
        return rows_times(covariance, rows) @ rows.mT, checked and _has_negative(variance)
    batch = common_shape(variance.shape[:-1], rows.shape[:-2])
    variance = variance.expand(*batch, rows.shape[-1])[..., None, :]
    if not _is_large(variance, rows):
        return (rows * variance) @ rows.mT, checked and _has_negative(variance)
    projected = rows.new_zeros(*batch, rows.shape[-2], rows.shape[-2])
    if rows.shape[-2] == 1:
        from probconserv._linalg import kernels

        sums, negative = kernels.project(_array(rows), _array(variance), projected.numel(), torch.get_num_threads())
        return torch.from_numpy(sums).reshape(projected.shape), negative
    negative = False
    for tile in _tiles(variance, rows):
        part, prior = _cut(rows, tile), _cut(variance, tile)
        _cut_batch(projected, tile).add_((part * prior) @ part.mT)
        negative |= _has_negative(prior)
    return projected, negative


def _has_negative(variance: Tensor) -> bool:
    return bool(variance.numel()) and float(variance.detach().min()) < 0


def _functional(u: Tensor, rows: Tensor, large: bool) -> Tensor:
    """G u ``(*batch, s, k)``."""
    if not large:
        return u @ rows.mT
    functional = u.new_zeros(*u.shape[:-1], rows.shape[-2])
    if rows.shape[-2] == 1:
        from probconserv._linalg import kernels

        shape = functional.numel(), u.shape[-2]
        sums = kernels.functional(_array(u), _array(rows), shape, torch.get_num_threads())
        return torch.from_numpy(sums).reshape(functional.shape)
    for tile in _tiles(u, rows):
        _cut_batch(functional, tile).add_(_cut(u, tile) @ _cut(rows, tile).mT)
    return functional


def _outer(multipliers: Tensor, rows: Tensor) -> Tensor:
    return multipliers * rows if rows.shape[-2] == 1 else multipliers @ rows


def _whiten(cross: Tensor, factors: tuple[Tensor, Tensor]) -> Tensor:
    """L⁻¹ D (G Σ); a product for a single row (L = 1), since batched LAPACK calls on 1 × 1 systems would dominate."""
    scale, chol = factors
    if cross.shape[-2] == 1:
        return cross * scale
    return torch.linalg.solve_triangular(chol, cross * scale, upper=False)


def _less_squares(variance: Tensor, whitened: Tensor, out: Tensor | None = None) -> Tensor:
    """v − Σ_i W_i² ``(*batch, 1, n)``."""
    if whitened.shape[-2] == 1:
        return torch.addcmul(variance, whitened, whitened, value=-1, out=out)
    return torch.sub(variance, whitened.square().sum(dim=-2, keepdim=True), out=out)


def common_shape(*shapes: torch.Size) -> torch.Size:
    """Broadcast batch shape; ``torch.broadcast_shapes`` costs as much as a small update."""
    first = shapes[0]
    for shape in shapes[1:]:  # not max(key=len), which torch.compile cannot trace for sizes that vary
        first = shape if len(shape) > len(first) else first
    return first if all(len(shape) == 0 or shape == first for shape in shapes) else torch.broadcast_shapes(*shapes)


def _is_large(u: Tensor, rows: Tensor, *others: Tensor) -> bool:
    """Whether work on ``(*batch, s, n)`` exceeds a cache and can be done in parts: no derivatives, one batch axis."""
    if not are_readable(u):  # first, since a size would bind a graph with a batch of any size
        return False
    if u.numel() * rows.shape[-2] <= _TILE or u.ndim > 3 or u.device.type != "cpu":
        return False
    tensors = (u, rows, *others)
    if any(tensor.shape[:-2] not in ((), (1,), u.shape[:-2]) for tensor in tensors):
        return False
    return are_plain(*tensors)


def _array(values: Tensor) -> np.ndarray:
    """Values ``(*batch, s, n)`` as rows ``(fields, n)`` of an array; entries that share memory appear once."""
    shared = values.ndim == 3 and values.stride(0) == 0
    return (values[:1] if shared else values).reshape(-1, values.shape[-1]).contiguous().numpy(force=True)


def _vector(values: Tensor) -> np.ndarray:
    return values.reshape(-1).contiguous().numpy(force=True)


def _tiles(u: Tensor, rows: Tensor) -> list[_Tile]:
    """Parts of ``(*batch, s, n)`` that fit a cache."""
    n = u.shape[-1]
    per_point = u.shape[-2] * rows.shape[-2]
    entries = u.shape[0] if u.ndim == 3 else 1
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
