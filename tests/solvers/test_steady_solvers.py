"""Linear solvers of steady problems: conjugate gradients against elimination, users' own, messages."""

import importlib.util

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, cg, spsolve

from solvers import CellGrid, Dirichlet, Neumann, Periodic, solve_steady
from solvers.errors import InvalidArgumentError, MissingPackageError, SolverDivergedError
from solvers.steady.linear import ConjugateGradients, Jacobi, Multigrid

PYAMG = importlib.util.find_spec("pyamg") is not None
LINE = CellGrid(0.0, 1.0, 8)
DIRICHLET = (Dirichlet(0.0), Dirichlet(1.0))


class Counting:
    """A preconditioner that counts how often it is applied."""

    def __init__(self, preconditioner):
        self.preconditioner, self.count = preconditioner, 0

    def __call__(self, matrix):
        inverse = self.preconditioner(matrix)

        def apply(vector):
            self.count += 1
            return inverse @ vector

        return LinearOperator(matrix.shape, matvec=apply, dtype=float)  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize(
    "preconditioner",
    [Jacobi, pytest.param(Multigrid, marks=pytest.mark.skipif(not PYAMG, reason="pyamg is not installed"))],
)
@pytest.mark.parametrize("singular", [False, True])
def test_conjugate_gradients_agree_with_elimination(preconditioner, singular):
    """Also for the semi-definite matrix of a problem where only fluxes are given; tolerance times the condition."""
    grid = CellGrid((0.0, 0.0), (1.0, 1.0), (40, 30))
    k = torch.where(
        torch.rand(grid.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) < 0.5, 1.0, 50.0
    )
    last = Neumann(flux=1.0) if singular else Dirichlet(0.0)
    sides = [(Neumann(flux=1.0), last), (Periodic(), Periodic())]
    direct = solve_steady(k, grid, sides)
    counting = Counting(preconditioner())
    iterated = solve_steady(k, grid, sides, solver=ConjugateGradients(preconditioner=counting))
    torch.testing.assert_close(iterated.values, direct.values, rtol=0, atol=1e-8)
    assert counting.count > 1


def test_a_coarse_tolerance_of_conjugate_gradients_saves_iterations():
    grid = CellGrid((0.0, 0.0), (1.0, 1.0), (40, 30))
    k = 1 + 20 * torch.rand(grid.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sides = [(Dirichlet(0.0), Dirichlet(1.0)), (Periodic(), Periodic())]
    exact = solve_steady(k, grid, sides).values
    counts = Counting(Jacobi()), Counting(Jacobi())
    coarse, _ = (
        solve_steady(k, grid, sides, solver=ConjugateGradients(preconditioner=counting, tolerance=tolerance))
        for counting, tolerance in zip(counts, (1e-4, 1e-12), strict=True)
    )
    assert counts[0].count < 0.7 * counts[1].count
    torch.testing.assert_close(coarse.values, exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sides", [DIRICHLET, (Neumann(flux=1.0), Neumann(flux=1.0))])
def test_a_solver_of_scipy_can_be_passed(sides):
    """``spsolve`` returns ``(n,)`` for one right-hand side; round-off of elimination times the condition."""
    k = lambda x: 1 + x  # noqa: E731
    expected = solve_steady(k, LINE, sides).values
    torch.testing.assert_close(solve_steady(k, LINE, sides, solver=spsolve).values, expected, rtol=1e-12, atol=1e-13)
    sources = torch.zeros(3, 8)
    batch = solve_steady(k, LINE, sides, sources, solver=spsolve).values
    torch.testing.assert_close(batch, expected.expand(3, 8), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("solver", "text"),
    [
        (lambda matrix, right: cg(matrix, right[:, 0]), r"an array of the shape of b, \(8, 1\), got tuple"),
        (lambda matrix, right: (matrix @ right)[1:], r"\(8, 1\), got an array \(7, 1\)"),
        (lambda matrix, right: 0 * matrix @ right + np.nan, "numbers that are not finite"),
    ],
)
def test_a_solver_that_returns_no_solution_is_named(solver, text):
    with pytest.raises((InvalidArgumentError, SolverDivergedError), match=text):
        solve_steady(1.0, LINE, DIRICHLET, solver=solver)


def test_wrong_solvers_are_refused():
    with pytest.raises(InvalidArgumentError, match="a tolerance in"):
        ConjugateGradients(preconditioner=Jacobi(), tolerance=0.0)
    with pytest.raises(InvalidArgumentError, match="must be a function from a matrix"):
        solve_steady(1.0, LINE, DIRICHLET, solver="direct")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidArgumentError, match="must be a function from a matrix"):
        solve_steady(1.0, LINE, DIRICHLET, solver=ConjugateGradients)  # pyright: ignore[reportArgumentType]
    with pytest.raises(SolverDivergedError, match="take more iterations"):
        solve_steady(1.0, LINE, DIRICHLET, solver=ConjugateGradients(preconditioner=Jacobi(), iterations=1))


@pytest.mark.skipif(PYAMG, reason="pyamg is installed")
def test_multigrid_without_its_package_names_the_extra():
    with pytest.raises(MissingPackageError, match=r"pip install 'probconserv-boon\[multigrid\]', or leave"):
        Multigrid()
