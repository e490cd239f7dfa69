"""Diffusion ∇·(k(u, x, t) ∇u) on rows: rates and implicit stages."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np

from solvers.finite_volume._kernels import NO_RECORD, Array, RecordKernel, rates_of
from solvers.finite_volume.diffusion import _diffusion_kernels as kernels
from solvers.finite_volume.diffusion._face_diffusion import FaceDiffusion
from solvers.finite_volume.diffusion._gradient_kernels import solve_rows_by_gradients
from solvers.finite_volume.diffusion._newton_kernels import BY_FACES, Medium
from solvers.finite_volume.diffusion.face_means import FaceMean, IntegralMean
from solvers.finite_volume.diffusion.newton import Newton, Reaction, Stage, StageSolution
from solvers.finite_volume.laws._law_rows import kernel_of, on_rows, tile_record
from solvers.finite_volume.laws._scalar_kernels import faces_kernel
from solvers.finite_volume.laws.coefficients import Values
from solvers.finite_volume.laws.scalar import ScalarDiffusion
from solvers.grids import CellGrid


class Padding(NamedTuple):
    """Places of the cells in a flat array padded by one ghost cell at each end of every axis.

    Attributes:
        size: Length of the array.
        strides: Distances of neighbours along every axis ``(d,)``.
        lines: Places of the first cells of all lines along the last axis.
        ghost: Places of the ghost cells at the S faces of the sides.
        edge: Places of the cells at these faces.
        opposite: Places of the cells at the opposite ends of the axes.
    """

    size: int
    strides: Array
    lines: Array
    ghost: Array
    edge: Array
    opposite: Array


@lru_cache(maxsize=32)
def padding_of(shape: tuple[int, ...]) -> Padding:
    """The padding of cells ``(*shape)``."""
    places = np.arange(np.prod([n + 2 for n in shape])).reshape([n + 2 for n in shape])
    inside, at_sides = [slice(1, -1)] * len(shape), []
    for axis in range(len(shape)):
        for at in ((0, 1, -2), (-1, -2, 1)):
            at_sides.append([places[(*inside[:axis], index, *inside[axis + 1 :])].reshape(-1) for index in at])
    strides = np.array([n // places.itemsize for n in places.strides])
    lines = np.ascontiguousarray(places[(*inside[:-1], 1)].reshape(-1))
    return Padding(places.size, strides, lines, *(np.concatenate(part) for part in zip(*at_sides, strict=True)))


@dataclass(frozen=True, eq=False)
class DiffusionTerm:
    """∇·(k ∇u) of a diffusive law on the rows of a batch, in conservation form.

    A side with a state is closed through Φ over the half cell: the flux is that between the state and the cell.

    Args:
        law: Law on the rows (``LawRows``).
        grid: The cells.
        sides: Modes, pulls and offsets of the sides (``SideData``).
        face_mean: Mean of the conductivity at faces.
        newton: Stopping criterion of Newton's iteration.
    """

    law: Any
    grid: CellGrid
    sides: Any
    face_mean: FaceMean
    newton: Newton

    @property
    def compiled(self) -> bool:
        """Whether the law has kernels."""
        return self._compiled_law is not None

    def take(self, index: Array) -> "DiffusionTerm":
        """The term of some of the rows."""
        part = replace(self, law=self.law.take(index), sides=self.sides.take(index))
        law = self._compiled_law
        part.__dict__["_compiled_law"] = None if law is None else (law[0], *(each[index] for each in law[1:]))
        return part

    def rate(self, u: Array, data: Array, t: Array) -> tuple[Array, Array]:
        """Rate −∇·F ``(rows, cells)`` and fluxes through the whole sides along +axis ``(rows, 2d)``.

        By cell averages ``(rows, cells)`` and data of the sides ``(rows, S)`` at times ``(rows,)``.
        """
        if self.kernel is None:
            return self._faces.rate(u, data, t)
        rate, flow = rates_of(self.kernel, u, data, 2 * self.grid.dimension)
        return rate, flow[:, :-3]

    def radius(self, u: Array, data: Array, t: Array | None = None) -> Array:
        """Bound ``(rows,)`` of the spectral radius of ∂rate/∂u; Euler steps up to 2/radius are stable.

        Times are needed if the law depends on time.
        """
        if self.kernel is not None:
            return 2.0 * rates_of(self.kernel, u, data, 2 * self.grid.dimension, bound=True)[1][:, -1]
        assert t is not None or not self.law.varies_in_time
        return self._faces.radius(u, data, np.zeros(len(u)) if t is None else t)

    def solve(self, stage: Stage, reaction: Reaction | None = None) -> StageSolution:
        """Solves an implicit stage along several axes by Newton's method, row by row."""
        rows = np.arange(len(stage.right))
        reaction = reaction or Reaction(0, rows)
        if not self.compiled:
            return self._faces.solve(stage, self.newton.iterations, reaction)
        each = stage.right, stage.guess, stage.data, stage.s, stage.allowed
        info = np.stack((reaction.rows.astype(float), stage.t, np.ones(len(rows))), 1)
        sources = reaction.source, info, NO_RECORD
        results, report = solve_rows_by_gradients(each, self.newton.iterations, *self.parts, sources)
        return StageSolution(*results, *report)

    def medium_with(self, address: Callable[..., int]) -> Medium:
        """Law and sides for the kernels of stages along one axis; ``address`` makes a kernel of a Python function."""
        sides = self.sides.modes, self.sides.pull, self.grid.spacing[0]
        if self.compiled:
            kind, parameters, coefficient, faces = self._compiled_law
            weights = np.ascontiguousarray(faces[:, 0, 1:]) if faces.shape[1] else coefficient
            return Medium(kind, parameters, weights, *sides, 0, 0, (NO_RECORD, NO_RECORD))
        ones, kernel = np.ones((self.law.rows, 1)), self._scalar_faces
        if kernel is not None:
            return Medium(BY_FACES, ones, ones, *sides, kernel.address, 0, (kernel.record, NO_RECORD))
        faces = address(self._faces.linearise_tile, rates=True)
        return Medium(BY_FACES, ones, ones, *sides, faces, 0, (NO_RECORD, NO_RECORD))

    @cached_property
    def _scalar_faces(self) -> RecordKernel | None:
        """The compiled fluxes along one axis of a user's scalar functions."""
        if not (isinstance(self.law.law, ScalarDiffusion) and isinstance(self.face_mean, IntegralMean)):
            return None
        part, inverse = self.law.at(0.0, 0).parameters, self._faces.inverse[0].numpy().reshape(-1)
        return tile_record(faces_kernel(*part.calls), part, self.law.rows, inverse)

    @cached_property
    def _faces(self) -> FaceDiffusion:
        return FaceDiffusion(self.law, self.grid, self.sides, self.face_mean)

    @cached_property
    def _compiled_law(self) -> Any:
        """Kind, parameters ``(rows, 1)``, coefficients ``(rows, 1)`` and on padded faces ``(rows, d, padded)``, for the
        kernels; None if they do not know the law.
        """
        kernel, rows = kernel_of(self.law) if isinstance(self.face_mean, IntegralMean) else None, self.law.rows
        if kernel is None:
            return None
        kind, parameters = kernel
        parameters = parameters if parameters.shape[1] else np.zeros((rows, 1))
        diffusivity = getattr(self.law.at(0.0).parameters, "diffusivity", 1.0)
        if isinstance(diffusivity, Values):
            return kind, parameters, np.ones((rows, 1)), self._padded_faces()
        return kind, parameters, on_rows(diffusivity, rows)[:, None], np.empty((rows, 0, 0))

    def _padded_faces(self) -> Array:
        """Diffusivities on the faces; that below a cell is at the place of the cell."""
        d = self.grid.dimension
        padded = np.zeros((self.law.rows, d, *[n + 2 for n in self.grid.shape]))
        for axis in range(d):
            inside = tuple(slice(1, None if other == axis else -1) for other in range(d))
            padded[(slice(None), axis, *inside)] = self.law.at(0.0, axis).parameters.diffusivity.values.numpy()
        return padded.reshape(self.law.rows, d, -1)

    @cached_property
    def kernel(self) -> RecordKernel | None:
        """The compiled rates; None if the law has none."""
        if not self.compiled:
            return None
        kind, parameters, coefficient, faces = self._compiled_law
        padding, sides, spacing, d = (
            padding_of(self.grid.shape),
            self.sides,
            np.array(self.grid.spacing),
            self.grid.dimension,
        )
        steepest = coefficient[:, 0] * (1.0 / (spacing * spacing)).sum()
        if faces.shape[1]:
            steepest = steepest * faces.reshape(len(faces), -1).max(1)
        inside, last = np.zeros(padding.size, np.int64), self.grid.shape[-1]
        inside[padding.lines[:, None] + np.arange(last)] = np.arange(len(padding.lines) * last).reshape(-1, last)
        places = padding.lines, padding.ghost, padding.edge, padding.opposite, inside[padding.edge], padding.strides
        numbers = spacing, parameters, coefficient, steepest, sides.pull, faces
        work = np.zeros(padding.size + 2 * len(padding.edge) + d)
        head = np.array([kind, d, padding.size, faces.shape[1]])
        return RecordKernel(kernels.rates, head, sides.modes, sides.offsets, *places, *numbers, work)

    @cached_property
    def parts(self) -> Any:
        """Law, sides and grid for the conjugate gradients."""
        padding, spacing = padding_of(self.grid.shape), np.array(self.grid.spacing)
        edges = np.asarray(self.sides.offsets), padding.ghost, padding.edge, padding.opposite
        sides = edges, np.asarray(self.sides.modes), np.ascontiguousarray(self.sides.pull)
        return self._compiled_law, sides, (padding.lines, padding.size, padding.strides, spacing)
