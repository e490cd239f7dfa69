"""Solvers of the symmetric linear systems of steady problems."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator, cg, splu

from solvers.errors import InvalidArgumentError, MissingPackageError, SolverDivergedError

_ATTAINABLE = 100 * np.finfo(float).eps  # what round-off leaves of a residual, relative to its terms
_REDUCTION = 1e-8  # of the residual at most, between two times that it is computed anew


class Preconditioner(ABC):
    """An approximate inverse of a symmetric positive definite matrix."""

    @abstractmethod
    def operator(self, matrix: sparse.csr_array) -> LinearOperator:
        """The approximate inverse of a matrix ``(n, n)`` as a symmetric positive definite operator."""


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
        MissingPackageError: If ``pyamg`` is not installed.
    """

    def __post_init__(self) -> None:
        if find_spec("pyamg") is None:
            raise MissingPackageError(
                "Multigrid() needs pyamg; pip install 'probconserv-boon[multigrid]', or take Jacobi()."
            )

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
    """Sparse LU factorisation with one step of iterative refinement.

    u is exact to round-off, a flux to round-off of k u/h. Where a layer of low conductivity lets little through, fluxes
    in the cells around it have a relative error of some 1e-16 times the ratio of the conductivities; those through
    the faces of the layer keep their digits.
    """

    def solve(self, matrix: sparse.csr_array, right: np.ndarray) -> tuple[np.ndarray, int]:
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
        return x, 0


@dataclass(frozen=True, kw_only=True)
class ConjugateGradients(LinearSolver):
    """Preconditioned conjugate gradients with iterative refinement, for systems too large to factorise.

    Fluxes lose digits by the ratio of the conductivities as with ``Direct``.

    Args:
        preconditioner: ``Multigrid()`` by default if ``pyamg`` is installed, else ``Jacobi()``.
        tolerance: Largest residual of a cell relative to the sizes of its terms, so that cells of low conductivity
            count as much as others.
        iterations: Largest number of iterations.

    Raises:
        InvalidArgumentError: If the tolerance is below 1e-14 or not below 1, or iterations is below 1.
    """

    preconditioner: Preconditioner = field(default_factory=default_preconditioner)
    tolerance: float = 1e-12
    iterations: int = 10_000

    def __post_init__(self) -> None:
        if not 1e-14 <= self.tolerance < 1 or self.iterations < 1:
            raise InvalidArgumentError(
                "ConjugateGradients needs a tolerance in [1e-14, 1) and at least one iteration, got tolerance "
                f"{self.tolerance} and {self.iterations} iterations."
            )

    def solve(self, matrix: sparse.csr_array, right: np.ndarray) -> tuple[np.ndarray, int]:
        inverse = self.preconditioner.operator(matrix)
        results = [self._solve_column(matrix, column, inverse) for column in right.T]
        return np.stack([x for x, _ in results], axis=1), max(count for _, count in results)

    def _solve_column(
        self, matrix: sparse.csr_array, right: np.ndarray, inverse: LinearOperator
    ) -> tuple[np.ndarray, int]:
        x, steps = np.zeros_like(right), []
        while not _is_solution(matrix, x, right, self.tolerance):
            left = self.iterations - len(steps)
            if left <= 0:
                raise SolverDivergedError(
                    f"Conjugate gradients did not reach a residual of {self.tolerance:g} in {self.iterations} "
                    "iterations; take more iterations, Multigrid() as preconditioner, or Direct()."
                )
            residual = right - matrix @ x
            reduction = max(_REDUCTION, self.tolerance)
            x = x + cg(matrix, residual, rtol=reduction, atol=0.0, maxiter=left, M=inverse, callback=steps.append)[0]
            steps.append(x)  # a start costs about as much as an iteration
        return x, len(steps)


def _is_solution(matrix: sparse.csr_array, x: np.ndarray, right: np.ndarray, tolerance: float) -> bool:
    """Whether |b − A x| ≤ tolerance · (|A| |x| + |b|) in every row: the componentwise backward error."""
    return bool((np.abs(right - matrix @ x) <= tolerance * (abs(matrix) @ np.abs(x) + np.abs(right))).all())
