"""The factorised update for structured rows and Σ = D + R Rᵀ, with D diagonal and R of few columns.

With u = μ + R z + e, z ~ N(0, I), e ~ N(0, D), S₀ = G D Gᵀ + N and U = G R,

    z | law  ~  N(−M⁻¹ Uᵀ S₀⁻¹ (G μ − b), M⁻¹),   M = I + Uᵀ S₀⁻¹ U
    Σ′ = D′ + R′ M⁻¹ R′ᵀ,   D′ = D − D Gᵀ S₀⁻¹ G D,   R′ = R − D Gᵀ S₀⁻¹ U

so that nothing is larger than G and R, and every term of a variance is positive. Where D is small beside R Rᵀ, M is
singular to working precision: W with W M Wᵀ = I and W Uᵀ take its place, which lose nothing. The density of the law is
that of S = S₀ + U Uᵀ, formed if there are no more rows than columns of R, since M then hides it in rounding.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from linear_operator.operators import LinearOperator, PsdSumLinearOperator, RootLinearOperator
from torch import Tensor

from probconserv._linalg.covariance import Covariance
from probconserv._linalg.gain import Gain, factorise, non_negative_variance, require_finite_multipliers
from probconserv._linalg.innovation import Innovation, innovation_of
from probconserv._linalg.roots import log_det_gram
from probconserv._linalg.rows import Rows
from probconserv._linalg.values import cached
from probconserv.errors import DependentConstraintsError, InvalidArgumentError
from solvers.recording import are_readable

MANY = 512
"""Rows above which dependent ones are an error at once."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StructuredGain:
    """Factors of the update, with the members of ``Gain`` that ``Posterior`` uses; build them with ``factorise_rows``.

    Args:
        covariance: Σ ``(*batch, n, n)``.
        metric: D ``(*batch, n)``.
        root: Rᵀ ``(*batch, r, n)``; r = 0 for a diagonal Σ.
        rows: G.
        noise: σ² ``(*batch, k)``.
        innovation: S₀.
        checked: Whether values are checked.
    """

    covariance: Covariance
    metric: Tensor
    root: Tensor
    rows: Rows
    noise: Tensor
    innovation: Innovation
    checked: bool

    @cached
    def _latent(self) -> tuple[Tensor, Tensor, Tensor]:
        """W with W M Wᵀ = I ``(*batch, r, r)``, W Uᵀ and W Uᵀ S₀⁻¹ ``(*batch, r, k)``."""
        functional = self.rows.functional(self.root)
        unit = torch.eye(functional.shape[-2], dtype=torch.float64, device=functional.device)

        def whitened(basis: Tensor) -> Tensor:
            white = basis @ functional
            return basis @ basis.mT + white @ self.innovation.solve(white).mT

        inner = unit + functional @ self.innovation.solve(functional).mT
        resolved = (inner.diagonal(dim1=-2, dim2=-1) < _LARGEST).all(dim=-1)
        inner = torch.where(resolved[..., None, None], inner, math.nan)
        basis = _whitening(inner, whitened, self.checked)
        white = basis @ functional
        return basis, white, self.innovation.solve(white)

    @cached
    def _white_rows(self) -> Tensor | None:
        """W with W S Wᵀ = I ``(*batch, k, k)``, if there are no more rows than columns of R."""
        if self.rows.shape[-2] > self.root.shape[-2]:
            return None
        functional, noise = self.rows.functional(self.root).mT, self.innovation.root()

        def whitened(basis: Tensor) -> Tensor:
            return _sum_of_squares(basis @ functional, basis @ noise)

        return _whitening(_sum_of_squares(functional, noise), whitened, self.checked)

    @cached
    def root_of_covariance(self) -> Tensor:
        """(R′ Wᵀ)ᵀ ``(*batch, r, n)``, so that Σ′ = D′ + its square."""
        basis, _, solved = self._latent
        return self.rows.subtract(basis @ self.root, self.metric, solved)

    def functional(self, u: Float[Tensor, "*batch s n"]) -> Float[Tensor, "*batch s k"]:
        """G u."""
        return self.rows.functional(u)

    def size(self, u: Float[Tensor, "*batch s n"]) -> Float[Tensor, "*batch s k"]:
        """Σ_j |G_j u_j|."""
        return self.rows.functional_and_size(u)[1]

    def correct(
        self, u: Float[Tensor, "*batch s n"], target: Float[Tensor, "*batch s k"]
    ) -> Float[Tensor, "*batch s n"]:
        """u − Σ Gᵀ S⁻¹ (G u − target); corrected twice if a row is missed by more than round-off of its terms."""
        corrected, multipliers = self._correct_once(u, self.rows.functional(u) - target)
        if self.checked:
            require_finite_multipliers(multipliers)
        functional, size = self.rows.functional_and_size(corrected)
        defect = functional - target - self.noise[..., None, :] * multipliers
        missed = defect.abs() > torch.maximum(1e-13 * target.abs(), _ROUNDING * size)
        if not are_readable(u) or bool(missed.any()):
            corrected, _ = self._correct_once(corrected, defect)
        return corrected

    def multipliers(self, residual: Float[Tensor, "*batch s k"]) -> Float[Tensor, "*batch s k"]:
        """λ = S⁻¹ r for s residuals r."""
        if not self.root.shape[-2]:
            return self.innovation.solve(residual)
        if self._white_rows is None:
            return self.innovation.solve(self._explain(residual)[1])
        return (residual @ self._white_rows.mT) @ self._white_rows

    def _explain(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        """z given that the law is missed by r, and the residual that R z leaves; what rounding missed is added."""
        basis, white, solved = self._latent
        along = residual @ solved.mT
        left = residual - along @ white
        missed = left @ solved.mT - (along @ basis) @ basis.mT
        return -(along + missed) @ basis, left - missed @ white

    def _correct_once(self, u: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """u − Σ Gᵀ λ and λ = S⁻¹ r."""
        if self.root.shape[-2]:
            latent, residual = self._explain(residual)
            u = u + latent @ self.root
        multipliers = self.innovation.solve(residual)
        return self.rows.subtract(u, self.metric, multipliers), multipliers

    def reduced_variance(self) -> Float[Tensor, "*batch n"]:
        """diag Σ′, never negative and never above diag Σ."""
        reduced = self.diagonal_part()
        if not self.root.shape[-2]:
            return reduced
        prior = self.metric + self.root.square().sum(dim=-2)
        return torch.minimum(reduced + self.root_of_covariance.square().sum(dim=-2), prior)

    def conditioned(self, batch: torch.Size, dtype: torch.dtype) -> LinearOperator:
        """Σ′ = D′ + R′ M⁻¹ R′ᵀ ``(*batch, n, n)``, never formed."""
        shape, entries = self.innovation.batch_shape, self.innovation.rows.entries
        tracked = torch.is_grad_enabled() and entries.requires_grad
        parts = (self.diagonal_part().to(dtype), self.metric, self.noise)
        parts = (*parts, torch.atleast_1d(entries)) if tracked else parts
        diagonal, metric, noise, *entries = (part.expand(*batch, part.shape[-1]) for part in parts)
        position = torch.arange(shape.numel(), device=metric.device).reshape(shape).expand(batch)
        independent = _ConditionedDiagonal(diagonal, metric, noise, position, *entries, innovation=self.innovation)
        if not self.root.shape[-2]:
            return independent
        root = self.root_of_covariance.mT.to(dtype)
        return PsdSumLinearOperator(independent, RootLinearOperator(root.expand(*batch, *root.shape[-2:])))

    def diagonal_part(self) -> Float[Tensor, "*batch n"]:
        """diag D′."""
        return self.innovation.conditioned_diagonal()

    def log_evidence_peak(self) -> Float[Tensor, "*batch"]:
        """log N(b; b, S), the largest log-density that a target can have."""
        if not self.root.shape[-2]:
            determinant = self.innovation.log_determinant()
        elif self._white_rows is None:
            determinant = self.innovation.log_determinant() - log_det_gram(self._latent[0])
        else:
            determinant = -log_det_gram(self._white_rows)
        return -0.5 * (determinant + self.noise.shape[-1] * math.log(2 * math.pi))

    def log_area(self, exact: Tensor) -> Float[Tensor, "*batch"]:
        """½ log det G_E G_Eᵀ over the nodes with positive variance, for the rows marked exact ``(*batch, k)``."""
        active = (self.covariance.variance != 0).to(torch.float64)
        every = exact.all(dim=-1)
        if not bool((every | ~exact.any(dim=-1)).all()):
            raise InvalidArgumentError(
                "The log-density under structured rows needs noise in all rows of a law or in none; give the noisy "
                "ones a small noise_variance everywhere, or score draws."
            )
        if not bool(every.any()):
            return active.new_zeros(())
        area = innovation_of(self.rows, active, torch.zeros_like(self.noise), checked=False)
        return torch.where(every, 0.5 * area.log_determinant(), 0.0)


AnyGain = Gain | StructuredGain
_ROUNDING = 1e-14  # of a sum, relative to the sum of its absolute terms
_PLAIN = 1e-4  # squared pivot of M or S, scaled to a unit diagonal, above which it is factorised as it is
_ONCE_MORE = 1e-10  # the same, above which the whitened vectors of this factor are enough
_LARGEST = 1e22  # of M, since z is known to machine epsilon times its square root
_SHIFT = 100 * torch.finfo(torch.float64).eps
_DENSE = 1 << 20  # entries of G up to which rows may be solved as a dense matrix


def gain_of(covariance: Covariance, law: Any, epsilon: float, validate: bool) -> AnyGain:
    """The factorised update by the structure of rows and Σ; arguments as for ``factorise``.

    Few rows are treated as a matrix if they overlap, which is faster, or if D gives one of them no variance.
    """
    rows = law.G
    if isinstance(rows, Rows) and covariance.splits and _keeps_structure(covariance, rows, law.noise):
        try:
            return factorise_rows(covariance, rows, law.noise, validate)
        except DependentConstraintsError:
            if rows.is_disjoint or rows.shape[-2] > MANY:
                raise
    return factorise(covariance, law.rows, law.noise, epsilon, validate)


def _keeps_structure(covariance: Covariance, rows: Rows, noise: Tensor) -> bool:
    if rows.shape[-2:].numel() > _DENSE:
        return True
    if not rows.is_disjoint or covariance.is_independent:
        return rows.is_disjoint
    metric = covariance.split()[0]
    return not (are_readable(metric, noise) and bool((rows.gram(metric) + noise == 0).any()))


def factorise_rows(covariance: Covariance, rows: Rows, noise: Tensor, validate: bool = True) -> StructuredGain:
    """Factorises the update.

    Args:
        covariance: Σ ``(*batch, n, n)`` that ``splits``, float64.
        rows: G.
        noise: σ² ``(*batch, k)``, float64.
        validate: Whether values are checked, where they can be read.

    Returns:
        The factorised update.

    Raises:
        InvalidArgumentError: If Σ holds a negative variance or an entry that is not finite.
        DependentConstraintsError: If G D Gᵀ + σ² I is singular.
    """
    metric, root = covariance.split()
    readable = are_readable(metric, noise)
    checked = validate and readable
    metric = non_negative_variance(metric, readable, checked)
    return StructuredGain(
        covariance=covariance,
        metric=metric,
        root=root,
        rows=rows,
        noise=noise,
        innovation=innovation_of(rows, metric, noise, checked),
        checked=checked,
    )


def variance_of_rows(covariance: Covariance, rows: Tensor | LinearOperator | Rows) -> Tensor:
    """diag(G Σ Gᵀ) ``(*batch, k)``."""
    if not (isinstance(rows, Rows) and covariance.splits):
        dense = rows if isinstance(rows, Tensor) else rows.to_dense()
        return (covariance.times(dense) * dense).sum(dim=-1)
    metric, root = covariance.split()
    return rows.gram(metric) + rows.functional(root).square().sum(dim=-2)


def _whitening(matrix: Tensor, whitened: Callable[[Tensor], Tensor], checked: bool) -> Tensor:
    """L⁻¹ for K = L Lᵀ.

    A nearly singular K has lost what its small eigenvalues are made of. Its whitened vectors keep it, so that K is
    formed again from them (Cholesky QR; the shift of the first time is that of Fukaya et al. 2020).

    Args:
        matrix: K ``(*batch, m, m)``.
        whitened: From W to W K Wᵀ.
        checked: Whether an error is raised; NaN without it.

    Returns:
        L⁻¹ ``(*batch, m, m)``.

    Raises:
        InvalidArgumentError: If K is not finite, or singular still when formed from whitened vectors.
    """
    unit = torch.eye(matrix.shape[-1], dtype=torch.float64, device=matrix.device)
    scale = matrix.diagonal(dim1=-2, dim2=-1).rsqrt()
    chol, info = torch.linalg.cholesky_ex(scale[..., None] * matrix * scale[..., None, :])
    pivots = torch.where((info == 0)[..., None], chol.detach().diagonal(dim1=-2, dim2=-1).square(), 0.0)
    basis, shifts = torch.diag_embed(scale), (_SHIFT * len(unit), 0.0, 0.0)
    if checked and bool((pivots > _ONCE_MORE).all()):
        basis = torch.linalg.solve_triangular(chol, basis, upper=False)
        shifts = () if bool((pivots > _PLAIN).all()) else (0.0,)
    for shift in shifts:
        chol, info = torch.linalg.cholesky_ex(whitened(basis) + shift * unit)
        basis = torch.linalg.solve_triangular(chol, basis, upper=False)
        basis = torch.where((info == 0)[..., None, None], basis, math.nan)
    if checked and not bool(torch.isfinite(basis).all()):
        raise InvalidArgumentError(
            "The prior's low rank holds entries that are not finite, or is so large beside its independent variance "
            "that the update cannot be computed in double precision; repair the samples, or raise noise_variance."
        )
    return basis


def _sum_of_squares(first: Tensor, second: Tensor) -> Tensor:
    return first @ first.mT + second @ second.mT


class _ConditionedDiagonal(LinearOperator):
    """D′ = D − D Gᵀ S₀⁻¹ G D ``(*batch, n, n)``.

    gpytorch selects, repeats and reorders batch entries by doing so with the tensors among the arguments, and
    differentiates in these alone.

    Args:
        diagonal: diag D′ ``(*batch, n)``, in the dtype of the result.
        metric: D ``(*batch, n)``.
        noise: N ``(*batch, k)``.
        position: Number of every entry in the flattened batch of S₀ ``(*batch,)``.
        *entries: Entries of G ``(*batch, m)``, if derivatives in them are recorded.
        innovation: S₀.
    """

    def __init__(
        self,
        diagonal: Tensor,
        metric: Tensor,
        noise: Tensor,
        position: Tensor,
        *entries: Tensor,
        innovation: Innovation,
    ) -> None:
        super().__init__(diagonal, metric, noise, position, *entries, innovation=innovation)
        self._parts, self._innovation = (diagonal, metric, noise, position, *entries), innovation

    def _matmul(self, rhs: Tensor) -> Tensor:
        columns = rhs[..., None] if rhs.ndim == 1 else rhs
        _, metric, noise, position, *entries = self._parts
        parts = (part.to(torch.float64) for part in (metric, noise, *entries))
        innovation = self._innovation.at(position.to(torch.int64), *parts)
        scaled = columns.to(torch.float64).mT * innovation.metric[..., None, :]
        multipliers = innovation.solve(innovation.rows.functional(scaled))
        result = innovation.rows.subtract(scaled, innovation.metric, multipliers).mT.to(rhs.dtype)
        return result[..., 0] if rhs.ndim == 1 else result

    def _diagonal(self) -> Tensor:
        return self._parts[0]

    def _size(self) -> torch.Size:
        return torch.Size([*self._parts[0].shape, self._parts[0].shape[-1]])

    def _transpose_nonbatch(self) -> LinearOperator:
        return self

    def _expand_batch(self, batch_shape: Any) -> LinearOperator:
        diagonal, metric, noise, position, *entries = self._parts
        diagonal, metric, noise, *entries = (
            part.expand(*batch_shape, part.shape[-1]) for part in (diagonal, metric, noise, *entries)
        )
        position = position.expand(batch_shape)
        return _ConditionedDiagonal(diagonal, metric, noise, position, *entries, innovation=self._innovation)
