"""Compiled inner loops over a batch of one-dimensional problems: the Newton step and the reconstructions.

They release the interpreter lock, so that groups of a batch can run on several threads.
"""

from typing import Any

import numpy as np
from numba import njit

_Array = np.ndarray


@njit(cache=True, nogil=True, error_model="numpy")
def _solve_tridiagonal(lower: _Array, diagonal: _Array, upper: _Array, right: _Array, factor: _Array) -> None:
    """Overwrites ``right`` by the solution of a tridiagonal system; ``factor`` is scratch of the same length."""
    n = diagonal.shape[0]
    pivot = 1.0 / diagonal[0]
    right[0] *= pivot
    factor[0] = upper[0] * pivot
    for i in range(1, n):
        pivot = 1.0 / (diagonal[i] - lower[i] * factor[i - 1])
        right[i] = (right[i] - lower[i] * right[i - 1]) * pivot
        factor[i] = upper[i] * pivot
    for i in range(n - 2, -1, -1):
        right[i] -= factor[i] * right[i + 1]


@njit(cache=True, nogil=True, error_model="numpy")
def _solve_cyclic(lower: _Array, diagonal: _Array, upper: _Array, right: _Array, factor: _Array) -> None:
    """As ``_solve_tridiagonal`` with corners ``lower[0]`` and ``upper[n − 1]``, by Sherman and Morrison's formula."""
    n = diagonal.shape[0]
    top, bottom, shift = lower[0], upper[n - 1], -diagonal[0]
    changed = diagonal.copy()
    changed[0] -= shift
    changed[n - 1] -= bottom * top / shift
    corner = np.zeros(n)
    corner[0], corner[n - 1] = shift, bottom
    _solve_tridiagonal(lower, changed, upper, right, factor)
    _solve_tridiagonal(lower, changed, upper, corner, factor)
    ratio = top / shift
    weight = (right[0] + ratio * right[n - 1]) / (1.0 + corner[0] + ratio * corner[n - 1])
    for i in range(n):
        right[i] -= weight * corner[i]


@njit(cache=True, nogil=True, error_model="numpy")
def newton_step(
    u: _Array, right: _Array, faces: tuple[_Array, _Array, _Array], scale: float, periodic: bool
) -> tuple[_Array, _Array]:
    """One Newton step for u + s·(F_{i+1} − F_i) = r, for every problem of the batch.

    With the linearised face fluxes F + L δ_left + R δ_right the step solves a tridiagonal system for δ (cyclic when
    periodic), replaces F by its linearised value and u by r − s·(F_{i+1} − F_i), so that u and F balance to
    round-off whatever the nonlinear residual.

    Args:
        u: Iterate ``(batch, n)``, overwritten.
        right: Right-hand side r ``(batch, n)``.
        faces: Face fluxes F (overwritten) and their derivatives L and R by the cells to the left and right of the
            face, ``(batch, n + 1)`` each.
        scale: s, stage coefficient times time step over cell length.
        periodic: Whether the first face couples to the last cell and the last face to the first cell.

    Returns:
        Largest |δ| and largest |residual before the step|, ``(batch,)`` each.
    """
    flux, by_left, by_right = faces
    batch, n = u.shape
    change, residual = np.empty(batch), np.empty(batch)
    for b in range(batch):
        lower, diagonal, upper = np.empty(n), np.empty(n), np.empty(n)
        delta, factor = np.empty(n), np.empty(n)
        worst = 0.0
        for i in range(n):
            delta[i] = right[b, i] - u[b, i] - scale * (flux[b, i + 1] - flux[b, i])
            worst = max(worst, abs(delta[i]))
            lower[i] = -scale * by_left[b, i]
            diagonal[i] = 1.0 + scale * (by_left[b, i + 1] - by_right[b, i])
            upper[i] = scale * by_right[b, i + 1]
        if periodic:
            _solve_cyclic(lower, diagonal, upper, delta, factor)
            flux[b, 0] += by_left[b, 0] * delta[n - 1] + by_right[b, 0] * delta[0]
            flux[b, n] += by_left[b, n] * delta[n - 1] + by_right[b, n] * delta[0]
        else:
            _solve_tridiagonal(lower, diagonal, upper, delta, factor)
            flux[b, 0] += by_right[b, 0] * delta[0]
            flux[b, n] += by_left[b, n] * delta[n - 1]
        largest = abs(delta[0])
        for i in range(1, n):
            flux[b, i] += by_left[b, i] * delta[i - 1] + by_right[b, i] * delta[i]
            largest = max(largest, abs(delta[i]))
        total = 0.0
        for i in range(n):
            u[b, i] = right[b, i] - scale * (flux[b, i + 1] - flux[b, i])
            total += u[b, i]
        change[b] = largest if np.isfinite(total) else np.nan
        residual[b] = worst
    return change, residual


