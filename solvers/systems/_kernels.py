"""Compiled rates of change of shallow water: MUSCL, hydrostatic reconstruction, HLL or HLLC.

It releases the interpreter lock, so that parts of a batch can run on several threads.

With h⁻, h⁺ the depths at the two ends of a cell and w = h + z the surface there, the momentum changes by

    −(E_right − E_left + g (h⁻ + h⁺)/2 (w⁺ − w⁻))/Δx,

where E is the momentum flux of the hydrostatic states at a face less the pressure of the state on the cell's side. This
is the scheme of Audusse et al. (SIAM J. Sci. Comput. 25, 2004) without the pressures that cancel at rest.
"""

from typing import Any

import numpy as np

from solvers._compiled import compiled
from solvers.finite_volume.convection.reconstruction_kernels import half_slopes

_Array = np.ndarray

PERIODIC, REFLECTING, OUTFLOW, GIVEN = 0, 1, 2, 3
"""Conditions of a side."""

_THIN = 1e-8


@compiled
def velocity(depth: float, momentum: float, thin: float) -> float:
    """Momentum over depth; goes to zero below the depth ``thin`` (Kurganov and Petrova 2007)."""
    if depth <= 0.0:
        return 0.0
    if depth >= thin:
        return momentum / depth
    return 2.0 * depth * momentum / (depth * depth + thin * thin)


@compiled
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


@compiled
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


@compiled
def _reconstruct(u: _Array, z: _Array, thin: float, linear: bool, limit: Any, work: _Array) -> None:
    """Cell values and half slopes of one row.

    Args:
        u: States ``(c, m)``.
        z: Bottom ``(m,)``.
        thin: See ``velocity``.
        linear: Whether there are slopes.
        limit: ``limiter_code`` of the slopes.
        work: Depth, velocities and surface, then their half slopes, ``(2, c + 1, m)``, overwritten.
    """
    components, m = u.shape
    for i in range(m):
        work[0, 0, i] = u[0, i]
        for k in range(1, components):
            work[0, k, i] = velocity(u[0, i], u[k, i], thin)
        work[0, components, i] = u[0, i] + z[i]
    if not linear:
        work[1] = 0.0
        return
    for k in range(components + 1):
        cells, slopes = work[0, k], work[1, k]
        half_slopes(cells, cells[1:], cells[2:], limit, slopes[1 : m - 1])
        for i in range(1, m - 1):
            slopes[i] = slopes[i] if u[0, i] > thin else 0.0
    for i in range(1, m - 1):
        if abs(work[1, 0, i]) > u[0, i]:
            for k in range(components + 1):
                work[1, k, i] = 0.0


@compiled
def _hydrostatic(work: _Array, face: int, components: int) -> tuple[float, float, float, float]:
    """Depths at the two sides of a face, and above its higher bottom."""
    i, j = face + 1, face + 2
    h_i, h_j = work[0, 0, i] + work[1, 0, i], work[0, 0, j] - work[1, 0, j]
    w_i, w_j = work[0, components, i] + work[1, components, i], work[0, components, j] - work[1, components, j]
    top = max(w_i - h_i, w_j - h_j)
    return h_i, h_j, min(h_i, max(0.0, w_i - top)), min(h_j, max(0.0, w_j - top))


@compiled
def _transverse(work: _Array, face: int, k: int, contact: bool, mass: float, weights: tuple[float, float]) -> float:
    """Flux of a component of the momentum along the face; the weights are those of its values on the two sides."""
    t_i, t_j = work[0, k, face + 1] + work[1, k, face + 1], work[0, k, face + 2] - work[1, k, face + 2]
    if contact:
        return mass * (t_i if mass >= 0.0 else t_j)
    return weights[0] * t_i + weights[1] * t_j


@compiled
def _distribute(work: _Array, face: int, normal: int, contact: bool, fluxes: Any, out: tuple[_Array, _Array]) -> None:
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


