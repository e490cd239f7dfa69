"""From a law, a grid and sides to the arrays of compiled steps, and back."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.conditions import Dirichlet, Outflow, Periodic
from solvers.errors import InvalidArgumentError, SolverDivergedError
from solvers.finite_volume.convection.schemes import MUSCL, Constant, Reconstruction, Rusanov
from solvers.finite_volume.march import control as c
from solvers.finite_volume.march import systems as march
from solvers.finite_volume.march.arguments import LANE, RowArrays, Scratch, System, SystemGrid, SystemLaws, SystemScheme
from solvers.finite_volume.march.kernels import NOTHING, Array, Callback
from solvers.finite_volume.march.rates import from_padded, layout_of, to_padded
from solvers.grids import CellGrid
from solvers.systems._law_kernels import Law, LawKernels, admissible, law_kernels
from solvers.systems._sides import SideStates
from solvers.systems.boundary import Reflecting, Side, bottom_ghosts
from solvers.systems.laws import ShallowWater, SystemFlux

_BUDGET, _TILE = 1000, 8
_KINDS = {Periodic: march.CIRCLE, Reflecting: march.WALL, Outflow: march.OPEN, Dirichlet: march.GIVEN}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The problem to solve.

    Attributes:
        law: The law.
        grid: The cells.
        sides: One (first, last) pair per axis.
        batch: Shape of the batch.
        components: Number of components c.
        flux: Numerical flux.
        reconstruction: States at faces.
        span: Start and end.
        breakpoints: Times at which steps end.
    """

    law: Law
    grid: CellGrid
    sides: tuple[tuple[Side, Side], ...]
    batch: tuple[int, ...]
    components: int
    flux: SystemFlux
    reconstruction: Reconstruction
    span: tuple[float, float]
    breakpoints: Any = ()

    def check_states(self, side: Side, times: Array, states: Array) -> None:
        """Raises an error unless states at a side ``(times, c, face cells)`` are admissible."""
        good = admissible(self.law, torch.from_numpy(np.array(states)), self.grid.dimension).numpy()
        if not good.all():
            bad = ~good.reshape(len(times), -1).all(1)
            first = np.flatnonzero(bad)[times[bad].argmin()]
            raise InvalidArgumentError(
                f"{side.name}: the state at time {times[first]:g} is not admissible for {type(self.law).__name__}; "
                f"give the conserved components, got {states[first].tolist()}."
            )


