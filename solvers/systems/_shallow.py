"""Shallow water for the compiled core: MUSCL, hydrostatic reconstruction, HLL or HLLC, and the kernels of its law.

With h⁻, h⁺ the depths at the two ends of a cell and w = h + z the surface there, the momentum changes by

    −(E_right − E_left + g (h⁻ + h⁺)/2 (w⁺ − w⁻))/Δx,

where E is the momentum flux of the hydrostatic states at a face less the pressure of the state on the cell's side. This
is the scheme of Audusse et al. (SIAM J. Sci. Comput. 25, 2004) without the pressures that cancel at rest.
"""

from functools import cache
from typing import Any

import numpy as np
from numba.np.numpy_support import carray

from solvers._compiled import inner
from solvers.finite_volume._kernels import KERNEL, Array, array_at, call, kernel, written_kernel
from solvers.finite_volume.convection.reconstruction_kernels import largest
from solvers.systems._tile import AXIS, CELLS, COMPONENTS, SLOPES, SWEEP

_THIN = 1e-8
_ROUND_OFF = 1e-14


@inner
def velocity(depth: float, momentum: float, thin: float) -> float:
    """Momentum over depth; goes to zero below the depth ``thin`` (Kurganov and Petrova 2007)."""
    if depth <= 0.0:
        return 0.0
    if depth >= thin:
        return momentum / depth
    return 2.0 * depth * momentum / (depth * depth + thin * thin)


@inner
def _speeds(h_left: float, u_left: float, h_right: float, u_right: float, gravity: float) -> tuple[float, float, float]:
    """Slowest and fastest wave, Einfeldt's (1988) or the front where one side is dry, and the largest |eigenvalue|."""
    c_left, c_right = np.sqrt(gravity * h_left), np.sqrt(gravity * h_right)
    fastest = max(abs(u_left) + c_left, abs(u_right) + c_right)
    if h_left <= 0.0 and h_right <= 0.0:
        return 0.0, 0.0, fastest
    if h_left <= 0.0:
        return u_right - 2.0 * c_right, u_right + c_right, fastest
    if h_right <= 0.0:
        return u_left - c_left, u_left + 2.0 * c_left, fastest
    mean = (c_left * u_left + c_right * u_right) / (c_left + c_right)
    wave = np.sqrt(0.5 * gravity * (h_left + h_right))
    return min(u_left - c_left, mean - wave), max(u_right + c_right, mean + wave), fastest


@inner
def _face(
    h_left: float, u_left: float, h_right: float, u_right: float, gravity: float
) -> tuple[float, float, float, float, float, float]:
    """HLL at a face.

    Returns:
        Mass flux, momentum flux less the pressure on the left, the same less that on the right, the weights of the left
        and the right transverse momentum flux, and the largest speed.
    """
    low, high, fastest = _speeds(h_left, u_left, h_right, u_right, gravity)
    fastest = max(fastest, abs(low), abs(high))
    low, high = min(low, 0.0), max(high, 0.0)
    if high <= low:
        return 0.0, 0.0, 0.0, 0.0, 0.0, fastest
    scale = 1.0 / (high - low)
    q_left, q_right = h_left * u_left, h_right * u_right
    mass = (high * q_left - low * q_right + low * high * (h_right - h_left)) * scale
    moved = (high * q_left * u_left - low * q_right * u_right + low * high * (q_right - q_left)) * scale
    jump = 0.5 * gravity * (h_right - h_left) * (h_right + h_left)
    return (
        mass,
        moved - low * jump * scale,
        moved - high * jump * scale,
        high * (u_left - low) * scale,
        -low * (u_right - high) * scale,
        fastest,
    )


@inner
def _reconstruct(u: Array, z: Array, thin: float, limiter: int, work: Array) -> None:
    """Cell values and half slopes of one row of states ``(c, m)`` over a bottom ``(m,)``.

    ``work`` receives depth, velocities and surface, then their half slopes ``(2, c + 1, m)``. ``limiter`` is the
    address of the kernel of the slopes, or 0 for none; for ``thin`` see ``velocity``.
    """
    components, m = u.shape
    for i in range(m):
        work[0, 0, i] = u[0, i]
        for k in range(1, components):
            work[0, k, i] = velocity(u[0, i], u[k, i], thin)
        work[0, components, i] = u[0, i] + z[i]
    for k in range(components + 1):
        work[1, k, 0], work[1, k, m - 1] = 0.0, 0.0
        if limiter == 0:
            for i in range(1, m - 1):
                work[1, k, i] = 0.0
            continue
        cells, slopes = work[0, k], work[1, k, 1:]
        call(limiter, (cells, cells, slopes, slopes, cells), (m - 2, 1))
        for i in range(1, m - 1):
            work[1, k, i] = work[1, k, i] if u[0, i] > thin else 0.0
    for i in range(1, m - 1):
        if abs(work[1, 0, i]) > u[0, i]:
            for k in range(components + 1):
                work[1, k, i] = 0.0


@inner
def _hydrostatic(work: Array, face: int, components: int) -> tuple[float, float, float, float]:
    """Depths at the two sides of a face, and above its higher bottom."""
    i, j = face + 1, face + 2
    h_i, h_j = work[0, 0, i] + work[1, 0, i], work[0, 0, j] - work[1, 0, j]
    w_i, w_j = work[0, components, i] + work[1, components, i], work[0, components, j] - work[1, components, j]
    top = max(w_i - h_i, w_j - h_j)
    return h_i, h_j, min(h_i, max(0.0, w_i - top)), min(h_j, max(0.0, w_j - top))


