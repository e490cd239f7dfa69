"""Rows of a law that are stored by their entries that are not zero."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from types import ModuleType
from typing import Any, Self

import numpy as np
import scipy.sparse
import torch
from linear_operator.operators import LinearOperator
from torch import Tensor

from probconserv._linalg.values import cached
from probconserv.errors import InvalidArgumentError
from solvers.recording import are_plain

_DENSE = 1 << 27  # numbers of a matrix that is still formed on request


@dataclass(frozen=True, eq=False, kw_only=True)
class Rows:
    """G ``(*batch, k, n)`` in row-major order; build it with ``as_rows`` or ``block_rows``.

    It acts on fields ``(*batch, s, n)`` and multipliers ``(*batch, s, k)`` without the k × n matrix. Where numbers may
    be read, no derivatives are recorded and the fields are on the CPU, it uses compiled loops; otherwise operations of
    torch, on whatever device.

    Args:
        rows: Number k of rows.
        points: Number n of points.
        row: Row of every entry ``(entries,)``, not decreasing.
        column: Point of every entry ``(entries,)``, increasing within a row.
        entries: The entries ``(*batch, entries)``; float64.
        is_disjoint: Whether every point enters at most one row, so that G D Gᵀ is diagonal for every diagonal D.
    """

    rows: int
    points: int
    row: Tensor
    column: Tensor
    entries: Tensor
    is_disjoint: bool

    @property
    def shape(self) -> torch.Size:
        """``(*batch, k, n)``."""
        return torch.Size([*self.entries.shape[:-1], self.rows, self.points])

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def device(self) -> torch.device:
        """Where the entries are."""
        return self.entries.device

    @cached
    def starts(self) -> np.ndarray:
        """Where every row starts among the entries ``(k + 1,)``."""
        counts = torch.bincount(self.row, minlength=self.rows)
        return np.concatenate([[0], counts.cumsum(dim=0).numpy(force=True)])

    @cached
    def overlap(self) -> scipy.sparse.csr_array:
        """Pairs of rows that share a point, and the diagonal, as positive numbers ``(k, k)``, sorted."""
        pattern = self.matrix(0)
        pattern.data = np.ones_like(pattern.data)
        pairs = scipy.sparse.csr_array(pattern @ pattern.T + scipy.sparse.eye_array(self.rows))
        pairs.sort_indices()
        return pairs

    def functional(self, u: Tensor) -> Tensor:
        """G u ``(*batch, s, k)`` of fields ``(*batch, s, n)``."""
        if self._is_plain(u):
            sums = _kernels().functional(_fields(u), *self._arrays())
            return torch.from_numpy(sums).reshape(*u.shape[:-1], self.rows)
        terms = u[..., self.column] * self.entries[..., None, :]
        return terms.new_zeros(*terms.shape[:-1], self.rows).index_add(-1, self.row, terms)

    def functional_and_size(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """G u and Σ_j |G_ij u_j| ``(*batch, s, k)``."""
        return self.functional(u), self.mapped(torch.abs).functional(u.abs())

    def subtract(self, u: Tensor | None, metric: Tensor, multipliers: Tensor) -> Tensor:
        """u − metric ∘ Gᵀ λ ``(*batch, s, n)``; metric ``(*batch, n)``, λ ``(*batch, s, k)``; None for u = 0."""
        if self._is_plain(metric, multipliers, *(() if u is None else (u,))):
            spread = _kernels().spread(_fields(multipliers), self.points, *self._arrays())
            spread = torch.from_numpy(spread).reshape(*multipliers.shape[:-1], self.points)
        else:
            terms = multipliers[..., self.row] * self.entries[..., None, :]
            spread = terms.new_zeros(*terms.shape[:-1], self.points).index_add(-1, self.column, terms)
        metric = metric[..., None, :]
        return -metric * spread if u is None else torch.addcmul(u, metric, spread, value=-1)

    def norms(self) -> Tensor:
        """Σ_j |G_ij| of every row ``(*batch, k)``."""
        return self.mapped(torch.abs).functional(self.entries.new_ones(1, self.points))[..., 0, :]

    def gram(self, metric: Tensor) -> Tensor:
        """diag(G diag(metric) Gᵀ) ``(*batch, k)``."""
        return self.mapped(torch.square).functional(metric[..., None, :])[..., 0, :]

    def kept(self, metric: Tensor, diagonal: Tensor) -> Tensor:
        """diag(D − D Gᵀ S⁻¹ G D) for a diagonal S ``(*batch, n)``, which disjoint rows have."""
        inverse = -1.0 / diagonal[..., None, :]
        removed = self.mapped(torch.square).subtract(None, metric, inverse)[..., 0, :]
        return metric * (1.0 - removed).clamp_min(0.0)

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The rows with a function, zero at zero, applied to every entry."""
        return replace(self, entries=function(self.entries))

    def to(self, target: Any) -> Self:
        """The rows on a device."""
        return replace(self, row=self.row.to(target), column=self.column.to(target), entries=self.entries.to(target))

    def to_dense(self) -> Tensor:
        """The matrix.

        Raises:
            InvalidArgumentError: If it would take more than a gigabyte.
        """
        if self.shape.numel() > _DENSE:
            raise InvalidArgumentError(
                f"{self.rows} rows over {self.points} points would take {self.shape.numel() * 8 / 1e9:.1f} GB "
                "as a dense matrix, which this prior or operation needs. Use a Normal, or samples with noise_variance, "
                "as the prior; these keep the structure of the rows."
            )
        unit = torch.eye(self.rows, dtype=torch.float64, device=self.device)
        return -self.subtract(None, torch.ones(self.points, dtype=torch.float64, device=self.device), unit)

    def matrix(self, entry: int) -> scipy.sparse.csr_array:
        """G of one batch entry, counted through the flattened batch, as a matrix of SciPy."""
        entries, (starts, columns, _) = self.entries.detach().reshape(-1, len(self.row)), self._arrays()
        values = entries[entry % len(entries)].numpy(force=True)
        return scipy.sparse.csr_array((values, columns, starts), shape=(self.rows, self.points))

    def _is_plain(self, *tensors: Tensor) -> bool:
        return self.entries.ndim == 1 and are_plain(self.entries, *tensors)

    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.starts, self.column.numpy(force=True), self.entries.detach().numpy(force=True)


