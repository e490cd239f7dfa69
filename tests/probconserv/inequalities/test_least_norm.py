"""The shortest vector under equations and inequalities, against the conditions of Karush, Kuhn and Tucker."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probconserv.errors import DependentConstraintsError, InfeasibleConstraintError
from probconserv.inequalities.least_norm import least_norm


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@given(st.integers(1, 12), st.integers(0, 3), st.integers(0, 25), st.floats(1e-6, 1.0), st.integers(0, 2**31))
def test_result_meets_the_optimality_conditions(size: int, k: int, m: int, scale: float, seed: int) -> None:
    """z = Eᵀ λ + Aᵀ μ, E z = e, A z ≥ b, μ ≥ 0 and μ = 0 off the walls are sufficient, as the problem is convex."""
    rng = np.random.default_rng(seed)
    axes = scale ** rng.random(size)  # long and short axes
    E, A = unit(rng.normal(size=(min(k, size - 1), size)) * axes), unit(rng.normal(size=(m, size)) * axes)
    feasible = 2 * rng.normal(size=size)
    goal, limits = E @ feasible, A @ feasible - rng.exponential(size=m) * (rng.random(m) < 0.7)
    z, multipliers = least_norm(E, goal, A, limits)
    rows, forces = np.concatenate([E, A]), multipliers[len(E) :]
    size_of = 1 + np.abs(limits).max(initial=0.0) + np.linalg.norm(feasible)  # rounding is relative to it
    assert np.linalg.norm(z) <= np.linalg.norm(feasible) * (1 + 1e-12)
    assert np.abs(rows.T @ multipliers - z).max() <= 1e-13 * (size_of + np.abs(multipliers).sum())
    assert np.abs(E @ z - goal).max(initial=0.0) <= 1e-11 * size_of
    assert (A @ z - limits).min(initial=0.0) >= -1e-11 * size_of
    assert (forces >= 0).all()
    assert np.abs((A @ z - limits)[forces > 0]).max(initial=0.0) <= 1e-11 * size_of


def test_redundant_inequalities_are_no_obstacle() -> None:
    A = unit(np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [1.0, -1.0]]))
    z, multipliers = least_norm(np.zeros((0, 2)), np.zeros(0), A, np.array([1.0, 1.0, 0.5, 0.5]))
    assert np.allclose(z, [1.0, 0.0], rtol=0, atol=1e-15)
    assert np.allclose(A.T @ multipliers, z, rtol=0, atol=1e-15)


@pytest.mark.parametrize("gap", [1e-6, 1.0])
def test_contradictions_are_named(gap: float) -> None:
    A = np.array([[1.0, 0.0], [-1.0, 0.0]])
    with pytest.raises(InfeasibleConstraintError, match="No vector meets"):
        least_norm(np.zeros((0, 2)), np.zeros(0), A, np.array([1.0, gap - 1.0]))
    with pytest.raises(InfeasibleConstraintError, match="No vector meets"):
        least_norm(A[:1], np.array([1.0 - gap]), A, np.array([1.0, -9.0]))


def test_dependent_equations_are_named() -> None:
    E = unit(np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1e-9]]))
    with pytest.raises(DependentConstraintsError, match="2 rows are not independent"):
        least_norm(E, np.ones(2), np.zeros((0, 3)), np.zeros(0))
