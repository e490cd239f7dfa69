"""Compiled sweep of shallow water along one axis: MUSCL, hydrostatic reconstruction, HLL or HLLC.

It releases the interpreter lock, so that parts of a batch can run on several threads.

With h⁻, h⁺ the depths at the two ends of a cell and w = h + z the surface there, the momentum changes by

    −(E_right − E_left + g (h⁻ + h⁺)/2 (w⁺ − w⁻))/Δx,

where E is the momentum flux of the hydrostatic states at a face less the pressure of the state on the cell's side. This
is the scheme of Audusse et al. (SIAM J. Sci. Comput. 25, 2004) without the pressures that cancel at rest.
"""

from typing import Any

import numpy as np
from numba import njit

_Array = np.ndarray


@njit(cache=True, nogil=True, error_model="numpy")
def velocity(depth: float, momentum: float, thin: float) -> float:
    """Momentum over depth; goes to zero below the depth ``thin`` (Kurganov and Petrova 2007)."""
    if depth <= 0.0:
        return 0.0
    if depth >= thin:
        return momentum / depth
    return 2.0 * depth * momentum / (depth * depth + thin * thin)


@njit(cache=True, nogil=True, error_model="numpy")
def _speeds(h_left: float, u_left: float, h_right: float, u_right: float, gravity: float) -> tuple[float, float]:
    """Slowest and fastest wave: Einfeldt (1988), or the front where one side is dry."""
    c_left, c_right = np.sqrt(gravity * h_left), np.sqrt(gravity * h_right)
    if h_left <= 0.0 and h_right <= 0.0:
        return 0.0, 0.0
    if h_left <= 0.0:
        return u_right - 2.0 * c_right, u_right + c_right
    if h_right <= 0.0:
        return u_left - c_left, u_left + 2.0 * c_left
    root_left, root_right = np.sqrt(h_left), np.sqrt(h_right)
    mean = (root_left * u_left + root_right * u_right) / (root_left + root_right)
    wave = np.sqrt(0.5 * gravity * (h_left + h_right))
    return min(u_left - c_left, mean - wave), max(u_right + c_right, mean + wave)