def as_rows(G: Any) -> Rows:
    """Rows of any kind by their entries.

    Args:
        G: A dense or sparse tensor, a ``LinearOperator``, a matrix of SciPy ``(k, n)``, or ``Rows``. Entries given
            twice are added.

    Returns:
        The rows, float64.
    """
    if isinstance(G, Rows):
        return G
    if isinstance(G, LinearOperator):
        G = G.to_dense()
    if scipy.sparse.issparse(G):
        coordinates = G.tocoo()
        index = torch.as_tensor(np.stack([coordinates.row, coordinates.col]).astype(np.int64))
        values = torch.as_tensor(coordinates.data)
        G = torch.sparse_coo_tensor(index, values, coordinates.shape, check_invariants=False)
    if G.layout == torch.strided:
        row, column = (G != 0).reshape(-1, *G.shape[-2:]).any(dim=0).nonzero(as_tuple=True)
        entries = G[..., row, column]
    else:
        G = G.to_sparse_coo().coalesce()
        # Copies, since a view of a sparse tensor cannot be exported.
        (row, column), entries = G.indices().clone(), G.values().clone()
    return _rows(row, column, entries.to(torch.float64), tuple(G.shape[-2:]))


def block_rows(counts: Sequence[int], sizes: Sequence[int], entries: Tensor) -> Rows:
    """Weighted sums over the blocks of a regular partition of a field flattened in row-major order.

    Args:
        counts: Number of blocks along every axis.
        sizes: Number of points of a block along every axis.
        entries: Weight of every point ``(*batch, n)``, or one number; float64.
    """
    label = torch.zeros((), dtype=torch.int64, device=entries.device)
    for count, size in zip(counts, sizes, strict=True):
        along = torch.arange(count, device=entries.device).repeat_interleave(size)
        label = label[..., None] * count + along
    row, column = torch.sort(label.flatten(), stable=True)
    entries = entries[..., column] if entries.ndim else entries.expand(len(column)).clone()
    return Rows(rows=prod(counts), points=len(column), row=row, column=column, entries=entries, is_disjoint=True)


def stacked(first: Any, second: Any) -> Rows:
    """Rows of any kind, one below the other."""
    upper, lower = as_rows(first), as_rows(second)
    batch = torch.broadcast_shapes(upper.entries.shape[:-1], lower.entries.shape[:-1])
    entries = torch.cat([rows.entries.expand(*batch, rows.entries.shape[-1]) for rows in (upper, lower)], dim=-1)
    row = torch.cat([upper.row, lower.row + upper.rows])
    return _rows(row, torch.cat([upper.column, lower.column]), entries, (upper.rows + lower.rows, upper.points))


def is_sparse(G: Any) -> bool:
    """Whether G is a sparse tensor or a sparse matrix of SciPy."""
    return scipy.sparse.issparse(G) or (isinstance(G, Tensor) and G.layout != torch.strided)


def _rows(row: Tensor, column: Tensor, entries: Tensor, shape: tuple[int, int]) -> Rows:
    disjoint = len(column) <= shape[1] and int(torch.bincount(column, minlength=shape[1]).max()) <= 1
    return Rows(rows=shape[0], points=shape[1], row=row, column=column, entries=entries, is_disjoint=disjoint)


def _fields(values: Tensor) -> np.ndarray:
    return values.detach().reshape(-1, values.shape[-1]).contiguous().numpy()


def _kernels() -> ModuleType:
    """The compiled loops; they need numba, which is slow to import and not always needed."""
    from probconserv._linalg import row_kernels

    return row_kernels
