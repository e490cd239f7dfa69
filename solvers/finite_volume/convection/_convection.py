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
from solvers.finite_volume.convection.numerical_fluxes import Godunov, NumericalFlux, Rusanov, fastest
from solvers.finite_volume.convection.reconstruction import MUSCL, WENO, Constant, Reconstruction
from solvers.finite_volume.convection.reconstruction_kernels import inflow_ghosts
from solvers.finite_volume.laws._law_rows import kernel_of, on_rows
from solvers.finite_volume.laws._scalar_kernels import riemann_kernel
from solvers.finite_volume.laws.scalar import ScalarConvection
from solvers.finite_volume.sides._side_data import GIVEN_FLUX, PERIODIC, STATE
from solvers.grids import CellGrid


@dataclass(frozen=True)
class Axis:
    """Cells along one axis, moved last, and what lies beyond its two sides.

    Attributes:
        extended: Averages with ghost cells ``(rows, *face, n + 2 ghosts)``.
        outer: States next to the first and last face outside the domain ``(rows, *face)`` each.
        cells: Averages ``(rows, *face, n)``.
    """

    extended: Tensor
    outer: tuple[Tensor, Tensor]
    cells: Tensor

    def bounds(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Smallest and largest of the neighbouring averages and the reconstructed states of every face."""
        before = torch.cat((self.outer[0][..., None], self.cells), -1)
        after = torch.cat((self.cells, self.outer[1][..., None]), -1)
        low = torch.minimum(torch.minimum(before, after), torch.minimum(left, right))
        high = torch.maximum(torch.maximum(before, after), torch.maximum(left, right))
        return low, high


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
        if type(self.reconstruction) not in (Constant, MUSCL, WENO):
            return None
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
        """The compiled rates; None if there are none for law, flux or reconstruction."""
        if self._law_kernel is None:
            return None
        kind, parameters = self._law_kernel
        shape, spacing, ghosts = self.grid.shape, np.array(self.grid.spacing), self.reconstruction.ghosts
        blocks = [(prod(shape[:axis]), n, prod(shape[axis + 1 :])) for axis, n in enumerate(shape)]
        slopes = self.reconstruction.address
        head = kind, ghosts, slopes, len(shape), self.sides.offsets[-1], parameters.shape[1]
        plan = np.concatenate((head, np.ravel(blocks), self.sides.modes, self.sides.offsets)).astype(np.int64)
        work = np.zeros(kernels.SEGMENTS * max((n + 2 * ghosts) * apart for _, n, apart in blocks))
        area = spacing.prod() / spacing
        return RecordKernel(kernels.rates, plan, spacing, area, self.sides.pull, parameters, work)

    def take(self, index: Array) -> "ConvectionTerm":
        """The term of some of the rows."""
        part, law = replace(self, law=self.law.take(index), sides=self.sides.take(index)), self._law_kernel
        part.__dict__["_law_kernel"] = None if law is None else (law[0], law[1][index])
        return part

    def rate(self, u: Array, data: Array, t: Array) -> tuple[Array, Array, Array]:
        """Time derivative, fluxes through the sides, and speed.

        Args:
            u: Cell averages ``(rows, cells)``.
            data: Side data ``(rows, S)``.
            t: Times ``(rows,)``.

        Returns:
            du/dt ``(rows, cells)``, the flux through every whole side along +axis ``(rows, 2d)``, and cells crossed
            per time ``(rows,)``: Σ over the axes of max |f′|/h, with max |f′| over the states between neighbouring
            and reconstructed states of every face.
        """
        if self.kernel is not None:
            rate, flow = rates_of(self.kernel, u, data, 2 * self.grid.dimension)
            return rate, flow[:, :-3], flow[:, -2]
        rows, dimension = u.shape[0], self.grid.dimension
        field = torch.from_numpy(u).reshape(rows, *self.grid.shape)
        change, speed = torch.zeros_like(field), np.zeros(rows)
        through = np.empty((rows, 2 * dimension))
        with torch.no_grad():
            for axis, h in enumerate(self.grid.spacing):
                flux, fast = self._axis_flux(field, data, t, axis)
                change -= flux.diff(dim=1 + axis) / h
                speed += fast.reshape(rows, -1).amax(-1).numpy() / h
                area = prod(self.grid.spacing) / h
                for end in (0, -1):
                    side = np.ascontiguousarray(flux.select(1 + axis, end).reshape(rows, -1).numpy())
                    through[:, 2 * axis - end] = area * side.sum(-1)
        return change.reshape(rows, -1).numpy(), through, speed

    def _axis_flux(self, field: Tensor, data: Array, t: Array, axis: int) -> tuple[Tensor, Tensor]:
        """Fluxes through the faces of an axis and the largest speed at each, ``(rows, *faces)``."""
        modes = [int(mode) for mode in self.sides.modes[2 * axis : 2 * axis + 2]]
        line = self._extend(field.movedim(1 + axis, -1), data, axis)
        left, right = self.reconstruction.states(line.extended)
        left, right = left.clone(), right.clone()
        for mode, states, end in zip(modes, (left, right), (0, -1), strict=True):
            if mode == STATE:
                states[..., end] = line.outer[end]
        law = self.law.at(t, axis)
        states = [part.movedim(-1, 1 + axis) for part in (left, right, *line.bounds(left, right))]
        flux = self.flux.flux(law, states[0], states[1])
        for mode, end in zip(modes, (0, -1), strict=True):
            if mode == GIVEN_FLUX:
                flux.select(1 + axis, end).copy_(self._data(data, axis, end, line.cells))
        if modes[0] == PERIODIC:
            flux.select(1 + axis, -1).copy_(flux.select(1 + axis, 0))
        return flux, fastest(law, states[2], states[3])

    def _extend(self, cells: Tensor, data: Array, axis: int) -> Axis:
        """Ghost cells and outer states of both sides of an axis."""
        count, parts, outer = self.reconstruction.ghosts, [], []
        for end in (0, -1):
            mode = int(self.sides.modes[2 * axis - end])
            inwards = cells if end == 0 else cells.flip(-1)
            if mode == PERIODIC:
                state = inwards[..., -1]
                beyond = inwards[..., -count:].flip(-1)
            elif mode == STATE:
                pull = torch.from_numpy(self.sides.pull[:, 2 * axis - end]).reshape(-1, *[1] * (cells.ndim - 2))
                state = self._data(data, axis, end, cells) + pull * inwards[..., 0]
                beyond = _ghosts(state, inwards, count)
            else:
                state = inwards[..., 0]
                beyond = state[..., None].expand(*state.shape, count)
            outer.append(state)
            parts.append(beyond.flip(-1) if end == 0 else beyond)
        return Axis(torch.cat((parts[0], cells, parts[1]), -1), (outer[0], outer[1]), cells)

    def _data(self, data: Array, axis: int, end: int, cells: Tensor) -> Tensor:
        """Data of a side ``(rows, *face)``."""
        side = 2 * axis - end
        part = data[:, self.sides.offsets[side] : self.sides.offsets[side + 1]]
        return torch.from_numpy(part).reshape(cells.shape[:-1])


def _ghosts(state: Tensor, inwards: Tensor, count: int) -> Tensor:
    """Averages beyond a side with a state, from the side outwards."""
    lines = inwards.reshape(-1, inwards.shape[-1]).contiguous()
    ghosts = inflow_ghosts(state.reshape(-1).contiguous().numpy(), lines.numpy(), count)
    return torch.from_numpy(ghosts).reshape(*state.shape, count)
