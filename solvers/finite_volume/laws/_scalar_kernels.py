"""Kernels around a user's scalar functions: at points, on the tiles of implicit steps, and on faces of convection.

A function takes the state and then what it names of x, t and the parameters. These are columns, arrays with one number
for every state, so that the loops run along memory. Nothing is kept on disk, since numba would not see a change of the
user's code.
"""

from collections.abc import Callable
from functools import lru_cache
from math import sqrt
from typing import Any, NamedTuple

import numpy as np
from numba import njit, types
from numba.core.errors import NumbaError

from solvers.errors import InvalidArgumentError
from solvers.finite_volume._kernels import KERNEL, RATES, Kernel, floats

_STEP = 6e-6
# Lobatto's rule with five nodes on [0, 1], exact for polynomials of degree 7: 0, a, ½, 1 − a and 1.
_NODE, _AT_ENDS, _AT_NODES, _AT_MIDDLE = 0.5 - 0.5 * sqrt(3.0 / 7.0), 1.0 / 20.0, 49.0 / 180.0, 16.0 / 45.0

_plain = njit(error_model="numpy", nogil=True, forceinline=True)


@_plain
def _clear(out: Any, count: int) -> None:
    """NaN in results: where a function raises after all, its kernel ends there, and a step with NaN fails."""
    for i in range(count):
        out[i] = np.nan


class Call(NamedTuple):
    """A scalar function of a law.

    Attributes:
        name: The parameter of ``ScalarLaw`` that it is.
        function: The function.
        takes: What it takes after the state: ``x``, ``t`` and names of parameters.
        columns: All columns that the law's kernels have, in order: x.0, x.1, …, t and parameters.
    """

    name: str
    function: Callable[..., float]
    takes: tuple[str, ...]
    columns: tuple[str, ...]


@lru_cache(maxsize=256)
def value_of(call: Call) -> Any:
    """The compiled f(u, columns, i, n) with what the function takes at the place i of columns with n entries.

    An error unless numba can compile the function and it returns one real number.
    """
    places = [f"c[{k} * n + i]" for k, name in enumerate(call.columns) if name.startswith("x.")]
    texts = {name: f"c[{k} * n + i]" for k, name in enumerate(call.columns)}
    texts["x"] = places[0] if len(places) == 1 else f"({', '.join(places)},)"
    kinds = (
        types.float64,
        *(
            types.UniTuple(types.float64, len(places)) if name == "x" and len(places) > 1 else types.float64
            for name in call.takes
        ),
    )
    function, given = _plain(getattr(call.function, "py_func", call.function)), ", ".join(("u", *call.takes))
    try:
        function.compile(kinds)
    except NumbaError as error:
        reason = " ".join(str(error).split())[:300]
        raise InvalidArgumentError(
            f"ScalarLaw: numba cannot compile {call.name}({given}) for numbers: {reason} Use numbers, if, loops, and "
            "functions of math or numpy on numbers; a law in torch derives from DiffusiveLaw or ConvectiveLaw."
        ) from None
    result = function.overloads[kinds].signature.return_type
    if not isinstance(result, types.Float | types.Integer | types.Boolean):
        raise InvalidArgumentError(f"ScalarLaw: {call.name}({given}) must return one real number, got {result}.")
    arguments = ", ".join(["u", *(texts[name] for name in call.takes)])
    return _plain(eval(f"lambda u, c, i, n: function({arguments})", {"function": function}))


@lru_cache(maxsize=256)
def slope_of(call: Call) -> Any:
    """The derivative of a function by the state, by central differences."""
    value = value_of(call)

    def slope(u: float, c: Any, i: int, n: int) -> float:
        e = _STEP * max(1e-3, abs(u))
        return (value(u + e, c, i, n) - value(u - e, c, i, n)) / (2.0 * e)

    return _plain(slope)


@lru_cache(maxsize=256)
def difference_of(conductivity: Call, potential: Call | None) -> Any:
    """Φ(left) − Φ(right), by Φ or else by the integral of the conductivity."""
    if potential is not None:
        phi = value_of(potential)
        return _plain(lambda left, right, c, i, n: phi(left, c, i, n) - phi(right, c, i, n))
    k, integral = value_of(conductivity), _integral_of(conductivity)
    return _plain(lambda left, right, c, i, n: integral(left, right, k(left, c, i, n), k(right, c, i, n), c, i, n))


@lru_cache(maxsize=256)
def _integral_of(conductivity: Call) -> Any:
    """∫ k du from the right state to the left one, with k at both."""
    k = value_of(conductivity)

    def integral(left: float, right: float, first: float, last: float, c: Any, i: int, n: int) -> float:
        jump = left - right
        nodes = k(right + _NODE * jump, c, i, n) + k(left - _NODE * jump, c, i, n)
        middle = k(right + 0.5 * jump, c, i, n)
        return jump * (_AT_ENDS * (first + last) + _AT_NODES * nodes + _AT_MIDDLE * middle)

    return _plain(integral)


@lru_cache(maxsize=256)
def _on_states(call: Call) -> Any:
    """A function that writes values at the states before and behind the faces of a tile; by x where it takes it."""
    value, placed = value_of(call), "x" in call.takes

    def write(u: Any, before: Any, behind: Any, c: Any, n: int, width: int) -> None:
        for i in range(n):
            before[i] = value(u[i], c, i, n)
        start = 0 if placed else n - width
        for i in range(start):
            behind[i] = before[i + width]
        for i in range(start, n):
            behind[i] = value(u[i + width], c, i, n)

    return _plain(write)


