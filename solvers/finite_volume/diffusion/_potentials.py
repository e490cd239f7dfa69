"""Compiled Kirchhoff potentials Φ and conductivities k = Φ′ of the laws with a kernel, in vectorised loops.

A law is a kind and at most one parameter: Φ = u; (u⁺)^(m+1)/(m+1); (u − u*)⁺. Constant factors of Φ belong to the
faces.
"""

import numpy as np

from solvers._compiled import inner
from solvers.finite_volume.diffusion._powers import has_integer_power, integer_power, power
from solvers.finite_volume.laws._law_rows import DIFFUSION, POROUS, STEFAN

_Array = np.ndarray


@inner
def spread_parameters(kind: int, values: _Array, spread: _Array, lane: int, width: int) -> None:
    """Writes the parameters of a row to its lane: (m, 1/(m + 1)), or u*."""
    if kind == DIFFUSION:
        return
    for i in range(lane, spread.shape[1], width):
        spread[0, i] = values[0]
        spread[1, i] = 1.0 / (values[0] + 1.0)


@inner
def evaluate_lanes(kind: int, u: _Array, parameters: _Array, potential: _Array, k: _Array) -> None:
    """Φ and k of states with parameters of their own ``(2, states)``."""
    p, scale = parameters[0], parameters[1]
    if kind == POROUS:
        _powers(u, p, k)
        for i in range(u.shape[0]):
            potential[i] = max(u[i], 0.0) * k[i] * scale[i]
    elif kind == STEFAN:
        for i in range(u.shape[0]):
            potential[i] = u[i] - p[i] if u[i] >= p[i] else 0.0 * u[i]
            k[i] = 1.0 if u[i] >= p[i] else 0.0
    else:
        for i in range(u.shape[0]):
            potential[i] = u[i]
            k[i] = 1.0


@inner
def _powers(u: _Array, p: _Array, k: _Array) -> None:
    """(u⁺)^p, by multiplication where p is a small integer."""
    whole, any_whole = True, False
    for i in range(min(8, p.shape[0])):
        integer = has_integer_power(p[i])
        whole, any_whole = whole and integer, any_whole or integer
    if not whole:
        for i in range(u.shape[0]):
            k[i] = power(u[i], p[i])
    if whole:
        for i in range(u.shape[0]):
            k[i] = integer_power(u[i], p[i])
    elif any_whole:
        for i in range(u.shape[0]):
            k[i] = integer_power(u[i], p[i]) if has_integer_power(p[i]) else k[i]


@inner
def evaluate_row(kind: int, parameter: float, u: _Array, potential: _Array) -> None:
    """Φ of the states of one row."""
    scale = 1.0 / (parameter + 1.0)
    if kind == DIFFUSION:
        for i in range(u.shape[0]):
            potential[i] = u[i]
    elif kind == STEFAN:
        for i in range(u.shape[0]):
            potential[i] = u[i] - parameter if u[i] >= parameter else 0.0 * u[i]
    elif has_integer_power(parameter):
        for i in range(u.shape[0]):
            potential[i] = max(u[i], 0.0) * integer_power(u[i], parameter) * scale
    else:
        for i in range(u.shape[0]):
            potential[i] = max(u[i], 0.0) * power(u[i], parameter) * scale


@inner
def conductivity(kind: int, parameter: float, u: float) -> float:
    """k of one state."""
    if kind == DIFFUSION:
        return 1.0
    if kind == STEFAN:
        return 1.0 if u >= parameter else 0.0
    return integer_power(u, parameter) if has_integer_power(parameter) else power(u, parameter)


@inner
def evaluate_with_slope(kind: int, parameter: float, u: _Array, potential: _Array, k: _Array) -> None:
    """Φ and k of the states of one row."""
    evaluate_row(kind, parameter, u, potential)
    for i in range(u.shape[0]):
        k[i] = conductivity(kind, parameter, u[i])