class Run:
    """A batch under way.

    Attributes:
        setting: What is solved.
        u: Cell averages ``(entries, c, *cells)``.
        total: Time-integrated flux through every side, and source ``(entries, 2d + 1, c)``.
        steps: Accepted steps ``(entries,)``.
        sides: States at the sides.
        sampled: Their time integrals, as the steps saw them.
    """

    def __init__(self, setting: Setting, u: Tensor, bottom: Tensor | None) -> None:
        self.setting, entries, grid = setting, len(u), setting.grid
        kernels = _kernels_of(setting)
        everything = [side for pair in setting.sides for side in pair]
        self.sides = SideStates(
            everything,
            setting.batch,
            setting.components,
            grid.shape,
            setting.span,
            setting.check_states,
            setting.breakpoints,
        )
        self.u = u.reshape(entries, setting.components, -1).numpy().copy()
        self.total = np.zeros((entries, 2 * grid.dimension + 1, setting.components))
        changes = self.sides.scan is not None
        self.sampled = np.zeros((*self.sides.fixed.shape[:2], self.sides.fixed.shape[2] if changes else 0))
        self._lanes = np.zeros(entries, LANE)
        self._lanes["time"], self._lanes["proposal"] = setting.span[0], inf
        self._width = min(_TILE, entries) if changes else 1
        self._bottom = _bottom_of(setting, bottom)
        self._kernels, self._tiles = kernels, {}

    @property
    def steps(self) -> Array:
        """Accepted steps of every entry ``(entries,)``."""
        return self._lanes["steps"].astype(np.int64)

    def advance(self, target: float, steps: tuple[float, float, float], report: Callable[[float], None] | None) -> None:
        """Integrates every entry to a target time; a ``SolverDivergedError`` if one fails at the smallest step.

        ``steps`` are the fraction of a cell that the fastest signal may cross in a step, the largest and the smallest
        step; ``report`` is called with the mean advance in time over the batch.
        """
        times, scheme = self._lanes["time"], SystemScheme(target, *steps)
        for first in range(0, len(self.u), self._width):
            rows = np.arange(first, min(first + self._width, len(self.u)))
            while len(rows := rows[times[rows] < target]):
                before = times[rows].sum()
                self._march(rows, scheme)
                if report is not None:
                    report(float(times[rows].sum() - before) / len(self.u))

    def _march(self, rows: Array, scheme: SystemScheme) -> None:
        """Takes steps of some rows, a budget of them or until at most half of the rows are under way."""
        width = len(rows)
        tile = self._tiles.get(width) or self._tiles.setdefault(
            width, _Tile(self.setting, self._kernels, self.sides, width)
        )
        tile.enter(rows, (self.u[rows], self._lanes[rows], self.total[rows], self.sampled[rows]), self._bottom)
        march.advance(tile.arrays, tile.system, scheme, _BUDGET)
        for error in tile.errors:
            raise error
        lanes = tile.arrays.lanes
        for place in np.flatnonzero(lanes["verdict"] != c.RUNNING)[:1]:
            raise self._failure(int(rows[place]), lanes[place], scheme.smallest)
        self.u[rows], self._lanes[rows], self.total[rows] = tile.states(), lanes, tile.arrays.total
        self.sampled[rows] = tile.arrays.sampled

    def _failure(self, entry: int, lane: Any, smallest: float) -> SolverDivergedError:
        """The error of an entry that failed at the smallest step."""
        setting, cell = self.setting, int(lane["place"])
        place = np.unravel_index(cell, setting.grid.shape) if cell >= 0 else ()
        at = f" in cell {tuple(int(i) for i in place)}" if cell >= 0 else ""
        number = np.unravel_index(entry, setting.batch) if setting.batch else ()
        where = f", batch entry {tuple(int(i) for i in number)}" if setting.batch else ""
        return SolverDivergedError(
            f"{type(setting.law).__name__} has no admissible state{at}{where} after time {lane['time']:.6g} with a "
            f"step of {lane['length']:.3g} (smallest allowed {smallest:.3g}). Check the law's flux, eigenvalues and "
            "admissible, and the boundary states; reconstruction=Constant() is the most robust."
        )


class _Tile:
    """Arrays of compiled steps for some rows side by side.

    Attributes:
        errors: What functions of time have raised.
    """

    def __init__(self, setting: Setting, kernels: LawKernels, sides: SideStates, rows: int) -> None:
        self.sides, self.errors = sides, []
        self._write = Callback(self._write_states, self.errors)
        shape, m = setting.grid.shape, setting.components
        kinds = tuple(_KINDS[type(side.condition)] for pair in setting.sides for side in pair)
        self.layout, ghosts = layout_of(shape, march.PADS), march.ghosts_of(shape, kinds)
        size, d, bottom = self.layout.size, len(shape), kernels.primitives is not None
        n, widest, v = rows * size, max(np.diff(ghosts.ends)), m + 1 if bottom else m
        self.arrays = RowArrays(
            states=np.zeros((4, m, rows, size)),
            rate=np.zeros((m, rows, size)),
            flow=np.zeros((2, rows, 2 * d + 1, m)),
            lanes=np.zeros(rows, LANE),
            side_data=np.zeros((3, rows, m, sides.fixed.shape[2])),
            sampled=np.zeros((rows, m, 0 if sides.scan is None else sides.fixed.shape[2])),
            total=np.zeros((rows, 2 * d + 1, m)),
        )
        scratch = Scratch(
            variables=np.zeros((v if bottom else 0, n)),
            half=np.zeros((v, n)),
            ends=np.zeros((0 if bottom else m, 2 * n)),
            waves=np.zeros((0 if bottom else m + 2, 2 * n)),
            flux=np.zeros((m + 6 if bottom else m, n)),
            rest=np.zeros((4, n)),
            near=np.zeros(2 * m * rows * widest),
            thin=np.zeros((2, n if bottom else 0)),
            good=np.zeros(n),
            options=np.array([m, isinstance(setting.flux, Rusanov), 0.0]),
        )
        self.system = System(
            laws=_laws_of(setting, kernels),
            parameters=kernels.parameters.copy(),
            ground=np.zeros(n if bottom else 0),
            grid=SystemGrid(self.layout, ghosts, np.array(kinds), np.asarray(setting.grid.spacing, dtype=float)),
            scratch=scratch,
            limits=sides.limits,
            write_side_data=self._write.address,
        )

    def enter(self, rows: Array, given: tuple[Array, ...], bottom: Array | None) -> None:
        """Puts rows into the tile: states, numbers, and time integrals of flows and states at the sides."""
        (u, lanes, total, sampled), (count, m), arrays = given, given[0].shape[:2], self.arrays
        padded = to_padded(u.swapaxes(0, 1).reshape(m * count, -1), self.layout)
        self.rows, arrays.states[0] = rows, padded.reshape(m, count, -1)
        arrays.lanes[:], arrays.total[:], arrays.sampled[:] = lanes, total, sampled
        arrays.side_data[:] = self.sides.fixed[rows]
        arrays.lanes["row"], arrays.lanes["longest"], arrays.lanes["fresh"] = rows, inf, 1.0
        if bottom is not None:
            self.system.ground[:] = bottom[rows].ravel()

    def _write_states(self, *arguments: int) -> None:
        """Writes states at the sides: at the start of the steps of fresh rows, or at their end and in their middle."""
        lanes, data, sides = self.arrays.lanes, self.arrays.side_data, self.sides
        start, length = lanes["time"], lanes["length"]
        if arguments[7] == 0:
            fresh = np.flatnonzero(lanes["fresh"])
            at = np.minimum(start[fresh] + lanes["after_start"][fresh], sides.end)
            data[:1, fresh] = sides.write(data[:1, fresh], at[None], self.rows[fresh])
            return
        times = np.array([start + length - lanes["before_end"], start + 0.5 * length])
        sides.write(data[1:], np.minimum(times, sides.end, out=times), self.rows)

    def states(self) -> Array:
        """The states of the rows ``(rows, c, cells)``."""
        states = self.arrays.states[0]
        m, rows = states.shape[:2]
        return from_padded(states.reshape(m * rows, -1), self.layout).reshape(m, rows, -1).swapaxes(0, 1)


