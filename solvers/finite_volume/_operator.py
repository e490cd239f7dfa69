"""The semi-discrete equation du/dt = −∇·F + s on rows: its terms, what crosses the sides, and how ``solve`` makes it.

Arrays are NumPy float64. A row is one problem of the flattened batch; u is ``(rows, cells)``. A flow ``(rows, 2d + 1)``
holds the flux through every side, positive along +axis, and the integral of the source.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers._arguments import checked_values
from solvers.conditions import AxisConditions, Outflow, Periodic, Robin
from solvers.errors import InvalidArgumentError
from solvers.finite_volume.convection._convection import ConvectionTerm
from solvers.finite_volume.convection.schemes import MUSCL, Godunov
from solvers.finite_volume.diffusion._diffusion import DiffusionTerm
from solvers.finite_volume.diffusion.face_means import IntegralMean
from solvers.finite_volume.laws._law_checks import check_law
from solvers.finite_volume.laws._law_rows import LawRows, batch_of_law
from solvers.finite_volume.laws._source import SourceTerm, batch_of_source
from solvers.finite_volume.laws.laws import ConvectionDiffusion, ConvectiveLaw, DiffusiveLaw
from solvers.finite_volume.laws.scalar import ScalarLaw
from solvers.finite_volume.march.kernels import Array
from solvers.finite_volume.march.tiles import Tile, euler_rate, radius_of
from solvers.finite_volume.sides._side_data import SideData, batch_shapes
from solvers.finite_volume.sides._watched import watched
from solvers.grids import CellGrid

Law = DiffusiveLaw | ConvectiveLaw | ConvectionDiffusion | ScalarLaw
Initial = float | np.ndarray | Tensor | Callable[[Tensor], Tensor]
_FEWEST_STEPS = 50


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
    def largest_step(self) -> float:
        """Largest step that sees what changes in time by itself: a fiftieth of the span; infinite if nothing does."""
        span = self.sides.end - self.sides.start
        changes = any(term is not None and term.law.varies_in_time for term in (self.diffusion, self.convection))
        changes = changes or (self.source is not None and self.source.may_vary_in_time)
        return self.sides.part * span / _FEWEST_STEPS if changes or not self.sides.constant else inf

    def refined(self) -> "Operator":
        """The same with half of the steps' limits that are no tolerance, for an estimate of the error."""
        return replace(self, sides=replace(self.sides, part=0.5 * self.sides.part))

    def take(self, rows: Array) -> "Operator":
        """The operator of some of the rows."""
        parts: dict[str, Any] = {}
        for name in ("sides", "diffusion", "convection", "source"):
            term = getattr(self, name)
            parts[name] = None if term is None else term.take(rows)
        return replace(self, **parts)

    def speed(self, states: Sequence[Array], data: Array, time: Array) -> Array:
        """Cells crossed per time by the fastest signal of convection in any of the states ``(rows,)``."""
        tile = Tile(self, len(states[0]), (None, self.convection, None))
        tile.enter(np.arange(len(states[0])))
        return np.max([tile.rates(u, data, time)[1][:, -2] for u in states], axis=0)

    def euler_rate(self, states: Sequence[Array], data: Array, time: Array) -> Array:
        """Inverse of the largest Euler step of diffusion that is stable in all of the states ``(rows,)``."""
        diffusion: Any = self.diffusion
        if diffusion.linear:
            faces = [
                [n + (other == axis) for other, n in enumerate(self.grid.shape)] for axis in range(self.grid.dimension)
            ]
            weights = [
                each.reshape(-1, *shape).copy() for each, shape in zip(diffusion.face_weights, faces, strict=True)
            ]
            return radius_of(weights, np.asarray(self.sides.modes), self.sides.pull)
        tile = Tile(self, len(states[0]), (self.diffusion, None, None))
        return np.max([euler_rate(tile, u, data, time) for u in states], axis=0)


def parts_of(law: Law) -> tuple[ConvectiveLaw | None, DiffusiveLaw | None]:
    """The convective and the diffusive part of a law."""
    if isinstance(law, ConvectionDiffusion | ScalarLaw):
        return law.convection, law.diffusion
    if not isinstance(law, ConvectiveLaw | DiffusiveLaw):
        raise InvalidArgumentError(
            "law must derive from DiffusiveLaw or ConvectiveLaw, or be a ConvectionDiffusion or ScalarLaw, got "
            f"{law.__name__ if isinstance(law, type) else type(law).__name__}."
        )
    return (law, None) if isinstance(law, ConvectiveLaw) else (None, law)


