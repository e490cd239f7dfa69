"""Convection −∇·f(u, x, t) on rows: its laws for compiled steps, and fluxes of laws in tensors."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from solvers.errors import InvalidArgumentError
from solvers.finite_volume.convection.schemes import Godunov, NumericalFlux, Reconstruction, Rusanov, fastest
from solvers.finite_volume.laws import _shipped_kernels as shipped
from solvers.finite_volume.laws._law_rows import columns_of, on_rows
from solvers.finite_volume.laws._rows import cached_rows
from solvers.finite_volume.laws._scalar_kernels import riemann_kernel
from solvers.finite_volume.laws.laws import Advection, Burgers, Transport
from solvers.finite_volume.laws.scalar import ScalarConvection
from solvers.finite_volume.march.kernels import Array
from solvers.finite_volume.march.tiles import CompiledLaw
from solvers.finite_volume.sides._side_data import PERIODIC
from solvers.grids import CellGrid


@dataclass(frozen=True)
class ConvectionTerm:
    """−∇·f of a convective law on the rows of a batch.

    A side with a state takes that state as the outer state of its face, so it acts where characteristics enter. The
    ghost cells of MUSCL continue the solution through that state by a straight line: order 2 of the mean error with an
    inflow that changes with time, where SSPRK3 takes the data at the times of its stages. Where a gradient or Robin
    condition sets the inflow, the order is 1. Outflow and a given flux repeat the edge cell: first order in that cell,
    second order in the mean. With more than one axis the mean flux of a face is that at its centre: second order.

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

    def take(self, index: Array) -> "ConvectionTerm":
        """The term of some of the rows."""
        return replace(self, law=self.law.take(index), sides=self.sides.take(index))

    @cached_property
    def compiled_law(self) -> CompiledLaw | None:
        """The compiled law with its numerical flux; None where one of them is in tensors."""
        d, law, godunov = self.grid.dimension, self.law.law, type(self.flux) is Godunov
        if isinstance(law, ScalarConvection):
            if not (godunov or type(self.flux) is Rusanov) or (godunov and law.stationary is None):
                return None
            parts = [self.law.at(0.0, axis).parameters for axis in range(d)]
            names = parts[0].arguments.names
            kernel = riemann_kernel(parts[0].call("flux"), law.stationary if godunov else None, law.inflection)
            columns = tuple(columns_of(part, self.law.rows) for part in parts)
            return CompiledLaw(kernel, columns, names.index("t") if "t" in names else -1)
        if type(law) not in (Advection, Burgers, Transport) or not godunov or self.law.varies_in_time:
            return None
        if isinstance(law, Burgers):
            return CompiledLaw(shipped.BURGERS, (np.zeros((1, 0, 1)),) * d)
        speeds = [on_rows(self.law.at(0.0, axis).parameters.speed, self.law.rows) for axis in range(d)]
        return CompiledLaw(shipped.TRANSPORT, tuple(each.reshape(len(each), 1, -1) for each in speeds))

    def fluxes(self, rows: Array, times: Array, axis: int, states: list[Array]) -> tuple[Array, Array]:
        """Fluxes through the faces of an axis and the largest speed at each ``(rows, faces)``.

        ``states`` are those at the faces on both sides, and the averages before and behind them.
        """
        shape = tuple(n + (other == axis) for other, n in enumerate(self.grid.shape))
        left, right, before, behind = (torch.from_numpy(each).reshape(-1, *shape) for each in states)
        law = cached_rows(self.law, rows).at(times, axis)
        with torch.no_grad():
            flux = self.flux.flux(law, left, right)
            low = torch.minimum(torch.minimum(before, behind), torch.minimum(left, right))
            high = torch.maximum(torch.maximum(before, behind), torch.maximum(left, right))
            found = flux, fastest(law, low, high)
        return tuple(part.reshape(len(rows), -1).numpy() for part in found)  # type: ignore[return-value]
