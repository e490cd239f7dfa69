"""Solvers of the symmetric linear systems of steady problems."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from math import isfinite

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator, cg, splu

from solvers.errors import InvalidArgumentError, SolverDivergedError

_ATTAINABLE = 1e3 * np.finfo(float).eps  # residual that round-off leaves, relative to ‖A‖ ‖x‖ + ‖b‖


class Preconditioner(ABC):
    """An approximate inverse of a symmetric positive definite matrix."""

    @abstractmethod
    def operator(self, matrix: sparse.csr_array) -> LinearOperator:
        """The approximate inverse as a symmetric positive definite operator.

        Args:
            matrix: The matrix ``(n, n)``.
        """


@dataclass(frozen=True)
class Jacobi(Preconditioner):
    """The inverse of the diagonal: cheap, but the number of iterations grows with the number of cells per axis."""

    def operator(self, matrix: sparse.csr_array) -> LinearOperator:
        scale = matrix.diagonal()
        scale = 1 / np.where(scale > 0, scale, 1.0)
        return aslinearoperator(sparse.diags_array(scale))


@dataclass(frozen=True)
class Multigrid(Preconditioner):
    """One V-cycle of smoothed-aggregation algebraic multigrid (Vaněk, Mandel, Brezina 1996), by ``pyamg``.

    Raises:
        InvalidArgumentError: If ``pyamg`` is not installed.
    """

    def __post_init__(self) -> None:
        if find_spec("pyamg") is None:
            raise InvalidArgumentError("Multigrid() needs pyamg; pip install pyamg, or take Jacobi().")

    def operator(self, matrix: sparse.csr_array) -> LinearOperator:
        hierarchy = import_module("pyamg").smoothed_aggregation_solver(sparse.csr_matrix(matrix))
        return hierarchy.aspreconditioner(cycle="V")


def default_preconditioner() -> Preconditioner:
    """``Multigrid()`` where ``pyamg`` is installed, ``Jacobi()`` elsewhere."""
    return Jacobi() if find_spec("pyamg") is None else Multigrid()


class LinearSolver(ABC):
    """Solves A x = b for a symmetric positive definite A."""

    @abstractmethod
    def solve(self, matrix: sparse.csr_array, right: np.ndarray) -> tuple[np.ndarray, int]:
        """Solves for several right-hand sides.

        Args:
            matrix: A ``(n, n)``.
            right: b ``(n, r)``.

        Returns:
            x ``(n, r)`` and the largest number of iterations, 0 for a direct solver.

        Raises:
            SolverDivergedError: If the residual is larger than asked for.
        """


@dataclass(frozen=True)
class Direct(LinearSolver):
    """Sparse LU factorisation with one step of iterative refinement."""

    def solve(self, matrix: sparse.csr_array, right: np.ndarray) -> tuple[np.ndarray, int]:
        factors = splu(
            sparse.csc_matrix(matrix),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
        x = factors.solve(right)
        x += factors.solve(right - matrix @ x)
        _check_residual(matrix, x, right, _ATTAINABLE, "a larger ratio of conductivities than float64 can resolve")
        return x, 0


@dataclass(frozen=True, kw_only=True)
class ConjugateGradients(LinearSolver):
    """Preconditioned conjugate gradients, for systems too large to factorise.

    Args:
        preconditioner: ``Multigrid()`` by default if ``pyamg`` is installed, else ``Jacobi()``.
        tolerance: Norm of the residual relative to that of the right-hand side.
        iterations: Largest number of iterations.

    Raises:
        InvalidArgumentError: If the tolerance is not in (0, 1) or iterations is below 1.
    """

    preconditioner: Preconditioner = field(default_factory=default_preconditioner)
    tolerance: float = 1e-12
    iterations: int = 10_000

    def __post_init__(self) -> None:
        if not (isfinite(self.tolerance) and 0 < self.tolerance < 1) or self.iterations < 1:
            raise InvalidArgumentError(
                "ConjugateGradients needs a tolerance in (0, 1) and at least one iteration, got tolerance "
                f"{self.tolerance} and {self.iterations} iterations."
            )

    def solve(self, matrix: sparse.csr_array, right: np.ndarray) -> tuple[np.ndarray, int]:
        inverse = self.preconditioner.operator(matrix)
        x, most = np.zeros_like(right), 0
        for column in range(right.shape[1]):
            x[:, column], count = self._solve_column(matrix, right[:, column], inverse)
            most = max(most, count)
        _check_residual(matrix, x, right, self.tolerance + _ATTAINABLE, "more iterations, or Direct()")
        return x, most

    def _solve_column(
        self, matrix: sparse.csr_array, right: np.ndarray, inverse: LinearOperator
    ) -> tuple[np.ndarray, int]:
        count = _Counter()
        x, failed = cg(matrix, right, rtol=self.tolerance, atol=0.0, maxiter=self.iterations, M=inverse, callback=count)
        if failed:
            raise SolverDivergedError(
                f"Conjugate gradients did not reach a residual of {self.tolerance:g} in {self.iterations} iterations; "
                "take more iterations, Multigrid() as preconditioner, or Direct()."
            )
        return x, count.calls


@dataclass
class _Counter:
    """Counts its calls."""

    calls: int = 0

    def __call__(self, _: np.ndarray) -> None:
        self.calls += 1


def _check_residual(matrix: sparse.csr_array, x: np.ndarray, right: np.ndarray, allowed: float, remedy: str) -> None:
    """Raises an error unless ‖b − A x‖ ≤ allowed · (‖A‖ ‖x‖ + ‖b‖) in the largest norm, for every column."""
    residual = np.abs(right - matrix @ x).max(axis=0)
    scale = abs(matrix).sum(axis=1).max() * np.abs(x).max(axis=0) + np.abs(right).max(axis=0)
    if not bool((residual <= allowed * scale).all()):
        raise SolverDivergedError(
            f"The linear system was solved to a residual of {residual.max():.3g} only, which is more than "
            f"{allowed:.1g} of its terms; this needs {remedy}."
        )
