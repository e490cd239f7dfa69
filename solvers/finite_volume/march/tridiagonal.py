"""Compiled elimination of tridiagonal systems, and sums and extremes over cells, of rows side by side in lanes.

Cell i of lane j is at i·width + j of a flat array. Loops over all cells run at unit stride, so that they vectorise for
one row as for eight; a row has the same bits alone and in company.
"""

from typing import Any

from solvers._compiled import inner_on_views
from solvers.finite_volume.march.kernels import Array


@inner_on_views
def spread(values: Array, out: Array) -> None:
    """Repeats the numbers of the lanes along the cells."""
    done = values.size
    for j in range(done):
        out[j] = values[j]
    while done < out.size:
        after = out[done:]
        for i in range(min(done, after.size)):
            after[i] = out[i]
        done *= 2


@inner_on_views
def sum_lanes(v: Array, n: int, width: int, out: Array) -> None:
    """Sums over the cells of every lane, by halves; overwrites v."""
    while n > 1:
        half = (n + 1) // 2
        after = v[half * width :]
        for i in range((n - half) * width):
            v[i] += after[i]
        n = half
    for j in range(width):
        out[j] = v[j]


@inner_on_views
def sum_magnitudes(v: Array, n: int, width: int, scratch: Array, out: Array) -> None:
    """Sums of |v| over the cells of every lane."""
    half = (n + 1) // 2
    after = v[half * width :]
    for i in range((n - half) * width):
        scratch[i] = abs(v[i]) + abs(after[i])
    for i in range((n - half) * width, half * width):
        scratch[i] = abs(v[i])
    sum_lanes(scratch, half, width, out)


@inner_on_views
def extremes(v: Array, n: int, width: int, scratch: Array, low: Array, high: Array) -> None:
    """Least and largest of the cells of every lane."""
    for largest in range(2):
        sign, out, left = (-1.0, high, n) if largest > 0 else (1.0, low, n)
        for i in range(n * width):
            scratch[i] = sign * v[i]
        while left > 1:
            half = (left + 1) // 2
            after = scratch[half * width :]
            for i in range((left - half) * width):
                scratch[i] = after[i] if after[i] < scratch[i] else scratch[i]
            left = half
        for j in range(width):
            out[j] = sign * scratch[j]


@inner_on_views
def solve(goal: Array, base: Array, u: Array, faces: Any, out: Any, periodic: bool, size: int, width: int) -> None:
    """Solves (base + right + left′) δ − left δ₋ − right′ δ₊ = goal − u + flux − flux′ for the change δ of every lane.

    ``faces`` are flux and its derivatives left and right, on the face before a cell and, with a prime, on the one
    behind; ``out`` are δ, and scratch for reciprocals of pivots and the last column of a circle, which Sherman and
    Morrison's formula closes.
    """
    (flux, left, right), (delta, pivot, corner), last = faces, out, size - width
    for j in range(width):
        delta[j] = goal[j] - u[j] + (flux[j] - flux[width + j])
        diagonal = base[j] + (right[j] + left[width + j])
        corner[j] = -diagonal
        pivot[j] = 1.0 / (2.0 * diagonal) if periodic else 1.0 / diagonal
    _eliminate(goal, base, u, faces, out, last - width if periodic else last, width)
    if periodic:
        for i in range(max(last, width), size):
            diagonal = base[i] + (right[i] + left[width + i])
            diagonal += right[size + i - last] * left[i - last] / -corner[i - last]
            below = left[i] * pivot[i - width]
            delta[i] = (goal[i] - u[i] + (flux[i] - flux[width + i])) + below * delta[i - width]
            pivot[i] = 1.0 / (diagonal - below * right[i])
        corner_after, left_after = corner[width:], left[width:]
        for i in range(last):
            corner_after[i] = left_after[i] * pivot[i] * corner[i]
            if i >= last - width:
                corner_after[i] -= right[size + i - last + width]
        _substitute_back(corner, pivot, right, last, size, width)
    _substitute_back(delta, pivot, right, last, size, width)
    for j in range(width if periodic else 0):
        ratio = 2.0 * left[j] * pivot[j]
        moved = (delta[j] + ratio * delta[last + j]) / (1.0 + corner[j] + ratio * corner[last + j])
        for i in range(j, size, width):
            delta[i] -= moved * corner[i]


@inner_on_views
def _eliminate(goal: Array, base: Array, u: Array, faces: Any, out: Any, count: int, width: int) -> None:
    """Forms the rows of all cells but the first and eliminates what is below their diagonals.

    One row keeps its last numbers in registers.
    """
    (flux, left, right), (delta, pivot, _) = faces, out
    r, b, x, f, below = goal[width:], base[width:], u[width:], flux[width:], left[width:]
    f_after, left_after, above = f[width:], below[width:], right[width:]
    after, pivot_after = delta[width:], pivot[width:]
    if width == 1:
        change, inverse = delta[0], pivot[0]
        for i in range(count):
            factor = below[i] * inverse
            change = (r[i] - x[i] + (f[i] - f_after[i])) + factor * change
            inverse = 1.0 / ((b[i] + (above[i] + left_after[i])) - factor * above[i])
            after[i], pivot_after[i] = change, inverse
    else:
        for i in range(count):
            factor = below[i] * pivot[i]
            after[i] = (r[i] - x[i] + (f[i] - f_after[i])) + factor * delta[i]
            pivot_after[i] = 1.0 / ((b[i] + (above[i] + left_after[i])) - factor * above[i])


@inner_on_views
def _substitute_back(v: Array, pivot: Array, right: Array, last: int, size: int, width: int) -> None:
    """Overwrites v, after elimination, by the solution."""
    upper, after = right[width:], v[width:]
    for i in range(last, size):
        v[i] *= pivot[i]
    if width == 1:
        x = v[last]
        for i in range(last - 1, -1, -1):
            x = pivot[i] * v[i] + (upper[i] * pivot[i]) * x
            v[i] = x
    else:
        for i in range(last - 1, -1, -1):
            v[i] = pivot[i] * v[i] + (upper[i] * pivot[i]) * after[i]
