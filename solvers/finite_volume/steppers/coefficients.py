"""Coefficients of SSPRK3 (Shu and Osher 1988) for systems."""

from solvers._compiled import inner


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
