"""Compiled loops over structured rows: blocks, sparse rows, and the inverse on the pattern of a sparse factor.

Fields, metrics and multipliers have one row per field, or fewer that are repeated: a row of the metric serves ``group``
consecutive fields. Of blocks, ``labels`` (n,) is the block of every point and ``weights`` its weight, (n,) or (1,). A
sparse matrix is stored by rows: ``starts`` (k + 1,), ``columns`` and ``values`` (entries,).
"""

from functools import lru_cache

import numpy as np

from solvers._compiled import compiled

_Array = np.ndarray


@lru_cache(maxsize=16)
def block_labels(counts: tuple[int, ...], sizes: tuple[int, ...]) -> _Array:
    """Block of every point of a regular partition, in row-major order ``(n,)``."""
    labels = np.zeros((), dtype=np.uint32)
    for count, size in zip(counts, sizes, strict=True):
        along = np.repeat(np.arange(count, dtype=np.uint32), size)
        labels = labels[..., None] * np.uint32(count) + along
    return np.ascontiguousarray(labels.ravel())


@compiled
def block_functional(u: _Array, labels: _Array, weights: _Array, k: int) -> _Array:
    """Σ w u over every block ``(fields, k)``."""
    sums = np.zeros((u.shape[0], k))
    for f in range(u.shape[0]):
        for i in range(u.shape[1]):
            sums[f, labels[i]] += (weights[0] if weights.shape[0] == 1 else weights[i]) * u[f, i]
    return sums


@compiled
def block_functional_and_size(u: _Array, labels: _Array, weights: _Array, k: int) -> tuple[_Array, _Array]:
    """Σ w u and Σ |w u| over every block ``(fields, k)``."""
    sums, sizes = np.zeros((u.shape[0], k)), np.zeros((u.shape[0], k))
    for f in range(u.shape[0]):
        for i in range(u.shape[1]):
            term = (weights[0] if weights.shape[0] == 1 else weights[i]) * u[f, i]
            sums[f, labels[i]] += term
            sizes[f, labels[i]] += abs(term)
    return sums, sizes


