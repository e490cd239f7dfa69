"""Compiled reconstructions along lines of cells, their limiters, and ghost cells beyond a side with a given state.

They release the interpreter lock, so that groups of a batch can run on several threads.
"""

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from solvers._compiled import compiled

_Array = np.ndarray


@compiled
def minmod(a: float, b: float) -> float:
    """The smaller slope if both agree in sign, else 0."""
    if a * b <= 0.0:
        return 0.0
    return a if abs(a) < abs(b) else b


@compiled
def van_leer(a: float, b: float) -> float:
    """Harmonic mean of slopes that agree in sign, else 0."""
    return 0.0 if a * b <= 0.0 else 2.0 * a * b / (a + b)


@compiled
def monotonized_central(a: float, b: float) -> float:
    """The central slope, at most twice the smaller one, if both agree in sign, else 0."""
    if a * b <= 0.0:
        return 0.0
    size = min(0.5 * abs(a + b), 2.0 * abs(a), 2.0 * abs(b))
    return size if a > 0.0 else -size


LIMITERS = (minmod, van_leer, monotonized_central)


def limiter_code(limiter: Any) -> Any:
    """Place of a limiter in ``LIMITERS``; one that is not shipped as it is."""
    return LIMITERS.index(limiter) if limiter in LIMITERS else limiter


def half_slopes(before: _Array, cell: _Array, after: _Array, limit: Any, half: _Array) -> None:
    """Half the limited slopes; the limiter is a ``limiter_code``."""


@overload(half_slopes)
def _choose_limiter(before: Any, cell: Any, after: Any, limit: Any, half: Any) -> Any:  # noqa: ARG001 - numba's names
    """Numbers keep compiled code on disk, which a function as an argument does not."""

    def numbered(before: Any, cell: Any, after: Any, limit: Any, half: Any) -> None:
        if limit == 0:
            for k in range(half.shape[0]):
                half[k] = 0.5 * minmod(cell[k] - before[k], after[k] - cell[k])
        elif limit == 1:
            for k in range(half.shape[0]):
                half[k] = 0.5 * van_leer(cell[k] - before[k], after[k] - cell[k])
        else:
            for k in range(half.shape[0]):
                half[k] = 0.5 * monotonized_central(cell[k] - before[k], after[k] - cell[k])

    def passed(before: Any, cell: Any, after: Any, limit: Any, half: Any) -> None:
        for k in range(half.shape[0]):
            half[k] = 0.5 * limit(cell[k] - before[k], after[k] - cell[k])

    return numbered if isinstance(limit, types.Integer) else passed


@compiled
def reconstruct_muscl(cells: _Array, limit: Any) -> tuple[_Array, _Array]:
    """Limited linear reconstruction: states left and right of every face.

    Args:
        cells: Cell averages with two ghost cells at each end ``(lines, n + 4)``.
        limit: A ``limiter_code``.

    Returns:
        States left and right of the n + 1 faces, ``(lines, n + 1)`` each.
    """
    lines, faces = cells.shape[0], cells.shape[1] - 3
    left, right, half = np.empty((lines, faces)), np.empty((lines, faces)), np.empty(faces + 1)
    for b in range(lines):
        half_slopes(cells[b], cells[b, 1:], cells[b, 2:], limit, half)
        for i in range(faces):
            left[b, i] = cells[b, i + 1] + half[i]
            right[b, i] = cells[b, i + 2] - half[i + 1]
    return left, right


@compiled
def weno5(v: tuple[float, float, float, float, float], scale: float) -> float:
    """State at the right face of the middle one of five cells (Jiang and Shu 1996), ε = 1e-6/scale."""
    a, b, c, d, e = v
    smooth0 = 13.0 / 12.0 * (a - 2.0 * b + c) ** 2 + 0.25 * (a - 4.0 * b + 3.0 * c) ** 2
    smooth1 = 13.0 / 12.0 * (b - 2.0 * c + d) ** 2 + 0.25 * (b - d) ** 2
    smooth2 = 13.0 / 12.0 * (c - 2.0 * d + e) ** 2 + 0.25 * (3.0 * c - 4.0 * d + e) ** 2
    size0, size1, size2 = 1e-6 + scale * smooth0, 1e-6 + scale * smooth1, 1e-6 + scale * smooth2
    weight0, weight1, weight2 = 0.1 / (size0 * size0), 0.6 / (size1 * size1), 0.3 / (size2 * size2)
    change0 = 2.0 * a - 7.0 * b + 5.0 * c
    change1 = -b - c + 2.0 * d
    change2 = -4.0 * c + 5.0 * d - e
    changes = weight0 * change0 + weight1 * change1 + weight2 * change2
    return c + changes / (6.0 * (weight0 + weight1 + weight2))


@compiled
def inverse_square_spread(cells: _Array) -> float:
    """1/(max − min)², or 0 for a constant."""
    low, high = cells[0], cells[0]
    for i in range(cells.shape[0]):
        low, high = min(low, cells[i]), max(high, cells[i])
    return 0.0 if high == low else 1.0 / ((high - low) * (high - low))


@compiled
def reconstruct_weno(cells: _Array) -> tuple[_Array, _Array]:
    """Fifth-order weighted essentially non-oscillatory reconstruction: states left and right of every face.

    Args:
        cells: Cell averages with three ghost cells at each end ``(lines, n + 6)``.

    Returns:
        States left and right of the n + 1 faces, ``(lines, n + 1)`` each.
    """
    lines, faces = cells.shape[0], cells.shape[1] - 5
    left, right = np.empty((lines, faces)), np.empty((lines, faces))
    for b in range(lines):
        scale = inverse_square_spread(cells[b])
        for i in range(faces):
            v = cells[b, i : i + 6]
            left[b, i] = weno5((v[0], v[1], v[2], v[3], v[4]), scale)
            right[b, i] = weno5((v[5], v[4], v[3], v[2], v[1]), scale)
    return left, right


@compiled
def parabola(state: float, first: float, second: float, size: float) -> tuple[float, float]:
    """Slope a and curvature b of g + a x + b x² through the state g at a side and the averages of two inner cells.

    x counts cells from the side. b fades where it exceeds the slope at the side, as at a shock next to it, by a smooth
    weight that is 1 to fourth order otherwise; the parabola keeps the state and the first average.
    """
    slope = 2.0 * (first - state)
    curvature = 0.75 * (second - first - slope)
    ratio = curvature * curvature / (slope * slope + 1e-6 * size * size + 1e-300)
    curvature /= 1.0 + ratio * ratio
    return slope - curvature * (2.0 / 3.0), curvature


@compiled
def inflow_ghosts(state: _Array, cells: _Array, count: int) -> _Array:
    """Averages of ghost cells beyond a side from the state on the side and the inner cells.

    One or two ghost cells continue the straight line through the state and the first average, three the limited
    parabola through a second one.

    Args:
        state: States on the side ``(lines,)``.
        cells: Averages of the cells from the side inwards ``(lines, n)``.
        count: Number of ghost cells.

    Returns:
        Averages from the side outwards ``(lines, count)``.
    """
    ghosts = np.empty((state.shape[0], count))
    for b in range(state.shape[0]):
        slope, curvature = 2.0 * (cells[b, 0] - state[b]), 0.0
        if count > 2 and cells.shape[1] > 1:
            low, high = min(state[b], cells[b, :].min()), max(state[b], cells[b, :].max())
            slope, curvature = parabola(state[b], cells[b, 0], cells[b, 1], high - low)
        for i in range(count):
            ghosts[b, i] = state[b] - slope * (i + 0.5) + curvature * (i * (i + 1) + 1.0 / 3.0)
    return ghosts
