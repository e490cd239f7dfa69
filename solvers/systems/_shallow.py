"""Shallow water for compiled steps: hydrostatic reconstruction over a bottom, HLL or HLLC, dry beds.

With h⁻, h⁺ the depths at the two ends of a cell and w = h + z the surface there, the momentum changes by

    −(E_right − E_left + g (h⁻ + h⁺)/2 (w⁺ − w⁻))/Δx,

where E is the momentum flux of the hydrostatic states at a face less the pressure of the state on the cell's side. This
is the scheme of Audusse et al. (SIAM J. Sci. Comput. 25, 2004) without the pressures that cancel at rest.

The parameters are gravity, whether the flux is HLLC, the number of components and the axis.
"""

from typing import Any

import numpy as np

from solvers._compiled import inner_on_views
from solvers.finite_volume.march.kernels import Kernel, carray

_ROUND_OFF = 1e-6
"""Depths that are negative by round-off, relative to the thin depth: 1e-14 of the largest one."""


def _primitives(u_, p_, ground_, thin_, v_, _f, _g, n, c):  # noqa: ARG001 - one signature for all kernels
    """Depth, velocities and surface; the velocity goes to zero below a thin depth (Kurganov and Petrova 2007)."""
    u, v, ground, thins = carray(u_, (c, n)), carray(v_, (c + 1, n)), carray(ground_, n), carray(thin_, n)
    depths, heights, surface = u[0], v[0], v[c]
    for i in range(n):
        heights[i] = depths[i]
        surface[i] = depths[i] + ground[i]
    for k in range(1, c):
        momentum, velocity = u[k], v[k]
        for i in range(n):
            h, thin = depths[i], thins[i]
            slow = 2.0 * h * momentum[i] / (h * h + thin * thin) if h > 0.0 else 0.0
            velocity[i] = momentum[i] / h if h > 0.0 and h >= thin else slow


@inner_on_views
def _speeds(h_left: float, u_left: float, h_right: float, u_right: float, g: float) -> tuple[float, float, float]:
    """Slowest and fastest wave, Einfeldt's (1988) or the front where one side is dry, and the largest |eigenvalue|."""
    c_left, c_right = np.sqrt(g * h_left), np.sqrt(g * h_right)
    fastest = max(abs(u_left) + c_left, abs(u_right) + c_right)
    if h_left <= 0.0 and h_right <= 0.0:
        return 0.0, 0.0, fastest
    if h_left <= 0.0:
        return u_right - 2.0 * c_right, u_right + c_right, fastest
    if h_right <= 0.0:
        return u_left - c_left, u_left + 2.0 * c_left, fastest
    mean = (c_left * u_left + c_right * u_right) / (c_left + c_right)
    wave = np.sqrt(0.5 * g * (h_left + h_right))
    return min(u_left - c_left, mean - wave), max(u_right + c_right, mean + wave), fastest


def _faces(v_, p_, half_, thin_, flux_, speed_, _g, faces, apart):
    """Fluxes through faces; what the bottom adds to the momentum, and pressures.

    After the fluxes that the cells before the faces see: the momentum flux that those behind see, the force of a step
    of the bottom at the face, change and force by its slope in the cells, and pressures before and behind the face.
    """
    gravity, contact, c, axis = p_[0], p_[1] > 0.0, int(p_[2]), int(p_[3])
    n = faces + apart
    v, half, out = carray(v_, (c + 1, n)), carray(half_, (c + 1, n)), carray(flux_, (c + 6, n))
    thin, speed, normal = carray(thin_, n), carray(speed_, n), 1 + axis
    h, dh, w, dw = v[0], half[0], v[c], half[c]
    for i in range(n):
        if h[i] <= thin[i] or abs(dh[i]) > h[i]:
            for k in range(c + 1):
                half[k, i] = 0.0
    push, sloped = out[c + 2], out[c + 3]
    for i in range(n):
        pull = 2.0 * gravity * h[i]
        push[i] = pull * dw[i]
        sloped[i] = pull * (dw[i] - dh[i])
    mass, below, above, step, lower, upper = out[0], out[normal], out[c], out[c + 1], out[c + 4], out[c + 5]
    u, du, across = v[normal], half[normal], 2 - axis
    for i in range(faces):
        j = i + apart
        h_i, h_j, w_i, w_j = h[i] + dh[i], h[j] - dh[j], w[i] + dw[i], w[j] - dw[j]
        top = max(w_i - h_i, w_j - h_j)
        left, right = min(h_i, max(0.0, w_i - top)), min(h_j, max(0.0, w_j - top))
        u_i, u_j = u[i] + du[i], u[j] - du[j]
        low, high, fastest = _speeds(left, u_i, right, u_j, gravity)
        fastest = max(fastest, abs(low), abs(high))
        if left < h_i or right < h_j:
            fastest = max(fastest, abs(u_i) + np.sqrt(gravity * h_i), abs(u_j) + np.sqrt(gravity * h_j))
        low, high = min(low, 0.0), max(high, 0.0)
        scale = 1.0 / (high - low) if high > low else 0.0
        q_i, q_j = left * u_i, right * u_j
        mass[i] = (high * q_i - low * q_j + low * high * (right - left)) * scale
        momentum = (high * q_i * u_i - low * q_j * u_j + low * high * (q_j - q_i)) * scale
        jump = 0.5 * gravity * (right - left) * (right + left)
        below[i], above[i], speed[i] = momentum - low * jump * scale, momentum - high * jump * scale, fastest
        lower[i], upper[i] = 0.5 * gravity * h_i * h_i, 0.5 * gravity * h_j * h_j
        step[i] = (above[i] + upper[i]) - (below[i] + lower[i])
        if c > 2:
            t_i, t_j = v[across, i] + half[across, i], v[across, j] - half[across, j]
            if contact:
                out[across, i] = mass[i] * (t_i if mass[i] >= 0.0 else t_j)
            else:
                weight = high * (u_i - low) * scale * left, -low * (u_j - high) * scale * right
                out[across, i] = weight[0] * t_i + weight[1] * t_j


def _check(u_, p_, thin_, _d, good_, _f, _g, n, _apart):
    """Finite states without negative depths; depths that are negative by round-off become zero."""
    c = int(p_[2])
    u, thin, good = carray(u_, (c, n)), carray(thin_, n), carray(good_, n)
    depth = u[0]
    for i in range(n):
        if depth[i] < 0.0 and depth[i] >= -_ROUND_OFF * thin[i]:
            for k in range(c):
                u[k, i] = 0.0
    for i in range(n):
        good[i] = 1.0 if depth[i] >= 0.0 else 0.0
    for k in range(c):
        states = u[k]
        for i in range(n):
            good[i] = good[i] if states[i] - states[i] == 0.0 else 0.0


def _mirror(u_, p_, _c, _d, out_, _f, _g, n, axis):
    """The momentum across a wall changes its sign."""
    c = int(p_[2])
    u, out = carray(u_, (c, n)), carray(out_, (c, n))
    for k in range(c):
        for i in range(n):
            out[k, i] = -u[k, i] if k == 1 + axis else u[k, i]


primitives: Any = Kernel(_primitives)
faces: Any = Kernel(_faces)
check: Any = Kernel(_check)
mirror: Any = Kernel(_mirror)
