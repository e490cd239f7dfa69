"""The shortest vector under equations and inequalities, against the conditions of Karush, Kuhn and Tucker."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from linear_operator.operators import DenseLinearOperator

from probconserv import LinearConstraint, LinearInequality, NonlinearLaw, condition, truncate
from probconserv._linalg.gaussian import FieldGaussian
from probconserv.errors import DependentConstraintsError, InfeasibleConstraintError
from probconserv.inequalities.least_norm import least_norm


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@example(size=4, k=3, m=2, scale=1e-6, seed=2)
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
    rounding = 1e-13 * (size_of + np.abs(multipliers).sum())  # nearly dependent rows have large multipliers
    assert z @ z <= np.linalg.norm(z) * np.linalg.norm(feasible) + rounding * size_of  # zᵀ(z − feasible) = λᵀ(0 ± ε)
    assert np.abs(rows.T @ multipliers - z).max() <= rounding
    assert np.abs(E @ z - goal).max(initial=0.0) <= 1e-11 * size_of
    assert (A @ z - limits).min(initial=0.0) >= -1e-11 * size_of
    assert (forces >= 0).all()
    assert np.abs((A @ z - limits)[forces > 0]).max(initial=0.0) <= 1e-11 * size_of


def test_redundant_inequalities_are_no_obstacle() -> None:
    A = unit(np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [1.0, -1.0]]))
    z, multipliers = least_norm(np.zeros((0, 2)), np.zeros(0), A, np.array([1.0, 1.0, 0.5, 0.5]))
    # Rows of length 1 are rounded, and so are the sums and quotients of a system of two of them: some ten roundings.
    assert np.allclose(z, [1.0, 0.0], rtol=0, atol=4e-15)
    assert np.allclose(A.T @ multipliers, z, rtol=0, atol=4e-15)


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


@pytest.mark.parametrize("deviation", [1.0, 1e-2])
@pytest.mark.parametrize("seed", range(4))
def test_equations_given_as_pairs_of_inequalities_are_met_far_from_zero(deviation: float, seed: int) -> None:
    """Temperatures around 300: C u is rounded to ε 300, many times what rounding is to deviations from the mean."""
    n, generator = 24, torch.Generator().manual_seed(seed)
    x = torch.linspace(0, 1, n, dtype=torch.float64)
    normals = torch.randn(2, n, dtype=torch.float64, generator=generator)
    mean, rows = 300 + deviation * normals[0], torch.rand(3, n, dtype=torch.float64, generator=generator) / n
    prior = FieldGaussian(mean, DenseLinearOperator(deviation**2 * torch.exp(-(x[:, None] - x).abs() / 0.3)))
    totals = rows @ (mean + deviation * normals[1])
    pairs = LinearInequality(torch.cat([rows, -rows]), torch.cat([totals, -totals]))
    expected = condition(prior, LinearConstraint(rows, totals)).mean
    torch.testing.assert_close(truncate(prior, pairs).mode, expected, rtol=0, atol=1e-10)
    law = NonlinearLaw(residual_function=lambda u: u[:, :1].square() - (mean[0] + deviation) ** 2, points=n)
    found, together = (condition(prior, law & rest).search for rest in (pairs, LinearConstraint(rows, totals)))
    torch.testing.assert_close(found.field, together.field, rtol=0, atol=1e-9)
