"""Covariances, each in the one form that its structure asks for.

``covariance_of`` reads the structure once; after it nobody asks for a type. A diagonal, a root, a Kronecker product, a
sum and what is stored by entries know how to be multiplied, factorised, whitened and drawn from, and what rounding
leaves of a zero under them. Above 800 points ``linear_operator`` would switch from Cholesky to conjugate gradients and
Lanczos; nothing here does. Nodes with zero variance (prescribed boundary values) are allowed: draws leave them at the
mean.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from linear_operator import to_dense
from linear_operator.operators import (
    ConstantMulLinearOperator,
    DenseLinearOperator,
    DiagLinearOperator,
    KroneckerProductLinearOperator,
    LinearOperator,
    PsdSumLinearOperator,
    RootLinearOperator,
    SumLinearOperator,
)
from torch import Tensor

from probconserv._linalg.roots import Root, dense_root, log_det_gram, whitened, whitening
from probconserv._linalg.values import cached, square_root
from probconserv.errors import InvalidArgumentError


class Covariance:
    """Σ ``(*batch, n, n)``, float64, of a structure that nothing is known of.

    Args:
        operator: Σ.
    """

    is_independent = False
    """Whether Σ is diagonal."""
    is_factored = False
    """Whether Σ is stored as factors (Σ = R Rᵀ), so that rounding cannot make it indefinite."""
    members: int | None = None
    """Number of members of an ensemble without noise."""
    splits = False
    """Whether Σ = D + R Rᵀ with a diagonal D, so that structured rows keep their structure."""

    def __init__(self, operator: LinearOperator) -> None:
        self.operator = operator

    @cached
    def variance(self) -> Tensor:
        """diag Σ ``(*batch, n)``."""
        return self.operator.diagonal()

    @property
    def points(self) -> int:
        """Number n of values."""
        return self.operator.shape[-1]

    def to_dense(self) -> Tensor:
        """Σ as a tensor."""
        return self.operator.to_dense()

    def detached(self) -> "Covariance":
        """Σ without derivatives."""
        return covariance_of(self.operator.detach())

    def times(self, rows: Float[Tensor, "*batch k n"]) -> Float[Tensor, "*batch k n"]:
        """G Σ, the covariance between k linear functionals and the n values; never forms Σ."""
        return to_dense(self.operator @ rows.mT).mT if rows.shape[-2] else rows  # linear_operator refuses no rows

    def rounding(self, rows: Float[Tensor, "*batch k n"], relative: float) -> Tensor:
        """Bound of what rounding leaves of diag(G Σ Gᵀ) ``(*batch, k)``, where it is zero without.

        Numbers that Σ is stored by are rounded independently, so that errors add up as the terms of Σ_j G_j² Σ_jj do,
        which a long or smooth field does not enlarge: by r of it for entries, r² for the factor R of R Rᵀ, whose error
        is squared. In a Kronecker product this holds for every factor in turn; what is subtracted leaves r of itself.

        Args:
            rows: G.
            relative: r, relative rounding of a number.
        """
        return relative * (rows.square() @ self.variance[..., None])[..., 0]

    def roots(self, epsilon: float) -> list[Root]:
        """Matrices R_i ``(*batch, n, r_i)`` with Σ_i R_i R_iᵀ = Σ.

        Args:
            epsilon: Machine epsilon of the dtype in which Σ was computed.

        Raises:
            InvalidArgumentError: If Σ is indefinite beyond round-off.
        """
        return [dense_root(self.to_dense(), epsilon)]

    def split(self) -> tuple[Tensor, Tensor]:
        """D ``(*batch, n)`` and Rᵀ ``(*batch, r, n)``, if Σ ``splits``."""
        raise NotImplementedError

    def whiten(self, difference: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
        """dᵀ Σ⁻¹ d ``(*batch, s)`` and log det Σ ``(*batch,)`` over the nodes with positive variance.

        Args:
            difference: d ``(*batch, s, n)``, 0 where nodes are fixed.
            fixed: Nodes without variance ``(*batch, n)``.

        Raises:
            InvalidArgumentError: If Σ is singular on the others.
        """
        matrix = self.to_dense()
        chol = regular_cholesky(matrix + torch.diag_embed(fixed.to(matrix.dtype)))
        white = torch.linalg.solve_triangular(chol, difference.mT, upper=False)
        return white.square().sum(dim=-2), log_det_gram(chol)

    def require_density(self) -> None:
        """Raises InvalidArgumentError if Σ is singular; one with independent noise everywhere is not formed."""
        definite_root(self.operator)


class Independent(Covariance):
    """Σ = diag(v).

    Args:
        operator: Σ.
        deviation: √v, where it is given.
    """

    is_independent = is_factored = splits = True

    def __init__(self, operator: LinearOperator, deviation: Tensor | None = None) -> None:
        super().__init__(operator)
        self._deviation = deviation
        self.variance = operator.diagonal()  # pyright: ignore[reportAttributeAccessIssue] - known at once

    def times(self, rows: Tensor) -> Tensor:
        return rows * self.variance[..., None, :]

    def rounding(self, rows: Tensor, relative: float) -> Tensor:  # noqa: ARG002 - nothing is left
        return rows.new_zeros(rows.shape[:-1])

    def roots(self, epsilon: float) -> list[Root]:  # noqa: ARG002 - exact
        return [DiagLinearOperator(square_root(self.variance) if self._deviation is None else self._deviation)]

    def split(self) -> tuple[Tensor, Tensor]:
        return self.variance, self.variance.new_zeros(0, self.points)

    def whiten(self, difference: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
        variance = torch.where(fixed, 1.0, self.variance)
        return (difference.square() / variance[..., None, :]).sum(dim=-1), variance.log().sum(dim=-1)

    def require_density(self) -> None:
        if not bool((self.variance > 0).all()):
            raise singular()


class Entries(Covariance):
    """Σ as a matrix."""

    def __init__(self, operator: DenseLinearOperator) -> None:
        super().__init__(operator)
        self._matrix = operator.to_dense()
        self.variance = self._matrix.diagonal(dim1=-2, dim2=-1)  # pyright: ignore[reportAttributeAccessIssue]

    def to_dense(self) -> Tensor:
        return self._matrix

    def times(self, rows: Tensor) -> Tensor:
        return (self._matrix @ rows.mT).mT


class LowRank(Covariance):
    """Σ = R Rᵀ."""

    is_factored = True

    def __init__(self, operator: RootLinearOperator) -> None:
        super().__init__(operator)
        self.root = operator.root.to_dense()
        self.members = self.root.shape[-1]

    def times(self, rows: Tensor) -> Tensor:
        return (self.root @ (self.root.mT @ rows.mT)).mT

    def rounding(self, rows: Tensor, relative: float) -> Tensor:
        return super().rounding(rows, relative**2)

    def roots(self, epsilon: float) -> list[Root]:  # noqa: ARG002 - known
        return [self.root]

    def whiten(self, difference: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
        if bool(((~fixed).sum(dim=-1) > self.root.shape[-1]).any()):
            raise singular()  # before the n × n matrix is formed
        return super().whiten(difference, fixed)


class Kronecker(Covariance):
    """Σ = Σ₁ ⊗ Σ₂ ⊗ …"""

    def __init__(self, operator: KroneckerProductLinearOperator) -> None:
        super().__init__(operator)
        self.factors = list(operator.linear_ops)

    def rounding(self, rows: Tensor, relative: float) -> Tensor:
        errors = []
        for i, factor in enumerate(self.factors):
            of_factor = DiagLinearOperator(factor.diagonal())
            others = (*self.factors[:i], of_factor, *self.factors[i + 1 :])
            errors.append((Covariance(KroneckerProductLinearOperator(*others)).times(rows) * rows).sum(dim=-1))
        return relative * torch.stack(errors).sum(dim=0)

    def roots(self, epsilon: float) -> list[Root]:
        return [KroneckerProductLinearOperator(*(dense_root(factor.to_dense(), epsilon) for factor in self.factors))]

    def whiten(self, difference: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
        """One triangular solve per factor, along the factor's axis; the axes are rotated in turn."""
        if bool(fixed.any()):
            return super().whiten(difference, fixed)
        n, white = difference.shape[-1], difference
        log_determinant = torch.zeros((), dtype=difference.dtype, device=difference.device)
        for factor in self.factors:
            size = factor.shape[-1]
            chol = regular_cholesky(factor.to_dense())
            log_determinant = log_determinant + (n // size) * log_det_gram(chol)
            solved = torch.linalg.solve_triangular(chol[..., None, :, :], white.unflatten(-1, (size, -1)), upper=False)
            white = solved.mT.flatten(-2)
        return white.square().sum(dim=-1), log_determinant


class Sum(Covariance):
    """Σ = Σ₁ + Σ₂ + …

    Args:
        operator: Σ.
        parts: The terms, sums among them written out.
    """

    def __init__(self, operator: LinearOperator, parts: Sequence[Covariance]) -> None:
        super().__init__(operator)
        self.parts, self._is_psd = parts, isinstance(operator, PsdSumLinearOperator)
        self.is_factored = all(part.is_factored for part in parts)
        self.splits = self.is_factored and any(part.is_independent for part in parts)

    def times(self, rows: Tensor) -> Tensor:
        first, *others = (part.times(rows) for part in self.parts)
        return sum(others, start=first)

    def rounding(self, rows: Tensor, relative: float) -> Tensor:
        return sum((part.rounding(rows, relative) for part in self.parts), rows.new_zeros(()))

    def roots(self, epsilon: float) -> list[Root]:
        if not (self.is_factored or self._is_psd):
            return super().roots(epsilon)
        return [root for part in self.parts for root in part.roots(epsilon)]

    def split(self) -> tuple[Tensor, Tensor]:
        diagonals = [part.variance for part in self.parts if part.is_independent]
        metric = torch.stack(diagonals).sum(dim=0) if len(diagonals) > 1 else diagonals[0]
        roots = [part.root.mT for part in self.parts if isinstance(part, LowRank)]
        return metric, torch.cat(roots, dim=-2) if roots else metric.new_zeros(0, metric.shape[-1])

    def whiten(self, difference: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
        """Σ = R Rᵀ + V in O(n r²); det Σ = det V · det(I + Rᵀ V⁻¹ R)."""
        variance, root = self.split() if self.splits else (fixed.new_zeros((), dtype=torch.float64), None)
        if root is None or not bool((variance > 0).all()):
            return super().whiten(difference, fixed)
        weights = variance.rsqrt()
        orthogonal, pivots = whitening(root.mT, weights)
        white = whitened(orthogonal, difference.mT * weights[..., None])
        return white.square().sum(dim=-2), 2 * pivots.log().sum(dim=-1) + variance.log().sum(dim=-1)

    def require_density(self) -> None:
        if not any(part.is_independent and bool((part.variance > 0).all()) for part in self.parts):
            super().require_density()


class Scaled(Covariance):
    """Σ = c Σ₁ with a number c per batch entry, negative in what is subtracted."""

    def __init__(self, operator: ConstantMulLinearOperator) -> None:
        super().__init__(operator)
        self._base, self._factor = covariance_of(operator.base_linear_op), operator._constant[..., None]

    def rounding(self, rows: Tensor, relative: float) -> Tensor:
        subtracted = relative * (self._base.times(rows) * rows).sum(dim=-1)
        added = self._base.rounding(rows, relative)
        return torch.where(self._factor < 0, -self._factor * subtracted, self._factor * added)


def covariance_of(operator: LinearOperator, deviation: Tensor | None = None) -> Covariance:
    """Σ in float64, in the form of its structure; lazy kernels are evaluated.

    Args:
        operator: Σ ``(*batch, n, n)``.
        deviation: The standard deviations of independent values, where these are given.
    """
    if isinstance(operator, DiagLinearOperator):
        return Independent(operator if operator.dtype == torch.float64 else operator.to(torch.float64), deviation)
    if isinstance(operator, DenseLinearOperator) and operator.dtype == torch.float64:
        return Entries(operator)
    return _structured(operator.evaluate_kernel().to(torch.float64))


def _structured(operator: Any) -> Covariance:
    for kind, structure in _KINDS:
        if isinstance(operator, kind):
            return structure(operator)
    return Covariance(operator)


def _sum(operator: SumLinearOperator) -> Sum:
    parts = [_structured(part) for part in operator.linear_ops]
    flat = [each for part in parts for each in (part.parts if isinstance(part, Sum) else [part])]
    return Sum(operator, flat)


_KINDS: tuple[tuple[type, Callable[[Any], Covariance]], ...] = (
    (DiagLinearOperator, Independent),
    (DenseLinearOperator, Entries),
    (RootLinearOperator, LowRank),
    (KroneckerProductLinearOperator, Kronecker),
    (ConstantMulLinearOperator, Scaled),
    (SumLinearOperator, _sum),
)


def definite_root(operator: LinearOperator) -> Tensor:
    """Cholesky factor ``(*batch, n, n)`` of a covariance that is regular to working precision.

    Raises:
        InvalidArgumentError: If a pivot may be rounding, 100 n ε of its variance.
    """
    matrix = operator.to_dense()
    chol, info = torch.linalg.cholesky_ex(matrix)
    least = 100 * matrix.shape[-1] * torch.finfo(torch.float64).eps * matrix.diagonal(dim1=-2, dim2=-1)
    if bool(info.any()) or not bool((chol.diagonal(dim1=-2, dim2=-1).square() > least).all()):
        raise singular()
    return chol


def regular_cholesky(matrix: Tensor) -> Tensor:
    """Cholesky factor of a regular matrix.

    Raises:
        InvalidArgumentError: If it is singular.
    """
    chol, info = torch.linalg.cholesky_ex(matrix)
    if bool(info.any()):
        raise singular()
    return chol


def singular() -> InvalidArgumentError:
    """The error where a density is asked for and there is none."""
    return InvalidArgumentError(
        "The covariance is singular, so the distribution has no density over the field values. Use samples, or add a "
        "noise variance to it."
    )
