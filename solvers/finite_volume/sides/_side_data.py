"""Boundary data of all sides on rows: what the terms of a scheme need to close their faces, at any time.

Sides are numbered 2·axis + (0 first, 1 last). The data of all sides form one vector of S entries per row, in that
order, each side flattened. A side of mode STATE has the state u_side = datum + pull·u_edge with the state of the cell
at the side; the datum of GIVEN_FLUX is the flux along +axis.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

import numpy as np

from solvers.conditions import (
    AxisConditions,
    Condition,
    Dirichlet,
    Neumann,
    Outflow,
    Periodic,
    Robin,
    side_name,
    stated_value,
    value_at,
)
from solvers.errors import BoundarySamplingError, InvalidArgumentError
from solvers.finite_volume.sides._datum import Datum, ShapeChangedError, checked_value
from solvers.finite_volume.sides._panels import Limits
from solvers.finite_volume.sides._side_scan import Array, Scan
from solvers.finite_volume.sides._watched import Watched
from solvers.grids import CellGrid

PERIODIC, GIVEN_FLUX, STATE, OUTFLOW = range(4)

_SMALL_DENOMINATOR = 1e-8


class _Changing(NamedTuple):
    """The datum of a side that changes with time, where it stands in the data, and its factor per row, or None."""

    datum: Datum
    part: slice
    scale: Array | None


@dataclass(frozen=True, eq=False)
class SideData:
    """Boundary data of some rows of a batch.

    Attributes:
        modes: PERIODIC, GIVEN_FLUX, STATE or OUTFLOW of every side ``(2d,)``.
        pull: Derivative of the state on a side by that of the cell at the side ``(rows, 2d)``.
        offsets: Where the data of every side begin, and their number S ``(2d + 1,)``.
        start: Start of the span.
        end: End of the span.
        rows: Places of the rows in the flattened batch ``(rows,)``.
        fixed: Data that do not change with time, zero for the others ``(rows, S)``.
        changing: The data that change.
        dirichlet: Where the Dirichlet values are among the data.
        sizes: Size that a source gives the solution over the span ``(rows,)``.
        watched: Laws and sources that change with time, examined with the data.
        scan: What is known of the changing data over the span, or None if there are neither such nor break points.
        part: Part of the longest step that sees the data which steps may have.
    """

    modes: Array
    pull: Array
    offsets: Array
    start: float
    end: float
    rows: Array
    fixed: Array
    changing: tuple[_Changing, ...]
    dirichlet: Array
    sizes: Array
    watched: tuple[Watched, ...] = ()
    scan: Scan | None = None
    part: float = 1.0

    @classmethod
    def build(
        cls,
        conditions: Sequence[AxisConditions],
        grid: CellGrid,
        batch: Sequence[int],
        start: float,
        end: float,
        breakpoints: Sequence[float] = (),
    ) -> "SideData":
        """Checks the conditions, one (first, last) pair per axis, and examines the data that change from start to end.

        Steps end at the break points.

        Raises:
            InvalidArgumentError: If a value is missing, not finite or does not broadcast, or a Robin condition does not
                determine the state on the side.
        """
        batch = tuple(int(n) for n in batch)
        sides = [
            _Side(condition, axis, last, grid, batch, (start, end))
            for axis, pair in enumerate(conditions)
            for last, condition in enumerate(pair)
        ]
        offsets = np.cumsum([0] + [side.size for side in sides])
        parts = [slice(a, b) for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]
        rows = prod(batch)
        fixed, pull, changing = np.zeros((rows, offsets[-1])), np.zeros((rows, len(sides))), []
        dirichlet = np.zeros(offsets[-1], dtype=bool)
        for number, (side, part) in enumerate(zip(sides, parts, strict=True)):
            pull[:, number], scale = side.pull_and_scale()
            dirichlet[part] = isinstance(side.condition, Dirichlet)
            value = side.value()
            if isinstance(value, Datum):
                changing.append(_Changing(value, part, scale))
            elif value is not None:
                fixed[:, part] = value if scale is None else value * scale[:, None]
        return cls(
            modes=np.array([side.mode for side in sides]),
            pull=pull,
            offsets=offsets,
            start=float(start),
            end=float(end),
            rows=np.arange(rows),
            fixed=fixed,
            changing=tuple(changing),
            dirichlet=np.flatnonzero(dirichlet),
            sizes=np.zeros(rows),
        )._with_scan(checked_breakpoints(breakpoints))

    def watching(self, watched: Sequence[Watched], breakpoints: Sequence[float]) -> "SideData":
        """The data with a scan that examines laws and sources, too."""
        return replace(self, watched=tuple(watched))._with_scan(checked_breakpoints(breakpoints)) if watched else self

    @property
    def constant(self) -> bool:
        """Whether no datum changes with time."""
        return not self.changing

    def take(self, index: Array) -> "SideData":
        """The data of some of the rows."""
        changing = tuple(
            each._replace(scale=None if each.scale is None else each.scale[index]) for each in self.changing
        )
        return replace(
            self,
            pull=self.pull[index],
            rows=self.rows[index],
            fixed=self.fixed[index],
            sizes=self.sizes[index],
            changing=changing,
        )

    def at(self, times: Array) -> Array:
        """Data ``(k, rows, S)`` at times ``(k, rows)``, those after a jump; ``(1, rows, S)`` if nothing changes."""
        if self.constant:
            return self.fixed[None]
        rows = np.arange(len(self.rows))
        margins = np.array([self.limits.at(each, rows)[1] for each in times])
        return self.values(times + np.where(times < self.end, margins, -margins), rows)

    def without_fluxes(self, data: Array) -> Array:
        """Data ``(rows, S)`` with zero for the given fluxes, for a term that leaves them to another."""
        if not len(self._fluxes):
            return data
        rest = data.copy()
        rest[:, self._fluxes] = 0.0
        return rest

    @cached_property
    def _fluxes(self) -> Array:
        """Where the given fluxes are among the data."""
        return np.flatnonzero(np.repeat(self.modes == GIVEN_FLUX, np.diff(self.offsets)))

    def range(self, times: Array) -> tuple[Array, Array]:
        """Least and largest Dirichlet value of every row at the times ``(k, rows)``; (inf, −inf) without any."""
        values = self.at(times)[..., self.dirichlet]
        return values.min(axis=(0, 2), initial=np.inf), values.max(axis=(0, 2), initial=-np.inf)

    def values(self, times: Array, rows: Array) -> Array:
        """Data ``(k, lanes, S)`` of some of the rows ``(lanes,)`` at times ``(k, lanes)``, with no regard to jumps."""
        data = np.empty((len(times), len(rows), self.fixed.shape[1]))
        data[:] = self.fixed[rows]
        for datum, part, scale in self.changing:
            values = datum.at(times, self.rows[rows])
            data[:, :, part] = values if scale is None else values * scale[rows, None]
        return data

    @cached_property
    def limits(self) -> Limits:
        """What compiled steps take to find how long steps may be."""
        return Limits.of(self.scan and self.scan.panels, self.scanned_rows if self.scan else self.rows, self.part)

    def largest_step(self, times: Array) -> Array:
        """Largest step from the times ``(rows,)`` that sees the data and does not pass a break point or the end."""
        return self.end - times if self.scan is None else self.limits.at(times, np.arange(len(self.rows)))[0]

    def integral(self, start: Array | float, end: Array | float) -> Array:
        """Time integrals of the data ``(rows, S)`` from the scan, independent of any steps."""
        lengths = np.broadcast_to(np.subtract(end, start), len(self.rows))
        integrals = lengths[:, None] * self.fixed
        if self.scan is None:
            return integrals
        for each, value in zip(self.changing, self._scanned(start, end)[0], strict=True):
            integrals[:, each.part] = value if each.scale is None else value * each.scale[:, None]
        return integrals

    def check(self, sampled: Array, start: Array | float, end: Array | float) -> None:
        """Compares the time integrals of the data, as steps sampled them, with those of the scan.

        Args:
            sampled: Σ over steps of the step's quadrature of the data ``(rows, S)``.
            start: When the steps began, a number or ``(rows,)``.
            end: When they ended.

        Raises:
            BoundarySamplingError: If they differ by more than first-order steps that obeyed ``largest_step`` can cause.
        """
        if self.constant or self.scan is None:
            return
        integrals, allowed = self._scanned(start, end)
        for each, expected, bound in zip(self.changing, integrals, allowed, strict=True):
            values = sampled[:, each.part] if each.scale is None else sampled[:, each.part] / each.scale[:, None]
            wrong = ~(np.abs(values - expected) <= bound)
            if wrong.any():
                row, entry = (int(i) for i in np.argwhere(wrong)[0])
                interval = [float(np.broadcast_to(time, len(self.rows))[row]) for time in (start, end)]
                numbers = float(values[row, entry]), float(np.broadcast_to(expected, values.shape)[row, entry])
                raise sampling_error(each.datum, int(self.rows[row]), interval, numbers)

    @property
    def scanned_rows(self) -> Array:
        """Places of the rows among those of the scan."""
        assert self.scan is not None
        return self.rows if self.scan.row_count > 1 else np.zeros_like(self.rows)

    def _scanned(self, start: Array | float, end: Array | float) -> tuple[list[Array], list[Array]]:
        """Integrals of the stated values of every changing side, and how much sampled ones may differ."""
        assert self.scan is not None
        rows = self.scanned_rows
        (before, error_before), (after, error_after) = (
            self.scan.integral_to(np.broadcast_to(time, rows.shape), rows, lambda times: self._stated(times, self.rows))
            for time in (start, end)
        )
        widths = np.cumsum([each.datum.width for each in self.changing])
        integrals = np.split(after - before, widths, axis=-1)
        return integrals[:-1], np.split(self.scan.allowed(error_after - error_before, rows), widths, axis=-1)[:-1]

    def _stated(self, times: Array, rows: Array, watched: Sequence[Watched] = ()) -> Array:
        """Stated values of all changing sides ``(k, rows, columns)`` before their factors, then those of what is
        watched, for all rows."""
        columns = [each.datum.at(times, rows) for each in self.changing] + [each.values(times) for each in watched]
        return np.concatenate(columns, axis=-1) if columns else np.zeros((*times.shape, 1))

    def _with_scan(self, breakpoints: Array) -> "SideData":
        """The data with a scan of their functions, if there are any or steps must end somewhere."""
        if self.end <= self.start or (self.constant and not len(breakpoints) and not self.watched):
            return self
        shared = all(each.datum.shared for each in self.changing) and not self.watched
        rows = np.zeros(1, dtype=int) if shared else self.rows
        try:
            span, watched = (self.start, self.end), self.watched
            scan = Scan.of(lambda times: self._stated(times, rows, watched), len(rows), span, breakpoints)
        except ShapeChangedError:
            full = tuple(each._replace(datum=each.datum.full()) for each in self.changing)
            return replace(self, changing=full)._with_scan(breakpoints)
        return replace(self, scan=scan, sizes=self.sizes + self._size_of_sources(scan))

    def _size_of_sources(self, scan: Scan) -> Array | float:
        """Largest time integral of |s| of every row."""
        start = sum(each.datum.width for each in self.changing)
        adds = [each.adds for each in self.watched for _ in range(each.columns)]
        if not any(adds):
            return 0.0
        return scan.size[:, start:][:, np.array(adds)].max(1)


def sampling_error(
    datum: Any, row: int, interval: Sequence[float], integrals: tuple[float, float]
) -> BoundarySamplingError:
    """The error for data that the steps of a row have missed a part of; ``datum`` has a name and a batch."""
    entry = tuple(int(i) for i in np.unravel_index(row, datum.batch)) if datum.batch else ()
    return BoundarySamplingError(
        f"{datum.name}{f', batch entry {entry}' if entry else ''}: from time {interval[0]:g} to {interval[1]:g} the "
        f"steps saw a time integral of the value of {integrals[0]:.6g}, but it is {integrals[1]:.6g}; the value has "
        "an event that is too short to be seen. Give the times at which it begins and ends as breakpoints=."
    )


def checked_breakpoints(breakpoints: Sequence[float]) -> Array:
    """Break points as an array; an error unless they are finite times."""
    try:
        times = np.asarray(breakpoints, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        times = np.array([np.nan])
    if not np.isfinite(times).all():
        raise InvalidArgumentError(f"breakpoints must be finite times, got {breakpoints!r}.")
    return times


@dataclass(frozen=True)
class _Side:
    """One side while the data are built."""

    condition: Condition
    axis: int
    last: int
    grid: CellGrid
    batch: tuple[int, ...]
    span: tuple[float, float]

    @property
    def name(self) -> str:
        return side_name(self.axis, self.last)

    @property
    def face(self) -> tuple[int, ...]:
        return self.grid.shape[: self.axis] + self.grid.shape[self.axis + 1 :]

    @property
    def size(self) -> int:
        return prod(self.face)

    @property
    def mode(self) -> int:
        if isinstance(self.condition, Neumann) and self.condition.flux is not None:
            return GIVEN_FLUX
        return {Periodic: PERIODIC, Outflow: OUTFLOW}.get(type(self.condition), STATE)

    def value(self) -> Datum | Array | None:
        """A datum that changes with time, a value ``(rows, size)`` or None where none is stated."""
        if isinstance(self.condition, Periodic | Outflow):
            return None
        stated = stated_value(self.condition)
        if callable(stated):
            return Datum.build(stated, self.name, (self.batch, self.face), self.span)
        value = checked_value(stated, self.span[0], self.name, (self.batch, self.face))
        return np.broadcast_to(value, self.batch + self.face).reshape(-1, self.size)

    def pull_and_scale(self) -> tuple[Array | float, Array | None]:
        """Pull, and the factor from the stated value to the datum, per row: b c₀/(a + b c₀) and 1/(a + b c₀)."""
        if self.mode != STATE or isinstance(self.condition, Dirichlet):
            return float(self.mode == OUTFLOW), None
        weight = (2.0 if self.last else -2.0) / self.grid.spacing[self.axis]
        a, b = self._coefficients()
        if (small := abs(a + b * weight) <= _SMALL_DENOMINATOR * (abs(a) + abs(b * weight))).any():
            a, b = a[small][0], b[small][0]
            raise InvalidArgumentError(
                f"{self.name}: Robin(a={a:g}, b={b:g}) does not determine the value on the side, a + b·c₀ = "
                f"{a + b * weight:.3g} with c₀ = {weight:g}; change a or b, or the number of cells."
            )
        return b * weight / (a + b * weight), 1.0 / (a + b * weight)

    def _coefficients(self) -> tuple[Array, Array]:
        """(a, b) of a·u + b·∂u/∂x = g per row."""
        rows = prod(self.batch)
        if not isinstance(self.condition, Robin):
            return np.zeros(rows), np.ones(rows)
        a, b = (
            checked_value(value, self.span[0], f"{self.name}, Robin coefficient", (self.batch, ()))
            for value in (self.condition.a, self.condition.b)
        )
        return np.broadcast_to(a, self.batch).ravel(), np.broadcast_to(b, self.batch).ravel()


def batch_shapes(conditions: Sequence[AxisConditions], start: float) -> list[tuple[int, ...]]:
    """Shapes of the batch axes of all values and Robin coefficients, to be broadcast to that of the batch."""
    shapes, faces = [], len(conditions) - 1
    for axis, pair in enumerate(conditions):
        for last, condition in enumerate(pair):
            if isinstance(condition, Periodic | Outflow):
                continue
            name = side_name(axis, last)
            shape = tuple(value_at(stated_value(condition), start, name).shape)
            shapes.append(shape[: max(0, len(shape) - faces)])
            if isinstance(condition, Robin):
                shapes += [tuple(value_at(each, start, name).shape) for each in (condition.a, condition.b)]
    return shapes
