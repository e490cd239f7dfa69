"""S = G D Gᵀ + N for a diagonal D and structured rows: its inverse, its determinant, and what it takes from D.

Disjoint rows make S diagonal. Rows that overlap make it sparse: SciPy factorises it, one batch entry after the other on
the CPU, S = L P Lᵀ in an order that keeps L sparse, and the variances come from the entries of S⁻¹ on the pattern of L.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import scipy.sparse
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from probconserv._linalg.gain import require_finite
from probconserv._linalg.rows import Rows, SparseRows
from probconserv.errors import DependentConstraintsError, InvalidArgumentError

_EPS = torch.finfo(torch.float64).eps
if TYPE_CHECKING:
    from scipy.sparse.linalg import SuperLU
AnyRows = TypeVar("AnyRows", bound=Rows)


@dataclass(frozen=True, eq=False)
class Innovation(ABC):
    """S ``(*batch, k, k)``.

    Args:
        rows: G.
        metric: D ``(*batch, n)``.
        noise: N ``(*batch, k)``.
    """

    rows: Rows
    metric: Tensor
    noise: Tensor

    @property
    @abstractmethod
    def batch_shape(self) -> torch.Size:
        """Batch axes of S."""

    @abstractmethod
    def at(self, position: Tensor, metric: Tensor, noise: Tensor, entries: Tensor | None = None) -> "Innovation":
        """Some of the batch entries.

        Args:
            position: Numbers of the entries in the flattened batch ``(*chosen)``.
            metric: D of these ``(*chosen, n)``.
            noise: N of these ``(*chosen, k)``.
            entries: Entries of their rows ``(*chosen, m)``; those of G without it.
        """

    @abstractmethod
    def root(self) -> Tensor:
        """Lower triangular C with C Cᵀ = S ``(*batch, k, k)``, dense."""

    @abstractmethod
    def solve(self, residual: Tensor) -> Tensor:
        """S⁻¹ r ``(*batch, s, k)``."""

    @abstractmethod
    def log_determinant(self) -> Tensor:
        """log det S ``(*batch,)``."""

    @abstractmethod
    def conditioned_diagonal(self) -> Tensor:
        """diag(D − D Gᵀ S⁻¹ G D) ``(*batch, n)``; round-off below zero is removed."""


@dataclass(frozen=True, eq=False)
class DiagonalInnovation(Innovation):
    """S of disjoint rows.

    Args:
        diagonal: S ``(*batch, k)``.
    """

    diagonal: Tensor

    @property
    def batch_shape(self) -> torch.Size:
        """See ``Innovation``."""
        return self.diagonal.shape[:-1]

    def at(
        self, position: Tensor, metric: Tensor, noise: Tensor, entries: Tensor | None = None
    ) -> "DiagonalInnovation":
        """See ``Innovation``."""
        rows = _rows_at(self.rows, self.batch_shape, position, entries)
        diagonal = rows.gram(metric) + noise
        return DiagonalInnovation(rows, metric, noise, torch.where(diagonal > 0, diagonal, math.nan))

    def root(self) -> Tensor:
        """See ``Innovation``."""
        return torch.diag_embed(self.diagonal.sqrt())

    def solve(self, residual: Tensor) -> Tensor:
        """See ``Innovation``."""
        return residual / self.diagonal[..., None, :]

    def log_determinant(self) -> Tensor:
        """See ``Innovation``."""
        return self.diagonal.log().sum(dim=-1)

    def conditioned_diagonal(self) -> Tensor:
        """See ``Innovation``."""
        return self.rows.conditioned_diagonal(self.metric, self.diagonal)


@dataclass(frozen=True, eq=False)
class SparseInnovation(Innovation):
    """S of rows that overlap; their entries have all batch axes of S, or none.

    Args:
        scale: 1/√S_ii ``(*batch, k)``, without derivatives.
        factors: Factors of every S with unit diagonal, one per batch entry.
    """

    rows: SparseRows
    scale: Tensor
    factors: "list[SuperLU]"

    @property
    def batch_shape(self) -> torch.Size:
        """See ``Innovation``."""
        return self.scale.shape[:-1]

    def at(self, position: Tensor, metric: Tensor, noise: Tensor, entries: Tensor | None = None) -> "SparseInnovation":
        """See ``Innovation``."""
        rows = _rows_at(self.rows, self.batch_shape, position, entries)
        scale = _at(self.scale, self.batch_shape, position)
        factors = [self.factors[entry] for entry in position.flatten().tolist()]
        return SparseInnovation(rows, metric, noise, scale, factors)

    def root(self) -> Tensor:
        """See ``Innovation``."""
        unit = torch.eye(self.rows.rows, dtype=torch.float64, device=self.scale.device)
        matrix = self.rows.functional(-self.rows.subtract(None, self.metric, unit)) + torch.diag_embed(self.noise)
        scaled = self.scale[..., None] * matrix * self.scale[..., None, :]
        return torch.linalg.cholesky(scaled) / self.scale[..., None]

    def solve(self, residual: Tensor) -> Tensor:
        """See ``Innovation``; first derivatives only."""
        batch = torch.broadcast_shapes(residual.shape[:-2], self.scale.shape[:-1])
        residual = residual.expand(*batch, *residual.shape[-2:])
        solution = self._solve(residual.detach())
        product = -self.rows.subtract(None, self.metric, solution)
        defect = residual - self.rows.functional(product) - self.noise[..., None, :] * solution
        return solution + _Solve.apply(defect, self)

    def log_determinant(self) -> Tensor:
        """See ``Innovation``; without derivatives."""
        self._require_no_derivatives("The log-density")
        pivots = torch.as_tensor(np.stack([np.log(factor.U.diagonal()).sum() for factor in self.factors]))
        return pivots.reshape(self.scale.shape[:-1]).to(self.scale.device) - 2 * self.scale.log().sum(dim=-1)

    def conditioned_diagonal(self) -> Tensor:
        """See ``Innovation``; by selected inversion, without derivatives."""
        self._require_no_derivatives("The variance")
        forms = np.stack([self._forms(entry) for entry in range(len(self.factors))])
        forms = torch.as_tensor(forms, device=self.metric.device).reshape(*self.scale.shape[:-1], -1)
        return self.metric * (1.0 - forms * self.metric).clamp_min(0.0)

    def _solve(self, residual: Tensor) -> Tensor:
        """S⁻¹ r without derivatives."""
        if not residual.numel():
            return torch.zeros_like(residual)
        scaled = residual * self.scale[..., None, :]
        numbers = scaled.reshape(-1, *scaled.shape[-2:]).numpy(force=True)
        entries = torch.arange(len(self.factors)).reshape(self.batch_shape).expand(scaled.shape[:-2])
        solved = [
            self.factors[entry].solve(part.T).T for entry, part in zip(entries.flatten().tolist(), numbers, strict=True)
        ]
        solution = torch.as_tensor(np.stack(solved), device=residual.device).reshape(scaled.shape)
        return solution * self.scale[..., None, :]

    def _forms(self, entry: int) -> np.ndarray:
        """g_jᵀ S⁻¹ g_j for every column g_j of G ``(n,)``."""
        from probconserv._linalg import row_kernels  # numba, which is slow to import and rarely needed

        factor = self.factors[entry]
        order = np.asarray(factor.perm_r)
        starts, indices = _filled_pattern(self.rows, order)
        lower = scipy.sparse.csc_array(factor.L)
        lower.sort_indices()
        values = row_kernels.on_pattern(starts, indices, (lower.indptr, lower.indices, lower.data))
        entries, diagonal = row_kernels.selected_inverse(starts, indices, values, factor.U.diagonal())
        scale = self.scale.reshape(len(self.factors), -1)[entry].numpy(force=True)
        columns = scipy.sparse.csr_array((scipy.sparse.diags_array(scale) @ self.rows.matrix(entry)).T)
        return row_kernels.quadratic_forms(
            (columns.indptr, columns.indices, columns.data),
            order,
            (starts, indices, entries, diagonal),
        )

    def _require_no_derivatives(self, name: str) -> None:
        tensors = (self.metric, self.noise, self.rows.entries)
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            raise InvalidArgumentError(
                f"{name} under sparse rows that overlap has no derivatives in the prior variance, the rows or their "
                "noise; call it inside torch.no_grad(), or train on the mean or on draws, which have them."
            )


class _Solve(Function):
    """S⁻¹ r as a linear map of r; what depends on S is in the residual that it is applied to."""

    @staticmethod
    def forward(residual: Tensor, innovation: SparseInnovation) -> Tensor:
        return innovation._solve(residual)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # noqa: ARG004 - the signature of torch
        ctx.innovation = inputs[1]

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return ctx.innovation._solve(gradient), None


def innovation_of(rows: Rows, metric: Tensor, noise: Tensor, checked: bool) -> Innovation:
    """Forms and factorises S.

    Args:
        rows: G.
        metric: D ``(*batch, n)``, float64.
        noise: N ``(*batch, k)``, float64.
        checked: Whether a singular S is an error; without it disjoint rows give NaN.

    Returns:
        The factorised S.

    Raises:
        DependentConstraintsError: If S is singular, measured independently of the units of the rows.
        InvalidArgumentError: If S holds an entry that is not finite.
    """
    diagonal = rows.gram(metric) + noise
    if checked:
        require_finite(diagonal)
        if not bool((diagonal > 0).all()):
            raise _dependent(diagonal.shape[-1])
    if rows.is_disjoint:
        diagonal = diagonal if checked else torch.where(diagonal > 0, diagonal, math.nan)
        return DiagonalInnovation(rows, metric, noise, diagonal)
    assert isinstance(rows, SparseRows)
    batch, scale = diagonal.shape[:-1], diagonal.detach().rsqrt()
    rows = _rows_at(rows, batch, torch.arange(batch.numel()).reshape(batch))
    metrics = metric.detach().expand(*batch, rows.points).reshape(-1, rows.points)
    noises, scales = (part.detach().expand(*batch, rows.rows).reshape(-1, rows.rows) for part in (noise, scale))
    factors = [
        _factorise(rows, entry, *(part[entry].numpy(force=True) for part in (metrics, noises, scales)))
        for entry in range(len(scales))
    ]
    return SparseInnovation(rows, metric, noise, scale, factors)


def _at(values: Tensor, batch: torch.Size, position: Tensor) -> Tensor:
    """Values ``(*batch, m)``, or fewer that broadcast, of some batch entries ``(*chosen, m)``."""
    return values.expand(*batch, values.shape[-1]).reshape(-1, values.shape[-1])[position.to(values.device)]


def _rows_at(rows: AnyRows, batch: torch.Size, position: Tensor, entries: Tensor | None = None) -> AnyRows:
    """Rows of some batch entries, with other entries if given; those that are the same for all stay as they are."""
    if entries is None:
        if rows.entries.ndim <= 1:
            return rows
        entries = _at(rows.entries, batch, position)
    return replace(rows, entries=entries)  # pyright: ignore[reportArgumentType, reportReturnType] - a dataclass


def _factorise(rows: SparseRows, entry: int, metric: np.ndarray, noise: np.ndarray, scale: np.ndarray) -> "SuperLU":
    """L P Lᵀ of S with rows and columns scaled to a unit diagonal."""
    from scipy.sparse.linalg import splu  # slow to import, rarely needed

    left = scipy.sparse.diags_array(scale) @ rows.matrix(entry)
    matrix = _on_pattern(rows, (left * metric) @ left.T + scipy.sparse.diags_array(noise * scale**2))
    options = {"SymmetricMode": True, "Equil": False}
    try:
        factor = splu(matrix.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)
    except RuntimeError as error:  # an exact zero on the diagonal
        raise _dependent(rows.rows) from error
    symmetric = np.array_equal(factor.perm_r, factor.perm_c)
    if not symmetric or not (factor.U.diagonal() > 1e3 * rows.rows * _EPS).all():
        raise _dependent(rows.rows)
    return factor


def _on_pattern(rows: SparseRows, matrix: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """S with its zeros between rows that share a point: SciPy drops them, but the order of elimination needs them."""
    full = rows.overlap.copy()
    entries, present = (c[0] * np.int64(rows.rows) + c[1] for c in (full.tocoo().coords, matrix.tocoo().coords))
    full.data = np.zeros_like(full.data)
    full.data[np.searchsorted(entries, present)] = matrix.data
    return full


def _filled_pattern(rows: SparseRows, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The strictly lower pattern of L by columns, whether or not its numbers cancel or underflow.

    Args:
        rows: G.
        order: Place of every row of G in the order of elimination.
    """
    from probconserv._linalg import row_kernels

    pattern = rows.overlap.tocoo()
    first, second = (order[part] for part in pattern.coords)
    lower = first > second
    coords = (first[lower], second[lower])
    by_rows = scipy.sparse.csr_array((pattern.data[lower], coords), shape=pattern.shape)
    return row_kernels.filled_pattern(by_rows.indptr, by_rows.indices)


def _dependent(k: int) -> DependentConstraintsError:
    return DependentConstraintsError(
        f"The {k} constraint rows are not independent under this prior: S = G Σ Gᵀ + σ² I is singular. Drop redundant "
        "rows, give every row a point with variance of its own, or set noise_variance > 0."
    )