@njit(cache=True, nogil=True, error_model="numpy")
def _face(
    h_left: float, u_left: float, h_right: float, u_right: float, gravity: float
) -> tuple[float, float, float, float, float, float]:
    """HLL at a face.

    Returns:
        Mass flux, momentum flux less the pressure on the left, the same less that on the right, the weights of the left
        and the right transverse momentum flux, and the largest speed.
    """
    low, high = _speeds(h_left, u_left, h_right, u_right, gravity)
    fastest = max(abs(low), abs(high))
    low, high = min(low, 0.0), max(high, 0.0)
    width = high - low
    if width <= 0.0:
        return 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    q_left, q_right = h_left * u_left, h_right * u_right
    mass = (high * q_left - low * q_right + low * high * (h_right - h_left)) / width
    moved = (high * q_left * u_left - low * q_right * u_right + low * high * (q_right - q_left)) / width
    jump = 0.5 * gravity * (h_right - h_left) * (h_right + h_left)
    return (
        mass,
        moved - low * jump / width,
        moved - high * jump / width,
        high * (u_left - low) / width,
        -low * (u_right - high) / width,
        fastest,
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _reconstruct(u: _Array, z: _Array, thin: float, limit: Any, work: _Array) -> None:
    """Cell values and half slopes of one row.

    Args:
        u: States ``(c, m)``.
        z: Bottom ``(m,)``.
        thin: See ``velocity``.
        limit: Compiled limiter of two slopes.
        work: Depth, velocities and surface, then their half slopes, ``(2, c + 1, m)``, overwritten.
    """
    components, m = u.shape
    for i in range(m):
        work[0, 0, i] = u[0, i]
        for k in range(1, components):
            work[0, k, i] = velocity(u[0, i], u[k, i], thin)
        work[0, components, i] = u[0, i] + z[i]
    for k in range(components + 1):
        for i in range(1, m - 1):
            value = work[0, k, i]
            half = 0.5 * limit(value - work[0, k, i - 1], work[0, k, i + 1] - value)
            work[1, k, i] = half if u[0, i] > thin else 0.0
    for i in range(1, m - 1):
        if abs(work[1, 0, i]) > u[0, i]:
            for k in range(components + 1):
                work[1, k, i] = 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def _row(
    work: _Array, normal: int, gravity: float, contact: bool, change: _Array, sides: _Array
) -> tuple[float, float]:
    """Change of the cells and flux through the sides of one row, per unit of time and area.

    Args:
        work: Result of ``_reconstruct``.
        normal: Component of the momentum along the row.
        gravity: g.
        contact: HLLC instead of HLL.
        change: Minus the difference of the fluxes ``(c, n)``, set to zero before; receives the result.
        sides: Fluxes through the first and the last side ``(2, c)``; receives the result.

    Returns:
        Integral of the source and largest speed.
    """
    components, n = change.shape
    source, fastest = 0.0, 0.0
    for face in range(n + 1):
        i, j = face + 1, face + 2
        h_i, h_j = work[0, 0, i] + work[1, 0, i], work[0, 0, j] - work[1, 0, j]
        w_i, w_j = work[0, components, i] + work[1, components, i], work[0, components, j] - work[1, components, j]
        v_i, v_j = work[0, normal, i] + work[1, normal, i], work[0, normal, j] - work[1, normal, j]
        top = max(w_i - h_i, w_j - h_j)
        h_left, h_right = min(h_i, max(0.0, w_i - top)), min(h_j, max(0.0, w_j - top))
        mass, below, above, by_left, by_right, speed = _face(h_left, v_i, h_right, v_j, gravity)
        speed = max(speed, max(abs(v_i) + np.sqrt(gravity * h_i), abs(v_j) + np.sqrt(gravity * h_j)))
        fastest = max(fastest, speed)
        for k in range(components):
            left_flux, right_flux = mass, mass
            if k == normal:
                left_flux, right_flux = below, above
            elif k > 0:
                t_i, t_j = work[0, k, i] + work[1, k, i], work[0, k, j] - work[1, k, j]
                if contact:
                    left_flux = mass * (t_i if mass >= 0.0 else t_j)
                else:
                    left_flux = by_left * h_left * t_i + by_right * h_right * t_j
                right_flux = left_flux
            if face > 0:
                change[k, face - 1] -= left_flux
            if face < n:
                change[k, face] += right_flux
            if face == 0:
                sides[0, k] = right_flux + (0.5 * gravity * h_j * h_j if k == normal else 0.0)
            if face == n:
                sides[1, k] = left_flux + (0.5 * gravity * h_i * h_i if k == normal else 0.0)
        if 0 < face < n:
            source += (above + 0.5 * gravity * h_j * h_j) - (below + 0.5 * gravity * h_i * h_i)
    for cell in range(n):
        i = cell + 2
        pull = 2.0 * gravity * work[0, 0, i]
        change[normal, cell] -= pull * work[1, components, i]
        source -= pull * (work[1, components, i] - work[1, 0, i])
    return source, fastest


@njit(cache=True, nogil=True, error_model="numpy")
def sweep(
    u: _Array, z: _Array, normal: int, gravity: float, thin: _Array, contact: bool, limit: Any
) -> tuple[_Array, _Array, _Array, _Array]:
    """Shallow water along one axis, for every row of every batch entry.

    Args:
        u: States with two ghost cells at each end ``(batch, c, rows, n + 4)``.
        z: Bottom ``(batch, rows, n + 4)``.
        normal: Component of the momentum along the axis.
        gravity: g.
        thin: Depth below which velocities go to zero ``(batch,)``.
        contact: HLLC instead of HLL.
        limit: Compiled limiter of two slopes.

    Returns:
        Minus the difference of the fluxes ``(batch, c, rows, n)``, fluxes through both sides ``(batch, 2, c, rows)``,
        integral of the source of the momentum along the axis ``(batch, rows)``, largest speed ``(batch,)``.
    """
    batch, components, rows, m = u.shape
    change, sides = np.zeros((batch, components, rows, m - 4)), np.zeros((batch, 2, components, rows))
    source, fastest = np.zeros((batch, rows)), np.zeros(batch)
    work = np.zeros((2, components + 1, m))
    for b in range(batch):
        for r in range(rows):
            _reconstruct(u[b, :, r], z[b, r], thin[b], limit, work)
            source[b, r], speed = _row(work, normal, gravity, contact, change[b, :, r], sides[b, :, :, r])
            fastest[b] = max(fastest[b], speed)
    return change, sides, source, fastest


@njit(cache=True, nogil=True, error_model="numpy")
def no_slope(_a: float, _b: float) -> float:
    """The limiter of a piecewise constant reconstruction."""
    return 0.0
