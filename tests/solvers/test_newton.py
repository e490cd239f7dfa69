"""One implicit stage: the tridiagonal and the sparse route, against dense algebra."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import CellGrid, Dirichlet, IntegralMean, InvalidArgumentError, Neumann, Newton, Periodic, PorousMedium
from solvers.finite_volume._semi_discretisation import DiffusiveScheme, divergence
from solvers.finite_volume._sides import make_sides
from solvers.finite_volume.newton import Stage, _iterate_sparse, _iterate_tridiagonal, solve_stage

PAIRS = [(Dirichlet(0.8), Neumann(gradient=-0.2)), (Periodic(), Periodic()), (Neumann(flux=0.1), Dirichlet(0.2))]


def porous_scheme(conditions, shape):
    grid = CellGrid((0.0,) * len(shape), (1.0,) * len(shape), shape)
    return DiffusiveScheme(PorousMedium(1.5), grid, make_sides(conditions, grid.spacing), IntegralMean())


def random_stage(shape, seed, coefficient=0.3):
    right = 0.1 + torch.rand((2, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Stage(right, coefficient, 0.0, torch.ones(2, dtype=torch.float64))


def dense_newton_step(scheme, stage, u):
    """Oracle: the Jacobian of u + s ∇·F by central differences of the residual, solved densely."""

    def residual(v):
        values, _ = scheme.fluxes(v, stage.time)
        return v + stage.coefficient * divergence(values, scheme.grid) - stage.right

    count = u[0].numel()
    columns = []
    for k in range(count):
        shift = torch.zeros_like(u).reshape(-1, count)
        shift[:, k] = 1e-6
        shift = shift.reshape(u.shape)
        columns.append(((residual(u + shift) - residual(u - shift)) / 2e-6).reshape(-1, count))
    jacobian = torch.stack(columns, -1)
    return u - torch.linalg.solve(jacobian, residual(u).reshape(-1, count)).reshape(u.shape)


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(PAIRS), st.integers(3, 12), st.integers(0, 1000))
def test_tridiagonal_and_sparse_iterations_match_dense_algebra(pair, n, seed):
    """Differences of step 1e-6 carry errors of some 1e-9, magnified by the Jacobian's condition (below 10³ here)."""
    scheme, stage = porous_scheme((pair,), (n,)), random_stage((n,), seed)
    expected = dense_newton_step(scheme, stage, stage.right)
    banded, banded_fluxes, _, _ = _iterate_tridiagonal(scheme, stage, stage.right.clone())
    sparse, sparse_fluxes, _, _ = _iterate_sparse(scheme, stage, stage.right.clone())
    assert torch.allclose(banded, expected, atol=1e-6)
    assert torch.allclose(sparse, banded, rtol=1e-10, atol=1e-10)
    assert torch.allclose(sparse_fluxes[0], banded_fluxes[0], rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=15)
@given(st.sampled_from(PAIRS), st.sampled_from(PAIRS), st.integers(3, 5), st.integers(3, 5), st.integers(0, 1000))
def test_two_dimensional_iteration_matches_dense_algebra(first, second, nx, ny, seed):
    scheme, stage = porous_scheme((first, second), (nx, ny)), random_stage((nx, ny), seed)
    actual, fluxes, _, _ = _iterate_sparse(scheme, stage, stage.right.clone())
    assert torch.allclose(actual, dense_newton_step(scheme, stage, stage.right), atol=1e-6)
    balance = stage.right - stage.coefficient * divergence(fluxes, scheme.grid)
    assert torch.equal(actual, balance)


@pytest.mark.parametrize("shape", [(12,), (4, 5)])
def test_solution_meets_the_nonlinear_equation(shape):
    scheme = porous_scheme((PAIRS[0],) * len(shape), shape)
    stage = random_stage(shape, 3, coefficient=0.05)
    solution = solve_stage(scheme, stage, stage.right, Newton(tolerance=1e-7))
    values, _ = scheme.fluxes(solution.u, 0.0)
    assert solution.converged
    residual = solution.u + stage.coefficient * divergence(values, scheme.grid) - stage.right
    assert float(residual.abs().max()) < 1e-9


def test_iteration_that_is_given_up_says_so():
    scheme, stage = porous_scheme((PAIRS[0],), (12,)), random_stage((12,), 3)
    assert not solve_stage(scheme, stage, stage.right, Newton(tolerance=1e-12, iterations=1)).converged
    broken = stage.right.clone()
    broken[0, 3] = float("nan")
    assert not solve_stage(scheme, stage, broken, Newton()).converged


def test_message():
    with pytest.raises(InvalidArgumentError, match="tolerance > 0 and iterations > 0"):
        Newton(tolerance=0.0)
