"""Bare loops for gas and Burgers' equation on an interval, as a careful user would write them, compiled by numba.

SSPRK3, MUSCL by van Leer's slopes, and the fluxes of ours, for one function: without error control, balance, outputs,
checks of states or a choice of sides. Loops run over views at unit stride, so that they vectorise.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import njit

from solvers import Burgers, CellGrid, Euler, Outflow, Periodic, solve, solve_system

GAMMA, COURANT = 1.4, {"Burgers": 0.5, "Euler": 0.4}
_FLUXES = 1, 6, 7
_Array = np.ndarray
_compiled = njit(error_model="numpy", nogil=True, cache=True, fastmath=True)


@_compiled
def _march(start: _Array, spacing: float, end: float, courant: float, periodic: bool, fluxes: Any) -> _Array:
    """States ``(c, cells)`` at a time, from those at 0."""
    components, n = start.shape
    u, other = np.zeros((2, components, n + 4))
    half, flux, time, length = np.zeros((components, n + 4)), np.zeros((components, n + 1)), 0.0, 0.0
    u[:, 2:-2] = start
    while time < end:
        for stage in range(3):
            now, new = u if stage == 0 else other, u if stage == 2 else other
            part = 1.0 if stage == 0 else 0.25 if stage == 1 else 2.0 / 3.0
            for k in range(components):
                _fill(now[k], half[k], periodic)
            speed = fluxes(now, half, flux)
            if stage == 0:
                length = min(courant * spacing / speed, end - time)
            for k in range(components):
                first, second, base, last, after = flux[k], flux[k, 1:], u[k, 2:], now[k, 2:], new[k, 2:]
                for i in range(n):
                    gain = length / spacing * (first[i] - second[i])
                    after[i] = (1.0 - part) * base[i] + part * (last[i] + gain)
        time = end if length == end - time else time + length
    return u[:, 2:-2].copy()


@_compiled
def _fill(v: _Array, half: _Array, periodic: bool) -> None:
    """Two ghost cells at each end, and half of van Leer's slopes."""
    n = v.size
    for i in range(2):
        v[i], v[n - 1 - i] = (v[n - 4 + i], v[3 - i]) if periodic else (v[2], v[n - 3])
    middle, after, slopes = v[1:], v[2:], half[1:]
    for i in range(n - 2):
        a, b = middle[i] - v[i], after[i] - middle[i]
        slopes[i] = a * b / (a + b) if a * b > 0.0 else 0.0


@_compiled
def _burgers(u: _Array, half: _Array, flux: _Array) -> float:
    """Godunov's fluxes; the largest speed."""
    before, behind, below, above, largest = u[0, 1:], u[0, 2:], half[0, 1:], half[0, 2:], 0.0
    through = flux[0]
    for i in range(through.size):
        left, right = before[i] + below[i], behind[i] - above[i]
        largest = max(largest, max(abs(left), abs(right)))
        left, right = max(left, 0.0), min(right, 0.0)
        through[i] = 0.5 * max(left * left, right * right)
    return largest


@_compiled
def _gas(u: _Array, half: _Array, flux: _Array) -> float:
    """HLL fluxes (Davis 1988) of density, momentum and energy; the largest speed.

    One loop for all would be shorter, but LLVM does not vectorise it: it compares at most eight pairs of arrays.
    """
    n, largest = flux.shape[1], 0.0
    left, right = np.empty((8, n)), np.empty((8, n))
    low, high, scale = np.empty(n), np.empty(n), np.empty(n)
    _ends(u, half, 1, left)
    _ends(u, half, 2, right)
    v, z, c, d = left[3], right[3], left[5], right[5]
    for i in range(n):
        low[i] = min(min(v[i] - c[i], z[i] - d[i]), 0.0)
    for i in range(n):
        high[i] = max(max(v[i] + c[i], z[i] + d[i]), 0.0)
    for i in range(n):
        largest = max(largest, max(-low[i], high[i]))
        scale[i] = 1.0 / (high[i] - low[i])
    for k in range(3):
        a, b, f, g, through = left[k], right[k], left[_FLUXES[k]], right[_FLUXES[k]], flux[k]
        for i in range(n):
            through[i] = (high[i] * f[i] - low[i] * g[i] + low[i] * high[i] * (b[i] - a[i])) * scale[i]
    return largest


@_compiled
def _ends(u: _Array, half: _Array, shift: int, out: _Array) -> None:
    """States at one end of the cells, speed of gas, pressure, speed of sound, fluxes of momentum and energy."""
    sign = 1.0 if shift == 1 else -1.0
    for k in range(3):
        state, slope, end = u[k, shift:], half[k, shift:], out[k]
        for i in range(end.size):
            end[i] = state[i] + sign * slope[i]
    r, m, e, v, p, c, push, work = out[0], out[1], out[2], out[3], out[4], out[5], out[6], out[7]
    for i in range(r.size):
        v[i] = m[i] / r[i]
    for i in range(r.size):
        p[i] = (GAMMA - 1.0) * (e[i] - 0.5 * m[i] * v[i])
    for i in range(r.size):
        c[i] = np.sqrt(GAMMA * p[i] / r[i])
    for i in range(r.size):
        push[i] = m[i] * v[i] + p[i]
    for i in range(r.size):
        work[i] = (e[i] + p[i]) * v[i]


Pair = tuple[str, Callable[[], _Array], Callable[[], _Array]]


def pairs(burgers_cells: int = 200, gas_cells: int = 400) -> list[Pair]:
    """For Burgers' equation on a circle and for Sod's tube: name, solution of ours and of the loop ``(c, cells)``."""
    grid, tube = CellGrid(0.0, 1.0, burgers_cells), CellGrid(0.0, 1.0, gas_cells)
    wave = 0.5 + torch.sin(2.0 * torch.pi * grid.points)
    left = (tube.points < 0.5).double()
    gas = torch.stack([0.125 + 0.875 * left, torch.zeros_like(left), (0.1 + 0.9 * left) / (GAMMA - 1.0)])
    circle, tube_ends = (Periodic(), Periodic()), (Outflow(), Outflow())
    waves, gases = wave[None].numpy(), gas.numpy()
    return [
        (
            f"Burgers on a circle, {burgers_cells} cells",
            lambda: solve(Burgers(), grid, circle, wave, [0.5]).values.numpy(),
            lambda: _march(waves, 1.0 / burgers_cells, 0.5, COURANT["Burgers"], True, _burgers),
        ),
        (
            f"Sod's tube, {gas_cells} cells",
            lambda: solve_system(Euler(GAMMA), tube, tube_ends, gas, [0.2]).values[0].numpy(),
            lambda: _march(gases, 1.0 / gas_cells, 0.2, COURANT["Euler"], False, _gas),
        ),
    ]
