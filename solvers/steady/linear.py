"""Solvers of the symmetric linear systems of steady problems: functions of matrix and right-hand sides."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator, cg, splu

from solvers.errors import InvalidArgumentError, MissingPackageError, SolverDivergedError

LinearSolver = Callable[[sparse.csr_array, np.ndarray], Any]  # an array; scipy's functions have no such annotation
"""Solves A x = b: x ``(n, r)`` from a symmetric positive definite A ``(n, n)`` and b ``(n, r)``."""

Preconditioner = Callable[[sparse.csr_array], LinearOperator]
"""An approximate inverse of a matrix ``(n, n)`` as a symmetric positive definite operator."""

_ATTAINABLE = 100 * np.finfo(float).eps  # what round-off leaves of a residual, relative to its terms
_REDUCTION = 1e-8  # of the residual at most, between two times that it is computed anew


@dataclass(frozen=True)
class Direct:
    """Sparse LU factorisation with one step of iterative refinement."""

    def __call__(self, matrix: sparse.csr_array, right: np.ndarray) -> np.ndarray:
        """x ``(n, r)``; SolverDivergedError if its residual is larger than round-off."""
        factors = splu(
            sparse.csc_matrix(matrix),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
        x = factors.solve(right)
        x += factors.solve(right - matrix @ x)
        if not _is_solution(matrix, x, right, _ATTAINABLE):
            raise SolverDivergedError(
                "Elimination did not solve the linear system to round-off; the ratio of the conductivities is larger "
                "than float64 resolves."
            )
        return x


@dataclass(frozen=True)
class Jacobi:
    """The inverse of the diagonal: cheap, but the number of iterations grows with the number of cells per axis."""

    def __call__(self, matrix: sparse.csr_array) -> LinearOperator:
        scale = matrix.diagonal()
        scale = 1 / np.where(scale > 0, scale, 1.0)
        return aslinearoperator(sparse.diags_array(scale))


@dataclass(frozen=True)
class Multigrid:
    """One V-cycle of smoothed-aggregation algebraic multigrid (Vaněk, Mandel, Brezina 1996), by ``pyamg``.

    Raises:
        MissingPackageError: If ``pyamg`` is not installed.
    """

    def __post_init__(self) -> None:
        if find_spec("pyamg") is None:
            raise MissingPackageError(
                "Multigrid() needs pyamg; pip install 'probconserv-boon[multigrid]', or leave preconditioner= out."
            )

    def __call__(self, matrix: sparse.csr_array) -> LinearOperator:
        hierarchy = import_module("pyamg").smoothed_aggregation_solver(sparse.csr_matrix(matrix))
        return hierarchy.aspreconditioner(cycle="V")


@dataclass(frozen=True, kw_only=True)
class ConjugateGradients:
    """Preconditioned conjugate gradients with iterative refinement, for systems too large to factorise.

    Fluxes lose digits by the ratio of the conductivities: see ``solve_steady``.

    Args:
        tolerance: Largest residual of a cell relative to the sizes of its terms, so that cells of low conductivity
            count as much as others.
        iterations: Largest number of iterations.
        preconditioner: A function from the matrix, a ``scipy.sparse.csr_array`` ``(n, n)``, to a symmetric positive
            definite ``LinearOperator`` near its inverse. By default one V-cycle of algebraic multigrid if ``pyamg`` is
            installed, else the inverse of the diagonal, with which the number of iterations grows with the number of
            cells an axis.

    Raises:
        InvalidArgumentError: If the tolerance is below 1e-14 or not below 1, or iterations is below 1.
    """

    tolerance: float = 1e-12
    iterations: int = 10_000
    preconditioner: Preconditioner | None = None

    def __post_init__(self) -> None:
        if not 1e-14 <= self.tolerance < 1 or self.iterations < 1:
            raise InvalidArgumentError(
                "ConjugateGradients needs a tolerance in [1e-14, 1) and at least one iteration, got tolerance "
                f"{self.tolerance} and {self.iterations} iterations."
            )

    def __call__(self, matrix: sparse.csr_array, right: np.ndarray) -> np.ndarray:
        """x ``(n, r)``; SolverDivergedError if the iterations do not reach the tolerance."""
        precondition = self.preconditioner or (Jacobi() if find_spec("pyamg") is None else Multigrid())
        inverse = precondition(matrix)
        return np.stack([self._solve_column(matrix, column, inverse) for column in right.T], axis=1)

    def _solve_column(self, matrix: sparse.csr_array, right: np.ndarray, inverse: LinearOperator) -> np.ndarray:
        x, steps = np.zeros_like(right), []
        while not _is_solution(matrix, x, right, self.tolerance):
            left = self.iterations - len(steps)
            if left <= 0:
                raise SolverDivergedError(
                    f"Conjugate gradients did not reach a residual of {self.tolerance:g} in {self.iterations} "
                    "iterations; take more iterations, install pyamg for a better preconditioner, or pass "
                    "scipy.sparse.linalg.spsolve as solver."
                )
            residual = right - matrix @ x
            reduction = max(_REDUCTION, self.tolerance)
            x = x + cg(matrix, residual, rtol=reduction, atol=0.0, maxiter=left, M=inverse, callback=steps.append)[0]
            steps.append(x)  # a start costs about as much as an iteration
        return x


def _is_solution(matrix: sparse.csr_array, x: np.ndarray, right: np.ndarray, tolerance: float) -> bool:
    """True if |b − A x| ≤ tolerance · (|A| |x| + |b|) in every row: the componentwise backward error."""
    return bool((np.abs(right - matrix @ x) <= tolerance * (abs(matrix) @ np.abs(x) + np.abs(right))).all())
