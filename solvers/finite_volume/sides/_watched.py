"""Laws and sources that change with time, examined over the span like boundary data."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch

from solvers.finite_volume.laws._law_rows import LawRows
from solvers.finite_volume.laws.laws import DiffusiveLaw, Transport

Array = np.ndarray
_BLOCKS, _NUMBERS = 32, 512


class Watched(NamedTuple):
    """A law or source whose values over the span show its events.

    Attributes:
        values: Gives values ``(k, rows, columns)`` at times ``(k, rows)``.
        columns: Number of columns.
        adds: Whether their time integral adds to the solution, as that of a source does.
    """

    values: Callable[[Array], Array]
    columns: int
    adds: bool


def watched(laws: Sequence[LawRows | None], source: Any, u: Array) -> list[Watched]:
    """Parts of laws and source that change with time, by the initial states ``(rows, cells)``."""
    found = [_of_law(law, u) for law in laws if law is not None and law.varies_in_time]
    return [*found, _of_source(source, u)] if source is not None and source.varies_in_time else found


def _states(u: Array) -> Array:
    """The states of even cells, and those of odd ones mirrored in their range; where that is a point, some beyond."""
    low, high = u.min(1, keepdims=True), u.max(1, keepdims=True)
    other = np.where(high > low, low + high - u, u + 0.5 * np.maximum(np.abs(u), 1.0))
    return np.where(np.arange(u.shape[1]) % 2 == 0, u, other)


def _blocks(values: Array, columns: int) -> Array:
    """Means over blocks of cells ``(rows, columns)``; 0 for what is not finite."""
    edges = np.linspace(0, values.shape[1], columns + 1).astype(int)[:-1]
    sums = np.add.reduceat(np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0), edges, axis=1)
    return sums / np.diff(np.append(edges, values.shape[1]))


def _columns(rows: int, cells: int) -> int:
    return min(cells, max(1, min(_BLOCKS, _NUMBERS // rows)))


def _of_source(source: Any, u: Array) -> Watched:
    columns = _columns(*u.shape)
    # blocks of one parity would hide states of the other
    states = u, _states(u)

    def values(times: Array) -> Array:
        found = [[_blocks(source.rate(each, time)[0], columns) for each in states] for time in times]
        return np.concatenate(np.swapaxes(np.array(found), 0, 1), axis=-1)

    return Watched(values, 2 * columns, adds=True)


def _of_law(law: LawRows, u: Array) -> Watched:
    """Conductivities, or the speeds of signals on the faces of the first axis."""
    diffusive, shape = isinstance(law.law, DiffusiveLaw), tuple(law.grid.shape)
    axis = 0 if isinstance(law.law, Transport) or not diffusive else None
    points = shape if axis is None else (shape[0] + 1, *shape[1:])
    columns, low, high = _columns(len(u), prod(points)), u.min(1, keepdims=True), u.max(1, keepdims=True)
    part = np.arange(prod(points)) % 5 / 4.0
    tensor = torch.from_numpy(low + part * np.where(high > low, high - low, 1.0)).reshape(len(u), *points)

    def values(times: Array) -> Array:
        found = []
        for time in times:
            placed = law.at(time, axis)
            result = placed.conductivity(tensor) if diffusive else placed.characteristic_speed(tensor)
            found.append(_blocks(result.reshape(len(u), -1).numpy(), columns))
        return np.array(found)

    return Watched(values, columns, adds=False)
