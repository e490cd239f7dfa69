"""scipy's LSODA with a banded Jacobian and compiled right-hand sides, on the cells and with the fluxes of ours.

Right-hand sides take (time, cell averages, parameter, spacing), as ``odeint`` calls them.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import njit
from scipy.integrate import odeint

from experiments.benchmarks.equal_error.attempts import Attempt, Ladder
from experiments.benchmarks.equal_error.cases import CELLS, Case

RELATIVE = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 1e-6)
RATIOS = (1.0, 0.1, 0.01)
"""Relative tolerances, and absolute tolerances as fractions of them."""
_FLOOR = 1e-11
_STEPS = 10**6
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


def lsoda(case: Case) -> list[Ladder]:
    """A ladder for every ratio of the two tolerances."""
    names = [
        [(f"rtol {rtol:.0e}, atol {ratio * rtol:.0e}", rtol, ratio * rtol) for rtol in RELATIVE] for ratio in RATIOS
    ]
    return [[Attempt(name, integration(case, *tolerances)) for name, *tolerances in ladder] for ladder in names]


def spatial_error(case: Case) -> float:
    """L1 error on the common cells with exact time steps."""
    return case.error(integration(case, _FLOOR, 0.1 * _FLOOR)())


def integration(case: Case, relative: float, absolute: float) -> Callable[[], _Array]:
    """What computes cell averages ``(functions, t, cells)``, one function after another."""
    system, spacing = SYSTEMS[case.problem.name], case.grid().spacing[0]
    starts = [case.initial(parameter)[system.order] for parameter in case.parameters]
    options = {"rtol": relative, "atol": absolute, "ml": system.band, "mu": system.band, "mxstep": _STEPS}

    def run() -> _Array:
        values = np.empty((len(starts), len(case.times), CELLS))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a failure shows in the error
            for row, start, parameter in zip(values, starts, case.parameters, strict=True):
                states = odeint(system.rate, start, (0.0, *case.times), (parameter, spacing), tfirst=True, **options)
                row[:, system.order] = states[1:]
        return values

    return run