@lru_cache(maxsize=256)
def points_kernel(function: Any, pair: bool) -> Kernel:
    """A function at points: states, columns, values, and if it takes a ``pair`` the second states."""

    def values(a: Any, b: Any, out: Any, extra: Any, _numbers: Any, count: int, stride: int) -> None:  # noqa: ARG001
        for i in range(count):
            out[i] = function(a[i], b, i, stride)

    def differences(a: Any, b: Any, out: Any, extra: Any, _numbers: Any, count: int, stride: int) -> None:
        for i in range(count):
            out[i] = function(a[i], extra[i], b, i, stride)

    return Kernel(KERNEL, differences if pair else values, cache=False)


@lru_cache(maxsize=256)
def _spread(columns: tuple[str, ...]) -> Any:
    """A function that writes the columns of a tile, by places, times and parameters of the rows in its lanes."""
    timed, count = "t" in columns, len(columns)
    axes = columns.index("t") if timed else sum(name.startswith("x.") for name in columns)
    first = axes + timed

    def spread(c: Any, places: Any, parameters: Any, info: Any, entries: int, width: int) -> None:
        for i in range(entries):
            for lane in range(width):
                at, row = i * width + lane, int(info[lane])
                for k in range(axes):
                    c[k * entries * width + at] = places[k * entries + i]
                if timed:
                    c[axes * entries * width + at] = info[width + lane]
                for k in range(first, count):
                    c[k * entries * width + at] = parameters[row * (count - first) + k - first]

    return _plain(spread)


@lru_cache(maxsize=256)
def faces_kernel(conductivity: Call, potential: Call | None) -> Kernel:
    """Fluxes between the states of a tile and their derivatives, see ``Medium.faces``.

    The record holds inverse distances and places of the faces, parameters ``(rows, p)`` and scratch for the columns.
    """
    spread, k, integral = _spread(conductivity.columns), _on_states(conductivity), _integral_of(conductivity)
    phi, stated = _on_states(potential or conductivity), potential is not None

    def faces(u: Any, info: Any, flux: Any, by_left: Any, by_right: Any, record: Any, count: int, width: int) -> None:
        entries, n, inverse, c = count - 1, (count - 1) * width, floats(record, 0), floats(record, 3)
        spread(c, floats(record, 1), floats(record, 2), info, entries, width)
        _clear(flux, n)
        if stated:
            phi(u, flux, by_right, c, n, width)
            for i in range(n):
                flux[i] -= by_right[i]
        k(u, by_left, by_right, c, n, width)
        if not stated:
            for i in range(n):
                flux[i] = integral(u[i], u[i + width], by_left[i], by_right[i], c, i, n)
        for i in range(entries):
            for at in range(i * width, (i + 1) * width):
                flux[at] *= inverse[i]
                by_left[at] *= inverse[i]
                by_right[at] *= -inverse[i]

    return Kernel(RATES, faces, cache=False)


@lru_cache(maxsize=256)
def source_kernel(source: Call) -> Kernel:
    """A source and its derivative on the cells of a tile, see ``Medium.source``; the record as in ``faces_kernel``."""
    value, slope, spread = value_of(source), slope_of(source), _spread(source.columns)

    def sources(u: Any, info: Any, s: Any, by_state: Any, _: Any, record: Any, count: int, width: int) -> None:
        n, c = count * width, floats(record, 3)
        spread(c, floats(record, 1), floats(record, 2), info, count, width)
        _clear(s, n)
        for i in range(n):
            s[i] = value(u[i], c, i, n)
        for i in range(n):
            by_state[i] = slope(u[i], c, i, n)

    return Kernel(RATES, sources, cache=False)


@lru_cache(maxsize=256)
def riemann_kernel(flux: Call, stationary: tuple[float, ...] | None, inflection: tuple[float, ...] | None) -> Kernel:
    """Fluxes through faces and speeds there, Godunov's with stationary points and Rusanov's without.

    The kernel is (states on the low side, on the high side, flux, speed, averages of the cells, parameters, faces,
    distance of neighbours). Speeds are those of ``schemes.fastest``.
    """
    f, speed, godunov, known = value_of(flux), slope_of(flux), stationary is not None, inflection is not None
    turns, bends = np.array(stationary or (), float), np.array(inflection or (), float)

    def fastest(low: float, high: float, c: Any) -> float:
        most = max(abs(speed(low, c, 0, 1)), abs(speed(high, c, 0, 1)))
        if not known:
            for k in range(1, 9):
                most = max(most, abs(speed(low + k / 9.0 * (high - low), c, 0, 1)))
            return 1.1 * most
        for state in bends:
            most = max(most, abs(speed(min(high, max(low, state)), c, 0, 1)))
        return most

    quick = _plain(fastest)

    def faces(left: Any, right: Any, out: Any, fast: Any, cells: Any, c: Any, count: int, apart: int) -> None:
        _clear(fast, count)
        for i in range(count):
            low, high = min(left[i], right[i]), max(left[i], right[i])
            first, last = f(left[i], c, 0, 1), f(right[i], c, 0, 1)
            if godunov:
                smallest, largest = min(first, last), max(first, last)
                for state in turns:
                    inside = f(min(high, max(low, state)), c, 0, 1)
                    smallest, largest = min(smallest, inside), max(largest, inside)
                out[i] = smallest if left[i] <= right[i] else largest
            else:
                out[i] = 0.5 * (first + last - quick(low, high, c) * (right[i] - left[i]))
            low, high = min(low, min(cells[i], cells[i + apart])), max(high, max(cells[i], cells[i + apart]))
            fast[i] = quick(low, high, c)

    return Kernel(types.void(*[types.CPointer(types.float64)] * 6, types.int64, types.int64), faces, cache=False)
