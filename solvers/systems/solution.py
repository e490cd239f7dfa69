"""The solution of a system with the balance of every component, and fields as a solver takes them."""

from dataclasses import dataclass
from math import prod
from typing import Any

from jaxtyping import Float
from torch import Tensor

from solvers._arguments import checked_values
from solvers.grids import CellGrid


@dataclass(frozen=True, kw_only=True, repr=False)
class SystemSolution:
    """Cell averages at the output times and the balance of every component; float64.

    Attributes:
        grid: The cells.
        times: Output times ``(t,)``.
        values: Cell averages ``(*batch, t, c, *cells)``.
        initial_total: ∫ u dx at the start ``(*batch, c)``.
        boundary_flux: Time-integrated flux through every side since the start, positive along +axis: first and last
            side of each axis in order, ``(*batch, t, 2d, c)``. A wall takes momentum by its pressure.
        source: Time-integrated source since the start, the force of the bottom ``(*batch, t, c)``.
        steps: Number of time steps of every batch entry ``(*batch)``.
        error_estimate: With ``ReactionDiffusion`` and ``estimate_error=True`` the largest difference over the cells
            from a run at a tenth of the tolerance ``(*batch, t, c)``; else None.
    """

    grid: CellGrid
    times: Float[Tensor, " t"]
    values: Tensor
    initial_total: Tensor
    boundary_flux: Tensor
    source: Tensor
    steps: Tensor
    error_estimate: Tensor | None = None

    def __repr__(self) -> str:
        times = f"{len(self.times)} times from {self.times[0]:g} to {self.times[-1]:g}"
        return f"SystemSolution(values {tuple(self.values.shape)} at {times} on {self.grid})"

    @property
    def total(self) -> Tensor:
        """∫ u dx of every component at the output times ``(*batch, t, c)``."""
        return totals_of(self.values, self.grid)

    @property
    def inflow(self) -> Tensor:
        """Net inflow through all sides since the start ``(*batch, t, c)``."""
        return self.boundary_flux[..., ::2, :].sum(-2) - self.boundary_flux[..., 1::2, :].sum(-2)

    @property
    def imbalance(self) -> Tensor:
        """total − (initial total + net inflow + source) ``(*batch, t, c)``.

        Round-off for every law: it shows that nothing is lost between cells, not that the solution is accurate.
        """
        return self.total - self.initial_total[..., None, :] - self.inflow - self.source


def totals_of(field: Tensor, grid: CellGrid) -> Tensor:
    """∫ u dx of cell averages ``(*batch, c, *cells)``: ``(*batch, c)``."""
    return field.flatten(-grid.dimension).sum(-1) * prod(grid.spacing)


def as_field(name: str, value: Any, grid: CellGrid) -> Tensor:
    """A field as a finite float64 tensor on the processor."""
    return checked_values(value(grid.points) if callable(value) else value, name)
