"""Conservative finite volumes: face fluxes from law, numerical flux and boundary conditions.

The unknowns are cell averages, du/dt = −Σ_axes (F_{i+1} − F_i)/h, and neighbouring cells use the same face flux, so
the total changes by the boundary fluxes only. Fields are ``(*batch, *space)``; face fluxes along an axis have one more
entry along that axis.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from solvers.errors import InvalidArgumentError
from solvers.finite_volume._sides import Side, ghost_cells
from solvers.finite_volume.boundary import Dirichlet, Outflow, Periodic
from solvers.finite_volume.fluxes import FaceFlux, FaceMean, NumericalFlux, Reconstruction, conductivity_with_slope
from solvers.finite_volume.grid import CellGrid
from solvers.finite_volume.laws import ConvectiveLaw, DiffusiveLaw

Fluxes = tuple[Tensor, ...]


class Scheme(ABC):
    """A law on a grid with boundary conditions: fluxes through all faces from cell averages.

    Attributes:
        grid: The cells.
        sides: One (first, last) pair per axis.
    """

    grid: CellGrid
    sides: tuple[tuple[Side, Side], ...]

    @abstractmethod
    def fluxes(self, u: Tensor, time: float) -> tuple[Fluxes, float]:
        """Face fluxes, and the rate at which the fastest signal of the batch crosses cells.

        Args:
            u: Cell averages ``(*batch, *space)``.
            time: Time.

        Returns:
            Fluxes along every axis and the rate, in crossings per time: an explicit step must stay below 1/rate.
        """


@dataclass(frozen=True)
class DiffusiveScheme(Scheme):
    """u_t = ∇·(k(u)∇u) with a face mean of the conductivity.

    Dirichlet values act over the half cell at the side; gradient and Robin conditions give F = −k(u_side) ∂u/∂x.
    Second order in h for smooth solutions with the integral and the arithmetic mean.

    Raises:
        InvalidArgumentError: If a condition does not match the law or the grid.
    """

    law: DiffusiveLaw
    grid: CellGrid
    sides: tuple[tuple[Side, Side], ...]
    face_mean: FaceMean

    def __post_init__(self) -> None:
        _check_periodic(self.grid, self.sides, minimum=3)
        if any(isinstance(side.condition, Outflow) for pair in self.sides for side in pair):
            raise InvalidArgumentError(
                "Outflow is for convective laws; give a diffusive law Dirichlet, Neumann, Robin or Periodic conditions."
            )

    def fluxes(self, u: Tensor, time: float) -> tuple[Fluxes, float]:
        faces = self.linearise(u, time)
        rate = sum(
            float(face.by_left.abs().max() + face.by_right.abs().max()) / h
            for face, h in zip(faces, self.grid.spacing, strict=True)
        )
        return tuple(face.value for face in faces), rate

    def linearise(self, u: Tensor, time: float) -> tuple[FaceFlux, ...]:
        """Face fluxes and their derivatives by the neighbouring cells along every axis.

        At a side, the derivative by the inner cell includes the dependence of the side's state on that cell.
        """
        return tuple(self._linearise_axis(u, axis, time) for axis in range(self.grid.dimension))

    def _linearise_axis(self, u: Tensor, axis: int, time: float) -> FaceFlux:
        cells = u.movedim(axis - self.grid.dimension, -1)
        first, last = self.sides[axis]
        inverse_distance = torch.full((cells.shape[-1] + 1,), 1.0 / first.spacing, dtype=u.dtype)
        if isinstance(first.condition, Periodic):
            states = torch.cat((cells[..., -1:], cells, cells[..., :1]), -1)
            face = self.face_mean.flux(self.law, states[..., :-1], states[..., 1:], inverse_distance)
            for part in (face.value, face.by_left, face.by_right):
                part[..., -1] = part[..., 0]
        else:
            inverse_distance[0] = inverse_distance[-1] = 2.0 / first.spacing
            low = _side_state(first, cells[..., :1], time)
            high = _side_state(last, cells[..., -1:], time)
            states = torch.cat((low, cells, high), -1)
            face = self.face_mean.flux(self.law, states[..., :-1], states[..., 1:], inverse_distance)
            _close_side(self.law, first, cells[..., :1], time, (face.value[..., :1], face.by_right[..., :1]))
            _close_side(self.law, last, cells[..., -1:], time, (face.value[..., -1:], face.by_left[..., -1:]))
        dim = axis - self.grid.dimension
        return FaceFlux(*(part.movedim(-1, dim) for part in (face.value, face.by_left, face.by_right)))


def _side_state(side: Side, edge: Tensor, time: float) -> Tensor:
    return side.value(time, edge) if isinstance(side.condition, Dirichlet) else edge


def _close_side(law: DiffusiveLaw, side: Side, edge: Tensor, time: float, face: tuple[Tensor, Tensor]) -> None:
    """Writes flux and derivative by the edge cell of a side with a stated flux, gradient or Robin condition."""
    value, by_edge = face
    if side.gives_flux:
        value.copy_(side.value(time, edge))
        by_edge.zero_()
    elif side.mixed is not None:
        stated = side.value(time, edge)
        state, pull = side.side_state(stated, edge)
        gradient, gradient_slope = side.gradient(stated, state)
        k, k_slope = conductivity_with_slope(law, state)
        value.copy_(-k * gradient)
        by_edge.copy_(-pull * (k_slope * gradient + k * gradient_slope))


@dataclass(frozen=True)
class ConvectiveScheme(Scheme):
    """u_t + ∇·f(u) = 0 by reconstruction and a numerical flux, axis by axis.

    Dirichlet values are the outer state of the side's face, so they take effect where characteristics enter. With more
    than one axis the mean flux of a face is that at its centre: second order.

    Raises:
        InvalidArgumentError: If the grid has fewer cells than a periodic reconstruction needs.
    """

    law: ConvectiveLaw
    grid: CellGrid
    sides: tuple[tuple[Side, Side], ...]
    flux: NumericalFlux
    reconstruction: Reconstruction

    def __post_init__(self) -> None:
        _check_periodic(self.grid, self.sides, minimum=self.reconstruction.ghosts)

    def fluxes(self, u: Tensor, time: float) -> tuple[Fluxes, float]:
        by_axis = [self._axis_fluxes(u, axis, time) for axis in range(self.grid.dimension)]
        return tuple(flux for flux, _ in by_axis), sum(rate for _, rate in by_axis)

    def _axis_fluxes(self, u: Tensor, axis: int, time: float) -> tuple[Tensor, float]:
        cells = u.movedim(axis - self.grid.dimension, -1)
        pair = self.sides[axis]
        low, high = (ghost_cells(side, time, cells, self.reconstruction.ghosts) for side in pair)
        extended = torch.cat((low, cells, high), -1)
        left, right = self.reconstruction.states(extended)
        for side, outer in zip(pair, (left[..., :1], right[..., -1:]), strict=True):
            if isinstance(side.condition, Dirichlet):
                outer.copy_(side.value(time, outer))
        flux = self.flux.flux(self.law, left, right)
        for side, face in zip(pair, (flux[..., :1], flux[..., -1:]), strict=True):
            if side.gives_flux:
                face.copy_(side.value(time, face))
        if isinstance(pair[0].condition, Periodic):
            flux[..., -1] = flux[..., 0]
        rate = float(self.law.characteristic_speed(extended).abs().max()) / pair[0].spacing
        return flux.movedim(-1, axis - self.grid.dimension), rate


def divergence(fluxes: Fluxes, grid: CellGrid) -> Tensor:
    """Σ_axes (F_{i+1} − F_i)/h of every cell.

    Args:
        fluxes: Face fluxes along every axis.
        grid: The cells.

    Returns:
        Divergence ``(*batch, *space)``.
    """
    dimension = grid.dimension
    result = fluxes[0].diff(dim=-dimension).div_(grid.spacing[0])
    for axis in range(1, dimension):
        result += fluxes[axis].diff(dim=axis - dimension).div_(grid.spacing[axis])
    return result


def side_fluxes(fluxes: Fluxes, grid: CellGrid) -> Tensor:
    """Flux through every whole side, positive along +axis: first and last side of each axis in order.

    Args:
        fluxes: Face fluxes along every axis.
        grid: The cells.

    Returns:
        Fluxes ``(*batch, 2d)``.
    """
    sides = []
    for axis, flux in enumerate(fluxes):
        along = flux.movedim(axis - grid.dimension, -1)
        area = prod(h for other, h in enumerate(grid.spacing) if other != axis)
        for face in (along[..., 0], along[..., -1]):
            sides.append(area * face.flatten(face.ndim - grid.dimension + 1).sum(-1) if grid.dimension > 1 else face)
    return torch.stack(sides, dim=-1)


def _check_periodic(grid: CellGrid, sides: tuple[tuple[Side, Side], ...], minimum: int) -> None:
    for count, (first, _) in zip(grid.count, sides, strict=True):
        if isinstance(first.condition, Periodic) and count < minimum:
            raise InvalidArgumentError(
                f"A periodic axis needs at least {minimum} cells here, got {count}; use a finer grid."
            )
