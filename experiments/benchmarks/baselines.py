"""Code that a user would write for the problems of the benchmark of the solver, compiled by numba.

On an interval: right-hand sides for scipy's LSODA with a banded Jacobian, on the cells and with the fluxes of ours, of
(time, cell averages, parameter, spacing), as ``odeint`` calls them. On a square: a bare loop of RKL2.
"""

from collections.abc import Callable
from math import sqrt
from typing import NamedTuple

import numpy as np
from numba import njit

CELLS = 200
_Array = np.ndarray
_compiled = njit(error_model="numpy", nogil=True, cache=True)


@_compiled
def porous_medium(time: float, u: _Array, m: float, h: float) -> _Array:
    """−F_x with F = −Φ_x, Φ = u^(m+1)/(m+1), u(0) = (mt)^{1/m}, u(1) = 0."""
    rate, power = np.empty_like(u), m + 1.0
    here = max(u[0], 0.0) ** power / power
    inflow = 2.0 * ((m * time) ** (power / m) / power - here)
    for i in range(u.size - 1):
        after = max(u[i + 1], 0.0) ** power / power
        rate[i] = (inflow - here + after) / (h * h)
        inflow, here = here - after, after
    rate[-1] = (inflow - 2.0 * here) / (h * h)
    return rate


@_compiled
def stefan(time: float, u: _Array, threshold: float, h: float) -> _Array:  # noqa: ARG001 - one signature for all
    """−F_x with F = −Φ_x, Φ = max(u − u*, 0), u(0) = 1, u(1) = 0."""
    rate = np.empty_like(u)
    here = max(u[0] - threshold, 0.0)
    inflow = 2.0 * (1.0 - threshold - here)
    for i in range(u.size - 1):
        after = max(u[i + 1] - threshold, 0.0)
        rate[i] = (inflow - here + after) / (h * h)
        inflow, here = here - after, after
    rate[-1] = (inflow - 2.0 * here) / (h * h)
    return rate


@_compiled
def diffusion(time: float, u: _Array, k: float, h: float) -> _Array:  # noqa: ARG001 - one signature for all
    """k u_xx on a circle whose cells are in the order 0, n − 1, 1, n − 2, …: neighbours are at most two apart."""
    rate, factor, last = np.empty_like(u), k / (h * h), u.size - 1
    rate[0] = factor * (u[1] - 2.0 * u[0] + u[2])
    rate[1] = factor * (u[0] - 2.0 * u[1] + u[3])
    for i in range(2, last - 1):
        rate[i] = factor * (u[i - 2] - 2.0 * u[i] + u[i + 2])
    rate[last - 1] = factor * (u[last - 3] - 2.0 * u[last - 1] + u[last])
    rate[last] = factor * (u[last - 2] - 2.0 * u[last] + u[last - 1])
    return rate


@_compiled
def burgers(time: float, u: _Array, inflow: float, h: float) -> _Array:  # noqa: ARG001 - one signature for all
    """−(u²/2)_x by van Leer's slopes and Godunov's flux, u(−1) = a, outflow on the right."""
    rate, n = np.empty_like(u), u.size
    before = 0.5 * inflow * inflow
    half = 0.5 * _van_leer(u[0] - inflow, u[1] - u[0])
    for i in range(n):
        left, right = max(u[i] + half, 0.0), min(u[i], 0.0)
        if i + 1 < n:
            half = 0.5 * _van_leer(u[i + 1] - u[i], u[min(i + 2, n - 1)] - u[i + 1])
            right = min(u[i + 1] - half, 0.0)
        after = 0.5 * max(left * left, right * right)
        rate[i] = (before - after) / h
        before = after
    return rate


@_compiled
def _van_leer(a: float, b: float) -> float:
    return 0.0 if a * b <= 0.0 else 2.0 * a * b / (a + b)


class _System(NamedTuple):
    """A right-hand side, the half width of its Jacobian's band, and the order of its cells."""

    rate: Callable[..., _Array]
    band: int
    order: _Array


_STRAIGHT = np.arange(CELLS)
_CIRCLE = np.stack([np.arange(CELLS // 2), CELLS - 1 - np.arange(CELLS // 2)], axis=1).reshape(-1)
SYSTEMS = {
    "porous_medium": _System(porous_medium, 1, _STRAIGHT),
    "stefan": _System(stefan, 1, _STRAIGHT),
    "diffusion": _System(diffusion, 2, _CIRCLE),
    "burgers_shock": _System(burgers, 2, _STRAIGHT),
}


def rkl2_loop(start: _Array, span: float, steps: int) -> _Array:
    """Values ``(cells, cells)`` of u_t = ∇²(u³/3) after a span of time, by equal steps."""
    return _march(start, steps, span / steps)


@_compiled
def _march(start: _Array, steps: int, step: float) -> _Array:
    """Steps of the second-order Runge–Kutta–Legendre method (Meyer, Balsara and Aslam 2014), stages as needed."""
    u, rate, first = start.copy(), np.empty_like(start), np.empty_like(start)
    before, now, potential = np.empty_like(start), np.empty_like(start), np.empty_like(start)
    for _ in range(steps):
        largest = u.max()
        stages = int(np.ceil(0.5 * (sqrt(9.0 + 16.0 * step * 4.0 * largest**2 * u.size) - 1.0)))
        stages = max(3, stages + 1 - stages % 2)
        weight = 4.0 / (stages * stages + stages - 2.0)
        _rate(u, potential, first)
        for i in range(u.shape[0]):
            for j in range(u.shape[1]):
                before[i, j] = u[i, j]
                now[i, j] = u[i, j] + weight / 3.0 * step * first[i, j]
        b2 = b1 = 1.0 / 3.0
        for stage in range(2, stages + 1):
            b = (stage * stage + stage - 2.0) / (2.0 * stage * (stage + 1.0))
            mu, nu = (2.0 * stage - 1.0) / stage * b / b1, -(stage - 1.0) / stage * b / b2
            gain = mu * weight * step
            _rate(now, potential, rate)
            for i in range(u.shape[0]):
                for j in range(u.shape[1]):
                    before[i, j] = (
                        mu * now[i, j]
                        + nu * before[i, j]
                        + (1.0 - mu - nu) * u[i, j]
                        + gain * (rate[i, j] - (1.0 - b1) * first[i, j])
                    )
            before, now, b2, b1 = now, before, b1, b
        u, now = now, u
    return u


@_compiled
def _rate(u: _Array, potential: _Array, rate: _Array) -> None:
    """∇²(u³/3) on the unit square, no flux through the first sides, u = 0 on the last ones."""
    n = u.shape[0]
    factor = float(n * n)
    for i in range(n):
        for j in range(n):
            potential[i, j] = max(u[i, j], 0.0) ** 3 / 3.0
    for i in range(n):
        below, above = potential[max(i - 1, 0)], potential[min(i + 1, n - 1)]
        outer = -1.0 if i == n - 1 else 1.0
        row = potential[i]
        for j in range(1, n - 1):
            rate[i, j] = factor * (below[j] + outer * above[j] + row[j - 1] + row[j + 1] - 4.0 * row[j])
        rate[i, 0] = factor * (below[0] + outer * above[0] + row[1] - 3.0 * row[0])
        rate[i, n - 1] = factor * (below[n - 1] + outer * above[n - 1] + row[n - 2] - 5.0 * row[n - 1])
