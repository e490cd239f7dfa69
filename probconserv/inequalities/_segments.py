"""Compiled projection of fields whose points belong to one row of a law each: one multiplier per row."""

import numpy as np

from probconserv.inequalities._kernels import _polish, _search
from solvers._compiled import compiled

_Array = np.ndarray


@compiled
def project_segments(
    x: _Array, v: _Array, bounds: _Array, law: _Array, rows: tuple[_Array, _Array, _Array]
) -> tuple[_Array, float]:
    """Projects every field; parameters with fewer fields are repeated.

    Args:
        x: Fields (fields, n).
        v: Variances (p, n), p a divisor of the number of fields, for this and every other parameter.
        bounds: Lower and upper (p, 2, n).
        law: b and σ² (p, 2, k).
        rows: Where every row starts (k + 1,), its points (entries,), and their weights (p, entries).

    Returns:
        Projections (fields, n), clipped at points of no row, and the largest residual of a row relative to
        |b| + Σ|w u|.
    """
    starts, columns, weights = rows
    u, worst, longest = np.empty_like(x), 0.0, np.max(np.diff(starts))
    scratch, limits, unordered = np.empty((5, longest)), np.empty((2, longest)), (np.empty((4, 0)), 0)
    for f in range(x.shape[0]):
        d, box, goal = v[f % v.shape[0]], bounds[f % bounds.shape[0]], law[f % law.shape[0]]
        w = weights[f % weights.shape[0]]
        for i in range(x.shape[1]):
            u[f, i] = min(max(x[f, i], box[0, i]), box[1, i])
        for r in range(starts.shape[0] - 1):
            first, size = starts[r], starts[r + 1] - starts[r]
            field, metric, weight = scratch[0, :size], scratch[1, :size], scratch[2, :size]
            result, slope, between = scratch[3, :size], scratch[4, :size], limits[:, :size]
            for e in range(size):
                i = columns[first + e]
                field[e], metric[e], weight[e] = x[f, i], d[i], w[first + e]
                between[0, e], between[1, e] = box[0, i], box[1, i]
            state = _search(field, (metric, weight), between, goal[:, r], (result, slope), unordered)
            worst = max(worst, _polish(weight, between, goal[:, r], state, result, slope))
            for e in range(size):
                u[f, columns[first + e]] = result[e]
    return u, worst
