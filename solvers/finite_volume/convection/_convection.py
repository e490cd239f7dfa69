"""Convection −∇·f(u, x, t) on rows: reconstruction, closure at the sides and numerical flux, axis by axis."""

from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.errors import InvalidArgumentError
from solvers.finite_volume._kernels import Array, RecordKernel, rates_of
from solvers.finite_volume.convection import _convection_kernels as kernels
from solvers.finite_volume.convection.schemes import Godunov, NumericalFlux, Reconstruction, Rusanov, fastest
from solvers.finite_volume.laws._law_rows import kernel_of, on_rows
from solvers.finite_volume.laws._scalar_kernels import riemann_kernel
from solvers.finite_volume.laws.scalar import ScalarConvection
from solvers.finite_volume.sides._side_data import GIVEN_FLUX, PERIODIC
from solvers.grids import CellGrid


@dataclass(frozen=True)
class ConvectionTerm:
    """−∇·f of a convective law on the rows of a batch.

    A side with a state takes that state as the outer state of its face, so it acts where characteristics enter. Its
    ghost cells continue the solution through that state, by a straight line for MUSCL and a limited parabola for WENO.
    Measured with an inflow that changes with time: order 2 of the mean error for MUSCL, above 3 for WENO. SSPRK3 takes
    the data at the times of its stages; with steps in proportion to the cells that leaves WENO at order 3 in the mean
    and 2 in the maximum. Where a gradient or Robin condition sets the inflow, the order is 1. Outflow and a given flux
    repeat the edge cell: first order in that cell, second order in the mean. With more
    than one axis the mean flux of a face is that at its centre: second order.

    Args:
        law: Law on the rows (``LawRows``).
        grid: The cells.
        sides: Modes, pulls and offsets of the sides (``SideData``).
        flux: Numerical flux.
        reconstruction: States at faces.

    Raises:
        InvalidArgumentError: If a periodic axis has fewer cells than the reconstruction has ghost cells.
    """

    law: Any
    grid: CellGrid
    sides: Any
    flux: NumericalFlux
    reconstruction: Reconstruction

    def __post_init__(self) -> None:
        for axis, count in enumerate(self.grid.count):
            if self.sides.modes[2 * axis] == PERIODIC and count < self.reconstruction.ghosts:
                raise InvalidArgumentError(
                    f"{type(self.reconstruction).__name__} needs at least {self.reconstruction.ghosts} cells along a "
                    f"periodic axis, got {count} along axis {axis}; use a finer grid."
                )

    @cached_property
    def _law_kernel(self) -> tuple[int, Array] | None:
        if isinstance(self.law.law, ScalarConvection):
            return self._scalar_kernel
        return kernel_of(self.law) if type(self.flux) is Godunov else None

    @property
    def _scalar_kernel(self) -> tuple[int, Array] | None:
        """The address of the kernel of a user's flux f(u), and its parameters; None if it depends on x or t."""
        part, godunov = self.law.law, type(self.flux) is Godunov
        if part.arguments.placed or part.arguments.timed or not (godunov or type(self.flux) is Rusanov):
            return None
        if godunov and part.stationary is None:
            return None
        rows = self.law.at(0.0).parameters
        kernel = riemann_kernel(rows.call("flux"), part.stationary if godunov else None, part.inflection)
        values = [np.zeros((self.law.rows, 0)), *(on_rows(v, self.law.rows)[:, None] for v in rows.arguments.values)]
        self.__dict__["_kept"] = kernel
        return kernel.address, np.concatenate(values, 1)

    @cached_property
    def kernel(self) -> RecordKernel | None:
        """The compiled rates; None if there are none for law or flux."""
        if self._law_kernel is None:
            return None
        spacing, (_, parameters) = np.array(self.grid.spacing), self._law_kernel
        area, (plan, work) = spacing.prod() / spacing, self._plan
        return RecordKernel(kernels.rates, plan, spacing, area, self.sides.pull, parameters, work)

    @cached_property
    def _plan(self) -> tuple[Array, Array]:
        """Law, reconstruction, blocks of cells and sides as integers, and scratch, for the compiled functions."""
        kind, parameters = self._law_kernel or (0, np.zeros((1, 0)))
        shape, ghosts = self.grid.shape, self.reconstruction.ghosts
        blocks = [(prod(shape[:axis]), n, prod(shape[axis + 1 :])) for axis, n in enumerate(shape)]
        head = kind, ghosts, self.reconstruction.address, len(shape), self.sides.offsets[-1], parameters.shape[1]
        plan = np.concatenate((head, np.ravel(blocks), self.sides.modes, self.sides.offsets)).astype(np.int64)
        return plan, np.zeros(kernels.SEGMENTS * max((n + 2 * ghosts) * apart for _, n, apart in blocks))

    def take(self, index: Array) -> "ConvectionTerm":
        """The term of some of the rows."""
        part, law = replace(self, law=self.law.take(index), sides=self.sides.take(index)), self._law_kernel
        part.__dict__["_law_kernel"] = None if law is None else (law[0], law[1][index])
        return part

    def rate(self, u: Array, data: Array, t: Array) -> tuple[Array, Array, Array]:
        """du/dt ``(rows, cells)``, fluxes through the whole sides along +axis ``(rows, 2d)``, and speed ``(rows,)``.

        By cell averages ``(rows, cells)`` and side data ``(rows, S)`` at times ``(rows,)``. The speed is in cells per
        time: Σ over the axes of max |f′|/h, over the states between neighbouring and reconstructed states of every
        face.
        """
        if self.kernel is not None:
            rate, flow = rates_of(self.kernel, u, data, 2 * self.grid.dimension)
            return rate, flow[:, :-3], flow[:, -2]
        rows, dimension = u.shape[0], self.grid.dimension
        change, speed = torch.zeros((rows, *self.grid.shape), dtype=torch.float64), np.zeros(rows)
        through = np.empty((rows, 2 * dimension))
        with torch.no_grad():
            for axis, h in enumerate(self.grid.spacing):
                flux, fast = self._axis_flux(u, data, t, axis)
                change -= flux.diff(dim=1 + axis) / h
                speed += fast.reshape(rows, -1).amax(-1).numpy() / h
                area = prod(self.grid.spacing) / h
                for end in (0, -1):
                    side = np.ascontiguousarray(flux.select(1 + axis, end).reshape(rows, -1).numpy())
                    through[:, 2 * axis - end] = area * side.sum(-1)
        return change.reshape(rows, -1).numpy(), through, speed

    def _axis_flux(self, u: Array, data: Array, t: Array, axis: int) -> tuple[Tensor, Tensor]:
        """Fluxes through the faces of an axis and the largest speed at each, ``(rows, *faces)``."""
        faces = tuple(n + (other == axis) for other, n in enumerate(self.grid.shape))
        given = np.ascontiguousarray(u), np.ascontiguousarray(data)
        found = kernels.face_states(*given, axis, self._plan[0], np.ascontiguousarray(self.sides.pull), self._plan[1])
        left, right, before, after = torch.from_numpy(found).reshape(4, len(u), *faces)
        law = self.law.at(t, axis)
        flux = self.flux.flux(law, left, right)
        for side, end in ((2 * axis, 0), (2 * axis + 1, -1)):
            if self.sides.modes[side] == GIVEN_FLUX:
                part = data[:, self.sides.offsets[side] : self.sides.offsets[side + 1]]
                through = flux.select(1 + axis, end)
                through.copy_(torch.from_numpy(part).reshape(through.shape))
        if self.sides.modes[2 * axis] == PERIODIC:
            flux.select(1 + axis, -1).copy_(flux.select(1 + axis, 0))
        low = torch.minimum(torch.minimum(before, after), torch.minimum(left, right))
        high = torch.maximum(torch.maximum(before, after), torch.maximum(left, right))
        return flux, fastest(law, low, high)