@njit(cache=True, nogil=True, error_model="numpy")
def reconstruct_muscl(cells: _Array, limit: Any) -> tuple[_Array, _Array]:
    """Limited linear reconstruction: states left and right of every face.

    Args:
        cells: Cell averages with two ghost cells at each end ``(batch, n + 4)``.
        limit: Compiled limiter of two slopes.

    Returns:
        States left and right of the n + 1 faces, ``(batch, n + 1)`` each.
    """
    batch, faces = cells.shape[0], cells.shape[1] - 3
    left, right = np.empty((batch, faces)), np.empty((batch, faces))
    for b in range(batch):
        half = 0.5 * limit(cells[b, 1] - cells[b, 0], cells[b, 2] - cells[b, 1])
        for i in range(faces):
            left[b, i] = cells[b, i + 1] + half
            half = 0.5 * limit(cells[b, i + 2] - cells[b, i + 1], cells[b, i + 3] - cells[b, i + 2])
            right[b, i] = cells[b, i + 2] - half
    return left, right


@njit(cache=True, nogil=True, error_model="numpy")
def minmod(a: float, b: float) -> float:
    """The smaller slope if both agree in sign, else 0."""
    if a * b <= 0.0:
        return 0.0
    return a if abs(a) < abs(b) else b


@njit(cache=True, nogil=True, error_model="numpy")
def van_leer(a: float, b: float) -> float:
    """Harmonic mean of slopes that agree in sign, else 0."""
    return 0.0 if a * b <= 0.0 else 2.0 * a * b / (a + b)


@njit(cache=True, nogil=True, error_model="numpy")
def monotonized_central(a: float, b: float) -> float:
    """The central slope, at most twice the smaller one, if both agree in sign, else 0."""
    if a * b <= 0.0:
        return 0.0
    size = min(0.5 * abs(a + b), 2.0 * abs(a), 2.0 * abs(b))
    return size if a > 0.0 else -size


@njit(cache=True, nogil=True, error_model="numpy")
def _weno5(a: float, b: float, c: float, d: float, e: float) -> float:
    """State at the right face of the middle cell c of five (Jiang and Shu 1996)."""
    smooth0 = 13.0 / 12.0 * (a - 2.0 * b + c) ** 2 + 0.25 * (a - 4.0 * b + 3.0 * c) ** 2
    smooth1 = 13.0 / 12.0 * (b - 2.0 * c + d) ** 2 + 0.25 * (b - d) ** 2
    smooth2 = 13.0 / 12.0 * (c - 2.0 * d + e) ** 2 + 0.25 * (3.0 * c - 4.0 * d + e) ** 2
    weight0 = 0.1 / (1e-6 + smooth0) ** 2
    weight1 = 0.6 / (1e-6 + smooth1) ** 2
    weight2 = 0.3 / (1e-6 + smooth2) ** 2
    state0 = (2.0 * a - 7.0 * b + 11.0 * c) / 6.0
    state1 = (-b + 5.0 * c + 2.0 * d) / 6.0
    state2 = (2.0 * c + 5.0 * d - e) / 6.0
    return (weight0 * state0 + weight1 * state1 + weight2 * state2) / (weight0 + weight1 + weight2)


@njit(cache=True, nogil=True, error_model="numpy")
def reconstruct_weno(cells: _Array) -> tuple[_Array, _Array]:
    """Fifth-order weighted essentially non-oscillatory reconstruction: states left and right of every face.

    Args:
        cells: Cell averages with three ghost cells at each end ``(batch, n + 6)``.

    Returns:
        States left and right of the n + 1 faces, ``(batch, n + 1)`` each.
    """
    batch, faces = cells.shape[0], cells.shape[1] - 5
    left, right = np.empty((batch, faces)), np.empty((batch, faces))
    for b in range(batch):
        for i in range(faces):
            v = cells[b, i : i + 6]
            left[b, i] = _weno5(v[0], v[1], v[2], v[3], v[4])
            right[b, i] = _weno5(v[5], v[4], v[3], v[2], v[1])
    return left, right
