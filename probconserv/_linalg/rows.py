"""Rows of a law that are stored by their structure: regular blocks, and sparse rows.

Neither forms the k × n matrix. Both act on fields ``(*batch, s, n)`` and multipliers ``(*batch, s, k)``; ``entries``
are the numbers that are not zero, with optional batch axes. Where numbers may be read, no derivatives are recorded and
the fields are on the CPU, both use compiled loops; otherwise operations of torch, on whatever device.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from types import ModuleType
from typing import Any, ClassVar, Self

import numpy as np
import scipy.sparse
import torch
from linear_operator.operators import LinearOperator
from torch import Tensor

from probconserv._linalg.values import as_tensor, cached
from probconserv.errors import InvalidArgumentError
from solvers.recording import are_plain

_DENSE = 1 << 27  # numbers of a matrix that is still formed on request
SMALL = 1 << 20
"""Entries of structured rows up to which they may become a matrix where nothing hangs on their speed."""


class Rows(ABC):
    """G ``(*batch, k, n)``.

    ``is_disjoint`` says that every point enters at most one row, so that G D Gᵀ is diagonal for every diagonal D.
    """

    entries: Tensor
    is_disjoint: bool

    @property
    @abstractmethod
    def shape(self) -> torch.Size:
        """``(*batch, k, n)``."""

    @abstractmethod
    def functional(self, u: Tensor) -> Tensor:
        """G u ``(*batch, s, k)`` of fields ``(*batch, s, n)``."""

    @abstractmethod
    def subtract(self, u: Tensor | None, metric: Tensor, multipliers: Tensor) -> Tensor:
        """u − metric ∘ Gᵀ λ ``(*batch, s, n)``; metric ``(*batch, n)``, λ ``(*batch, s, k)``; None for u = 0."""

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def device(self) -> torch.device:
        """Positions of the entries."""
        return self.entries.device

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The rows with a function, zero at zero, applied to every entry."""
        return replace(self, entries=function(self.entries))  # pyright: ignore[reportArgumentType] - a dataclass

    def to(self, target: Any) -> Self:
        """The rows on a device."""
        changes = {name: getattr(self, name).to(target) for name in ("entries", "row", "column") if hasattr(self, name)}
        return replace(self, **changes)  # pyright: ignore[reportArgumentType] - a dataclass

    def to_dense(self) -> Tensor:
        """The matrix.

        Raises:
            InvalidArgumentError: If it would take more than a gigabyte.
        """
        if self.shape.numel() > _DENSE:
            raise InvalidArgumentError(
                f"{self.shape[-2]} rows over {self.shape[-1]} points would take {self.shape.numel() * 8 / 1e9:.1f} GB "
                "as a dense matrix, which this prior or operation needs. Use a Normal, or samples with noise_variance, "
                "as the prior; these keep the structure of the rows."
            )
        unit = torch.eye(self.shape[-2], dtype=torch.float64, device=self.device)
        return -self.subtract(None, torch.ones(self.shape[-1], dtype=torch.float64, device=self.device), unit)

    def norms(self) -> Tensor:
        """Σ_j |G_ij| of every row ``(*batch, k)``."""
        return self.mapped(torch.abs).functional(self.entries.new_ones(1, self.shape[-1]))[..., 0, :]

    def functional_and_size(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """G u and Σ_j |G_ij u_j| ``(*batch, s, k)``."""
        return self.functional(u), self.mapped(torch.abs).functional(u.abs())

    def conditioned_diagonal(self, metric: Tensor, diagonal: Tensor) -> Tensor:
        """diag(D − D Gᵀ S⁻¹ G D) for a diagonal S ``(*batch, n)``, which disjoint rows have."""
        inverse = -1.0 / diagonal[..., None, :]
        removed = self.mapped(torch.square).subtract(None, metric, inverse)[..., 0, :]
        return metric * (1.0 - removed).clamp_min(0.0)

    def gram(self, metric: Tensor) -> Tensor:
        """diag(G diag(metric) Gᵀ) ``(*batch, k)``."""
        return self.mapped(torch.square).functional(metric[..., None, :])[..., 0, :]


@dataclass(frozen=True, eq=False, kw_only=True)
class BlockRows(Rows):
    """Weighted sums over the blocks of a regular partition of a field flattened in row-major order.

    Args:
        counts: Number of blocks along every axis.
        sizes: Number of points of a block along every axis.
        entries: Weight of every point ``(*batch, n)``, or one number; float64.
    """

    counts: tuple[int, ...]
    sizes: tuple[int, ...]
    entries: Tensor
    is_disjoint: ClassVar[bool] = True  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def shape(self) -> torch.Size:
        """See ``Rows``."""
        k = prod(self.counts)
        return torch.Size([*self.entries.shape[:-1], k, k * prod(self.sizes)])

    def functional(self, u: Tensor) -> Tensor:
        """See ``Rows``."""
        if self._is_plain(u):
            sums = _kernels().block_functional(_fields(u), *self._arrays(), self.shape[-2])
            return torch.from_numpy(sums).reshape(*u.shape[:-1], self.shape[-2])
        if not self.entries.ndim:
            return self._sums(u) * self.entries
        return self._sums(u * self.entries[..., None, :])

    def subtract(self, u: Tensor | None, metric: Tensor, multipliers: Tensor) -> Tensor:
        """See ``Rows``."""
        if u is not None and self._is_plain(u, metric, multipliers):
            return self._subtract_plain(u, metric, multipliers)
        if self.entries.ndim:
            metric = metric * self.entries
        else:
            multipliers = multipliers * self.entries
        lead = multipliers.shape[:-1]
        spread = multipliers.reshape(*lead, *(length for count in self.counts for length in (count, 1)))
        metric = self._blocks(metric[..., None, :])
        result = -metric * spread if u is None else torch.addcmul(self._blocks(u), metric, spread, value=-1)
        return result.reshape(*result.shape[: result.ndim - 2 * len(self.counts)], self.shape[-1])

    def functional_and_size(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Rows``."""
        if not self._is_plain(u):
            return super().functional_and_size(u)
        both = _kernels().block_functional_and_size(_fields(u), *self._arrays(), self.shape[-2])
        functional, size = (torch.from_numpy(sums).reshape(*u.shape[:-1], self.shape[-2]) for sums in both)
        return functional, size

    def conditioned_diagonal(self, metric: Tensor, diagonal: Tensor) -> Tensor:
        """D − D Gᵀ S⁻¹ G D for a diagonal S ``(*batch, n)``."""
        if self._is_plain(metric, diagonal) and _matches(metric, diagonal.shape[:-1]):
            values = _kernels().block_keep(_fields(metric), _fields(1.0 / diagonal), *self._arrays())
            return torch.from_numpy(values).reshape(*diagonal.shape[:-1], self.shape[-1])
        return super().conditioned_diagonal(metric, diagonal)

    def _subtract_plain(self, u: Tensor, metric: Tensor, multipliers: Tensor) -> Tensor:
        batch = torch.broadcast_shapes(u.shape[:-1], multipliers.shape[:-1], (*metric.shape[:-1], 1))
        fields, factors = u.expand(*batch, u.shape[-1]), multipliers.expand(*batch, multipliers.shape[-1])
        metric = metric if _matches(metric, batch[:-1]) else metric.expand(*batch[:-1], metric.shape[-1])
        changed = _kernels().block_subtract(
            _fields(fields), (_fields(metric), batch[-1]), _fields(factors), *self._arrays()
        )
        return torch.from_numpy(changed).reshape(*batch, self.shape[-1])

    def _is_plain(self, *tensors: Tensor) -> bool:
        return self.entries.ndim <= 1 and are_plain(self.entries, *tensors)

    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        return _kernels().block_labels(self.counts, self.sizes), self.entries.detach().reshape(-1).numpy()

    def _blocks(self, values: Tensor) -> Tensor:
        return values.reshape(
            *values.shape[:-1], *(n for pair in zip(self.counts, self.sizes, strict=True) for n in pair)
        )

    def _sums(self, u: Tensor) -> Tensor:
        axes = 2 * len(self.counts)
        summed = self._blocks(u)
        for axis in range(-1, -axes, -2):  # one axis at a time, the contiguous one first
            summed = summed.sum(dim=axis, keepdim=True)
        return summed.reshape(*u.shape[:-1], prod(self.counts))


@dataclass(frozen=True, eq=False, kw_only=True)
class SparseRows(Rows):
    """Rows with few entries that are not zero, in row-major order; build them with ``as_sparse_rows``.

    Args:
        rows: Number k of rows.
        points: Number n of points.
        row: Row of every entry ``(entries,)``, not decreasing.
        column: Point of every entry ``(entries,)``, increasing within a row.
        entries: The entries ``(*batch, entries)``; float64.
        is_disjoint: See ``Rows``.
    """

    rows: int
    points: int
    row: Tensor
    column: Tensor
    entries: Tensor
    is_disjoint: bool

    @property
    def shape(self) -> torch.Size:
        """See ``Rows``."""
        return torch.Size([*self.entries.shape[:-1], self.rows, self.points])

    @cached
    def starts(self) -> np.ndarray:
        """Start of every row among the entries ``(k + 1,)``."""
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
        """See ``Rows``."""
        if self.entries.ndim == 1 and are_plain(u, self.entries):
            sums = _kernels().sparse_functional(_fields(u), *self._arrays())
            return torch.from_numpy(sums).reshape(*u.shape[:-1], self.rows)
        terms = u[..., self.column] * self.entries[..., None, :]
        return terms.new_zeros(*terms.shape[:-1], self.rows).index_add(-1, self.row, terms)

    def subtract(self, u: Tensor | None, metric: Tensor, multipliers: Tensor) -> Tensor:
        """See ``Rows``."""
        tensors = (self.entries, metric, multipliers) if u is None else (self.entries, metric, multipliers, u)
        if self.entries.ndim == 1 and are_plain(*tensors):
            spread = _kernels().sparse_spread(_fields(multipliers), self.points, *self._arrays())
            spread = torch.from_numpy(spread).reshape(*multipliers.shape[:-1], self.points)
        else:
            terms = multipliers[..., self.row] * self.entries[..., None, :]
            spread = terms.new_zeros(*terms.shape[:-1], self.points).index_add(-1, self.column, terms)
        metric = metric[..., None, :]
        return -metric * spread if u is None else torch.addcmul(u, metric, spread, value=-1)

    def matrix(self, entry: int) -> scipy.sparse.csr_array:
        """G of one batch entry, counted through the flattened batch, as a matrix of SciPy."""
        entries, (starts, columns, _) = self.entries.detach().reshape(-1, len(self.row)), self._arrays()
        values = entries[entry % len(entries)].numpy(force=True)
        return scipy.sparse.csr_array((values, columns, starts), shape=(self.rows, self.points))

    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.starts, self.column.numpy(force=True), self.entries.detach().numpy(force=True)


def as_sparse_rows(G: Any) -> SparseRows:
    """Sparse rows from rows of any kind.

    Args:
        G: A dense or sparse tensor, a ``LinearOperator``, a matrix of SciPy ``(k, n)``, or ``Rows``. Entries given
            twice are added.

    Returns:
        The rows, float64.
    """
    if isinstance(G, SparseRows):
        return G
    if isinstance(G, BlockRows):
        return _sparse_blocks(G)
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
    return _sparse_rows(row, column, entries.to(torch.float64), tuple(G.shape[-2:]))


def stacked(first: Any, second: Any) -> SparseRows:
    """Rows of any kind, one below the other."""
    upper, lower = as_sparse_rows(first), as_sparse_rows(second)
    batch = torch.broadcast_shapes(upper.entries.shape[:-1], lower.entries.shape[:-1])
    entries = torch.cat([rows.entries.expand(*batch, rows.entries.shape[-1]) for rows in (upper, lower)], dim=-1)
    row = torch.cat([upper.row, lower.row + upper.rows])
    return _sparse_rows(row, torch.cat([upper.column, lower.column]), entries, (upper.rows + lower.rows, upper.points))


def is_sparse(G: Any) -> bool:
    """Whether G is a sparse tensor or a sparse matrix of SciPy."""
    return scipy.sparse.issparse(G) or (isinstance(G, Tensor) and G.layout != torch.strided)


def as_rows(G: Any) -> Tensor | LinearOperator | Rows:
    """Rows in float64, sparse ones as such."""
    if isinstance(G, Rows):
        return G
    if is_sparse(G):
        return as_sparse_rows(G)
    return G.to(dtype=torch.float64) if isinstance(G, LinearOperator) else as_tensor(G)


def keep_structure(first: Any, second: Any) -> bool:
    """Whether joined rows are stored as sparse ones; small ones are a matrix in a graph, which cannot count entries."""
    entries = (first.shape[-2] + second.shape[-2]) * first.shape[-1]
    if torch.compiler.is_compiling() and entries <= SMALL:
        return False
    return isinstance(first, Rows) or isinstance(second, Rows)


def rows_applied(rows: Tensor | Rows, u: Tensor) -> Tensor:
    """Rows ``(*batch, k, n)`` times fields ``(*batch, n)``."""
    return rows.functional(u[..., None, :])[..., 0, :] if isinstance(rows, Rows) else (rows @ u[..., None])[..., 0]


def joined_matrix(first: Tensor, second: Tensor) -> Tensor:
    """The rows of two matrices one below the other."""
    batch = torch.broadcast_shapes(first.shape[:-2], second.shape[:-2])
    return torch.cat([rows.expand(*batch, *rows.shape[-2:]) for rows in (first, second)], dim=-2)


def concatenate(first: Tensor, second: Tensor) -> Tensor:
    """Values of rows ``(*batch, k)`` one after the other."""
    batch = torch.broadcast_shapes(first.shape[:-1], second.shape[:-1])
    return torch.cat([part.expand(*batch, part.shape[-1]) for part in (first, second)], dim=-1)


def _sparse_rows(row: Tensor, column: Tensor, entries: Tensor, shape: tuple[int, int]) -> SparseRows:
    disjoint = len(column) <= shape[1] and int(torch.bincount(column, minlength=shape[1]).max()) <= 1
    return SparseRows(rows=shape[0], points=shape[1], row=row, column=column, entries=entries, is_disjoint=disjoint)


def _sparse_blocks(blocks: BlockRows) -> SparseRows:
    k, n = blocks.shape[-2:]
    numbers = torch.arange(k, dtype=torch.float64, device=blocks.device)[None]
    unit = replace(blocks, entries=torch.ones((), dtype=torch.float64, device=blocks.device))
    label = -unit.subtract(None, torch.ones(n, dtype=torch.float64, device=blocks.device), numbers)[0]
    row, column = torch.sort(label.to(torch.int64), stable=True)
    entries = blocks.entries[..., column] if blocks.entries.ndim else blocks.entries.expand(n)
    return SparseRows(rows=k, points=n, row=row, column=column, entries=entries, is_disjoint=True)


def _matches(values: Tensor, batch: tuple[int, ...]) -> bool:
    """Whether values ``(*batch, n)`` are given for every batch entry, or once for all."""
    return values.ndim == 1 or values.shape[:-1] == torch.Size(batch)


def _fields(values: Tensor) -> np.ndarray:
    return values.detach().reshape(-1, values.shape[-1]).contiguous().numpy()


def _kernels() -> ModuleType:
    """The compiled loops; they need numba, which is slow to import and not always needed."""
    from probconserv._linalg import row_kernels

    return row_kernels
