"""Kernels of the shipped laws: see ``march.kernels`` for their arguments."""

import numpy as np
from numba import njit

from solvers.finite_volume.march.kernels import Kernel, carray

_plain = njit(error_model="numpy", forceinline=True)
_ROOT_HALF, _ROUND = 0x3FE6A09E667F3BCD, 6755399441055744.0
_ROUND_BITS, _SMALLEST = int(np.float64(_ROUND).view(np.int64)), float(np.finfo(np.float64).tiny)
_MASK_EXPONENT, _MASK_HIGH = -(1 << 52), -(1 << 27)
# 2/ln 2 · artanh(s)/s in powers of s², and 2^r for |r| ≤ ½, both interpolated at Chebyshev points.
_LOG = (
    2.8853900817779268, 0.9617966939259898, 0.5770780163455203, 0.4121985858409005,
    0.32059853491395984, 0.262334352504183, 0.2209130842311768, 0.2136589569431927,
)  # fmt: skip
_EXP = (
    1.0, 0.6931471805599453, 0.24022650695910158, 0.055504108664821625, 0.009618129107587256, 0.001333355814640647,
    0.00015403530463724353, 1.5252733841556773e-05, 1.3215432535912375e-06, 1.0178057087733941e-07,
    7.074194297288521e-09, 4.4558179083360645e-10,
)  # fmt: skip


@_plain
def power(x, p):
    """x^p for p > 0 by arithmetic on bits, which vectorises, relative error below 1e-14.

    0 for x ≤ 0 and subnormal x, NaN if x is not finite. x = 2^e·m with √½ ≤ m < √2, and p·log₂ x = p·e + p·log₂ m with
    p·e exact in two parts. The result is 2^n·2^r with whole n and |r| ≤ ½, 0 below 2^−1022.5, infinite above 2^1023.5.
    """
    bits = np.float64(x).view(np.int64)
    above = bits - _ROOT_HALF
    exponent = np.int64((above >> 52) + _ROUND_BITS).view(np.float64) - _ROUND
    mantissa = np.int64(bits - (above & _MASK_EXPONENT)).view(np.float64)
    s = (mantissa - 1.0) / (mantissa + 1.0)
    z = s * s
    log = _LOG[6] + z * _LOG[7]
    log = (_LOG[4] + z * _LOG[5]) + (z * z) * log
    log = ((_LOG[0] + z * _LOG[1]) + (z * z) * (_LOG[2] + z * _LOG[3])) + ((z * z) * (z * z)) * log
    high = np.int64(np.float64(p).view(np.int64) & _MASK_HIGH).view(np.float64)
    product = high * exponent
    rest = (p - high) * exponent + p * (s * log)
    total = product + rest
    total = total if total > -1023.0 else -1023.0
    total = total if total < 1024.0 else 1024.0
    whole = total + _ROUND
    r = (product - (whole - _ROUND)) + rest
    z = r * r
    low = (_EXP[0] + r * _EXP[1]) + z * (_EXP[2] + r * _EXP[3])
    middle = (_EXP[4] + r * _EXP[5]) + z * (_EXP[6] + r * _EXP[7])
    upper = (_EXP[8] + r * _EXP[9]) + z * (_EXP[10] + r * _EXP[11])
    scale = np.int64((np.float64(whole).view(np.int64) - _ROUND_BITS + 1023) << 52).view(np.float64)
    y = (low + (z * z) * (middle + (z * z) * upper)) * scale
    return 0.0 if x < _SMALLEST else y + (x - x)


@_plain
def whole_power(x, p):
    """x^p for p = 1, …, 7 by multiplication; 0 for x ≤ 0."""
    base = 0.0 if x < 0.0 else x
    bits, square = int(p), base * base
    first = base if bits & 1 else 1.0
    second = square if bits & 2 else 1.0
    return first * (second * (square * square if bits & 4 else 1.0))


@_plain
def is_whole(p):
    """Whether ``whole_power`` takes this exponent."""
    return p == np.floor(p) and 1.0 <= p <= 7.0


