"""Integrates a group of rows through time, each with its own steps, error control and output, by the compiled steps.

Between the steps the driver asks for what changes with time: data of the sides, laws and sources in tensors. Steps end
where something jumps; rates are then evaluated anew, with the values after the jump.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from math import inf, prod
from typing import Any

import numpy as np

from solvers.errors import SolverDivergedError
from solvers.finite_volume.march import control as c
from solvers.finite_volume.march import explicit, lines
from solvers.finite_volume.march.arguments import (
    LANE,
    ExplicitArrays,
    ExplicitScheme,
    ImplicitScheme,
    Outputs,
    StageData,
    StepControl,
)
from solvers.finite_volume.march.kernels import Array, Callback
from solvers.finite_volume.march.planes import PlaneStages
from solvers.finite_volume.march.rates import from_padded, to_padded
from solvers.finite_volume.march.tiles import Tile
from solvers.finite_volume.steppers.steppers import RKL2, SSPRK3, ImplicitStepper, Stepper

_BUDGET = 2000
_STAGES = 16

Report = Callable[[float], None] | None


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """Result of the integration of a group of rows.

    Attributes:
        values: Cell averages at the output times ``(rows, t, cells)``.
        budget: Time-integrated flow since the start ``(rows, t, 2d + 1)``.
        steps: Accepted steps ``(rows,)``.
        rejected: Rejected steps ``(rows,)``.
        evaluations: Evaluations of the rates, Newton iterations included ``(rows,)``.
    """

    values: Array
    budget: Array
    steps: Array
    rejected: Array
    evaluations: Array

    @classmethod
    def joined(cls, parts: Sequence["Trajectory"], rows: Array) -> "Trajectory":
        """One trajectory from those of groups; ``rows`` are the rows of the groups, one after the other."""
        order = np.argsort(rows)
        names = [field.name for field in fields(cls)]
        if len(parts) == 1 and (np.diff(rows) > 0).all():
            return parts[0]
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts])[order] for name in names})


def drive(
    operator: Any, stepper: Stepper, initial: Array, times: Array, start: float, report: Report = None
) -> Trajectory:
    """Integrates rows ``(rows, cells)`` from ``start`` to the last of the increasing output times ``(t,)``.

    A source is implicit with implicit steppers in the rows where it is stiff. ``report`` is called with the time
    advanced, summed over rows.

    Raises:
        SolverDivergedError: If a step fails at the smallest step, 10⁻¹² of the span.
        BoundarySamplingError: If the steps of a row have missed an event in the boundary data.
    """
    stiff = np.zeros(len(initial), dtype=bool)
    if isinstance(stepper, ImplicitStepper) and operator.source is not None and operator.diffusion is not None:
        stiff = operator.source.is_stiff(initial, start, operator.sides.end - operator.sides.start)
    if stiff.any() and not stiff.all():
        groups = np.flatnonzero(stiff), np.flatnonzero(~stiff)
        parts = [drive(operator.take(rows), stepper, initial[rows], times, start, report) for rows in groups]
        return Trajectory.joined(parts, np.concatenate(groups))
    march = _March(operator, stepper, initial, times, start, report)
    if isinstance(stepper, ImplicitStepper):
        _take_implicit_steps(march, stepper, bool(stiff.any()))
    else:
        _take_explicit_steps(march, stepper)  # type: ignore[arg-type]
    operator.sides.check(march.out.sampled, operator.sides.start, times[-1])
    out = march.out
    counts = {name: out.finished[name].astype(np.int64) for name in ("steps", "rejected", "evaluations")}
    return Trajectory(values=out.values, budget=out.budget, **counts)


class _March:
    """What the steps of a group of rows have in common."""

    def __init__(self, operator: Any, stepper: Any, initial: Array, times: Array, start: float, report: Report) -> None:
        count, flows, n = len(initial), 2 * operator.grid.dimension + 1, initial.shape[1]
        self.operator, self.initial, self.times, self.report = operator, np.ascontiguousarray(initial), times, report
        self.out = Outputs(
            values=np.full((count, len(times), n), np.nan),
            budget=np.zeros((count, len(times), flows)),
            finished=np.zeros(count, LANE),
            total=np.zeros((count, flows)),
            sampled=np.zeros((count, operator.sides.offsets[-1])),
            course=np.zeros((3, n)),
            balance=np.zeros((3, flows)),
        )
        begin, end, self.reported = float(start), float(times[-1]), 0.0
        longest = min(float(stepper.largest_step), operator.largest_step)
        self.control = StepControl(longest, begin, end, float(stepper.tolerance), float(stepper.atol))
        self.start = np.zeros(1, LANE)
        self.start["time"], self.start["proposal"] = begin, (end - begin) * stepper.first_fraction
        self.start["longest"], self.start["fresh"] = inf, 1.0
        self.start["low"] = self.start["seen_low"] = inf
        self.start["high"] = self.start["seen_high"] = -inf
        if times[0] == start:
            self.out.values[:, 0], self.start["cursor"] = initial, 1

    def advanced(self, total: float) -> None:
        """Reports the time that the rows have advanced since the start, summed over them."""
        if self.report is not None:
            self.report(total - self.reported)
            self.reported = total

    def raise_if_failed(self) -> None:
        """Raises an error for a row that cannot go on."""
        for row in np.flatnonzero(self.out.finished["verdict"])[:1]:
            raise SolverDivergedError(_failure(int(row), self.out.finished[row], self.control.end))


def _failure(row: int, lane: Any, end: float) -> str:
    """The message for a row that cannot go on, by the lane that it was in."""
    time, length, residual, low, high = (float(lane[n]) for n in ("time", "length", "residual", "low", "high"))
    if lane["verdict"] == c.STEP_UNDERFLOW:
        smallest = c.SMALLEST * max(abs(time), 1e-4 * (end - time))
        return (
            f"The step of row {row} failed at time {time:.6g} with length {length:.3g} (smallest allowed "
            f"{smallest:.3g}), residual {residual:.3g}. Use more cells or smoother data; for a discontinuous "
            "conductivity take IntegralMean() or RKL2(). Where a source, a coefficient or a boundary value jumps, give "
            "the time as breakpoints=; where states are near 0, give the stepper an absolute tolerance, atol=. Law and "
            f"source must be finite a little beyond the states there, {low:.6g} to {high:.6g}."
        )
    return (
        f"Row {row} cannot be continued past time {time:.6g}: the steps have shrunk to {length:.3g}, and max |u| "
        f"is {max(high, -low):.3g}. A source such as u² makes solutions infinite in finite time; end before."
    )


def _take_implicit_steps(march: _March, stepper: Any, reacts: bool) -> None:
    """Takes all implicit steps of a group."""
    operator, tableau = march.operator, stepper.tableau
    if operator.grid.dimension == 1:
        width = lines.lanes_for(operator, reacts, *march.initial.shape)
        solver: Any = lines.LineStages(operator, tableau, width, reacts, march.initial, march.start)
    else:
        solver = PlaneStages(operator, tableau, 1, reacts, march.initial, march.start)
    lanes, sides, out, begin = solver.system.arrays.lanes, operator.sides, march.out, march.control.start
    given = march.control, march.times, sides.limits, np.asarray(sides.modes), float(operator.grid.spacing[0])
    scheme = ImplicitScheme(tableau, stepper.order, *given, lines.NEWTON_TOLERANCE, lines.NEWTON_ITERATIONS)
    following, busy = solver.advance(scheme, out, None, 0, 1)
    while busy:
        rows = np.maximum(lanes["row"], 0.0).astype(np.int64)
        part, steps = solver.prepare(scheme, rows, out)
        following, busy = solver.advance(scheme, out, part, following, steps)
        if solver.errors:
            raise solver.errors[0]
        if march.report is not None:
            done = out.finished["time"].sum() - begin * np.count_nonzero(out.finished["steps"])
            march.advanced(float(done + (lanes["time"] - begin)[lanes["row"] >= 0.0].sum()))
        march.raise_if_failed()


def _take_explicit_steps(march: _March, stepper: SSPRK3 | RKL2) -> None:
    """Takes all explicit steps of a group: of one row after the other, or of all where Python is asked in between."""
    operator, count = march.operator, len(march.initial)
    changes = operator.sides.scan is not None
    terms = operator.diffusion, operator.convection, operator.source
    together = changes or any(term is not None and term.compiled_law is None for term in terms)
    tile = _ExplicitTile(march, stepper, terms, count if together else 1)
    width = count if together else 1
    for first in range(0, count, width):
        tile.enter(first)
        tile.run()
        tile.leave()
        march.raise_if_failed()
        march.advanced((march.control.end - march.control.start) * (first + width))


class _ExplicitTile:
    """Arrays and laws of explicit steps of some rows."""

    def __init__(self, march: _March, stepper: Any, terms: Any, width: int) -> None:
        operator, courant = march.operator, float(stepper.courant)
        self.march, self.tile, self.sides, self.first = march, Tile(operator, width, terms), operator.sides, -1
        d, size = operator.grid.dimension, self.tile.layout.size
        cells, flow = np.zeros((explicit.ARRAYS, width, size)), np.zeros((5, width, 2 * d + 3))
        self.arrays = ExplicitArrays(cells, flow, np.zeros(width, LANE), self.tile.info)
        self.changes, self._write = not self.sides.constant, Callback(self._write_data, self.tile.errors)
        keeps = courant == 0.0 and (march.control.tolerance < inf or self.changes)
        self.scheme = ExplicitScheme(courant, stepper.order, terms[2] is not None, keeps, march.control, march.times)

    def enter(self, first: int) -> None:
        """Puts the rows from ``first`` on, as many as the tile has, at their start."""
        march, lanes, out = self.march, self.arrays.lanes, self.march.out
        part = slice(first, first + len(lanes))
        if first != self.first:
            self.first, self.rows = first, np.arange(part.start, part.stop)
            rows = {name: getattr(out, name)[part] for name in ("values", "budget", "finished", "total", "sampled")}
            self.out = out._replace(**rows)
        self.arrays.cells[explicit.BASE] = to_padded(march.initial[part], self.tile.layout)
        self.tile.enter(self.rows)
        self.data = np.repeat(self.sides.fixed[part][None], _STAGES if self.changes else 1, axis=0)
        self.moments = np.zeros(self.data.shape[:2])
        lanes[:], self.arrays.flow[:] = march.start, 0.0
        lanes["row"], lanes["source_size"] = self.rows, self.sides.sizes[part]
        self.out.total[:] = 0.0

    def run(self) -> None:
        """Takes steps until all rows are at the end or have failed."""
        live = 1
        while live:
            if live < 0:
                more = max(2 * len(self.data), -live) - len(self.data)
                self.data = np.concatenate((self.data, np.repeat(self.data[:1], more, axis=0)))
                self.moments = np.zeros(self.data.shape[:2])
            data = StageData(self.data, self.moments, self._write.address, self.changes, self.sides.limits)
            live = explicit.advance(self.arrays, self.tile.system, data, self.scheme, self.out, _BUDGET)
            if self.tile.errors:
                raise self.tile.errors[0]

    def _write_data(self, *arguments: int) -> None:
        """Writes the data of the sides at the times of some stages of the marked rows."""
        chosen, rows = slice(*arguments[7:]), self.tile.info[2].nonzero()[0]
        try:
            self.data[chosen, rows] = self.sides.values(self.moments[chosen, rows], self.rows[rows])
        except BaseException:
            self.arrays.lanes["verdict"] = c.STEP_UNDERFLOW
            raise

    def leave(self) -> None:
        """Notes the lanes of the rows, and the range of states of those that cannot go on."""
        finished = self.out.finished
        finished[:] = self.arrays.lanes
        if finished["verdict"].any():
            u = from_padded(self.arrays.cells[explicit.BASE], self.tile.layout)
            finished["low"], finished["high"] = u.min(1), u.max(1)


def diffusion_steps(operator: Any) -> tuple[Array, Callable[[float, float], tuple[Array, Array]]]:
    """States ``(rows, cells)`` and a function of a time and a length that takes them through steps of RKL2.

    It has no error control, and returns fluxes through the sides ``(2d, rows)`` and time integrals of side data. States
    that are not finite become NaN.
    """
    states = np.zeros((len(operator.sides.rows), prod(operator.grid.shape)))
    start = operator.sides.start
    march = _March(operator, RKL2(inf), states, np.array([inf]), start, None)
    march.times = np.empty(0)
    tile, out = _ExplicitTile(march, RKL2(inf), (operator.diffusion, None, None), len(states)), march.out

    def diffuse(time: float, length: float) -> tuple[Array, Array]:
        march.initial, march.control = states, march.control._replace(start=time, end=time + length, longest=inf)
        march.start["time"], march.start["proposal"], out.sampled[:] = time, length, 0.0
        tile.scheme = tile.scheme._replace(control=march.control, times=march.times)
        tile.enter(0)
        tile.run()
        states[:] = from_padded(tile.arrays.cells[explicit.BASE], tile.tile.layout)
        states[tile.arrays.lanes["verdict"] > 0.0] = np.nan
        return out.total[:, :-1].T.copy(), out.sampled

    return states, diffuse