@inner
def _transverse(work: Array, face: int, k: int, contact: bool, mass: float, weights: tuple[float, float]) -> float:
    """Flux of a component of the momentum along the face; the weights are those of its values on the two sides."""
    t_i, t_j = work[0, k, face + 1] + work[1, k, face + 1], work[0, k, face + 2] - work[1, k, face + 2]
    if contact:
        return mass * (t_i if mass >= 0.0 else t_j)
    return weights[0] * t_i + weights[1] * t_j


@inner
def _distribute(work: Array, face: int, normal: int, contact: bool, fluxes: Any, out: tuple[Array, Array]) -> None:
    """Adds the fluxes through a face to the changes of its cells; keeps those through sides."""
    mass, below, above, weights = fluxes
    change, sides = out
    components, n = change.shape
    for k in range(components):
        left_flux, right_flux = mass, mass
        if k == normal:
            left_flux, right_flux = below, above
        elif k > 0:
            left_flux = _transverse(work, face, k, contact, mass, weights)
            right_flux = left_flux
        if face > 0:
            change[k, face - 1] -= left_flux
        else:
            sides[0, k] = right_flux
        if face < n:
            change[k, face] += right_flux
        else:
            sides[1, k] = left_flux


@inner
def _row(work: Array, normal: int, gravity: float, contact: bool, change: Array, sides: Array) -> tuple[float, float]:
    """Adds what changes the cells of one row, per unit of time and area; integral of the source and largest speed.

    ``work`` is as ``_reconstruct`` left it, ``normal`` the component of the momentum along the row, and ``contact``
    asks for HLLC. ``change (c, n)`` gets minus the difference of the fluxes, and ``sides`` those through both sides
    ``(2, c)``.
    """
    components, n = change.shape
    source, fastest = 0.0, 0.0
    for face in range(n + 1):
        i, j = face + 1, face + 2
        h_i, h_j, h_left, h_right = _hydrostatic(work, face, components)
        v_i, v_j = work[0, normal, i] + work[1, normal, i], work[0, normal, j] - work[1, normal, j]
        mass, below, above, by_left, by_right, speed = _face(h_left, v_i, h_right, v_j, gravity)
        fastest = max(fastest, speed)
        if h_left < h_i or h_right < h_j:
            fastest = max(fastest, abs(v_i) + np.sqrt(gravity * h_i), abs(v_j) + np.sqrt(gravity * h_j))
        weights = (by_left * h_left, by_right * h_right)
        _distribute(work, face, normal, contact, (mass, below, above, weights), (change, sides))
        low, high = 0.5 * gravity * h_i * h_i, 0.5 * gravity * h_j * h_j
        if face == 0:
            sides[0, normal] += high
        elif face == n:
            sides[1, normal] += low
        else:
            source += (above + high) - (below + low)
    for cell in range(n):
        i = cell + 2
        pull = 2.0 * gravity * work[0, 0, i]
        change[normal, cell] -= pull * work[1, components, i]
        source -= pull * (work[1, components, i] - work[1, 0, i])
    return source, fastest


@kernel(SWEEP)
def sweep(cells: Any, below: Any, change: Any, through: Any, speed: Any, work: Any, numbers: Any, order: Any) -> None:
    """Flux differences, pressure of the bottom and its force along one line of cells."""
    plan = array_at(order, 8)
    n, c, normal = plan[CELLS], plan[COMPONENTS], 1 + plan[AXIS]
    u, z, room = carray(cells, (c, n + 4)), array_at(below, n + 4), carray(work, (2, c + 1, n + 4))
    along, ends = carray(change, (c, n)), carray(through, (3, c))
    for k in range(c):
        ends[2, k] = 0.0
        for i in range(n):
            along[k, i] = 0.0
    _reconstruct(u, z, _THIN * numbers[0], plan[SLOPES], room)
    ends[2, normal], speed[0] = _row(room, normal, numbers[2], numbers[3] > 0.0, along, ends)
    for k in range(c):
        for i in range(n):
            along[k, i] /= numbers[1]


@kernel(KERNEL)
def check(u: Any, before: Any, _out: Any, good: Any, numbers: Any, count: Any, stride: Any) -> None:
    """Finite states without negative depths; depths that are negative by round-off become zero."""
    c = int(numbers[4])
    states, earlier = array_at(u, c * stride), array_at(before, count)
    floor = _ROUND_OFF * largest(earlier, 0, count)
    for i in range(count):
        good[i] = 1.0
        for k in range(c):
            if not np.isfinite(states[k * stride + i]):
                good[i] = 0.0
        if states[i] < 0.0 and states[i] >= -floor:
            for k in range(c):
                states[k * stride + i] = 0.0
        if not states[i] >= 0.0:
            good[i] = 0.0


@cache
def mirror(axis: int) -> Any:
    """The kernel of a wall across an axis: the momentum across it changes its sign."""
    lines = [
        "for k in range(int(numbers[4])):",
        "    for i in range(count):",
        f"        out[k * stride + i] = -a[k * stride + i] if k == {1 + axis} else a[k * stride + i]",
    ]
    return written_kernel(f"mirror_{axis}", lines, {}, cache=True)
