"""The factorised update: S = G Σ Gᵀ + σ² I and what follows from it.

    correction of a field   u − Σ Gᵀ S⁻¹ (G u − b)
    reduction of variance   diag(Σ Gᵀ S⁻¹ G Σ)

(Hansen et al. 2023, sec. 3.) Rows are scaled so that S has a unit diagonal; every check is therefore independent of
the units of a row. For a diagonal Σ all work is O(n k) in time and memory. Long fields and large batches under one row,
without derivatives, are updated by ``fused`` as soon as S is formed.
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
    negative_variance,
    non_negative,
    require_finite,
    require_finite_multipliers,
    require_independent,
)
from probconserv._linalg.covariance import is_factored, rows_times
from probconserv._linalg.rank import (
    EPS,
    NEARLY_DEPENDENT,
    cholesky_of_rows,
    exceed_rounding,
    least_pivot,
    smallest_pivot,
    triangular_factor,
)
from probconserv._linalg.values import cached, square_root
from solvers.recording import are_plain, are_readable

_LARGE = 1 << 15  # numbers from which compiled passes gain
_UNIT = torch.ones(1, 1, dtype=torch.float64)


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
        updated: Updated mean ``(*batch, n)``, where it is known already.
        reduced: Updated variance ``(*batch, n)``, where it is known already.
    """

    covariance: LinearOperator
    variance: Tensor
    rows: Tensor
    noise: Tensor
    scale: Tensor
    chol: Tensor
    epsilon: float
    checked: bool
    updated: Tensor | None = None
    reduced: Tensor | None = None

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
        multipliers = self.multipliers(u @ self.rows.mT - target)
        corrected = self._subtract(u, multipliers)
        defect = corrected @ self.rows.mT - target - self.noise[..., None, :] * multipliers
        readable = are_readable(u)
        if readable and bool((defect.detach().abs() <= 1e-13 * target.detach().abs()).all()):
            return corrected
        if readable and self.checked:
            require_finite_multipliers(multipliers)
        return self._subtract(corrected, self.multipliers(defect))

    def update(self, mean: Float[Tensor, "*batch n"], target: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch n"]:
        """μ − Σ Gᵀ S⁻¹ (G μ − b), of the ``field`` that ``factorise`` was given."""
        if self.updated is not None:
            return self.updated
        return self.correct(mean[..., None, :], target[..., None, :])[..., 0, :]

    def reduced_variance(self) -> Float[Tensor, "*batch n"]:
        """diag(Σ − Σ Gᵀ S⁻¹ G Σ), never negative and never above diag Σ.

        Negative values within round-off become zero: up to 64 k ε₆₄ / (smallest pivot) of the prior's variance, or over
        its root where whitened rows gave it, plus n ε of the largest variance if Σ is stored by its entries, with ε₆₄
        and ε the machine epsilons of float64 and of the prior. Larger negative values mean that Σ is not positive
        semi-definite.

        Raises:
            InvalidArgumentError: If a variance is negative beyond round-off.
        """
        if self.reduced is not None:
            return self.reduced
        variance = self.variance
        batch = common_shape(variance.shape[:-1], self.rows.shape[:-2], self.chol.shape[:-2])
        variance = variance.expand(*batch, variance.shape[-1])[..., None, :]
        if not self.checked:
            reduced = _less_squares(variance, self.whitened_cross)[..., 0, :]
            beyond_round_off = reduced < -1e-6 * variance.amax(dim=-1)
            return torch.where(beyond_round_off, torch.nan, reduced.clamp_min(0.0))
        pivot = smallest_pivot(self.chol)
        slack = 64 * self.rows.shape[-2] * EPS / (pivot if pivot >= NEARLY_DEPENDENT else pivot**0.5)
        floor = 0.0
        if not is_factored(self.covariance) and variance.numel():
            floor = variance.shape[-1] * self.epsilon * float(variance.detach().max())
        return non_negative(_less_squares(variance, self.whitened_cross), variance, slack, floor)[..., 0, :]

    def conditioned(self, batch: torch.Size, dtype: torch.dtype) -> LinearOperator:
        """Σ′ = Σ − Wᵀ W ``(*batch, n, n)``, never formed."""
        root, prior = self.whitened_cross.mT, self.covariance.to(dtype)
        root = root.expand(*batch, *root.shape[-2:]).to(dtype)
        prior = prior if prior.batch_shape == batch else prior.expand(*batch, *prior.shape[-2:])
        minus_one = torch.full(batch, -1.0, dtype=dtype, device=root.device)
        return SumLinearOperator(prior, ConstantMulLinearOperator(RootLinearOperator(root), minus_one))

    def _subtract(self, u: Tensor, multipliers: Tensor) -> Tensor:
        """u − Σ Gᵀ λ."""
        if not isinstance(self.covariance, DiagLinearOperator):
            return u - multipliers @ self.cross
        return torch.addcmul(u, _outer(multipliers, self.rows), self.variance[..., None, :], value=-1)


def factorise(
    covariance: LinearOperator,
    rows: Tensor,
    noise: Tensor,
    epsilon: float,
    validate: bool = True,
    field: tuple[Tensor, Tensor] | None = None,
) -> Gain:
    """Forms and factorises S = G Σ Gᵀ + σ² I.

    Args:
        covariance: Σ ``(*batch, n, n)``, float64.
        rows: G ``(*batch, k, n)``, float64.
        noise: σ² ``(*batch, k)``, float64.
        epsilon: Machine epsilon of the dtype in which Σ was computed.
        validate: Whether values are checked, where they can be read.
        field: Mean ``(*batch, n)`` and right-hand sides ``(*batch, k)`` that will be asked for, if known; of many
            numbers the result holds what becomes of them.

    Returns:
        The factorised update.

    Raises:
        InvalidArgumentError: If Σ holds a negative variance or an entry that is not finite.
        DependentConstraintsError: If S is singular, measured independently of the units of the rows.
    """
    variance = covariance._diag if isinstance(covariance, DiagLinearOperator) else covariance.diagonal()
    k = rows.shape[-2]
    checked = validate and are_readable(variance, rows, noise)
    if checked and field is not None and k == 1 and isinstance(covariance, DiagLinearOperator):
        tensors = (rows, variance, *field, noise)
        if field[0].numel() > _LARGE:
            if _fit_together(tensors):
                return _fused(covariance, tensors, epsilon)
        elif rows.ndim == 2 and all(part.ndim == 1 for part in tensors[1:]) and _are_constant(tensors):
            return _in_numbers(covariance, tensors, epsilon)
    if not checked:
        variance = torch.where(variance < 0, torch.nan, variance)
    innovation = rows_times(covariance, rows) @ rows.mT
    innovation = innovation + (noise[..., None] if k == 1 else torch.diag_embed(noise))
    diagonal = innovation[..., 0] if k == 1 else innovation.diagonal(dim1=-2, dim2=-1)
    members = covariance.root.shape[-1] if isinstance(covariance, RootLinearOperator) else None
    if checked:
        require_finite(innovation)
        _require_not_negative(variance)
        if not isinstance(covariance, DiagLinearOperator) or not _are_positive(diagonal):
            positive = exceed_rounding(diagonal.detach(), covariance, variance.detach(), rows.detach(), epsilon)
            require_independent(positive.all(), k, members)
    else:
        positive = exceed_rounding(diagonal.detach(), covariance, variance.detach(), rows.detach(), epsilon)
        diagonal = torch.where(positive, diagonal, torch.nan)
    scale = diagonal.rsqrt()
    chol = torch.ones_like(innovation) if k == 1 else scale[..., None] * innovation * scale[..., None, :]
    if k > 1 and not checked:
        chol = _cholesky(chol)
    elif k > 1:
        chol = cholesky_of_rows(chol, covariance, scale[..., None] * rows, scale * square_root(noise), epsilon)
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


def _fit_together(tensors: tuple[Tensor, ...]) -> bool:
    """Whether row ``(*batch, 1, n)``, variance, mean, total and noise are constant, with one batch axis or none."""
    batches = [tensors[0].shape[:-2], *(tensor.shape[:-1] for tensor in tensors[1:])]
    joint = batches[2]
    return len(joint) < 2 and all(each in ((), (1,), joint) for each in batches) and _are_constant(tensors)


def _are_constant(tensors: tuple[Tensor, ...]) -> bool:
    """Whether compiled code may work on tensors that have no derivatives, not even later."""
    return not any(tensor.requires_grad for tensor in tensors) and are_plain(*tensors)


def _in_numbers(covariance: LinearOperator, tensors: tuple[Tensor, ...], epsilon: float) -> Gain:
    """The update of one field by one row, with the mean that it gives: the same operations with numbers for S and λ."""
    rows, variance, mean, target, noise = tensors
    column, b = rows.mT, float(target)
    innovation = (rows * variance) @ column + noise
    if not math.isfinite(total := float(innovation)):
        require_finite(innovation)
    _require_not_negative(variance)
    if not total > 0:
        require_independent(innovation > 0, 1)
    scale = innovation.rsqrt().view(1)
    inverse = float(scale) ** 2
    multiplier = (float(mean[None] @ column) - b) * inverse
    updated = torch.addcmul(mean, rows * multiplier, variance, value=-1)
    defect = float(updated @ column) - b - float(noise) * multiplier
    if not abs(defect) <= 1e-13 * abs(b):
        require_finite_multipliers(torch.tensor(multiplier))
        updated = torch.addcmul(updated, rows * (defect * inverse), variance, value=-1)
    return Gain(
        covariance=covariance,
        variance=variance,
        rows=rows,
        noise=noise,
        scale=scale,
        chol=_UNIT,
        epsilon=epsilon,
        checked=True,
        updated=updated[0],
    )


def _fused(covariance: LinearOperator, tensors: tuple[Tensor, ...], epsilon: float) -> Gain:
    """The update by one row with the mean and the variance that it gives, by compiled passes over many numbers."""
    from probconserv._linalg import fused  # numba, which is slow to import and rarely needed

    rows, variance, mean, target, noise = tensors
    weights = rows[..., 0, :]
    batch = mean.shape[:-1]
    shared = all(part.shape[:-1].numel() == 1 or not any(part.stride()[:-1]) for part in (weights, variance, noise))
    b, added = (part.expand(*batch, 1).reshape(-1).contiguous().numpy(force=True) for part in (target, noise))
    entries = 1 if shared else len(b)
    fields = _array(weights), _array(variance), _array(mean), b, added
    found = fused.update(fields, entries, torch.get_num_threads())
    innovation, multipliers, smallest, changed, reduced = (torch.from_numpy(part) for part in found)
    require_finite(innovation)
    _require_not_negative(smallest)
    require_independent((innovation > 0).all(), 1)
    require_finite_multipliers(multipliers)
    shape = batch if entries == batch.numel() else torch.Size([])
    innovation = innovation[:entries].reshape(*shape, 1)
    return Gain(
        covariance=covariance,
        variance=variance,
        rows=rows,
        noise=noise,
        scale=innovation.rsqrt(),
        chol=torch.ones_like(innovation)[..., None],
        epsilon=epsilon,
        checked=True,
        updated=changed.reshape(mean.shape),
        reduced=reduced.reshape(*shape, mean.shape[-1]),
    )


def _array(values: Tensor) -> np.ndarray:
    """Values ``(*batch, n)`` as rows ``(fields, n)`` of an array; entries that share memory appear once."""
    shared = values.ndim == 2 and values.stride(0) == 0
    return (values[:1] if shared else values).reshape(-1, values.shape[-1]).contiguous().numpy(force=True)


def _are_positive(diagonal: Tensor) -> bool:
    return not diagonal.numel() or float(diagonal.detach().min()) > 0


def _cholesky(innovation: Tensor) -> Tensor:
    """Cholesky factor of D S D where values are not checked, NaN where it is singular."""
    chol, info = torch.linalg.cholesky_ex(innovation)
    pivots = chol.detach().diagonal(dim1=-2, dim2=-1).square().amin(dim=-1)
    return torch.where(((info == 0) & (pivots > least_pivot(innovation.shape[-1])))[..., None, None], chol, torch.nan)


def _require_not_negative(variance: Tensor) -> None:
    if variance.numel() and float(variance.detach().min()) < 0:
        raise negative_variance(variance)


def _outer(multipliers: Tensor, rows: Tensor) -> Tensor:
    return multipliers * rows if rows.shape[-2] == 1 else multipliers @ rows


def _whiten(cross: Tensor, factors: tuple[Tensor, Tensor]) -> Tensor:
    """L⁻¹ D (G Σ); a product for a single row (L = 1), since batched LAPACK calls on 1 × 1 systems would dominate."""
    scale, chol = factors
    if cross.shape[-2] == 1:
        return cross * scale
    return torch.linalg.solve_triangular(chol, cross * scale, upper=False)


def _less_squares(variance: Tensor, whitened: Tensor) -> Tensor:
    """v − Σ_i W_i² ``(*batch, 1, n)``."""
    if whitened.shape[-2] == 1:
        return torch.addcmul(variance, whitened, whitened, value=-1)
    return variance - whitened.square().sum(dim=-2, keepdim=True)


def common_shape(*shapes: torch.Size) -> torch.Size:
    """Broadcast batch shape; ``torch.broadcast_shapes`` costs as much as a small update."""
    first = shapes[0]
    for shape in shapes[1:]:  # not max(key=len), which torch.compile cannot trace for sizes that vary
        first = shape if len(shape) > len(first) else first
    return first if all(len(shape) == 0 or shape == first for shape in shapes) else torch.broadcast_shapes(*shapes)
