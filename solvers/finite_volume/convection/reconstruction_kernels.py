"""Kernels of reconstructions along lines of cells, and their limiters.

They release the interpreter lock, so that groups of a batch can run on several threads.
"""

from functools import lru_cache
from typing import Any

from solvers._compiled import compiled
from solvers.finite_volume.march.kernels import Kernel, carray


@compiled
def minmod(a: float, b: float) -> float:
    """The smaller slope if both agree in sign, else 0."""
    if a * b <= 0.0:
        return 0.0
    return a if abs(a) < abs(b) else b


@compiled
def van_leer(a: float, b: float) -> float:
    """Harmonic mean of slopes that agree in sign, else 0."""
    return 0.0 if a * b <= 0.0 else 2.0 * a * b / (a + b)


@compiled
def monotonized_central(a: float, b: float) -> float:
    """The central slope, at most twice the smaller one, if both agree in sign, else 0."""
    if a * b <= 0.0:
        return 0.0
    size = min(0.5 * abs(a + b), 2.0 * abs(a), 2.0 * abs(b))
    return size if a > 0.0 else -size


LIMITERS = (minmod, van_leer, monotonized_central)


@lru_cache
def slopes(limiter: Any) -> Kernel:
    """The kernel of half slopes, as ``march.kernels`` states it; that of a user's limiter is not kept on disk."""

    def half_slopes(v_, _b, _c, _d, half_, _f, _g, count, apart):
        v, half = carray(v_, count + 2 * apart), carray(half_, count)
        middle, after = v[apart:], v[2 * apart :]
        for i in range(count):
            half[i] = 0.5 * limiter(middle[i] - v[i], after[i] - middle[i])

    return Kernel(half_slopes, cache=limiter in LIMITERS)
