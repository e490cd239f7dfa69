"""Coefficients of the explicit schemes: SSPRK3 (Shu and Osher 1988), and RKL2, where ``courant`` is 0.

Both have stages Y_j = Y₀ + μ (Y_{j−1} − Y₀) + ν (Y_{j−2} − Y₀) + Δt (c f_{j−1} + γ f₀), and an odd number of them.
"""

import numpy as np

from solvers._compiled import inner


@inner
def stages_for(steps: float) -> float:
    """Fewest stages, odd and at least 3, of a stable step of so many stable Euler steps: s allow (s² + s − 2)/4."""
    stages = np.ceil(0.5 * (np.sqrt(9.0 + 16.0 * steps) - 1.0))
    return max(stages + 1.0 - stages % 2.0, 3.0)


@inner
def ssp_parts(j: int) -> tuple[float, float]:
    """Parts of the state at the start and of Euler's step in stage j ≥ 1 of SSPRK3 (Shu and Osher 1988)."""
    return (0.0, 1.0) if j == 1 else (0.75, 0.25) if j == 2 else (1.0 / 3.0, 2.0 / 3.0)


@inner
def ssp_node(j: int) -> float:
    """Fraction of the step that stage j of SSPRK3 has reached."""
    return 0.0 if j == 0 else 1.0 if j == 1 else 0.5


@inner
def ssp_weight(j: int) -> float:
    """Weight of the rates at stage j of SSPRK3 in a step."""
    return 2.0 / 3.0 if j == 2 else 1.0 / 6.0


@inner
def node(courant: float, j: int, stages: float) -> float:
    """Fraction of the step that stage j has reached."""
    if courant > 0.0:
        return ssp_node(j)
    if j < 2:
        return j * (4.0 / 3.0) / (stages * stages + stages - 2.0)
    return min((j * j + j - 2.0) / (stages * stages + stages - 2.0), 1.0)


@inner
def quadrature(courant: float, j: int, stages: float) -> float:
    """Weight of the data at stage j in their time integral: that of the rates of SSPRK3, or of the trapezoidal rule."""
    if courant > 0.0:
        return ssp_weight(j)
    before = node(courant, max(j - 1, 0), stages)
    after = node(courant, j + 1, stages) if j < stages else 1.0
    return 0.5 * (after - before)


@inner
def _legendre(k: int) -> float:
    """b of stage k (Meyer, Balsara and Aslam 2014, eqs. 16 and 17)."""
    return 1.0 / 3.0 if k < 2 else (k * k + k - 2.0) / (2.0 * k * (k + 1.0))


@inner
def weights(courant: float, j: int, stages: float) -> tuple[float, float, float, float]:
    """μ, ν, c and γ of stage j ≥ 1: Shu and Osher (1988), or Meyer, Balsara and Aslam (2014)."""
    if courant > 0.0:
        part = ssp_parts(j)[1]
        return part, 0.0, part, 0.0
    scale = 4.0 / (stages * stages + stages - 2.0)
    if j == 1:
        return 1.0, 0.0, scale / 3.0, 0.0
    b, before, earlier = _legendre(j), _legendre(j - 1), _legendre(j - 2)
    mu = (2.0 * j - 1.0) / j * b / before
    return mu, (1.0 - j) / j * b / earlier, mu * scale, (before - 1.0) * mu * scale


@inner
def middle_stage(stages: float) -> int:
    """The stage nearest to half of the step."""
    return int(max(np.rint(stages / 2**0.5), 2.0))
