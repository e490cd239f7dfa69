"""Boundary data that change with time, evaluated for many times and rows at once.

A user's function of time is called with a float. If it also takes an array or a tensor of times of shape
``(k, *batch or ones, one per face axis)`` and returns the same as with floats, one call serves all times.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.conditions import value_at
from solvers.errors import InvalidArgumentError
from solvers.finite_volume.march.kernels import Array

_PROBES = (0.0, 0.3819660112501051, 0.8541019662496845)
_AGREEMENT = 1e-14


class ShapeChangedError(Exception):
    """A function returned more entries than at the probe times; never leaves this package."""


@dataclass(frozen=True)
class Datum:
    """The value of one side as a function of time.

    Attributes:
        function: The user's function of time.
        name: Name of the side in error messages.
        batch: Shape of the batch.
        face: Shape of the side.
        convert: Makes the argument of one call for many times from an array, or None if times need a call each.
        shared: Whether all rows have the same value.
        flat: Whether the value is the same along the side.
        floats: Whether the function returned floats at the probe times.
    """

    function: Callable[[Any], Any]
    name: str
    batch: tuple[int, ...]
    face: tuple[int, ...]
    convert: Callable[[Array], Any] | None = None
    shared: bool = False
    flat: bool = False
    floats: bool = False

    @classmethod
    def build(
        cls,
        function: Callable[[Any], Any],
        name: str,
        shapes: tuple[tuple[int, ...], tuple[int, ...]],
        span: tuple[float, float],
    ) -> "Datum":
        """Finds out how the function can be called, from a few calls within the span (start, end)."""
        batch, face = shapes
        times = [span[0] + part * (span[1] - span[0]) for part in _PROBES]
        stated = [function(time) for time in times]
        values = [checked_value(value, time, name, shapes) for value, time in zip(stated, times, strict=True)]
        floats = all(type(value) is float for value in stated)
        padded = [(1,) * (len(batch) + len(face) - value.ndim) + value.shape for value in values]
        shared = all(size == 1 for shape in padded for size in shape[: len(batch)])
        flat = all(size == 1 for shape in padded for size in shape[len(batch) :])
        plain = cls(function, name, batch, face, None, shared, flat, floats)
        expected = np.stack([np.broadcast_to(value, plain.value_shape) for value in values])
        for convert in (torch.from_numpy, np.asarray):
            datum = cls(function, name, batch, face, convert, shared, flat)
            if _agrees(datum, np.array(times), expected):
                return datum
        return plain

    @property
    def value_shape(self) -> tuple[int, ...]:
        """Shape of the value at one time, with axes of size 1 where the value is the same."""
        ones = (1,) * len(self.batch), (1,) * len(self.face)
        return (ones[0] if self.shared else self.batch) + (ones[1] if self.flat else self.face)

    @property
    def width(self) -> int:
        """Number of entries along the side: 1 or the size of the face."""
        return 1 if self.flat else prod(self.face)

    def full(self) -> "Datum":
        """The same without assumptions on the shape of the values."""
        return Datum(self.function, self.name, self.batch, self.face, self.convert)

    def at(self, times: Array, rows: Array) -> Array:
        """Values ``(k, len(rows), width)`` at the times ``(k, len(rows))`` of some rows of the flattened batch."""
        if self.convert is None:
            values = self._one_by_one(times, rows)
        elif self.shared:
            values = self.many(times.reshape(-1, *[1] * len(self.batch))).reshape(*times.shape, self.width)
        else:
            values = self._of_whole_batch(times, rows)
        if not np.isfinite(values).all():
            bad = np.broadcast_to(times[..., None], values.shape)[~np.isfinite(values)]
            raise InvalidArgumentError(f"{self.name} is not finite at time {bad[0]:g}.")
        return values

    def many(self, times: Array) -> Array:
        """Values ``(k, *value_shape)`` from one call with times ``(k, *batch or ones)``."""
        assert self.convert is not None
        times = times.copy()  # the function may change its argument
        result = self.function(self.convert(times.reshape(*times.shape, *[1] * len(self.face))))
        values = result.cpu() if isinstance(result, Tensor) else result
        return self._expanded(np.asarray(values, dtype=np.float64), (len(times), *self.value_shape))

    def _of_whole_batch(self, times: Array, rows: Array) -> Array:
        everyone = np.repeat(times[:, :1], prod(self.batch), axis=1)
        everyone[:, rows] = times
        values = self.many(everyone.reshape(len(times), *self.batch))
        return values.reshape(*everyone.shape, self.width)[:, rows]

    def _one_by_one(self, times: Array, rows: Array) -> Array:
        if self.floats:
            every = times.ravel().tolist()
            found = {time: self.function(time) for time in dict.fromkeys(every)}
            if all(type(value) is float for value in found.values()):
                return np.array([found[time] for time in every]).reshape(*times.shape, 1)
        distinct, which = np.unique(times, return_inverse=True) if times.size > 8 else (times, np.arange(times.size))
        which = which.ravel()
        values = (self._value(time) for time in distinct.ravel().tolist())
        if self.shared:
            return np.stack(list(values))[which].reshape(*times.shape, self.width)
        result = np.empty((times.size, self.width))
        order = np.argsort(which, kind="stable")
        ends = np.searchsorted(which[order], np.arange(1, distinct.size))
        for value, cells in zip(values, np.split(order, ends), strict=True):
            result[cells] = value.reshape(-1, self.width)[rows[cells % len(rows)]]
        return result.reshape(*times.shape, self.width)

    def _value(self, time: float) -> Array:
        """The value of one call."""
        value = self.function(time)
        if isinstance(value, float) and self.shared and self.flat:
            return np.array(value)
        return self._expanded(checked_value(value, time, self.name, (self.batch, self.face)), self.value_shape)

    @staticmethod
    def _expanded(values: Array, shape: tuple[int, ...]) -> Array:
        try:
            return np.broadcast_to(values, shape)
        except ValueError:
            raise ShapeChangedError from None


def checked_value(value: Any, time: float, name: str, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> Array:
    """A stated value at a time as an array that broadcasts to ``(*batch, *face)``, shapes = (batch, face)."""
    result = value_at(value, time, name).numpy()
    whole = shapes[0] + shapes[1]
    short = whole[max(0, len(whole) - result.ndim) :]
    if result.ndim > len(whole) or any(n not in (1, m) for n, m in zip(result.shape, short, strict=True)):
        raise InvalidArgumentError(
            f"{name}: a value of shape {result.shape} does not broadcast to (*batch, *face) = {whole}; give one value "
            "per batch entry, with one axis of size 1 per face axis."
        )
    return result


def _agrees(datum: Datum, times: Array, expected: Array) -> bool:
    """Whether one call with a different time in every row gives what calls with floats gave; silent on any failure."""
    count = 1 if datum.shared else prod(datum.batch)
    turned = (np.arange(len(times))[:, None] + np.arange(count)) % len(times)
    shape = (len(times), *([1] * len(datum.batch) if datum.shared else datum.batch))
    by_row = expected.reshape(len(times), count, -1)
    try:
        with warnings.catch_warnings(), np.errstate(all="raise", under="ignore"):
            warnings.simplefilter("error")
            values = datum.many(times[turned].reshape(shape)).reshape(by_row.shape)
    except Exception:
        return False
    wanted = by_row[turned, np.arange(count)]
    return bool((np.abs(values - wanted) <= _AGREEMENT * np.abs(wanted)).all())
