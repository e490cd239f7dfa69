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
from solvers.finite_volume.march import explicit, implicit
from solvers.finite_volume.march.kernels import NOTHING, Array, Callback
from solvers.finite_volume.march.lines import LineStages, lanes_for
from solvers.finite_volume.march.planes import PlaneStages
from solvers.finite_volume.march.rates import from_padded, to_padded
from solvers.finite_volume.march.tiles import Tile
from solvers.finite_volume.steppers.steppers import RKL2, SSPRK3, ImplicitStepper, Stepper

_BUDGET = 2000
_STAGES = 16

_COUNTS = [c.VERDICT, c.STEPS, c.REJECTED, c.EVALUATIONS, c.TIME, c.LENGTH, c.RESIDUAL]
"""What is reported of the rows of explicit steps."""

Report = Callable[[float], None] | None


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """Result of the integration of a group of rows.

    Attributes:
        values: Cell averages at the output times ``(rows, t, cells)``.
        account: Time-integrated flow since the start ``(rows, t, 2d + 1)``.
        steps: Accepted steps ``(rows,)``.
        rejected: Rejected steps ``(rows,)``.
        evaluations: Evaluations of the rates, Newton iterations included ``(rows,)``.
    """

    values: Array
    account: Array
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
    operator.sides.check(march.sampled, operator.sides.start, times[-1])
    steps, rejected, evaluations = march.work[:, 1:4].astype(np.int64).T
    return Trajectory(
        values=march.values, account=march.account, steps=steps, rejected=rejected, evaluations=evaluations
    )


class _March:
    """What the steps of a group of rows have in common."""

    def __init__(self, operator: Any, stepper: Any, initial: Array, times: Array, start: float, report: Report) -> None:
        count, flows, n = len(initial), 2 * operator.grid.dimension + 1, initial.shape[1]
        self.operator, self.initial, self.times, self.report = operator, np.ascontiguousarray(initial), times, report
        self.values, self.account = np.full((count, len(times), n), np.nan), np.zeros((count, len(times), flows))
        self.work, self.total = np.zeros((count, 9)), np.zeros((count, flows))
        self.course, self.balance = np.zeros((3, n)), np.zeros((3, flows))
        self.sampled = np.zeros((count, operator.sides.offsets[-1]))
        self.span, self.cursor, self.reported = (float(start), float(times[-1])), 0, 0.0
        self.first = (self.span[1] - self.span[0]) * stepper.first_fraction
        self.longest = min(float(stepper.largest_step), operator.largest_step)
        self.options = float(stepper.tolerance), float(stepper.atol)
        if times[0] == start:
            self.values[:, 0], self.cursor = initial, 1

    def advanced(self, total: float) -> None:
        """Reports the time that the rows have advanced since the start, summed over them."""
        if self.report is not None:
            self.report(total - self.reported)
            self.reported = total

    def raise_if_failed(self) -> None:
        """Raises an error for a row that cannot go on."""
        for row in np.flatnonzero(self.work[:, 0])[:1]:
            raise SolverDivergedError(_failure(int(row), self.work[row].tolist(), self.span[1]))


def _failure(row: int, work: list[float], end: float) -> str:
    """The message for a row that cannot go on."""
    verdict, _, _, _, time, length, residual, low, high = work
    if verdict == c.STEP_UNDERFLOW:
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
        width = lanes_for(operator, reacts, *march.initial.shape)
        solver: Any = LineStages(operator, tableau, width, reacts, march.initial)
    else:
        solver = PlaneStages(operator, tableau, 1, reacts, march.initial)
    L, sides = solver.L, operator.sides
    control = march.first, march.longest, march.cursor, march.span, march.options
    shape = tableau.implicit, tableau.explicit, tableau.weights, tableau.nodes, tableau.middle, stepper.order
    scheme = shape, control, march.times, solver.settings, sides.limits
    out = march.values, march.account, march.work, march.total, march.sampled, march.course, march.balance
    given = solver.arrays, solver.medium, solver.rows, scheme, solver.laws, out
    nothing = 0, 0, np.zeros((1, 1)), np.zeros((3, 1)), NOTHING.pointer, False
    following, busy = implicit.advance(*given, nothing, 0, 1)
    while busy:
        rows = np.maximum(L[c.ROW], 0.0).astype(np.int64)
        part, steps = solver.prepare(scheme, rows, out)
        following, busy = implicit.advance(*given, part, following, steps)
        if solver.errors:
            raise solver.errors[0]
        if march.report is not None:
            done = march.work[:, 4].sum() - march.span[0] * np.count_nonzero(march.work[:, 1])
            march.advanced(float(done + (L[c.TIME] - march.span[0])[L[c.ROW] >= 0.0].sum()))
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
        tile.leave(first)
        march.raise_if_failed()
        march.advanced((march.span[1] - march.span[0]) * (first + width))


