"""Rows of laws as they are stored, applied to fields and joined."""

from typing import Any

import torch
from linear_operator.operators import LinearOperator
from torch import Tensor

from probconserv._linalg.checks import SMALL
from probconserv._linalg.rows import Rows, as_sparse_rows, is_sparse
from probconserv._linalg.values import as_tensor


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
