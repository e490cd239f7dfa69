"""Laws and sources that change with time, examined over the span like boundary data."""

import warnings
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch

from solvers.finite_volume.laws._law_rows import LawRows
from solvers.finite_volume.laws.laws import DiffusiveLaw, Transport

Array = np.ndarray
_BLOCKS, _NUMBERS = 32, 512
_TOGETHER = 2**18  # states in one call
_PROBES, _GOLDEN = 8, 0.6180339887498949
_AGREEMENT = 64 * float(np.finfo(float).eps)


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


def watched(laws: Sequence[LawRows | None], source: Any, u: Array, span: tuple[float, float]) -> list[Watched]:
    """Parts of laws and source that change with time over a span, by the initial states ``(rows, cells)``."""
    found = [_of_law(law, u, span) for law in laws if law is not None and law.varies_in_time]
    return [*found, _of_source(source, u, span)] if source is not None and source.varies_in_time else found


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


def _of_source(source: Any, u: Array, span: tuple[float, float]) -> Watched:
    columns = _columns(*u.shape)
    # blocks of one parity would hide states of the other
    states = u, _states(u)

    def evaluate(term: Any, times: Array) -> Array:
        found = [term.rate(np.tile(each, (len(times) // len(u), 1)), times)[0] for each in states]
        return np.concatenate([_blocks(rates, columns) for rates in found], axis=-1)

    return Watched(_in_time(source, evaluate, u.shape, span), 2 * columns, adds=True)


def _of_law(law: LawRows, u: Array, span: tuple[float, float]) -> Watched:
    """Conductivities, or the speeds of signals on the faces of the first axis."""
    diffusive, shape = isinstance(law.law, DiffusiveLaw), tuple(law.grid.shape)
    axis = 0 if isinstance(law.law, Transport) or not diffusive else None
    points = shape if axis is None else (shape[0] + 1, *shape[1:])
    columns, low, high = _columns(len(u), prod(points)), u.min(1, keepdims=True), u.max(1, keepdims=True)
    states = low + np.arange(prod(points)) % 5 / 4.0 * np.where(high > low, high - low, 1.0)

    def evaluate(term: LawRows, times: Array) -> Array:
        placed = term.at(times, axis)
        tensor = torch.from_numpy(np.tile(states, (len(times) // len(u), 1))).reshape(len(times), *points)
        found = placed.conductivity(tensor) if diffusive else placed.characteristic_speed(tensor)
        return _blocks(found.reshape(len(times), -1).numpy(), columns)

    return Watched(_in_time(law, evaluate, states.shape, span), columns, adds=False)


def _in_time(
    term: Any, evaluate: Callable[[Any, Array], Array], shape: tuple[int, int], span: tuple[float, float]
) -> Callable[[Array], Array]:
    """Values ``(k, rows, columns)`` at times ``(k, rows)``, by few calls where these give what a call for each gives.

    ``evaluate`` gives the values of a law or source on rows, or on all of them so many times, at a time for each.
    """
    many = max(1, _TOGETHER // prod(shape))

    def one_by_one(times: Array) -> Array:
        return np.array([evaluate(term, time) for time in times])

    def together(times: Array) -> Array:
        parts = (times[first : first + many] for first in range(0, len(times), many))
        found = [evaluate(term.repeated(len(part)), part.ravel()) for part in parts]
        return np.concatenate(found).reshape(*times.shape, -1)

    def either(times: Array) -> Array:
        try:
            return together(times)
        except Exception:
            return one_by_one(times)  # whose error says what is wrong

    # multiples of the golden ratio alias with no period
    parts = np.arange(1, _PROBES + 1) * _GOLDEN % 1.0
    places = (np.arange(_PROBES)[:, None] + np.arange(shape[0])) % _PROBES
    probes = span[0] + parts[places] * (span[1] - span[0])
    return either if _agree(together, one_by_one, probes) else one_by_one


def _agree(together: Callable[[Array], Array], one_by_one: Callable[[Array], Array], probes: Array) -> bool:
    """Whether values of one call are those of a call for each time; silent on any failure.

    They must vary, too: a function that takes one time from a tensor of many gives the same for all of them.
    """
    expected = one_by_one(probes)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = together(probes)
    except Exception:
        return False
    scale = np.abs(expected).max(axis=(0, 2))[:, None]
    return bool((np.abs(found - expected) <= _AGREEMENT * scale).all() and (found != found[0]).any())