class _ExplicitTile:
    """Arrays and laws of explicit steps of some rows."""

    def __init__(self, march: _March, stepper: Any, terms: Any, width: int) -> None:
        operator, courant = march.operator, float(stepper.courant)
        self.march, self.tile, self.sides, self.courant = march, Tile(operator, width, terms), operator.sides, courant
        d, size = operator.grid.dimension, self.tile.layout.size
        self.A, self.L = np.zeros((explicit.ARRAYS, width, size)), np.zeros((c.NUMBERS, width))
        self.F = np.zeros((5, width, 2 * d + 3))
        self.asks, self._write = not self.sides.constant, Callback(self._write_data, self.tile.errors)
        keeps = courant == 0.0 and (march.options[0] < inf or self.asks)
        control = courant, stepper.order, march.longest, terms[2] is not None, keeps
        self.scheme = control, march.span, march.times, march.options

    def enter(self, first: int) -> None:
        """Puts the rows from ``first`` on, as many as the tile has, at their start."""
        march, L, part = self.march, self.L, slice(first, first + self.L.shape[1])
        self.rows = np.arange(part.start, part.stop)
        self.A[explicit.BASE] = to_padded(march.initial[part], self.tile.layout)
        self.tile.enter(self.rows)
        self.data = np.repeat(self.sides.fixed[part][None], _STAGES if self.asks else 1, axis=0)
        self.moments, self.sampled = np.zeros(self.data.shape[:2]), march.sampled[part]
        L[:], self.F[:] = 0.0, 0.0
        L[c.ROW] = self.rows
        L[c.TIME], L[c.PROPOSAL], L[c.LONGEST], L[c.FRESH] = march.span[0], march.first, inf, 1.0
        L[c.CURSOR], L[c.SIZE] = march.cursor, self.sides.sizes[part]
        L[c.LOW], L[c.HIGH], L[c.SEEN_LOW], L[c.SEEN_HIGH] = inf, -inf, inf, -inf
        march.total[part] = 0.0
        self.out = march.values[part], march.account[part], march.total[part], march.course, march.balance

    def run(self) -> None:
        """Takes steps until all rows are at the end or have failed."""
        live, given = 1, (self.tile.system, self.scheme, self.out, self.tile.info, _BUDGET)
        while live:
            if live < 0:
                more = max(2 * len(self.data), -live) - len(self.data)
                self.data = np.concatenate((self.data, np.repeat(self.data[:1], more, axis=0)))
                self.moments = np.zeros(self.data.shape[:2])
            data = self.data, self.moments, self.sampled, self._write.pointer, self.asks, self.sides.limits
            live = explicit.advance(self.A, self.F, self.L, data, *given)
            if self.tile.errors:
                raise self.tile.errors[0]

    def _write_data(self, *arguments: int) -> None:
        """Writes the data of the sides at the times of some stages of the marked rows."""
        chosen, rows = slice(*arguments[7:]), self.tile.info[2].nonzero()[0]
        try:
            self.data[chosen, rows] = self.sides.values(self.moments[chosen, rows], self.rows[rows])
        except BaseException:
            self.L[c.VERDICT] = c.STEP_UNDERFLOW
            raise

    def leave(self, first: int) -> None:
        """Notes the counts of the rows, and where those are that cannot go on."""
        work, L = self.march.work[first : first + self.L.shape[1]], self.L
        work[:, :7] = L[_COUNTS].T
        if work[:, 0].any():
            u = from_padded(self.A[explicit.BASE], self.tile.layout)
            work[:, 7], work[:, 8] = u.min(1), u.max(1)


def diffusion_steps(operator: Any) -> tuple[Array, Callable[[float, float], tuple[Array, Array]]]:
    """States ``(rows, cells)`` and a function of a time and a length that takes them through steps of RKL2.

    It has no error control, and returns fluxes through the sides ``(2d, rows)`` and time integrals of side data. States
    that are not finite become NaN.
    """
    states = np.zeros((len(operator.sides.rows), prod(operator.grid.shape)))
    start = operator.sides.start
    march = _March(operator, RKL2(inf), states, np.array([inf]), start, None)
    march.times, march.longest = np.empty(0), inf
    tile = _ExplicitTile(march, RKL2(inf), (operator.diffusion, None, None), len(states))

    def diffuse(time: float, length: float) -> tuple[Array, Array]:
        march.initial, march.span, march.first, march.sampled[:] = states, (time, time + length), length, 0.0
        tile.scheme = tile.scheme[0], march.span, march.times, march.options
        tile.enter(0)
        tile.run()
        states[:] = from_padded(tile.A[explicit.BASE], tile.tile.layout)
        states[tile.L[c.VERDICT] > 0.0] = np.nan
        return march.total[:, :-1].T.copy(), march.sampled

    return states, diffuse
