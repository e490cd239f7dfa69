"""Roots R of covariances Σ = R Rᵀ: drawn through, whitened by, and found by Cholesky or by eigenvectors."""

import torch
from jaxtyping import Float
from linear_operator import to_dense
from linear_operator.operators import DiagLinearOperator, KroneckerProductLinearOperator
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from probconserv._linalg.checks import refuse_missing
from probconserv.errors import InvalidArgumentError
from solvers.recording import are_readable

_DIFFERENCE = 1e-10
"""Negative eigenvalues, relative to the largest one, of a Σ that is a difference of matrices 1e4 times as large."""
Root = Tensor | DiagLinearOperator | KroneckerProductLinearOperator


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


def dense_root(matrix: Tensor, epsilon: float) -> Tensor:
    """Cholesky factor, or eigenvectors times √eigenvalues if the matrix is singular to working precision.

    Raises:
        InvalidArgumentError: If the matrix is indefinite beyond round-off, or an entry is not finite.
    """
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
    """The root that ``dense_root`` would choose, where numbers cannot be read: both are computed."""
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