def _laws_of(setting: Setting, kernels: LawKernels) -> SystemLaws:
    """The kernels in the order of the compiled steps."""
    bottom, limits = kernels.primitives is not None, isinstance(setting.reconstruction, MUSCL)
    nothing, fluxes = NOTHING.address, kernels.fluxes.address
    return SystemLaws(
        waves=nothing if bottom else fluxes,
        mirror=kernels.mirror.address,
        slopes=setting.reconstruction.kernel.address if limits else nothing,
        primitives=(kernels.primitives or NOTHING).address,
        faces=fluxes if bottom else nothing,
        move=nothing if bottom else march.MOVE_TO_AVERAGES.address,
        hll=nothing if bottom else march.HLL_FLUX.address,
        check=kernels.check.address,
        reconstructs=limits,
        bottom=bottom,
    )


def _kernels_of(setting: Setting) -> LawKernels:
    """The kernels, once law, reconstruction and grid are found to go together."""
    way, law = setting.reconstruction, setting.law
    water = isinstance(law, ShallowWater)
    needed = march.PADS if water else way.ghosts
    if min(setting.grid.shape) < needed:
        raise InvalidArgumentError(
            f"{type(way).__name__} needs at least {needed} cells along every axis, got {setting.grid.shape}; use more "
            "cells."
        )
    if water and not isinstance(way, MUSCL | Constant):
        raise InvalidArgumentError(
            f"ShallowWater takes MUSCL() or Constant() as reconstruction, which keep the depth positive, got {way!r}."
        )
    if not isinstance(way, MUSCL | Constant):
        raise InvalidArgumentError(f"reconstruction must be MUSCL() or Constant(), got {way!r}.")
    walls = any(isinstance(side.condition, Reflecting) for pair in setting.sides for side in pair)
    return law_kernels(law, setting.flux, setting.components, len(setting.sides), walls)


def _bottom_of(setting: Setting, bottom: Tensor | None) -> Array | None:
    """The bottom with ghost cells ``(entries, size)``."""
    if not isinstance(setting.law, ShallowWater):
        return None
    level = torch.zeros(prod(setting.batch), *setting.grid.shape, dtype=torch.float64) if bottom is None else bottom
    for axis, (first, last) in enumerate(setting.sides):
        cells = level.movedim(1 + axis, -1)
        ends = bottom_ghosts(first, cells, march.PADS), bottom_ghosts(last, cells, march.PADS)
        level = torch.cat([ends[0], cells, ends[1]], dim=-1).movedim(-1, 1 + axis)
    return level.reshape(len(level), -1).numpy()