def initial_field(
    initial: Initial, law: Law, grid: CellGrid, conditions: tuple[AxisConditions, ...], options: Mapping[str, Any]
) -> Tensor:
    """Initial cell averages on the whole batch ``(*batch, *space)``, float64, a copy."""
    start, source = options["span"][0], options.get("source")
    field = checked_values(initial(grid.points) if callable(initial) else initial, "initial")
    space = field.shape[max(0, field.ndim - grid.dimension) :]
    if any(size not in (1, n) for size, n in zip(reversed(space), reversed(grid.shape), strict=False)):
        raise InvalidArgumentError(
            f"initial must broadcast to (*batch, *space) with space = {grid.shape}, got shape {tuple(field.shape)}."
        )
    given = tuple(field.shape[: max(0, field.ndim - grid.dimension)])
    _refuse_coefficients_on_faces(conditions, given, grid)
    shapes = [given, *batch_shapes(conditions, start)]
    try:
        batch = np.broadcast_shapes(*shapes)
    except ValueError:
        raise InvalidArgumentError(
            f"initial and boundary values have batch axes that do not broadcast: {shapes}; give them one batch shape."
        ) from None
    for part in parts_of(law):
        if part is not None:
            batch = batch_of_law(part, tuple(batch), grid, start)
    if source is not None:
        batch = batch_of_source(source, tuple(batch), grid, start)
    if 0 in batch:
        raise InvalidArgumentError(
            f"The batch {tuple(batch)} of law, initial and boundary values has no entries; give at least one."
        )
    return field.expand(*batch, *grid.shape).clone(memory_format=torch.contiguous_format)


def build_operator(
    law: Law, grid: CellGrid, u: Tensor, conditions: tuple[AxisConditions, ...], options: Mapping[str, Any]
) -> Operator:
    """The operator of all rows; ``options`` holds those of ``solve`` and the ``span`` of the integration."""
    batch, (start, end) = tuple(u.shape[: u.ndim - grid.dimension]), options["span"]
    sides = SideData.build(conditions, grid, batch, start, end, options.get("breakpoints", ()))
    periodic = tuple(isinstance(pair[0], Periodic) for pair in conditions)
    convective, diffusive = (
        None if part is None else LawRows.build(part, batch, grid, periodic, start) for part in parts_of(law)
    )
    convection = diffusion = source = None
    if options.get("source") is not None:
        source = SourceTerm.build(options["source"], batch, grid, start)
    states = u.reshape(-1, math.prod(grid.shape)).numpy()
    changing = watched((convective, diffusive), source, states, (start, end))
    sides = sides.watching(changing, options.get("breakpoints", ()))
    if convective is not None:
        numerical = options.get("flux", Godunov()), options.get("reconstruction", MUSCL())
        convection = ConvectionTerm(convective, grid, sides, *numerical)
    if diffusive is not None:
        if any(isinstance(side, Outflow) for pair in conditions for side in pair):
            raise InvalidArgumentError(
                "Outflow is for laws without diffusion; with diffusion give Dirichlet, Neumann, Robin or Periodic "
                "sides, for example Neumann(gradient=0.0)."
            )
        _warn_of_growth(conditions)
        diffusion = DiffusionTerm(diffusive, grid, sides, options.get("face_mean", IntegralMean()))
    return Operator(grid, sides, diffusion, convection, source)


def check_laws(operator: Operator, u: np.ndarray) -> None:
    """Checks the laws against themselves on the range of initial values ``(rows, cells)`` and Dirichlet values."""
    start = operator.sides.start
    low, high = operator.sides.range(np.full((1, len(u)), start))
    for term in (operator.convection, operator.diffusion):
        if term is not None:
            check_law(term.law, min(float(u.min()), *low), max(float(u.max()), *high), start)
    if operator.source is not None:
        operator.source.check(u, start)


def _refuse_coefficients_on_faces(
    conditions: tuple[AxisConditions, ...], batch: tuple[int, ...], grid: CellGrid
) -> None:
    """Raises an error if a Robin coefficient might be meant as values on the faces of its side."""
    for axis, pair in enumerate(conditions):
        face = grid.shape[:axis] + grid.shape[axis + 1 :]
        for side in pair:
            coefficients = (side.a, side.b) if isinstance(side, Robin) and face else ()
            for shape in (np.shape(each) for each in coefficients if not callable(each)):
                if shape[-1:] == face[-1:] and shape[-1] > 1 and batch[-1:] != shape[-1:]:
                    raise InvalidArgumentError(
                        f"Robin: a and b are one number per batch entry, but shape {tuple(shape)} might be meant for "
                        f"the {face} faces of the side. If it is a batch, say so by initial of shape "
                        f"{(*shape, *grid.shape)}."
                    )


def _warn_of_growth(conditions: tuple[AxisConditions, ...]) -> None:
    """Warns of Robin sides through which more comes in the larger the field is, as when a sign is the wrong one."""
    for axis, pair in enumerate(conditions):
        for place, sign, side in zip(("first", "last"), (-1, 1), pair, strict=True):
            if isinstance(side, Robin) and not callable(side.a) and not callable(side.b):
                a, b = torch.as_tensor(side.a), torch.as_tensor(side.b)
                if bool((sign * a * b < 0).any()):
                    warnings.warn(
                        f"axis {axis}, {place} side: with Robin(a={side.a}, b={side.b}) the more there is the more "
                        f"comes in, and the field may grow without bound; a side that cools or leaks has a·b "
                        f"{'<' if sign < 0 else '>'} 0 there, since ∂u/∂x is along the axis, not outward.",
                        stacklevel=4,
                    )
