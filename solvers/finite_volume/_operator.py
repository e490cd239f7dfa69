"""The semi-discrete equation du/dt = −∇·F + s on rows: its terms, and what crosses the sides or comes from sources.

Arrays are NumPy float64. A row is one problem of the flattened batch; u is ``(rows, cells)``. A flow ``(rows, 2d + 1)``
holds the flux through every side, positive along +axis, and the integral of the source.
"""

from dataclasses import dataclass, replace
from math import inf
from typing import Any, NamedTuple

import numpy as np

from solvers.finite_volume._kernels import RecordKernel
from solvers.finite_volume.convection._convection import ConvectionTerm
from solvers.finite_volume.diffusion._diffusion import DiffusionTerm
from solvers.finite_volume.laws._source import SourceTerm
from solvers.finite_volume.sides._side_data import SideData
from solvers.grids import CellGrid

Array = np.ndarray

_FEWEST_STEPS = 50


class Rate(NamedTuple):
    """Time derivatives of cells and account, and how fast signals cross cells.

    Attributes:
        u: ``(rows, cells)``.
        flow: ``(rows, 2d + 1)``.
        source: The part of ``u`` that comes from the source, or None.
        speed: Cells crossed per time by the fastest signal ``(rows,)``.
    """

    u: Array
    flow: Array
    source: Array | None
    speed: Array


@dataclass(frozen=True)
class Operator:
    """Terms of a balance law on a grid with boundary conditions; at least one is present."""

    grid: CellGrid
    sides: SideData
    diffusion: DiffusionTerm | None
    convection: ConvectionTerm | None
    source: SourceTerm | None

    @property
    def divisible(self) -> bool:
        """Whether laws and source can be cut into rows."""
        laws = [term.law for term in (self.diffusion, self.convection) if term is not None]
        return all(law.divisible for law in laws) and (self.source is None or self.source.divisible)

    @property
    def kernel(self) -> RecordKernel | None:
        """The compiled rates where there is one term alone, under a law that has them."""
        if self.source is not None or (self.convection is not None and self.diffusion is not None):
            return None
        return (self.convection or self.diffusion).kernel  # type: ignore[union-attr]

    @property
    def largest_step(self) -> float:
        """Largest step that sees what changes in time by itself: a fiftieth of the span; infinite if nothing does."""
        span = self.sides.end - self.sides.start
        changes = any(term is not None and term.law.varies_in_time for term in (self.diffusion, self.convection))
        changes = changes or (self.source is not None and self.source.may_vary_in_time)
        return span / _FEWEST_STEPS if changes or not self.sides.constant else inf

    def take(self, rows: Array) -> "Operator":
        """The operator of some of the rows."""
        parts: dict[str, Any] = {}
        for name in ("sides", "diffusion", "convection", "source"):
            term = getattr(self, name)
            parts[name] = None if term is None else term.take(rows)
        return replace(self, **parts)

    def explicit_rate(self, u: Array, data: Array, time: Array) -> Rate:
        """Rate of convection and source; a given flux is that of both terms, so diffusion, where present, passes it."""
        sides = 2 * self.grid.dimension
        flow = np.zeros((u.shape[0], sides + 1))
        speed, rate, source = np.zeros(u.shape[0]), None, None
        if self.convection is not None:
            passed = data if self.diffusion is None else self.sides.without_fluxes(data)
            rate, flow[:, :sides], speed = self.convection.rate(u, passed, time)
        if self.source is not None:
            source, flow[:, sides] = self.source.rate(u, time)
            rate = source if rate is None else rate + source
        return Rate(np.zeros_like(u) if rate is None else rate, flow, source, speed)

    def rate(self, u: Array, data: Array, time: Array) -> Rate:
        """Rate of all terms; the speed is that of convection."""
        if self.diffusion is None:
            return self.explicit_rate(u, data, time)
        rate, sides = self.diffusion.rate(u, data, time)
        flow = np.concatenate((sides, np.zeros((len(u), 1))), axis=1)
        if self.convection is None and self.source is None:
            return Rate(rate, flow, None, np.zeros(len(u)))
        rest = self.explicit_rate(u, data, time)
        return Rate(rate + rest.u, flow + rest.flow, rest.source, rest.speed)

    def euler_rate(self, u: Array, data: Array, time: Array) -> Array:
        """Inverse of the largest stable Euler step of diffusion ``(rows,)``."""
        return np.zeros(len(u)) if self.diffusion is None else 0.5 * self.diffusion.radius(u, data, time)