@compiled
def block_subtract(
    u: _Array, metric: tuple[_Array, int], multipliers: _Array, labels: _Array, weights: _Array
) -> _Array:
    """u − d λ w with the multiplier λ of the block of every point ``(fields, n)``; ``metric`` is d and ``group``."""
    values, group = metric
    result = np.empty((multipliers.shape[0], labels.shape[0]))
    for f in range(result.shape[0]):
        d, start = values[(f // group) % values.shape[0]], u[f % u.shape[0]]
        if weights.shape[0] == 1:
            scaled = multipliers[f] * weights[0]
            for i in range(labels.shape[0]):
                result[f, i] = start[i] - d[i] * scaled[labels[i]]
        else:
            for i in range(labels.shape[0]):
                result[f, i] = start[i] - d[i] * (weights[i] * multipliers[f, labels[i]])
    return result


@compiled
def block_keep(metric: _Array, inverse: _Array, labels: _Array, weights: _Array) -> _Array:
    """d (1 − w² d / S), at least zero ``(fields, n)``; ``inverse`` is 1/S ``(fields, k)``."""
    result = np.empty((inverse.shape[0], labels.shape[0]))
    for f in range(result.shape[0]):
        d = metric[f % metric.shape[0]]
        for i in range(labels.shape[0]):
            w = weights[0] if weights.shape[0] == 1 else weights[i]
            result[f, i] = d[i] * max(1.0 - (w * w) * d[i] * inverse[f, labels[i]], 0.0)
    return result


@compiled
def sparse_functional(u: _Array, starts: _Array, columns: _Array, values: _Array) -> _Array:
    """G u for every field ``(fields, k)``, with compensated sums (Neumaier 1974)."""
    fields, k = u.shape[0], starts.shape[0] - 1
    sums = np.empty((fields, k))
    for f in range(fields):
        for i in range(k):
            total, lost = 0.0, 0.0
            for e in range(starts[i], starts[i + 1]):
                term = values[e] * u[f, columns[e]]
                larger = total + term
                lost += (total - larger) + term if abs(total) >= abs(term) else (term - larger) + total
                total = larger
            sums[f, i] = total + lost
    return sums


@compiled
def sparse_spread(multipliers: _Array, points: int, starts: _Array, columns: _Array, values: _Array) -> _Array:
    """Gᵀ λ for every set of multipliers ``(fields, points)``."""
    result = np.zeros((multipliers.shape[0], points))
    for f in range(multipliers.shape[0]):
        for i in range(starts.shape[0] - 1):
            for e in range(starts[i], starts[i + 1]):
                result[f, columns[e]] += values[e] * multipliers[f, i]
    return result


@compiled
def quadratic_forms(
    rows: tuple[_Array, _Array, _Array], position: _Array, inverse: tuple[_Array, _Array, _Array, _Array]
) -> _Array:
    """g_jᵀ Z g_j for every column g_j of G, from the entries of Z = S⁻¹ on the pattern of the factor of S.

    Args:
        rows: Gᵀ by rows: starts (n + 1,), rows of G, and values.
        position: Place of every row of G in the order of elimination.
        inverse: ``starts``, ``indices`` of the strictly lower factor by columns, entries of Z there, and its diagonal.

    Returns:
        The forms (n,).
    """
    starts, indices, values = rows
    lower_starts, lower_rows, entries, diagonal = inverse
    forms = np.zeros(starts.shape[0] - 1)
    for j in range(forms.shape[0]):
        for a in range(starts[j], starts[j + 1]):
            first = position[indices[a]]
            forms[j] += values[a] * values[a] * diagonal[first]
            for b in range(starts[j], a):
                second = position[indices[b]]
                column, row = min(first, second), max(first, second)
                at = _find(lower_rows, int(lower_starts[column]), int(lower_starts[column + 1]), int(row))
                forms[j] += 2.0 * values[a] * values[b] * entries[at]
    return forms


@compiled
def filled_pattern(starts: _Array, columns: _Array) -> tuple[_Array, _Array]:
    """The pattern of L for S = L P Lᵀ, from that of S: row i of L has an entry in every column on the paths from the
    columns of row i of S towards the root of the elimination tree (Liu 1990).

    Args:
        starts: Where every row of the strictly lower S starts (k + 1,).
        columns: Its columns.

    Returns:
        Starts and rows of the strictly lower L by columns, rows increasing.
    """
    k = starts.shape[0] - 1
    parent, ancestor = np.full(k, -1), np.full(k, -1)
    for i in range(k):
        for e in range(starts[i], starts[i + 1]):
            j = int(columns[e])
            while j != -1 and j < i:
                above = ancestor[j]
                ancestor[j] = i
                if above == -1:
                    parent[j] = i
                j = above
    lower, rows = np.zeros(k + 1, dtype=np.int64), np.empty(0, dtype=np.int64)
    ends = lower
    for counted in (False, True):
        if counted:
            lower = np.cumsum(lower)
            rows, ends = np.empty(lower[k], dtype=np.int64), lower.copy()
        seen = np.full(k, -1)
        for i in range(k):
            seen[i] = i
            for e in range(starts[i], starts[i + 1]):
                j = int(columns[e])
                while seen[j] != i:
                    if counted:
                        rows[ends[j]] = i
                        ends[j] += 1
                    else:
                        lower[j + 1] += 1
                    seen[j] = i
                    j = parent[j]
    return lower, rows


@compiled
def on_pattern(starts: _Array, rows: _Array, matrix: tuple[_Array, _Array, _Array]) -> _Array:
    """Values of a matrix by columns at the places of a pattern by columns, zero where it has none."""
    own_starts, own_rows, own_values = matrix
    values = np.zeros(rows.shape[0])
    for j in range(starts.shape[0] - 1):
        at = own_starts[j]
        for e in range(starts[j], starts[j + 1]):
            while at < own_starts[j + 1] and own_rows[at] < rows[e]:
                at += 1
            if at < own_starts[j + 1] and own_rows[at] == rows[e]:
                values[e] = own_values[at]
    return values


@compiled
def selected_inverse(starts: _Array, rows: _Array, factor: _Array, pivots: _Array) -> tuple[_Array, _Array]:
    """Entries of Z = (L P Lᵀ)⁻¹ on the pattern of L (Takahashi, Fagan & Chin 1973).

    Z_ij = −Σ_{m > j} Z_im L_mj for i > j, and Z_jj = 1/P_j − Σ_{m > j} Z_mj L_mj, from the last column to the first.

    Args:
        starts: Where every column of the strictly lower L starts (k + 1,).
        rows: Row of every entry, increasing within a column.
        factor: The entries.
        pivots: P (k,).

    Returns:
        The entries of Z below the diagonal on the pattern, and its diagonal.
    """
    k = pivots.shape[0]
    inverse, diagonal = np.zeros(factor.shape[0]), np.empty(k)
    for j in range(k - 1, -1, -1):
        first, last = starts[j], starts[j + 1]
        for a in range(first, last):
            i, total = rows[a], 0.0
            for b in range(first, last):
                m = rows[b]
                if m == i:
                    total -= diagonal[i] * factor[b]
                else:
                    column, row = min(i, m), max(i, m)
                    total -= inverse[_find(rows, int(starts[column]), int(starts[column + 1]), row)] * factor[b]
            inverse[a] = total
        total = 1.0 / pivots[j]
        for a in range(first, last):
            total -= inverse[a] * factor[a]
        diagonal[j] = total
    return inverse, diagonal


@compiled
def _find(rows: _Array, first: int, last: int, row: int) -> int:
    """Position in a sorted part of ``rows`` that holds ``row``; it does, since the pattern of a factor is closed."""
    while first < last:
        middle = (first + last) // 2
        if rows[middle] < row:
            first = middle + 1
        else:
            last = middle
    return first
