"""Rates of change of a system on a grid: reconstruction and numerical flux along every axis."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.conditions import Dirichlet, Outflow, Periodic
from solvers.errors import InvalidArgumentError
from solvers.finite_volume.convection.reconstruction import MUSCL, Constant, Reconstruction
from solvers.finite_volume.convection.reconstruction_kernels import limiter_code
from solvers.grids import CellGrid
from solvers.systems import _kernels as kernels
from solvers.systems.boundary import Reflecting, Side, bottom_ghosts, ghost_cells, stated
from solvers.systems.fluxes import HLLC, SystemFlux
from solvers.systems.laws import ShallowWater, SystemLaw


@dataclass
class Rates:
    """Rates of change of some batch entries.

    Attributes:
        change: ∂u/∂t of the cells ``(entries, c, *cells)``.
        sides: Flux through every side, integrated over it, positive along +axis ``(entries, 2d, c)``.
        source: Integral of the source over the domain ``(entries, c)``.
        speed: Σ over the axes of the largest speed over the cell length ``(entries,)``.
    """

    change: Tensor
    sides: Tensor
    source: Tensor
    speed: Tensor


@dataclass(frozen=True)
class Setting:
    """Law, grid and sides.

    Attributes:
        law: The law.
        grid: The cells.
        sides: One (first, last) pair per axis.
        batch: Shape of the batch.
        components: Number of components c.
        fixed: States of the Dirichlet sides that do not change with time by axis and end, filled when first needed.
    """

    law: SystemLaw
    grid: CellGrid
    sides: tuple[tuple[Side, Side], ...]
    batch: tuple[int, ...]
    components: int
    fixed: dict[tuple[int, str], Tensor] = field(default_factory=dict)

    def padded(self, u: Tensor, axis: int, count: int, times: Tensor, rows: Tensor) -> Tensor:
        """Cells with ghost cells at both ends of an axis, which becomes the last.

        Args:
            u: Cell averages ``(entries, c, *cells)``.
            axis: Space axis.
            count: Number of ghost cells at each end.
            times: Time of every entry ``(entries,)``.
            rows: Place of every entry in the batch ``(entries,)``.

        Returns:
            ``(entries, c, *face, n + 2 count)``, contiguous.
        """
        cells = u.movedim(2 + axis, -1)
        first, last = (
            ghost_cells(side, cells, count, self.law, self.state(side, times, rows)) for side in self.sides[axis]
        )
        return torch.cat([first, cells, last], dim=-1).contiguous()

    def state(self, side: Side, times: Tensor, rows: Tensor) -> Tensor | None:
        """States of a Dirichlet side ``(entries, c, *face)`` at the time of every entry, else None."""
        if not isinstance(side.condition, Dirichlet):
            return None
        face = tuple(n for axis, n in enumerate(self.grid.shape) if axis != side.axis)
        shape = (*self.batch, self.components)
        if not side.changes:
            key = (side.axis, side.end)
            if key not in self.fixed:
                self.fixed[key] = stated(side, 0.0, shape, face, self.law)
            return self.fixed[key][rows]
        distinct, place = torch.unique(times, return_inverse=True)
        states = [stated(side, time, shape, face, self.law) for time in distinct.tolist()]
        return torch.stack([states[k][row] for k, row in zip(place.tolist(), rows.tolist(), strict=True)])


class Scheme(ABC):
    """A discretisation in space."""

    setting: Setting

    @abstractmethod
    def rates(self, u: Tensor, times: Tensor, rows: Tensor) -> Rates:
        """Rates of change.

        Args:
            u: Cell averages ``(entries, c, *cells)``.
            times: Time of every entry ``(entries,)``.
            rows: Place of every entry in the batch ``(entries,)``.

        Returns:
            The rates.
        """


@dataclass(frozen=True)
class GeneralScheme(Scheme):
    """Any law: components reconstructed one by one, constant at a face where that gives an inadmissible state."""

    setting: Setting
    flux: SystemFlux
    reconstruction: Reconstruction

    def rates(self, u: Tensor, times: Tensor, rows: Tensor) -> Rates:
        law, grid, ghosts = self.setting.law, self.setting.grid, self.reconstruction.ghosts
        change, speed, sides = torch.zeros_like(u), u.new_zeros(u.shape[0]), []
        for axis, h in enumerate(grid.spacing):
            cells = self.setting.padded(u, axis, ghosts, times, rows)
            left, right = self._states(cells)
            flux, fastest = self.flux.flux(law, left, right, axis)
            change -= (flux.diff(dim=-1) / h).movedim(-1, 2 + axis)
            inside = law.eigenvalues(cells, axis).abs().flatten(1).amax(1)
            speed += torch.maximum(fastest.flatten(1).amax(1), inside) / h
            area = prod(grid.spacing) / h
            sides += [area * flux[..., end].reshape(*u.shape[:2], -1).sum(-1) for end in (0, -1)]
        return Rates(change, torch.stack(sides, 1), torch.zeros_like(sides[0]), speed)

    def _states(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """States left and right of every face."""
        left, right = self.reconstruction.states(cells)
        good = self.setting.law.admissible(left) & self.setting.law.admissible(right)
        if bool(good.all()):
            return left, right
        start, count = self.reconstruction.ghosts - 1, left.shape[-1]
        below, above = cells[..., start : start + count], cells[..., start + 1 : start + 1 + count]
        return torch.where(good[:, None], left, below), torch.where(good[:, None], right, above)


@dataclass(frozen=True)
class ShallowScheme(Scheme):
    """Shallow water by compiled rates.

    Attributes:
        bottoms: Bottom with two ghost cells at each end, one per axis, ``(entries, rows, n + 4)``.
        contact: HLLC instead of HLL.
        linear: Whether the reconstruction has slopes.
        limit: ``limiter_code`` of the slopes.
    """

    setting: Setting
    law: ShallowWater
    bottoms: tuple[Tensor, ...]
    contact: bool
    linear: bool
    limit: Any

    def rates(self, u: Tensor, times: Tensor, rows: Tensor) -> Rates:
        swept = kernels.rates(as_plane(u).numpy(), self.plan, self.states(times, rows), self.levels(rows))
        change, sides, source, speed = (torch.from_numpy(part) for part in swept)
        return Rates(change.reshape(u.shape), sides, source, speed)

    @property
    def plan(self) -> tuple[Any, ...]:
        """Arguments that the compiled functions share, see ``entry_rates``."""
        codes = {Periodic: kernels.PERIODIC, Reflecting: kernels.REFLECTING, Outflow: kernels.OUTFLOW}
        kinds = [[codes.get(type(side.condition), kernels.GIVEN) for side in pair] for pair in self.setting.sides]
        spacing = np.array(self.setting.grid.spacing)
        return np.array(kinds), spacing, float(self.law.gravity), self.contact, self.linear, self.limit

    def states(self, times: Tensor, rows: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Given states of the sides along the first and the last axis ``(entries, 2, c, rows of cells)``."""
        axes = []
        for pair, bottom in zip(self.setting.sides, self.bottoms, strict=True):
            both = torch.zeros(len(rows), 2, self.setting.components, bottom.shape[1], dtype=torch.float64)
            for end, side in enumerate(pair):
                state = self.setting.state(side, times, rows)
                if state is not None:
                    both[:, end] = state.reshape(both[:, end].shape)
            axes.append(both.numpy())
        return axes[0], axes[-1]

    def levels(self, rows: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Bottom of some entries along the first and the last axis ``(entries, rows of cells, n + 4)``."""
        chosen = [bottom if len(rows) == len(bottom) else bottom[rows] for bottom in self.bottoms]
        return chosen[0].numpy(), chosen[-1].numpy()


def as_plane(u: Tensor) -> Tensor:
    """Fields ``(entries, c, *cells)`` with two space axes, contiguous, the last of length 1 where there is one."""
    return (u[..., None] if u.ndim == 3 else u).contiguous()


def make_scheme(
    setting: Setting, flux: SystemFlux, reconstruction: Reconstruction, bottom: Tensor | None, entries: int
) -> Scheme:
    """The discretisation for a law.

    Args:
        setting: Law, grid and sides.
        flux: Numerical flux.
        reconstruction: States at faces.
        bottom: Cell averages of the bottom ``(entries, *cells)``, or None.
        entries: Number of batch entries.

    Returns:
        The discretisation.

    Raises:
        InvalidArgumentError: If the law and the reconstruction do not go together, or an axis has too few cells.
    """
    law = setting.law
    needed = 2 if isinstance(law, ShallowWater) else reconstruction.ghosts
    if min(setting.grid.shape) < needed:
        raise InvalidArgumentError(
            f"{type(reconstruction).__name__} needs at least {needed} cells along every axis, got "
            f"{setting.grid.shape}; use more cells."
        )
    if not isinstance(law, ShallowWater):
        return GeneralScheme(setting, flux, reconstruction)
    linear = isinstance(reconstruction, MUSCL)
    if linear:
        limit = limiter_code(reconstruction.limiter)
    elif isinstance(reconstruction, Constant):
        limit = 0
    else:
        raise InvalidArgumentError(
            f"ShallowWater takes MUSCL() or Constant() as reconstruction, which keep the depth positive, got "
            f"{reconstruction!r}."
        )
    level = torch.zeros(entries, *setting.grid.shape, dtype=torch.float64) if bottom is None else bottom
    bottoms = []
    for axis, (first, last) in enumerate(setting.sides):
        cells = level.movedim(1 + axis, -1)
        padded = torch.cat([bottom_ghosts(first, cells, 2), cells, bottom_ghosts(last, cells, 2)], dim=-1)
        bottoms.append(padded.reshape(entries, -1, padded.shape[-1]).contiguous())
    return ShallowScheme(setting, law, tuple(bottoms), isinstance(flux, HLLC), linear, limit)
