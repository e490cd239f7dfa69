"""Kernels of reconstructions along lines of cells, their limiters, and the parabola beyond a side with a given state.

They release the interpreter lock, so that groups of a batch can run on several threads.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from solvers._compiled import compiled, inner
from solvers.finite_volume._kernels import KERNEL, Array, kernel, written_kernel


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


_LANES = 8
LIMITERS = (minmod, van_leer, monotonized_central)


@lru_cache
def slopes_kernel(limiter: Any) -> Any:
    """A kernel (cells → half the limited slopes of ``count`` cells), with neighbours ``stride`` apart."""
    ours = limiter in LIMITERS
    name = f"slopes_{limiter.__name__}" if ours else "slopes"
    return written_kernel(name, _SLOPES, {"limiter": limiter}, cache=ours)


_SLOPES = (
    "for k in range(count):",
    "    out[k] = 0.5 * limiter(a[k + stride] - a[k], a[k + 2 * stride] - a[k + stride])",
)


@inner
def largest(values: Array, start: int, count: int) -> float:
    """Largest of some entries, in lanes that vectorise."""
    lanes, full = np.empty(_LANES), count // _LANES * _LANES
    for lane in range(_LANES):
        lanes[lane] = values[start]
    for k in range(0, full, _LANES):
        for lane in range(_LANES):
            lanes[lane] = max(lanes[lane], values[start + k + lane])
    for k in range(full, count):
        lanes[0] = max(lanes[0], values[start + k])
    result = lanes[0]
    for lane in range(1, _LANES):
        result = max(result, lanes[lane])
    return result


@compiled
def weno5(v: tuple[float, float, float, float, float], scale: float) -> float:
    """State at the right face of the middle one of five cells (Jiang and Shu 1996), ε = 1e-6/scale."""
    a, b, c, d, e = v
    smooth0 = 13.0 / 12.0 * (a - 2.0 * b + c) ** 2 + 0.25 * (a - 4.0 * b + 3.0 * c) ** 2
    smooth1 = 13.0 / 12.0 * (b - 2.0 * c + d) ** 2 + 0.25 * (b - d) ** 2
    smooth2 = 13.0 / 12.0 * (c - 2.0 * d + e) ** 2 + 0.25 * (3.0 * c - 4.0 * d + e) ** 2
    size0, size1, size2 = 1e-6 + scale * smooth0, 1e-6 + scale * smooth1, 1e-6 + scale * smooth2
    weight0, weight1, weight2 = 0.1 / (size0 * size0), 0.6 / (size1 * size1), 0.3 / (size2 * size2)
    change0 = 2.0 * a - 7.0 * b + 5.0 * c
    change1 = -b - c + 2.0 * d
    change2 = -4.0 * c + 5.0 * d - e
    changes = weight0 * change0 + weight1 * change1 + weight2 * change2
    return c + changes / (6.0 * (weight0 + weight1 + weight2))


@kernel(KERNEL)
def weno(a: Any, _b: Any, low: Any, high: Any, scale: Any, count: Any, apart: Any) -> None:
    """Fifth-order states at both ends of ``count`` cells, two behind the first one of ``a``, with neighbours apart.

    ``scale`` is scratch for 1/(max − min)² of every line, or 0 for a constant.
    """
    for j in range(apart):
        least, most = a[j], a[j]
        for i in range(j, count + 4 * apart, apart):
            least, most = min(least, a[i]), max(most, a[i])
        scale[j] = 0.0 if most == least else 1.0 / ((most - least) * (most - least))
    lines, each = (1, count) if apart == 1 else (count // apart, apart)
    for line in range(lines):
        for j in range(each):
            k, size = line * each + j, scale[j if apart > 1 else 0]
            v = a[k], a[k + apart], a[k + 2 * apart], a[k + 3 * apart], a[k + 4 * apart]
            low[k] = weno5((v[4], v[3], v[2], v[1], v[0]), size)
            high[k] = weno5(v, size)


@compiled
def parabola(state: float, first: float, second: float, size: float) -> tuple[float, float]:
    """Slope a and curvature b of g + a x + b x² through the state g at a side and the averages of two inner cells.

    x counts cells from the side. b fades where it exceeds the slope at the side, as at a shock next to it, by a smooth
    weight that is 1 to fourth order otherwise; the parabola keeps the state and the first average.
    """
    slope = 2.0 * (first - state)
    curvature = 0.75 * (second - first - slope)
    ratio = curvature * curvature / (slope * slope + 1e-6 * size * size + 1e-300)
    curvature /= 1.0 + ratio * ratio
    return slope - curvature * (2.0 / 3.0), curvature
