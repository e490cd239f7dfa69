"""Splits rows into disjoint ones, solved one multiplier at a time, and the rest."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from probconserv._linalg.rows import Rows, SparseRows, as_sparse_rows
from solvers.recording import are_readable, is_transformed

_MANY = 8  # disjoint rows, with others that overlap, from which solving them apart pays


@dataclass(frozen=True, kw_only=True, eq=False)
class Division:
    """Places and points of rows in the order of the solver; build it with ``divided``.

    Args:
        apart: Number of rows that share no point; they come first.
        places: Place of every row among those given ``(k,)``.
        read: Row and point of the entries to read from each matrix.
        row: Row of every entry of the first rows, in order, whose points are ``column``.
        chosen: Their places among the entries read; ``rest`` those of the other rows' entries.
        position: Where these stand in a flattened matrix.
    """

    apart: int
    places: Tensor
    read: tuple[tuple[Tensor, ...], ...] = ()
    row: Tensor | None = None
    column: Tensor | None = None
    chosen: Tensor | None = None
    rest: Tensor | None = None
    position: Tensor | None = None

    def sorted(self, values: Tensor) -> Tensor:
        """Values of the rows given ``(*batch, k)`` in the order of the solver."""
        return values if self._is_given else values[..., self.places.to(values.device)]

    def unsorted(self, values: Tensor) -> Tensor:
        """The inverse of ``sorted``."""
        return values if self._is_given else values[..., self.places.argsort().to(values.device)]

    @property
    def _is_given(self) -> bool:
        return self.apart in (0, len(self.places))

    def rows(self, parts: Sequence[Tensor | Rows], n: int) -> tuple[Rows | None, Tensor]:
        """The first rows, or None, and the others as a matrix ``(*batch, far, n)``."""
        if not self.apart:
            dense = [part if isinstance(part, Tensor) else part.to_dense() for part in parts]
            batch = torch.broadcast_shapes(*(part.shape[:-2] for part in dense)) if dense else torch.Size()
            dense = [part.expand(*batch, *part.shape[-2:]) for part in dense]
            return None, torch.cat(dense, dim=-2) if dense else torch.zeros(0, n, dtype=torch.float64)
        if self.row is None:
            near, *others = reversed(parts)
            assert isinstance(near, Rows)
            return near, self._rest(others, near, n)
        read = []
        for part, index in zip(parts, self.read, strict=True):
            read.append(as_sparse_rows(part).entries if isinstance(part, Rows) else part[..., *index])
        batch = torch.broadcast_shapes(*(entries.shape[:-1] for entries in read))
        entries = torch.cat([part.expand(*batch, part.shape[-1]) for part in read], dim=-1)
        assert self.column is not None
        assert self.position is not None
        near = SparseRows(
            rows=self.apart,
            points=n,
            row=self.row,
            column=self.column,
            entries=entries[..., self.chosen],
            is_disjoint=True,
        )
        far = entries.new_zeros(*batch, (len(self.places) - self.apart) * n)
        far = far.index_add(-1, self.position, entries[..., self.rest])
        return near, far.reshape(*batch, len(self.places) - self.apart, n)

    def _rest(self, others: list[Tensor | Rows], near: Rows, n: int) -> Tensor:
        if not others:
            return torch.zeros(0, n, dtype=torch.float64, device=near.device)
        return others[0] if isinstance(others[0], Tensor) else others[0].to_dense()


def divided(parts: Sequence[Tensor | Rows], ordered: bool) -> Division:
    """The division of the rows of one or two parts.

    Rows of one part that are stored as such are taken as they are; others are looked at, where they can be read, and
    where no derivatives are taken by zeros of a matrix, which would be lost.
    """
    k = sum(part.shape[-2] for part in parts)
    last, places = parts[-1] if parts else None, torch.arange(k)
    if k <= 1 or ordered or last is None:
        return Division(apart=0, places=places)
    if len(parts) == 1 and isinstance(last, Rows) and last.is_disjoint:
        return Division(apart=k, places=places)
    matrices = [part for part in parts if isinstance(part, Tensor)]
    transformed = not are_readable(*matrices) or is_transformed()
    if transformed or any(part.requires_grad for part in matrices):
        m = last.shape[-2] if isinstance(last, Rows) and last.is_disjoint else 0
        return Division(apart=m, places=places.roll(m))
    sparse = [as_sparse_rows(part) for part in parts]
    first = [0, sparse[0].rows]
    row = torch.cat([part.row + start for part, start in zip(sparse, first, strict=False)]).cpu()
    column = torch.cat([part.column for part in sparse]).cpu()
    chosen = _apart(row.numpy(), column.numpy(), k, last.shape[-1])
    apart = int(chosen.sum())
    if apart < k and apart < _MANY:
        return Division(apart=0, places=places)
    places = torch.from_numpy(np.concatenate([chosen.nonzero()[0], (~chosen).nonzero()[0]]))
    place = places.argsort()[row]
    order = place.argsort(stable=True)
    order, rest = order[place[order] < apart], order[place[order] >= apart]
    return Division(
        apart=apart,
        places=places,
        read=tuple(
            () if isinstance(part, Rows) else (own.row, own.column) for part, own in zip(parts, sparse, strict=True)
        ),
        row=place[order].to(last.device),
        column=column[order].to(last.device),
        chosen=order.to(last.device),
        rest=rest.to(last.device),
        position=((place[rest] - apart) * last.shape[-1] + column[rest]).to(last.device),
    )


def _apart(row: np.ndarray, column: np.ndarray, k: int, n: int) -> np.ndarray:
    """Rows that share no point with each other, the shortest first, from the entries row by row."""
    counts = np.bincount(row, minlength=k)
    if np.bincount(column, minlength=n).max() <= 1:
        return np.ones(k, dtype=bool)
    starts, used, chosen = np.concatenate([[0], counts.cumsum()]), np.zeros(n, dtype=bool), np.zeros(k, dtype=bool)
    for number in counts.argsort(kind="stable"):
        points = column[starts[number] : starts[number + 1]]
        if not used[points].any():
            used[points] = chosen[number] = True
    return chosen
