"""From a law, a grid and sides to the arrays of the compiled core, and back; whether its steps saw changing sides."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.conditions import Dirichlet, Outflow, Periodic
from solvers.errors import InvalidArgumentError, SolverDivergedError
from solvers.finite_volume._kernels import Callback, Shared
from solvers.finite_volume.convection.schemes import MUSCL, Constant, Reconstruction
from solvers.grids import CellGrid
from solvers.systems import _core as core
from solvers.systems import _tile
from solvers.systems._law_kernels import Law, LawKernels, admissible, law_kernels
from solvers.systems._tile import view
from solvers.systems.boundary import Reflecting, Side, bottom_ghosts, stated
from solvers.systems.laws import ShallowWater, SystemFlux

_BUDGET = 200
_KINDS = {Periodic: _tile.PERIODIC, Reflecting: _tile.REFLECTING, Outflow: _tile.OUTFLOW, Dirichlet: _tile.GIVEN}
_POINTS = 4096
_TOLERANCE = 0.05
_ROUND_OFF = 1e-9
_CHUNK = 2**16  # numbers of states held at once


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is solved.

    Attributes:
        law: The law.
        grid: The cells.
        sides: One (first, last) pair per axis.
        batch: Shape of the batch.
        components: Number of components c.
        flux: Numerical flux.
        reconstruction: States at faces.
    """

    law: Law
    grid: CellGrid
    sides: tuple[tuple[Side, Side], ...]
    batch: tuple[int, ...]
    components: int
    flux: SystemFlux
    reconstruction: Reconstruction

    @property
    def changing(self) -> list[Side]:
        """The sides whose state changes with time."""
        return [side for pair in self.sides for side in pair if side.changes]

    def state(self, side: Side, time: float) -> Tensor:
        """States of a Dirichlet side at a time ``(entries, c, face cells)``, one face cell with one axis."""
        face = tuple(n for axis, n in enumerate(self.grid.shape) if axis != side.axis)
        states = stated(side, time, (*self.batch, self.components), face)
        if not bool(admissible(self.law, states, self.grid.dimension).all()):
            raise InvalidArgumentError(
                f"{side.name}: the state at time {time:g} is not admissible for {type(self.law).__name__}; give the "
                f"conserved components, got {states[0].tolist()}."
            )
        return states.reshape(prod(self.batch), self.components, prod(face))

    def place(self, side: Side) -> slice:
        """Where the states of a side are among those of all sides."""
        cells = [self.components * prod(self.grid.shape) // n for n in self.grid.shape]
        start = 2 * sum(cells[: side.axis]) + (cells[side.axis] if side.last else 0)
        return slice(start, start + cells[side.axis])


class Run:
    """A batch under way.

    Attributes:
        setting: What is solved.
        u: Cell averages ``(entries, c, *cells)``.
        boundary_flux: Time-integrated flux through every side ``(entries, 2d, c)``.
        source: Time-integrated source ``(entries, c)``.
        sampled: Time-integrated states at the sides that change with time, as the steps sampled them.
    """

    def __init__(self, setting: Setting, u: Tensor, bottom: Tensor | None, start: float) -> None:
        self.setting, entries, d = setting, len(u), setting.grid.dimension
        self._kernels = _kernels_of(setting, u)
        self.u = u.clone()
        self.boundary_flux = u.new_zeros(entries, 2 * d, setting.components)
        self.source = u.new_zeros(entries, setting.components)
        self._clocks = torch.tensor([start, torch.inf, 0.0], dtype=torch.float64).repeat(entries, 1)
        self._given = self._states_at_start(entries, start)
        self.sampled = torch.zeros_like(self._given) if setting.changing else u.new_zeros(entries, 0)
        self._bottom = _bottoms(setting, bottom, entries)
        self._look = Callback(self._update_states, self._kernels.error)
        self._tile = entries if self._kernels.whole or setting.changing else 1
        self._bounds, self._status, self._places = np.zeros(4), np.zeros(entries, np.int64), np.zeros(entries, np.int64)
        self._tiles = self._make_tiles()

    @property
    def steps(self) -> Tensor:
        """Accepted steps of every entry ``(entries,)``."""
        return self._clocks[:, 2].to(torch.int64)

    def advance(self, target: float, steps: tuple[float, float, float], report: Callable[[float], None] | None) -> None:
        """Integrates every entry to a target time; a ``SolverDivergedError`` if one fails at the smallest step.

        ``steps`` are the fraction of a cell that the fastest signal may cross in a step, the largest and the smallest
        step; ``report`` is called with the mean advance in time over the batch.
        """
        clocks, status = self._clocks.numpy(), self._status
        self._bounds[:] = target, *steps
        status[:], self._places[:] = np.where(clocks[:, 0] < target, _tile.RUNNING, _tile.DONE), -1
        for start, tile in zip(range(0, len(self.u), self._tile), self._tiles, strict=True):
            part = slice(start, start + self._tile)
            while (status[part] == _tile.RUNNING).any():
                before = clocks[part, 0].sum()
                tile.run(core.run, _BUDGET, 0, 0)
                if self._kernels.error:
                    raise self._kernels.error[0]
                if report is not None:
                    report(float(clocks[part, 0].sum() - before) / len(self.u))
            if (status[part] == _tile.FAILED).any():
                entry = start + int(np.argmax(status[part] == _tile.FAILED))
                raise self._failure(entry, int(self._places[entry]))

    def _make_tiles(self) -> list[Shared]:
        """The tiles of entries for the core; they share plan and room."""
        entries, d, plan = len(self.u), self.setting.grid.dimension, self._make_plan()
        rows = [self.u.reshape(entries, -1), self._clocks, self.boundary_flux, self.source, self.sampled]
        ahead, behind = [*(each.numpy() for each in rows), self._status, self._places], (self._given, self._bottom)
        attempt, rates, buffers = _rooms(plan, self._tile, 2 * d, self.sampled.shape[1])
        live, parts = np.zeros(self._tile + 1, np.int64), core.parts(bool(self.setting.changing))
        tiles = []
        for start in range(0, entries, self._tile):
            part = slice(start, start + self._tile)
            first, others = [each[part] for each in ahead], [each.numpy()[part] for each in behind]
            rest = (self._bounds, start, plan, attempt, rates, buffers, parts)
            tiles.append(Shared(_tile.Tile._make((*first, live, *others, *rest)), owner=self._kernels))
        return tiles

    def _make_plan(self) -> _tile.Plan:
        setting, kernels = self.setting, self._kernels
        grid, way = setting.grid, setting.reconstruction
        return _tile.Plan(
            shape=np.array(grid.shape, np.int64),
            spacing=np.array(grid.spacing),
            kinds=np.array([[_KINDS[type(side.condition)] for side in pair] for pair in setting.sides], np.int64),
            components=setting.components,
            ghosts=_ghosts(setting),
            chunk=self._tile * prod(grid.shape) if kernels.whole else 1,
            sweep=kernels.sweep,
            kernels=np.array([kernels.faces, kernels.mirrors], np.int64).T.copy(),
            check=kernels.check,
            slopes=getattr(way, "address", 0),
            given=self._look.address if setting.changing else 0,
            numbers=kernels.numbers,
        )

    def _states_at_start(self, entries: int, start: float) -> Tensor:
        """States of all sides ``(entries, Σ over axes of 2·c·face cells)``, 0 where none is given."""
        setting = self.setting
        pairs = setting.sides
        given = torch.zeros(entries, setting.place(pairs[-1][1]).stop, dtype=torch.float64)
        for side in (side for pair in pairs for side in pair if isinstance(side.condition, Dirichlet)):
            given[:, setting.place(side)] = setting.state(side, start).flatten(1)
        return given

    def _update_states(self, times: Any, rows: Any, _a: Any, _b: Any, _c: Any, count: int, _d: int) -> None:
        """Puts the states of the sides at the times of some entries where the core reads them."""
        distinct, which = np.unique(view(times, 1, count, count)[0], return_inverse=True)
        entries = torch.from_numpy(view(rows, 1, count, count)[0].astype(np.int64))
        for side in self.setting.changing:
            for k, time in enumerate(distinct.tolist()):
                chosen = entries[torch.from_numpy(which == k)]
                self._given[chosen, self.setting.place(side)] = self.setting.state(side, time)[chosen].flatten(1)

    def _failure(self, entry: int, cell: int) -> SolverDivergedError:
        """The error of an entry that failed at the smallest step."""
        setting, (time, step, _) = self.setting, self._clocks[entry].tolist()
        place = np.unravel_index(cell, setting.grid.shape) if cell >= 0 else ()
        at = f" in cell {tuple(int(i) for i in place)}" if cell >= 0 else ""
        number = np.unravel_index(entry, setting.batch) if setting.batch else ()
        where = f", batch entry {tuple(int(i) for i in number)}" if setting.batch else ""
        return SolverDivergedError(
            f"{type(setting.law).__name__} has no admissible state{at}{where} after time {time:.6g} with a step of "
            f"{step:.3g} (smallest allowed {self._bounds[3]:.3g}). Check the law's flux, eigenvalues and admissible, "
            "and the boundary states; reconstruction=Constant() is the most robust."
        )


def _rooms(
    plan: _tile.Plan, entries: int, sides: int, sampled: int
) -> tuple[_tile.Attempt, _tile.Rates, _tile.Buffers]:
    """Room for the steps, the rates and the sweeps of a tile."""
    c, g, cells = plan.components, plan.ghosts, int(plan.shape.prod())
    width, ends = c * cells, min(plan.chunk, entries * cells)
    most = max(min(ends, entries * cells // int(n)) * (int(n) + 2 * g) for n in plan.shape)
    order = np.zeros(8, np.int64)
    order[[_tile.COMPONENTS, _tile.GHOSTS, _tile.CHECK, _tile.SLOPES]] = c, g, plan.check, plan.slopes
    attempt = _tile.Attempt(
        one=np.zeros((entries, width)),
        two=np.zeros((entries, width)),
        sides=np.zeros((entries, sides, c)),
        source=np.zeros((entries, c)),
        sampled=np.zeros((entries, sampled)),
        step=np.zeros(entries),
        worst=np.zeros(entries),
        bad=np.zeros(entries, np.int64),
        good=np.zeros(entries * cells),
    )
    rates = _tile.Rates(
        np.zeros((entries, width)), np.zeros((entries, sides, c)), np.zeros((entries, c)), np.zeros(entries)
    )
    buffers = _tile.Buffers(
        cells=np.zeros(c * most + 1),
        change=np.zeros(c * most + 1),
        through=np.zeros(3 * c * ends),
        speed=np.zeros(ends),
        near=np.zeros(c * ends * g),
        image=np.zeros(c * ends * g),
        work=np.zeros((3 * c + 4) * (most + 2 * ends)),
        fastest=np.zeros(entries),
        order=order,
    )
    return attempt, rates, buffers


def _ghosts(setting: Setting) -> int:
    return 2 if isinstance(setting.law, ShallowWater) else setting.reconstruction.ghosts


def _kernels_of(setting: Setting, u: Tensor) -> LawKernels:
    """The kernels, once law, reconstruction and grid are found to go together."""
    way, law, needed = setting.reconstruction, setting.law, _ghosts(setting)
    if min(setting.grid.shape) < needed:
        raise InvalidArgumentError(
            f"{type(way).__name__} needs at least {needed} cells along every axis, got {setting.grid.shape}; use more "
            "cells."
        )
    if isinstance(law, ShallowWater) and not isinstance(way, MUSCL | Constant):
        raise InvalidArgumentError(
            f"ShallowWater takes MUSCL() or Constant() as reconstruction, which keep the depth positive, got {way!r}."
        )
    if not isinstance(way, MUSCL | Constant):
        raise InvalidArgumentError(f"reconstruction must be MUSCL() or Constant(), got {way!r}.")
    walls = tuple(any(isinstance(side.condition, Reflecting) for side in pair) for pair in setting.sides)
    sample = u[0].flatten(1)[:, 0].tolist()
    return law_kernels(law, setting.flux, setting.components, walls, sample)


def _bottoms(setting: Setting, bottom: Tensor | None, entries: int) -> Tensor:
    """Bottom with ghost cells of the lines along every axis ``(entries, Σ over axes of lines·(n + 4))``."""
    if not isinstance(setting.law, ShallowWater):
        return torch.zeros(entries, 0, dtype=torch.float64)
    level = torch.zeros(entries, *setting.grid.shape, dtype=torch.float64) if bottom is None else bottom
    padded = []
    for axis, (first, last) in enumerate(setting.sides):
        cells = level.movedim(1 + axis, -1)
        lines = torch.cat([bottom_ghosts(first, cells, 2), cells, bottom_ghosts(last, cells, 2)], dim=-1)
        padded.append(lines.reshape(entries, -1))
    return torch.cat(padded, dim=1).contiguous()


@dataclass(frozen=True)
class Watch:
    """Compares the time integral of given states, as the steps sample it, with that over many more points.

    An event shorter than the distance of the points, a part in ``_POINTS`` of the span, is missed where the steps miss
    it too.

    Every face cell is compared on its own, since events of opposite sign cancel in a mean, and the mean over the side
    too, whose variation may be smaller than that of its cells.

    Args:
        setting: What is solved.
        sampled: Time-integrated states of all sides; see ``Run``.
    """

    setting: Setting
    sampled: Tensor

    def check(self, start: float, end: float) -> None:
        """Raises an error if an integral over the span is off by more than a twentieth of a state's variation."""
        for side in self.setting.changing if end > start else []:
            if self._misses(side, start, end):
                raise InvalidArgumentError(
                    f"{side.name}: the time steps between {start:g} and {end:g} miss a part of the state, which changes"
                    " within a step; set largest_step to a fraction of the shortest event."
                )

    def _misses(self, side: Side, start: float, end: float) -> bool:
        """Whether the steps missed a part of the state in a face cell or in the mean over the side.

        A cell's variation is about its first or its last state, whichever is larger: a front that runs along the side
        and reaches a cell shortly before the end is no event there. That of the mean is about its first state.
        """
        points = start + (end - start) * (torch.arange(_POINTS).double() + 0.5) / _POINTS
        first = next(self._chunks(side, points[:1]))[0]
        total, variation, of_mean = torch.zeros_like(first), torch.zeros_like(first), torch.zeros_like(first[..., 0])
        for states in self._chunks(side, points):
            total += states.sum(0)
            of_mean += (states.mean(-1) - first.mean(-1)).abs().sum(0)
            variation += states.sub_(first).abs_().sum(0)
        sampled = self.sampled[:, self.setting.place(side)].reshape(first.shape)
        off = (sampled / (end - start) - total / _POINTS) * _POINTS
        floor = _ROUND_OFF * (_POINTS * first.abs() + variation).amax(-1)
        if bool((off.mean(-1).abs() > _TOLERANCE * of_mean + floor).any()):
            return True
        bound = off.abs() - floor[..., None]
        if bool((bound <= _TOLERANCE * variation).all()):
            return False
        last = next(self._chunks(side, points[-1:]))[0]
        about_last = sum((states.sub_(last).abs_().sum(0) for states in self._chunks(side, points)), 0 * last)
        return bool((bound > _TOLERANCE * torch.maximum(variation, about_last)).any())

    def _chunks(self, side: Side, points: Tensor) -> Iterator[Tensor]:
        """States at points of time ``(points, entries, c, face cells)``, a part of the points at a time, to change."""
        states = []
        for point in points.tolist():
            states.append(self.setting.state(side, point))
            if len(states) * states[0].numel() >= _CHUNK:
                yield torch.stack(states)
                states = []
        if states:
            yield torch.stack(states)
