"""What ``solve`` returns: cell averages, the balance of the conserved total, and what the integration has cost."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from solvers.finite_volume.steppers.stepper import Stepper
from solvers.grids import CellGrid


@dataclass(frozen=True, kw_only=True)
class Work:
    """Which stepper integrated each batch entry, and how much it did.

    Attributes:
        steppers: The steppers used.
        choice: Index into ``steppers`` ``(*batch,)``.
        estimates: Estimated nanoseconds per cell of every stepper that could be chosen ``(*batch,)``; empty if the
            stepper was given.
        steps: Accepted steps ``(*batch,)``.
        rejected: Rejected steps ``(*batch,)``.
        evaluations: Evaluations of the rates, Newton iterations included ``(*batch,)``.
    """

    steppers: tuple[Stepper, ...]
    choice: Int[Tensor, "*batch"]
    estimates: dict[str, Float[Tensor, "*batch"]]
    steps: Int[Tensor, "*batch"]
    rejected: Int[Tensor, "*batch"]
    evaluations: Int[Tensor, "*batch"]


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Cell averages at the output times and the balance of the conserved total; float64.

    Attributes:
        grid: The cells.
        times: Output times ``(t,)``.
        values: Cell averages ``(*batch, t, *space)``.
        initial_total: ∫ u dx at the start ``(*batch,)``.
        boundary_flux: Time-integrated flux through every side since the start, positive along +axis: first and last
            side of each axis in order, ``(*batch, t, 2d)``. A rate is not given; a law of the update on ∫ u dx takes
            ``total``.
        source_total: Time integral of ∫ s dx since the start ``(*batch, t)``; zero without a source.
        work: Steppers, steps and evaluations of every batch entry.
    """

    grid: CellGrid
    times: Float[Tensor, " t"]
    values: Tensor
    initial_total: Tensor
    boundary_flux: Tensor
    source_total: Tensor
    work: Work

    @property
    def total(self) -> Tensor:
        """Conserved total ∫ u dx at the output times ``(*batch, t)``."""
        return total_of(self.values, self.grid)

    @property
    def inflow(self) -> Tensor:
        """Net inflow through all sides since the start ``(*batch, t)``."""
        return self.boundary_flux[..., ::2].sum(-1) - self.boundary_flux[..., 1::2].sum(-1)

    @property
    def imbalance(self) -> Tensor:
        """total − (initial total + net inflow + source total) ``(*batch, t)``.

        It proves the bookkeeping: nothing is lost between the cells, and the account holds the fluxes and sources that
        the steps used. It says nothing about accuracy: fluxes may be inaccurate and still balance. Compare with a run
        at a hundredth of the tolerance, or with more cells, to learn the error.
        """
        return self.total - self.initial_total[..., None] - self.inflow - self.source_total


def total_of(field: Tensor, grid: CellGrid) -> Tensor:
    """∫ u dx of cell averages ``(*batch, *space)``: ``(*batch,)``."""
    return (field * grid.weights).flatten(-grid.dimension).sum(-1)
