"""Deterministic factorisations of covariances.

Above 800 points ``linear_operator`` switches from Cholesky to conjugate gradients and Lanczos. The functions below
choose the factorisation by structure: elementwise for a diagonal, the root itself for a low-rank covariance, factor by
factor for a Kronecker product, Cholesky otherwise. Nodes with zero variance (prescribed boundary values) are allowed:
draws leave them at the mean.
"""

import torch
from jaxtyping import Float
from linear_operator import to_dense
from linear_operator.operators import (
    AddedDiagLinearOperator,
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
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from probconserv._linalg.checks import refuse_missing
from probconserv._linalg.values import square_root
from probconserv.errors import InvalidArgumentError
from solvers.recording import are_readable

_DIFFERENCE = 1e-10
"""Negative eigenvalues, relative to the largest one, of a Σ that is a difference of matrices 1e4 times as large."""
Root = Tensor | DiagLinearOperator | KroneckerProductLinearOperator


def as_double(covariance: LinearOperator) -> LinearOperator:
    """The covariance in float64; lazy kernels are evaluated, R Rᵀ + D keeps its structure however it was added."""
    if isinstance(covariance, DiagLinearOperator) and covariance.dtype == torch.float64:
        return covariance
    double = covariance.evaluate_kernel().to(torch.float64)
    if isinstance(double, AddedDiagLinearOperator) and is_factored(PsdSumLinearOperator(*double.linear_ops)):
        return PsdSumLinearOperator(*double.linear_ops)
    return double


def rows_times(covariance: LinearOperator, rows: Float[Tensor, "*batch k n"]) -> Float[Tensor, "*batch k n"]:
    """G Σ, the covariance between k linear functionals and the n values; never forms Σ."""
    if isinstance(covariance, DiagLinearOperator):
        return rows * covariance.diagonal()[..., None, :]
    if not rows.shape[-2]:  # which linear_operator refuses
        return rows
    return _times(covariance, rows.mT).mT


def _times(covariance: LinearOperator, columns: Tensor) -> Tensor:
    """Σ times columns ``(*batch, n, k)``, by tensor products where possible: those can be traced and vectorised."""
    if isinstance(covariance, DiagLinearOperator):
        return covariance.diagonal()[..., None] * columns
    if isinstance(covariance, RootLinearOperator):
        root = covariance.root.to_dense()
        return root @ (root.mT @ columns)
    if isinstance(covariance, DenseLinearOperator):
        return covariance.to_dense() @ columns
    if isinstance(covariance, PsdSumLinearOperator):
        first, *others = (_times(part, columns) for part in covariance.linear_ops)
        return sum(others, start=first)
    return to_dense(covariance @ columns)


def is_factored(covariance: LinearOperator) -> bool:
    """Whether Σ is stored as factors (Σ = R Rᵀ), so that rounding cannot make it indefinite."""
    if isinstance(covariance, PsdSumLinearOperator):
        return all(is_factored(part) for part in covariance.linear_ops)
    return isinstance(covariance, DiagLinearOperator | RootLinearOperator)


def rounding(covariance: LinearOperator, rows: Float[Tensor, "*batch k n"], relative: float) -> Tensor:
    """Bound of what rounding leaves of diag(G Σ Gᵀ) ``(*batch, k)`` by rounding, where it is zero without.

    Numbers that Σ is stored by are rounded independently, so that errors add up as the terms of Σ_j G_j² Σ_jj do, which
    a long or smooth field does not enlarge: by r of it for entries, r² for the factor R of R Rᵀ, whose error is
    squared. In a Kronecker product this holds for every factor in turn; what is subtracted leaves r of itself.

    Args:
        covariance: Σ ``(*batch, n, n)``.
        rows: G.
        relative: r, relative rounding of a number.
    """
    if isinstance(covariance, DiagLinearOperator):
        return rows.new_zeros(rows.shape[:-1])
    if isinstance(covariance, SumLinearOperator):
        return sum((rounding(part, rows, relative) for part in covariance.linear_ops), rows.new_zeros(()))
    if isinstance(covariance, ConstantMulLinearOperator):
        base, factor = covariance.base_linear_op, covariance._constant[..., None]
        subtracted = relative * (rows_times(base, rows) * rows).sum(dim=-1)
        return torch.where(factor < 0, -factor * subtracted, factor * rounding(base, rows, relative))
    if isinstance(covariance, KroneckerProductLinearOperator):
        factors = list(covariance.linear_ops)
        errors = [
            KroneckerProductLinearOperator(*factors[:i], DiagLinearOperator(factor.diagonal()), *factors[i + 1 :])
            for i, factor in enumerate(factors)
        ]
        return relative * torch.stack([(rows_times(error, rows) * rows).sum(dim=-1) for error in errors]).sum(dim=0)
    weight = relative**2 if isinstance(covariance, RootLinearOperator) else relative
    return weight * (rows.square() @ covariance.diagonal()[..., None])[..., 0]


def square_roots(covariance: LinearOperator, epsilon: float) -> list[Root]:
    """Matrices R_i with Σ_i R_i R_iᵀ = Σ.

    Args:
        covariance: Σ ``(*batch, n, n)``, float64.
        epsilon: Machine epsilon of the dtype in which Σ was computed.

    Returns:
        Roots ``(*batch, n, r_i)``.

    Raises:
        InvalidArgumentError: If Σ is indefinite beyond round-off, or an entry is not finite.
    """
    if isinstance(covariance, DiagLinearOperator):
        return [DiagLinearOperator(square_root(covariance.diagonal()))]
    if isinstance(covariance, RootLinearOperator):
        return [covariance.root.to_dense()]
    if isinstance(covariance, PsdSumLinearOperator):
        return [root for part in covariance.linear_ops for root in square_roots(part, epsilon)]
    if isinstance(covariance, KroneckerProductLinearOperator):
        factors = [_dense_root(factor.to_dense(), epsilon) for factor in covariance.linear_ops]
        return [KroneckerProductLinearOperator(*factors)]
    return [_dense_root(covariance.to_dense(), epsilon)]


def apply_roots(roots: list[Root], normals: Float[Tensor, "*batch s r"]) -> Float[Tensor, "*batch s n"]:
    """Draws from N(0, Σ): Σ_i R_i z_i for s standard normal vectors z = (z_1, z_2, …)."""
    parts = torch.split(normals, [root.shape[-1] for root in roots], dim=-1)
    draws = [_apply_root(root, part) for root, part in zip(roots, parts, strict=True)]
    return torch.stack(draws).sum(dim=0) if len(draws) > 1 else draws[0]


def whitening(root: Float[Tensor, "*batch n r"], weights: Float[Tensor, "*batch n"]) -> tuple[Tensor, Tensor]:
    """An orthogonal factor Q of V^-½ R over the identity, which whitens Σ = R Rᵀ + V.

    dᵀ Σ⁻¹ d is the least |V^-½ (d − R z)|² + |z|². A Cholesky factor of I + Rᵀ V⁻¹ R loses all digits where members
    outweigh the noise by 1e16, and some of them far before.

    Args:
        root: R.
        weights: V^-½.

    Returns:
        Q ``(*batch, n + r, r)``, and the ``(*batch, r)`` whose squares have the product det(I + Rᵀ V⁻¹ R).
    """
    scaled = weights[..., None] * root
    unit = torch.eye(root.shape[-1], dtype=root.dtype, device=root.device)
    stacked = torch.cat([scaled, unit.expand(*scaled.shape[:-2], *unit.shape)], dim=-2)
    orthogonal, triangular = torch.linalg.qr(stacked)
    return orthogonal, triangular.diagonal(dim1=-2, dim2=-1).abs()


def whitened(orthogonal: Tensor, scaled: Float[Tensor, "*batch n s"]) -> Float[Tensor, "*batch n_plus_r s"]:
    """Columns w with aᵀ Σ⁻¹ b = w_aᵀ w_b, of columns V^-½ a."""
    extended = pad(scaled, (0, 0, 0, orthogonal.shape[-1]))
    return extended - orthogonal @ (orthogonal.mT @ extended)


def log_det_gram(triangle: Tensor) -> Tensor:
    """log det T Tᵀ ``(*batch,)``."""
    return 2 * triangle.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)


