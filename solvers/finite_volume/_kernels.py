"""Compiled Newton step over a batch of one-dimensional problems.

It releases the interpreter lock, so that groups of a batch can run on several threads.
"""

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