def _linear(u_, _p, w_, _room, flux_, left_, right_, signed_faces, signed):
    faces, apart = abs(signed_faces), abs(signed)
    u, w = carray(u_, faces + apart), carray(w_, faces)
    flux, left, right = carray(flux_, faces), carray(left_, faces), carray(right_, faces)
    after = u[apart:]
    for i in range(faces):
        flux[i] = w[i] * (u[i] - after[i])
    for i in range(faces if signed > 0 else 0):
        left[i], right[i] = w[i], w[i]


@_plain
def _through_faces(phi, k, w_, flux_, left_, right_, faces, signed):
    """Fluxes and derivatives by potentials and conductivities of the cells."""
    w, flux, left, right = carray(w_, faces), carray(flux_, faces), carray(left_, faces), carray(right_, faces)
    phi_after, k_after = phi[abs(signed) :], k[abs(signed) :]
    for i in range(faces):
        flux[i] = w[i] * (phi[i] - phi_after[i])
    for i in range(faces if signed > 0 else 0):
        left[i] = w[i] * k[i]
    for i in range(faces if signed > 0 else 0):
        right[i] = w[i] * k_after[i]


def _porous(u_, p_, w_, workspace_, flux_, left_, right_, signed_faces, signed):
    faces, whole, same = abs(signed_faces), 0, 0
    size = faces + abs(signed)
    x, p, workspace = carray(u_, size), carray(p_, (2, size)), carray(workspace_, (2, size))
    exponent, scale, k, phi = p[0], p[1], workspace[0], workspace[1]
    first, count = exponent[0], size if signed_faces > 0 else 0
    for i in range(count):
        same += 1 if exponent[i] == first else 0
    alike = same == size and is_whole(first)
    for i in range(count if alike else 0):
        phi[i] = max(x[i], 0.0) * whole_power(x[i], first) * scale[i]
    for i in range(count if alike and signed > 0 else 0):
        k[i] = whole_power(x[i], first)
    for i in range(0 if alike else count):
        whole += 1 if is_whole(exponent[i]) else 0
    for i in range(count if whole < size and not alike else 0):
        k[i] = power(x[i], exponent[i])
    for i in range(count if whole > 0 else 0):
        k[i] = whole_power(x[i], exponent[i]) if is_whole(exponent[i]) else k[i]
    for i in range(0 if alike else count):
        phi[i] = max(x[i], 0.0) * k[i] * scale[i]
    _through_faces(phi, k, w_, flux_, left_, right_, faces, signed)


def _stefan(u_, p_, w_, workspace_, flux_, left_, right_, signed_faces, signed):
    faces = abs(signed_faces)
    size = faces + abs(signed)
    u, threshold, workspace = carray(u_, size), carray(p_, size), carray(workspace_, (2, size))
    phi, k = workspace[0], workspace[1]
    for i in range(size if signed_faces > 0 else 0):
        phi[i] = u[i] - threshold[i] if u[i] >= threshold[i] else 0.0 * u[i]
        k[i] = 1.0 if u[i] >= threshold[i] else 0.0
    _through_faces(phi, k, w_, flux_, left_, right_, faces, signed)


def _transport(left_, right_, _before, _after, p_, flux_, speed_, faces, _apart):
    left, right, velocity = carray(left_, faces), carray(right_, faces), carray(p_, faces)
    flux, speed = carray(flux_, faces), carray(speed_, faces)
    for i in range(faces):
        flux[i] = velocity[i] * (left[i] if velocity[i] >= 0.0 else right[i])
    for i in range(faces):
        speed[i] = abs(velocity[i])


def _burgers(left_, right_, before_, after_, _p, flux_, speed_, faces, _apart):
    left, right, flux = carray(left_, faces), carray(right_, faces), carray(flux_, faces)
    before, after, speed = carray(before_, faces), carray(after_, faces), carray(speed_, faces)
    for i in range(faces):
        from_left, from_right = max(left[i], 0.0), min(right[i], 0.0)
        flux[i] = 0.5 * max(from_left * from_left, from_right * from_right)
    for i in range(faces):
        speed[i] = max(max(abs(left[i]), abs(right[i])), max(abs(before[i]), abs(after[i])))


LINEAR, POROUS, STEFAN, TRANSPORT, BURGERS = (
    Kernel(each) for each in (_linear, _porous, _stefan, _transport, _burgers)
)