def _apply_root(root: Root, normals: Tensor) -> Tensor:
    if isinstance(root, DiagLinearOperator):
        return normals * root.diagonal()[..., None, :]
    return to_dense(root @ normals.mT).mT


def _dense_root(matrix: Tensor, epsilon: float) -> Tensor:
    """Cholesky factor, or eigenvectors times √eigenvalues if the matrix is singular to working precision."""
    fixed = matrix.diagonal(dim1=-2, dim2=-1) == 0
    regular = matrix + torch.diag_embed(fixed.to(matrix.dtype))
    if not are_readable(matrix):
        return _either_root(matrix, regular) * ~fixed[..., None]
    refuse_missing(matrix, "The covariance of the prior holds")
    chol, info = torch.linalg.cholesky_ex(regular)
    if not bool(info.any()):
        return chol * ~fixed[..., None]
    values, vectors = torch.linalg.eigh(matrix.detach())
    bound = max(matrix.shape[-1] * epsilon, _DIFFERENCE) * values[..., -1:].abs()
    if bool((values < -bound).any()):
        raise InvalidArgumentError(
            f"The covariance is not positive semi-definite: its smallest eigenvalue is {float(values.min()):.3g} where "
            f"round-off explains {-float(bound.max()):.3g}. Check how it was computed; if by a difference of large "
            "matrices, add its round-off to the diagonal."
        )
    return _EigenRoot.apply(matrix, vectors, values.clamp_min(0.0).sqrt()) * ~fixed[..., None]


def _either_root(matrix: Tensor, regular: Tensor) -> Tensor:
    """The root that ``_dense_root`` would choose, where numbers cannot be read: both are computed."""
    definite = (torch.linalg.cholesky_ex(regular.detach()).info == 0).all()
    unit = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    chol = torch.linalg.cholesky_ex(torch.where(definite, regular, unit)).L
    values, vectors = torch.linalg.eigh(torch.where(definite, unit, matrix).detach())
    root = _EigenRoot.apply(torch.where(definite, unit, matrix), vectors, values.clamp_min(0.0).sqrt())
    return torch.where(definite, chol, root)


class _EigenRoot(Function):
    """V √Λ of Σ = V Λ Vᵀ; vectors of equal eigenvalues follow the symmetric root, those of zero ones stay."""

    generate_vmap_rule = True

    @staticmethod
    def forward(matrix: Tensor, vectors: Tensor, roots: Tensor) -> Tensor:  # noqa: ARG004 - what it depends on
        return vectors * roots[..., None, :]

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # noqa: ARG004 - the signature of torch
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        vectors, roots = ctx.saved_tensors
        turned, largest = vectors.mT @ gradient, roots.amax(dim=-1)[..., None, None]
        across, along = roots[..., None, :], roots[..., :, None]
        gap, total = across.square() - along.square(), across + along
        equal, present = gap.abs() <= 1e-12 * largest.square(), total > 1e-7 * largest
        together = torch.where(present, (turned + turned.mT) / torch.where(present, 2 * total, 1.0), 0.0)
        apart = turned * across / torch.where(equal, 1.0, gap)
        inner = torch.where(equal, together, 0.5 * (apart + apart.mT))
        return vectors @ inner @ vectors.mT, None, None
