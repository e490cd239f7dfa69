"""Newton's method for one implicit stage: tridiagonal along one axis, sparse with more."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import splu
from torch import Tensor

from solvers.errors import InvalidArgumentError
from solvers.finite_volume import _kernels as kernels
from solvers.finite_volume._semi_discretisation import DiffusiveScheme, Fluxes, divergence
from solvers.finite_volume.boundary import Periodic
from solvers.finite_volume.fluxes import FaceFlux


@dataclass(frozen=True)
class Newton:
    """Stopping criterion of Newton's iteration.

    Args:
        tolerance: The iteration has converged when no cell changes by more than this fraction of the largest |u| of
            its batch entry. The last change uses linearised fluxes, so the neglected term is quadratic in it.
        iterations: Largest number of iterations; then the step is rejected and halved.

    Raises:
        InvalidArgumentError: If one of them is not positive.
    """

    tolerance: float = 1e-4
    iterations: int = 20

    def __post_init__(self) -> None:
        if not (self.tolerance > 0 and self.iterations > 0):
            raise InvalidArgumentError(
                f"Newton needs tolerance > 0 and iterations > 0, got {self.tolerance} and {self.iterations}."
            )


@dataclass(frozen=True)
class Stage:
    """The implicit equation u + s ∇·F(u, time) = r.

    Args:
        right: r ``(*batch, *space)``.
        coefficient: s ≥ 0, in units of time.
        time: Time of the fluxes.
        scale: Size of the solution per batch entry ``(*batch,)``, for the tolerance.
    """

    right: Tensor
    coefficient: float
    time: float
    scale: Tensor


@dataclass(frozen=True)
class StageSolution:
    """Solution u of a stage with fluxes such that u = r − s ∇·F.

    Attributes:
        u: Cell averages ``(*batch, *space)``.
        fluxes: Face fluxes along every axis.
        residual: Largest |residual| before the last iteration.
        converged: Whether the iteration converged.
    """

    u: Tensor
    fluxes: Fluxes
    residual: float
    converged: bool


def solve_stage(scheme: DiffusiveScheme, stage: Stage, guess: Tensor, newton: Newton) -> StageSolution:
    """Solves an implicit stage with Newton's method and the analytic Jacobian.

    Args:
        scheme: Law, grid and boundary conditions.
        stage: The equation.
        guess: First iterate ``(*batch, *space)``.
        newton: Stopping criterion.

    Returns:
        The solution, converged or not.
    """
    allowed = newton.tolerance * stage.scale.reshape(-1)
    iterate = _iterate_tridiagonal if scheme.grid.dimension == 1 else _iterate_sparse
    u, fluxes, residual = guess.clone(memory_format=torch.contiguous_format), (), float("nan")
    for _ in range(newton.iterations):
        u, fluxes, change, residual = iterate(scheme, stage, u)
        if not bool(torch.isfinite(change).all()):
            break
        if bool((change <= allowed).all()):
            return StageSolution(u, fluxes, residual, converged=True)
    return StageSolution(u, fluxes, residual, converged=False)


def _iterate_tridiagonal(scheme: DiffusiveScheme, stage: Stage, u: Tensor) -> tuple[Tensor, Fluxes, Tensor, float]:
    (faces,) = scheme.linearise(u, stage.time)
    parts = _rows(faces.value), _rows(faces.by_left), _rows(faces.by_right)
    periodic = isinstance(scheme.sides[0][0].condition, Periodic)
    scale = stage.coefficient / scheme.grid.spacing[0]
    change, residual = kernels.newton_step(_rows(u), _rows(stage.right), parts, scale, periodic)
    return u, (faces.value,), torch.from_numpy(change), float(residual.max())


def _rows(field: Tensor) -> np.ndarray:
    return field.view(-1, field.shape[-1]).numpy()


def _iterate_sparse(scheme: DiffusiveScheme, stage: Stage, u: Tensor) -> tuple[Tensor, Fluxes, Tensor, float]:
    faces = scheme.linearise(u, stage.time)
    residual = u - stage.right + stage.coefficient * divergence(tuple(face.value for face in faces), scheme.grid)
    count = int(np.prod(scheme.grid.shape))
    rows, columns, entries = _jacobian(scheme, stage.coefficient, faces)
    step = np.empty((entries.shape[0], count))
    for b, right in enumerate(residual.reshape(-1, count).numpy()):
        if not (np.isfinite(entries[b]).all() and np.isfinite(right).all()):
            return u, (), torch.full((1,), float("nan")), float("nan")
        matrix = csc_matrix((entries[b], (rows, columns)), shape=(count, count))
        step[b] = splu(matrix, permc_spec="MMD_AT_PLUS_A").solve(-right)
    delta = torch.from_numpy(step).reshape(u.shape)
    fluxes = tuple(_advance(scheme, face, delta, axis) for axis, face in enumerate(faces))
    change = torch.from_numpy(np.abs(step).max(-1))
    return (
        stage.right - stage.coefficient * divergence(fluxes, scheme.grid),
        fluxes,
        change,
        float(residual.abs().max()),
    )


def _jacobian(
    scheme: DiffusiveScheme, coefficient: float, faces: tuple[FaceFlux, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns ``(entries,)`` and values ``(batch, entries)`` of ∂(u + s ∇·F)/∂u; repeated entries add up."""
    shape, dimension = scheme.grid.shape, scheme.grid.dimension
    cells = torch.arange(int(np.prod(shape))).reshape(shape)
    diagonal = torch.ones(faces[0].value.shape[:-dimension] + shape, dtype=torch.float64)
    rows, columns, entries = [], [], []
    for axis, face in enumerate(faces):
        dim, count, scale = axis - dimension, shape[axis], coefficient / scheme.grid.spacing[axis]
        diagonal += scale * (face.by_left.narrow(dim, 1, count) - face.by_right.narrow(dim, 0, count))
        start = 0 if isinstance(scheme.sides[axis][0].condition, Periodic) else 1
        inside = cells.narrow(axis, start, count - start)
        before = cells.roll(1, axis).narrow(axis, start, count - start)
        by_left = -scale * face.by_left.narrow(dim, start, count - start)
        by_right = scale * face.by_right.narrow(dim, start, count - start)
        rows += [inside, before]
        columns += [before, inside]
        entries += [by_left, by_right]
    rows, columns = [cells, *rows], [cells, *columns]
    values = [
        part.flatten(part.ndim - dimension).reshape(-1, index.numel())
        for part, index in zip([diagonal, *entries], rows, strict=True)
    ]
    return (
        torch.cat([index.reshape(-1) for index in rows]).numpy(),
        torch.cat([index.reshape(-1) for index in columns]).numpy(),
        torch.cat(values, -1).numpy(),
    )


def _advance(scheme: DiffusiveScheme, face: FaceFlux, delta: Tensor, axis: int) -> Tensor:
    """Linearised flux F + L δ_left + R δ_right along one axis."""
    dim = axis - scheme.grid.dimension
    first, last = delta.narrow(dim, 0, 1), delta.narrow(dim, delta.shape[dim] - 1, 1)
    if not isinstance(scheme.sides[axis][0].condition, Periodic):
        first, last = torch.zeros_like(first), torch.zeros_like(last)
    left, right = torch.cat((last, delta), dim), torch.cat((delta, first), dim)
    return face.value + face.by_left * left + face.by_right * right
