"""States given at the sides of a system, fixed or functions of time, which are examined over the span.

A user's function of time is called with a float. If it also takes an array or a tensor of times of shape
``(k, *batch or nothing, one per face axis)`` and returns the same as with floats, with the components first or between
batch and face, one call serves all times.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite, prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers._arguments import checked_values
from solvers.conditions import Dirichlet
from solvers.errors import InvalidArgumentError
from solvers.finite_volume.march.kernels import Array
from solvers.finite_volume.sides._panels import Limits
from solvers.finite_volume.sides._side_data import checked_breakpoints, sampling_error
from solvers.finite_volume.sides._side_scan import Scan
from solvers.systems.boundary import Side, stated

_PROBES = (0.0, 0.3819660112501051, 0.8541019662496845)
_AGREEMENT = 1e-14
_POINTS = 4096
_ROUND_OFF = 1e-13

Check = Callable[[Side, Array, Array], None]


@dataclass(frozen=True, eq=False)
class StateFunction:
    """The state of one side as a function of time.

    Attributes:
        side: The side.
        function: The user's function.
        batch: Shape of the batch.
        components: Number of components c.
        face: Shape of the side.
        shape: Shape of what the function returns, with axes of size 1 for those that it lacks.
        raw: Shape of what it returns.
        convert: Makes the argument of one call for many times from an array, or None if times need a call each.
        first: Whether such a call has the components first.
    """

    side: Side
    function: Callable[[Any], Any]
    batch: tuple[int, ...]
    components: int
    face: tuple[int, ...]
    shape: tuple[int, ...]
    raw: tuple[int, ...]
    convert: Callable[[Array], Any] | None = None
    first: bool = False

    @classmethod
    def build(
        cls, side: Side, batch: tuple[int, ...], components: int, face: tuple[int, ...], span: Any
    ) -> "StateFunction":
        """Finds out how the function can be called, from a few calls within the span (start, end)."""
        function: Any = getattr(side.condition, "value", None)
        times = [span[0] + part * (span[1] - span[0]) for part in _PROBES]
        values = [stated(side, time, (*batch, components), face) for time in times]
        raw = np.shape(_numbers(function(times[0])))
        ones = len(batch) + 1 + len(face) - (len(raw) if len(raw) > 1 else 1 + len(face))
        shape = (1,) * ones + (raw if len(raw) > 1 else (*raw, *[1] * len(face)))
        plain = cls(side, function, batch, components, face, shape, raw)
        expected = np.stack([value.numpy() for value in values]).reshape(
            len(times), prod(batch), components, prod(face)
        )
        for convert in (torch.from_numpy, np.asarray):
            for first in (True, False):
                each = cls(side, function, batch, components, face, shape, raw, convert, first)
                if each._agrees(np.array(times), expected):
                    return each
        return plain

    @property
    def name(self) -> str:
        """Name of the side in error messages."""
        return self.side.name

    @property
    def shared(self) -> bool:
        """Whether all rows of the batch have the same state."""
        return prod(self.shape[: len(self.batch)]) == 1

    def at(self, times: Array, rows: Array) -> Array:
        """States ``(k, len(rows), c, face cells or 1)`` at times ``(k, len(rows))`` of rows of the flattened batch."""
        if self.convert is None:
            values = self._one_by_one(times, rows)
        elif self.shared:
            values = self._many(times)
        else:
            everyone = np.repeat(times[:, :1], prod(self.batch), axis=1)
            everyone[:, rows] = times
            values = self._many(everyone)[:, rows]
        if not isfinite(values.sum()) and not np.isfinite(values).all():
            bad = np.broadcast_to(times[..., None, None], values.shape)[~np.isfinite(values)]
            raise InvalidArgumentError(f"{self.name} is not finite at time {bad.min():g}.")
        return values

    def _one_by_one(self, times: Array, rows: Array) -> Array:
        """By one call for each time."""
        flat, shape = times.ravel().tolist(), self.shape[len(self.batch) :]
        if self.shared:
            return self._called(flat).reshape(*times.shape, shape[0], -1)
        distinct = {time: place for place, time in enumerate(dict.fromkeys(flat))}
        whole = np.broadcast_to(
            self._called(list(distinct)).reshape(-1, *self.shape), (len(distinct), *self.batch, *shape)
        )
        which, places = [distinct[time] for time in flat], np.unravel_index(np.tile(rows, len(times)), self.batch)
        return whole[which, *places].reshape(*times.shape, shape[0], -1)

    def _called(self, times: list[float]) -> Array:
        """Values of the function at times ``(k, *raw)``."""
        values: list[Any] = [self.function(time) for time in times]
        try:
            found = torch.stack(values).numpy() if isinstance(values[0], Tensor) else values
            found = np.asarray(found, dtype=np.float64)
            if found.shape[1:] == self.raw:
                return found
        except (TypeError, ValueError, RuntimeError):
            pass
        return np.stack([self._checked(value, time) for value, time in zip(values, times, strict=True)])

    def _checked(self, value: Any, time: float) -> Array:
        """One value; an error if it is not like those at the start."""
        found = checked_values(value, self.name, f" at time {time:g}").numpy()
        if found.shape != self.raw:
            raise InvalidArgumentError(
                f"{self.name}: Dirichlet needs a function that returns states of one shape, {self.raw} as at the "
                f"start, got {found.shape} at time {time:g}."
            )
        return found

    def _many(self, times: Array) -> Array:
        """States ``(k, rows, c, face cells)`` from one call with times ``(k, rows)``, of all rows unless shared."""
        assert self.convert is not None
        k, rows = times.shape
        batch = (rows,) if self.shared else self.batch
        given = (
            times.reshape(-1, *[1] * len(self.face)) if self.shared else times.reshape(k, *batch, *[1] * len(self.face))
        )
        leading = given.shape[: given.ndim - len(self.face)]
        result = self.function(self.convert(given.copy()))  # the function may change its argument
        if isinstance(result, (list, tuple)):
            result = np.stack(np.broadcast_arrays(*(_numbers(each) for each in result)))
        values = _numbers(result)
        if self.first:
            values = np.moveaxis(values, 0, len(leading))
        values = np.broadcast_to(values, (*leading, self.components, *self.face))
        return values.reshape(k, rows, self.components, prod(self.face))

    def _agrees(self, times: Array, expected: Array) -> bool:
        """Whether one call with a different time in every row gives what calls with floats gave; silent on failure."""
        count = expected.shape[1]
        turned = (np.arange(len(times))[:, None] + np.arange(count)) % len(times)
        try:
            with warnings.catch_warnings(), np.errstate(all="raise", under="ignore"):
                warnings.simplefilter("error")
                values = self._many(times[turned])
        except Exception:
            return False
        wanted = expected[turned, np.arange(count)]
        return bool((np.abs(values - wanted) <= _AGREEMENT * np.abs(wanted)).all())


def _numbers(value: Any) -> Array:
    """A float64 array of what a function returned."""
    return np.asarray(value.cpu().numpy() if isinstance(value, Tensor) else value, dtype=np.float64)


class SideStates:
    """States at all sides of a batch, those of one side after those of another.

    Attributes:
        fixed: States that do not change with time, zero for the others ``(rows, c, S)``.
        changing: Those that change, with their places.
        start: Start of the span.
        end: End of the span.
        scan: What is known of those that change, or None if there are neither such nor break points.
        limits: What compiled steps take to find how long steps may be.
    """

    def __init__(
        self,
        sides: Sequence[Side],
        batch: tuple[int, ...],
        components: int,
        shape: tuple[int, ...],
        span: tuple[float, float],
        check: Check,
        breakpoints: Sequence[float] = (),
    ) -> None:
        self.start, self.end, self._check, self.changing = *span, check, []
        faces = [tuple(n for axis, n in enumerate(shape) if axis != side.axis) for side in sides]
        offsets = np.cumsum([0, *map(prod, faces)]).tolist()
        self.fixed = np.zeros((prod(batch), components, offsets[-1]))
        for side, face, a, b in zip(sides, faces, offsets[:-1], offsets[1:], strict=True):
            if not isinstance(side.condition, Dirichlet):
                continue
            state = stated(side, span[0], (*batch, components), face).numpy().reshape(-1, components, b - a)
            check(side, np.full(len(state), span[0]), state)
            if side.changes:
                self.changing.append((StateFunction.build(side, batch, components, face, span), slice(a, b)))
            else:
                self.fixed[:, :, a:b] = state
        self.scan = self._scanned(checked_breakpoints(breakpoints)) if span[1] > span[0] else None
        panels, rows = self.scan and self.scan.panels, np.arange(len(self.fixed))
        if self.scan is not None and not self.scan.panels.has_breaks:
            lengths = self.scan.panels.high - self.scan.panels.low  # those that hold an event are shorter
            steady = (self.scan.spread <= _ROUND_OFF * self.scan.size).all() and lengths.min() > 0.9 * lengths.max()
            panels = None if steady else panels
        self.limits = Limits.of(panels, self._of_scan(rows) if panels else rows)

    def write(self, data: Array, times: Array, rows: Array) -> Array:
        """Writes the states that change, at times ``(k, len(rows))``, into data ``(k, len(rows), c, S)``; the data."""
        for function, part in self.changing:
            data[..., part] = function.at(times, rows)
        return data

    def check(self, sampled: Array) -> None:
        """Compares time integrals of the states ``(rows, c, S)``, as the steps sampled them, with those of the scan.

        Raises:
            BoundarySamplingError: If they differ by more than first-order steps within the limits can cause.
        """
        if self.scan is None or not self.changing:
            return
        rows = np.arange(len(self.fixed))
        mine = self._of_scan(rows)
        (before, error_before), (after, error_after) = (
            self.scan.integral_to(np.full(len(rows), time), mine, lambda times: self._columns(times, rows))
            for time in (self.start, self.end)
        )
        expected, allowed = after - before, self.scan.allowed(error_after - error_before, mine)
        first = 0
        for function, part in self.changing:
            found = sampled[..., part].reshape(len(rows), -1)
            columns = slice(first, first := first + found.shape[1])
            wrong = ~(np.abs(found - expected[:, columns]) <= allowed[:, columns])
            if wrong.any():
                row, entry = (int(i) for i in np.argwhere(wrong)[0])
                numbers = float(found[row, entry]), float(expected[row, columns][entry])
                raise sampling_error(function, row, (self.start, self.end), numbers)

    def _of_scan(self, rows: Array) -> Array:
        """Places of rows among those of the scan."""
        assert self.scan is not None
        return rows if self.scan.row_count > 1 else np.zeros_like(rows)

    def _columns(self, times: Array, rows: Array) -> Array:
        """States of the changing sides ``(k, rows, columns)``, which must be admissible."""
        found = []
        for function, _ in self.changing:
            states = function.at(times, rows)
            self._check(function.side, times.ravel(), states.reshape(-1, *states.shape[2:]))
            shape = (*states.shape[:3], prod(function.face))
            found.append(np.broadcast_to(states, shape).reshape(*times.shape, -1))
        return np.concatenate(found, axis=-1) if found else np.zeros((*times.shape, 1))

    def _scanned(self, breakpoints: Array) -> Scan | None:
        """An examination of the states over the span."""
        if not self.changing and not len(breakpoints):
            return None
        shared = all(function.shared for function, _ in self.changing)
        rows = np.zeros(1, dtype=int) if shared else np.arange(len(self.fixed))
        evaluate = lambda times: self._columns(times, rows)  # noqa: E731 - of these rows
        return Scan.of(evaluate, len(rows), (self.start, self.end), breakpoints, points=_POINTS if self.changing else 0)
