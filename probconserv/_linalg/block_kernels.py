"""Compiled passes over fields whose points belong to one block each.

``labels`` (n,) is the block of every point, ``weights`` its weight, (n,) or (1,). Fields, metrics and multipliers have
one row per field, or fewer that are repeated: a row of the metric serves ``group`` consecutive fields.
"""

from functools import lru_cache

import numpy as np

from solvers._compiled import compiled

_Array = np.ndarray


@lru_cache(maxsize=16)
def labels_of(counts: tuple[int, ...], sizes: tuple[int, ...]) -> _Array:
    """Block of every point of a regular partition, in row-major order ``(n,)``."""
    labels = np.zeros((), dtype=np.uint32)
    for count, size in zip(counts, sizes, strict=True):
        along = np.repeat(np.arange(count, dtype=np.uint32), size)
        labels = labels[..., None] * np.uint32(count) + along
    return np.ascontiguousarray(labels.ravel())


@compiled
def functional(u: _Array, labels: _Array, weights: _Array, k: int) -> _Array:
    """Σ w u over every block ``(fields, k)``."""
    sums = np.zeros((u.shape[0], k))
    for f in range(u.shape[0]):
        for i in range(u.shape[1]):
            sums[f, labels[i]] += (weights[0] if weights.shape[0] == 1 else weights[i]) * u[f, i]
    return sums


@compiled
def functional_and_size(u: _Array, labels: _Array, weights: _Array, k: int) -> tuple[_Array, _Array]:
    """Σ w u and Σ |w u| over every block ``(fields, k)``."""
    sums, sizes = np.zeros((u.shape[0], k)), np.zeros((u.shape[0], k))
    for f in range(u.shape[0]):
        for i in range(u.shape[1]):
            term = (weights[0] if weights.shape[0] == 1 else weights[i]) * u[f, i]
            sums[f, labels[i]] += term
            sizes[f, labels[i]] += abs(term)
    return sums, sizes


@compiled
def subtract(u: _Array, metric: tuple[_Array, int], multipliers: _Array, labels: _Array, weights: _Array) -> _Array:
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
def keep(metric: _Array, inverse: _Array, labels: _Array, weights: _Array) -> _Array:
    """d (1 − w² d / S), at least zero ``(fields, n)``; ``inverse`` is 1/S ``(fields, k)``."""
    result = np.empty((inverse.shape[0], labels.shape[0]))
    for f in range(result.shape[0]):
        d = metric[f % metric.shape[0]]
        for i in range(labels.shape[0]):
            w = weights[0] if weights.shape[0] == 1 else weights[i]
            result[f, i] = d[i] * max(1.0 - (w * w) * d[i] * inverse[f, labels[i]], 0.0)
    return result
