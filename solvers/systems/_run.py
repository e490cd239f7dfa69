"""From a law, a grid and sides to the arrays of the compiled steps, and back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf, prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.conditions import Condition, Dirichlet, Outflow, Periodic
from solvers.errors import InvalidArgumentError, SolverDivergedError
from solvers.finite_volume._kernels import NO_RECORD, Callback, Shared, numbers_at
from solvers.finite_volume.convection.schemes import MUSCL, WENO, Constant, Reconstruction
from solvers.finite_volume.sides._side_data import SideData
from solvers.finite_volume.steppers import _explicit_kernels as explicit
from solvers.finite_volume.steppers import _march_kernels as march
from solvers.finite_volume.steppers._drive import rows_at_start, steps_of
from solvers.finite_volume.steppers._march_kernels import Limits, Output, Sides
from solvers.grids import CellGrid
from solvers.systems import _core as core
from solvers.systems import _plan
from solvers.systems._law_kernels import Law, LawKernels, admissible, law_kernels
from solvers.systems._plan import System
from solvers.systems.boundary import Reflecting, Side, bottom_ghosts, stated
from solvers.systems.laws import ShallowWater, SystemFlux

_LIMIT = 0.5  # of a cell that a signal may have crossed after a step
_KINDS = {Periodic: _plan.PERIODIC, Reflecting: _plan.REFLECTING, Outflow: _plan.OUTFLOW, Dirichlet: _plan.GIVEN}


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
    def changes(self) -> bool:
        """Whether a state at a side changes with time."""
        return any(side.changes for pair in self.sides for side in pair)

    def state(self, side: Side, time: float) -> Tensor:
        """States of a Dirichlet side at a time ``(*batch, c, *face)``."""
        face = tuple(n for axis, n in enumerate(self.grid.shape) if axis != side.axis)
        states = stated(side, time, (*self.batch, self.components), face)
        if not bool(admissible(self.law, states, self.grid.dimension).all()):
            raise InvalidArgumentError(
                f"{side.name}: the state at time {time:g} is not admissible for {type(self.law).__name__}; give the "
                f"conserved components, got {states[0].tolist()}."
            )
        return states.reshape(*self.batch, self.components, *face)

    def data(self, start: float, end: float, breakpoints: Sequence[float]) -> SideData:
        """The states at all sides from start to end; a row is a component of an entry. Steps end at break points."""

        def condition(side: Side) -> Condition:
            if not isinstance(side.condition, Dirichlet):
                return Outflow()
            return Dirichlet(partial(self.state, side) if side.changes else self.state(side, start))

        pairs = [(condition(first), condition(last)) for first, last in self.sides]
        return SideData.build(pairs, self.grid, (*self.batch, self.components), start, end, breakpoints)


class Run:
    """A batch under way, by the explicit steps of ``solve``.

    Args:
        setting: What is solved.
        sides: The states at its sides.
        u: Cell averages ``(entries, c, *cells)`` at the start.
        bottom: Bottom ``(entries, *cells)``, or None.
        steps: Fraction of a cell that the fastest signal may cross in a step, and the largest step.
    """

    def __init__(
        self, setting: Setting, sides: SideData, u: Tensor, bottom: Tensor | None, steps: tuple[float, float]
    ) -> None:
        self.setting, self._sides, entries = setting, sides, len(u)
        kernels = _kernels_of(setting, u)
        self._error, states = kernels.error, u.reshape(entries, -1).numpy()
        flows = (2 * setting.grid.dimension + 1) * setting.components
        given = sides.at(np.full((1, len(sides.rows)), sides.start))[0].reshape(entries, -1)
        self._rows = rows_at_start(states, flows, given, sides.start, inf)
        self._output = Output(np.zeros(1), np.zeros((entries, 1, states.shape[1])), np.zeros((entries, 1, flows)))
        width = entries if kernels.whole or sides.scan is not None else 1
        plan = _plan_of(setting, kernels, width, _bottoms(setting, bottom, entries).numpy())
        self._bad = np.full(entries, -1)
        system = Shared(System(plan, _room_of(plan, setting.reconstruction, width), self._bad), owner=kernels)
        self._look = Callback(self._states, kernels.error, rates=True)
        courant, largest = steps
        scheme = explicit.Scheme(
            courant, 3, Limits(inf, 0.0, largest), core.rates.address, system.record, 0, keeps=1, most=_LIMIT, lands=1
        )
        data = Sides(0 if sides.scan is None else self._look.address, NO_RECORD, np.zeros(0, np.int64))
        room, parts = explicit.empty_room(self._rows, width), explicit.parts(looks_ahead=False)
        self._advance = steps_of(explicit.Steps(self._rows, scheme, data, self._output, room, parts), owner=system)

    @property
    def u(self) -> Tensor:
        """Cell averages ``(entries, c, *cells)``."""
        return torch.from_numpy(self._rows.u).reshape(-1, self.setting.components, *self.setting.grid.shape)

    @property
    def account(self) -> Tensor:
        """Time-integrated flux through every side, and last the source ``(entries, 2d + 1, c)``."""
        return torch.from_numpy(self._rows.account).reshape(len(self._rows.u), -1, self.setting.components)

    @property
    def steps(self) -> Tensor:
        """Accepted steps of every entry ``(entries,)``."""
        return torch.from_numpy(self._rows.state[:, march.STEPS]).to(torch.int64)

    def advance(self, target: float, report: Callable[[float], None] | None) -> None:
        """Integrates every entry to a target time; a ``SolverDivergedError`` if one fails at the smallest step.

        ``report`` is called with the mean advance in time over the batch.
        """
        state, self._output.times[:] = self._rows.state, target
        state[:, march.CURSOR], now = 0.0, state[:, march.TIME]
        while (now < target).any():
            before = now.mean()
            self._advance()
            if self._error:
                raise self._error[0]
            if report is not None:
                report(float(now.mean() - before))
            for entry in np.flatnonzero(state[:, march.VERDICT])[:1]:
                raise self._failure(int(entry), target)

    def check(self, time: float) -> None:
        """Raises an error if the steps until a time missed an event at a side."""
        self._sides.check(self._rows.sampled.reshape(self._sides.fixed.shape), self._sides.start, time)

    def _states(
        self, times: Any, rows: Any, since: Any, out: Any, _same: Any, _record: Any, count: int, size: int
    ) -> None:
        """States at the times of some entries; with no size their largest steps, and whether states may jump there."""
        c = self.setting.components
        numbers = numbers_at(rows, count).astype(np.int64)[:, None] * c + np.arange(c)
        part, moments = self._sides.take(numbers.reshape(-1)), np.repeat(numbers_at(times, count), c)
        if size > 0:
            numbers_at(out, count, size)[:] = part.at(moments[None], np.repeat(numbers_at(since, count), c)).reshape(
                count, size
            )
            return
        limits = numbers_at(out, 2, count)
        limits[0] = part.largest_step(moments).reshape(count, c).min(1)
        limits[1] = part.scan is not None and part.scan.panels.has_breaks

    def _failure(self, entry: int, target: float) -> SolverDivergedError:
        """The error of an entry that failed at the smallest step."""
        setting, cell = self.setting, int(self._bad[entry])
        time, step = (float(self._rows.state[entry, place]) for place in (march.TIME, march.LENGTH))
        place = np.unravel_index(cell, setting.grid.shape) if cell >= 0 else ()
        at = f" in cell {tuple(int(i) for i in place)}" if cell >= 0 else ""
        number = np.unravel_index(entry, setting.batch) if setting.batch else ()
        where = f", batch entry {tuple(int(i) for i in number)}" if setting.batch else ""
        return SolverDivergedError(
            f"{type(setting.law).__name__} has no admissible state{at}{where} after time {time:.6g} with a step of "
            f"{step:.3g} (smallest allowed {march.smallest_step(time, target):.3g}). Check the law's flux, eigenvalues "
            "and admissible, and the boundary states; reconstruction=Constant() is the most robust."
        )


def _plan_of(setting: Setting, kernels: LawKernels, width: int, bottom: np.ndarray) -> _plan.Plan:
    """What does not change with time, for so many entries that go side by side."""
    grid = setting.grid
    return _plan.Plan(
        shape=np.array(grid.shape, np.int64),
        spacing=np.array(grid.spacing),
        kinds=np.array([[_KINDS[type(side.condition)] for side in pair] for pair in setting.sides], np.int64),
        components=setting.components,
        ghosts=_ghosts(setting),
        chunk=width * prod(grid.shape) if kernels.whole else 1,
        sweep=kernels.sweep,
        kernels=np.array([kernels.faces, kernels.mirrors], np.int64).T.copy(),
        check=kernels.check,
        numbers=kernels.numbers,
        bottom=bottom,
    )


def _room_of(plan: _plan.Plan, way: Reconstruction, entries: int) -> _plan.Room:
    """Room for the rates of so many entries."""
    c, g, cells = plan.components, plan.ghosts, int(plan.shape.prod())
    ends = min(plan.chunk, entries * cells)
    most = max(min(ends, entries * cells // int(n)) * (int(n) + 2 * g) for n in plan.shape)
    order = np.zeros(8, np.int64)
    order[[_plan.COMPONENTS, _plan.GHOSTS, _plan.CHECK, _plan.SLOPES]] = c, g, plan.check, way.address
    return _plan.Room(
        cells=np.zeros(c * most + 1),
        change=np.zeros(c * most + 1),
        through=np.zeros(3 * c * ends),
        speed=np.zeros(ends),
        near=np.zeros(c * ends * g),
        image=np.zeros(c * ends * g),
        work=np.zeros((3 * c + 4) * (most + 2 * ends)),
        fastest=np.zeros(entries),
        good=np.zeros(entries * cells),
        order=order,
        live=np.zeros(entries, np.int64),
    )


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
    if not isinstance(way, MUSCL | Constant | WENO):
        raise InvalidArgumentError(f"reconstruction must be MUSCL(), WENO() or Constant(), got {way!r}.")
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
