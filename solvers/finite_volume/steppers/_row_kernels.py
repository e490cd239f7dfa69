"""Step control of a row in compiled loops: allowed errors, accepted steps, their lengths and where they end."""

from math import isfinite
from typing import Any

import numpy as np

from solvers._compiled import compiled, inner

_EPSILON = float(np.finfo(np.float64).eps)
_GROWTH = 2.0
_SMALLEST = 1e-12


@inner
def allowed_error(low: float, high: float, tolerance: float, atol: float) -> float:
    """Allowed mean |error| of a step: tolerance · (max − min) + atol, at least 100 ε max |u|.

    Args:
        low: Smallest value of the cells at start and end and on Dirichlet sides.
        high: The largest.
        tolerance: Relative to the spread.
        atol: Absolute.

    Returns:
        The allowed error.
    """
    return max(tolerance * (high - low) + atol, 100.0 * _EPSILON * max(abs(low), abs(high)))


@inner
def control(ratio: float, order: int, failed_before: Any) -> tuple[bool, float]:
    """Whether a step is accepted, and the factor for the next one; it does not grow right after a failure."""
    accepted = ratio <= 1.0
    if not isfinite(ratio):
        factor = 0.25
    elif ratio == 0.0:
        factor = _GROWTH
    else:
        factor = min(_GROWTH, max(0.2, 0.8 * ratio ** (-1.0 / order)))
    if not accepted:
        return False, min(factor, 0.9)
    return True, min(factor, 1.0) if failed_before else factor


@compiled
def landing(proposal: Any, remaining: Any) -> float:
    """A step without a tiny one before the end."""
    if proposal >= remaining * (1.0 - 1e-9):
        return remaining
    return 0.5 * remaining if proposal > 0.5 * remaining else proposal


@compiled
def end_of_step(time: Any, length: Any, last: Any) -> float:
    """Where a step ends: at the last output if it goes there but for rounding."""
    return last if length >= (last - time) * (1.0 - 1e-12) else time + length


@inner
def next_proposal(accepted: Any, factor: Any, length: Any, proposal: Any) -> float:
    """Next step to propose; a step that was shortened does not make it smaller."""
    following = factor * length
    return max(following, proposal) if accepted and length < proposal else following


@compiled
def smallest_step(time: Any, last: Any) -> float:
    """Length below which a step may not fail."""
    return _SMALLEST * max(abs(time), 1e-4 * (last - time))