@compiled
def _row(
    work: _Array, normal: int, gravity: float, contact: bool, change: _Array, sides: _Array
) -> tuple[float, float]:
    """Adds what changes the cells of one row, per unit of time and area; integral of the source and largest speed.

    Args:
        work: Result of ``_reconstruct``.
        normal: Component of the momentum along the row.
        gravity: g.
        contact: HLLC instead of HLL.
        change: Minus the difference of the fluxes ``(c, n)``, set to zero before.
        sides: Receives the fluxes through the first and the last side ``(2, c)``.
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


@compiled
def _gather(u: _Array, axis: int, index: int, kinds: _Array, states: _Array, row: _Array) -> None:
    """Copies one row with two ghost cells at each end.

    Args:
        u: States of an entry ``(c, cells, cells)``, the last axis of length 1 with one space axis.
        axis: Space axis of the row.
        index: Place of the row along the other axis.
        kinds: Condition of every side, ``PERIODIC`` and so on, ``(d, 2)``.
        states: Given states of the first and the last side ``(2, c, rows)``.
        row: Receives the row ``(c, n + 4)``.
    """
    n = row.shape[1] - 4
    first, last = kinds[axis, 0], kinds[axis, 1]
    for k in range(u.shape[0]):
        for i in range(n):
            row[k, i + 2] = u[k, i, index] if axis == 0 else u[k, index, i]
        sign = -1.0 if k == 1 + axis else 1.0
        for g in range(2):
            if first == PERIODIC:
                row[k, 1 - g], row[k, n + 2 + g] = row[k, n + 1 - g], row[k, 2 + g]
            if first == REFLECTING:
                row[k, 1 - g] = sign * row[k, 2 + g]
            if last == REFLECTING:
                row[k, n + 2 + g] = sign * row[k, n + 1 - g]
            if first == OUTFLOW:
                row[k, 1 - g] = row[k, 2]
            if last == OUTFLOW:
                row[k, n + 2 + g] = row[k, n + 1]
            if first == GIVEN:
                row[k, 1 - g] = states[0, k, index]
            if last == GIVEN:
                row[k, n + 2 + g] = states[1, k, index]


@compiled
def entry_rates(
    u: _Array, plan: Any, states: Any, bottoms: Any, change: _Array, sides: _Array, source: _Array
) -> float:
    """Rates of change of one batch entry.

    Args:
        u: States ``(c, cells, cells)``, the last axis of length 1 with one space axis.
        plan: Conditions of the sides ``(d, 2)``, cell lengths ``(d,)``, g, whether HLLC instead of HLL, whether
            linear in cells or constant, and the ``limiter_code`` of the slopes.
        states: Given states of the sides, ``(2, c, rows)`` for each axis.
        bottoms: Bottom with two ghost cells at each end, ``(rows, n + 4)`` for each axis.
        change: Receives ∂u/∂t, as u.
        sides: Receives the flux through every side ``(2d, c)``.
        source: Receives the integral of the source ``(c,)``.

    Returns:
        Sum over the axes of the largest speed over the cell length.
    """
    kinds, spacing, gravity, contact, linear, limit = plan
    components = u.shape[0]
    change[:], sides[:], source[:] = 0.0, 0.0, 0.0
    thin = _THIN * u[0].max()
    total, volume = 0.0, 1.0
    for h in spacing:
        volume *= h
    for axis in range(spacing.shape[0]):
        n, h = u.shape[1 + axis], spacing[axis]
        row, along, through = np.empty((components, n + 4)), np.empty((components, n)), np.empty((2, components))
        work = np.zeros((2, components + 1, n + 4))
        fastest = 0.0
        for r in range(u.shape[2 - axis]):
            _gather(u, axis, r, kinds, states[axis], row)
            _reconstruct(row, bottoms[axis][r], thin, linear, limit, work)
            along[:] = 0.0
            force, speed = _row(work, 1 + axis, gravity, contact, along, through)
            fastest = max(fastest, speed)
            source[1 + axis] += volume / h * force
            for k in range(components):
                sides[2 * axis, k] += volume / h * through[0, k]
                sides[2 * axis + 1, k] += volume / h * through[1, k]
                for i in range(n):
                    if axis == 0:
                        change[k, i, r] += along[k, i] / h
                    else:
                        change[k, r, i] += along[k, i] / h
        total += fastest / h
    return total


@compiled
def rates(u: _Array, plan: Any, states: Any, bottoms: Any) -> tuple[_Array, _Array, _Array, _Array]:
    """Rates of change of every batch entry.

    Args:
        u: States ``(batch, c, cells, cells)``, the last axis of length 1 with one space axis.
        plan: See ``entry_rates``.
        states: Given states of the sides, ``(batch, 2, c, rows)`` for each axis.
        bottoms: Bottom, ``(batch, rows, n + 4)`` for each axis.

    Returns:
        ∂u/∂t, fluxes through the sides ``(batch, 2d, c)``, integrals of the source ``(batch, c)`` and speeds
        ``(batch,)``, as in ``entry_rates``.
    """
    batch, components, axes = u.shape[0], u.shape[1], plan[1].shape[0]
    change, sides = np.empty(u.shape), np.empty((batch, 2 * axes, components))
    source, speed = np.empty((batch, components)), np.empty(batch)
    for b in range(batch):
        given, level = (states[0][b], states[-1][b]), (bottoms[0][b], bottoms[-1][b])
        speed[b] = entry_rates(u[b], plan, given, level, change[b], sides[b], source[b])
    return change, sides, source, speed
