"""Compiled Kirchhoff potentials Φ and conductivities k = Φ′ of the laws with a kernel, and powers x^p for them.

A law is a kind and at most one parameter: Φ = u; (u⁺)^(m+1)/(m+1); (u − u*)⁺. Constant factors of Φ belong to the
faces. Loops over arrays vectorise, and give the same bits in every lane and in the tail.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from solvers._compiled import compiled, inner
from solvers.finite_volume._kernels import Array
from solvers.finite_volume.laws._law_rows import DIFFUSION, POROUS, STEFAN

_BITS = ir.IntType(64)
_intrinsic: Any = intrinsic
_MASK_EXPONENT = -(1 << 52)
_ROOT_HALF = 0x3FE6A09E667F3BCD
_MASK_HIGH = -(1 << 27)
_ROUND = 6755399441055744.0
_SMALLEST = float(np.finfo(np.float64).tiny)
# 2/ln 2 · artanh(s)/s in powers of s², and 2^r for |r| ≤ ½, both interpolated at Chebyshev points.
_LOG = (
    2.8853900817779268,
    0.9617966939259898,
    0.5770780163455203,
    0.4121985858409005,
    0.32059853491395984,
    0.262334352504183,
    0.2209130842311768,
    0.2136589569431927,
)
_EXP = (
    1.0,
    0.6931471805599453,
    0.24022650695910158,
    0.055504108664821625,
    0.009618129107587256,
    0.001333355814640647,
    0.00015403530463724353,
    1.5252733841556773e-05,
    1.3215432535912375e-06,
    1.0178057087733941e-07,
    7.074194297288521e-09,
    4.4558179083360645e-10,
)
_LARGEST_INTEGER = 7


@_intrinsic
def _to_bits(_: Any, _value: Any) -> Any:
    """The bits of a float64 as int64."""
    return types.int64(types.float64), lambda _c, builder, _s, args: builder.bitcast(args[0], _BITS)


@_intrinsic
def _from_bits(_: Any, _value: Any) -> Any:
    """The float64 with the bits of an int64."""
    return types.float64(types.int64), lambda _c, builder, _s, args: builder.bitcast(args[0], ir.DoubleType())


@compiled(forceinline=True)
def power(x: float, p: float) -> float:
    """x^p for p > 0, relative error below 1e-14; 0 for x ≤ 0 and subnormal x, NaN if x is not finite.

    x = 2^e·m with √½ ≤ m < √2, and p·log₂ x = p·e + p·log₂ m with p·e exact in two parts. The result is 2^n·2^r with
    integer n and |r| ≤ ½, 0 below 2^−1022.5 and infinite above 2^1023.5.
    """
    bits = _to_bits(x)
    above = bits - _ROOT_HALF
    exponent = _from_bits((above >> 52) + _to_bits(_ROUND)) - _ROUND
    mantissa = _from_bits(bits - (above & _MASK_EXPONENT))
    s = (mantissa - 1.0) / (mantissa + 1.0)
    z = s * s
    log = _LOG[6] + z * _LOG[7]
    log = (_LOG[4] + z * _LOG[5]) + (z * z) * log
    log = ((_LOG[0] + z * _LOG[1]) + (z * z) * (_LOG[2] + z * _LOG[3])) + ((z * z) * (z * z)) * log
    high = _from_bits(_to_bits(p) & _MASK_HIGH)
    product = high * exponent
    rest = (p - high) * exponent + p * (s * log)
    total = product + rest
    total = total if total > -1023.0 else -1023.0
    total = total if total < 1024.0 else 1024.0
    whole = total + _ROUND
    r = (product - (whole - _ROUND)) + rest
    y = _exp2(r) * _from_bits((_to_bits(whole) - _to_bits(_ROUND) + 1023) << 52)
    return 0.0 if x < _SMALLEST else y + (x - x)


@compiled(forceinline=True)
def _exp2(r: float) -> float:
    """2^r for |r| ≤ ½."""
    z = r * r
    low = (_EXP[0] + r * _EXP[1]) + z * (_EXP[2] + r * _EXP[3])
    middle = (_EXP[4] + r * _EXP[5]) + z * (_EXP[6] + r * _EXP[7])
    high = (_EXP[8] + r * _EXP[9]) + z * (_EXP[10] + r * _EXP[11])
    return low + (z * z) * (middle + (z * z) * high)


@compiled(forceinline=True)
def integer_power(x: float, p: float) -> float:
    """x^p for p = 1, …, 7 by multiplication; 0 for x ≤ 0."""
    base = 0.0 if x < 0.0 else x
    square = base * base
    bits = int(p)
    first = base if bits & 1 else 1.0
    second = square if bits & 2 else 1.0
    third = square * square if bits & 4 else 1.0
    return first * (second * third)


@compiled(forceinline=True)
def has_integer_power(p: float) -> bool:
    """Whether ``integer_power`` takes this exponent."""
    return p == np.floor(p) and 1.0 <= p <= _LARGEST_INTEGER


@inner
def spread_parameters(kind: int, values: Array, spread: Array, lane: int, width: int) -> None:
    """Writes the parameters of a row to its lane: (m, 1/(m + 1)), or u*."""
    if kind == DIFFUSION:
        return
    for i in range(lane, spread.shape[1], width):
        spread[0, i] = values[0]
        spread[1, i] = 1.0 / (values[0] + 1.0)


@inner
def evaluate_lanes(kind: int, u: Array, parameters: Array, potential: Array, k: Array) -> None:
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
def _powers(u: Array, p: Array, k: Array) -> None:
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
def evaluate_row(kind: int, parameter: float, u: Array, potential: Array) -> None:
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
def evaluate_with_slope(kind: int, parameter: float, u: Array, potential: Array, k: Array) -> None:
    """Φ and k of the states of one row."""
    evaluate_row(kind, parameter, u, potential)
    for i in range(u.shape[0]):
        k[i] = conductivity(kind, parameter, u[i])
