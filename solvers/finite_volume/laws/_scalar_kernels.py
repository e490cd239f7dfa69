"""Kernels of a user's scalar functions, as ``march.kernels`` states them, and loops over points.

A function takes the state and then what it names of x, t and the parameters. These are columns, with one number for
every state, so that the loops run along memory. Nothing is kept on disk, since numba would not see a change of the
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
from solvers.finite_volume.march.kernels import Kernel, carray

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
def points_of(function: Any, pair: bool) -> Any:
    """A loop that evaluates a function at states, with columns ``(k · n,)``, and if it takes a ``pair`` at two."""
    if pair:

        def values(first: Any, second: Any, c: Any, out: Any) -> None:
            for i in range(out.size):
                out[i] = function(first[i], second[i], c, i, out.size)
    else:

        def values(first: Any, second: Any, c: Any, out: Any) -> None:  # noqa: ARG001 - one signature
            for i in range(out.size):
                out[i] = function(first[i], c, i, out.size)

    return njit(error_model="numpy", nogil=True)(values)


@lru_cache(maxsize=256)
def faces_kernel(conductivity: Call, potential: Call | None) -> Kernel:
    """The kernel of a diffusive law; Φ from the conductivity by ``_integral_of`` where it is not given."""
    k, integral, stated, columns = (
        value_of(conductivity),
        _integral_of(conductivity),
        potential is not None,
        len(conductivity.columns),
    )
    phi = value_of(potential or conductivity)

    def faces(u_, p_, w_, _room, flux_, left_, right_, signed_count, signed):
        count, apart = abs(signed_count), abs(signed)
        n = count + apart
        u, c, w, flux = carray(u_, n), carray(p_, columns * n), carray(w_, count), carray(flux_, count)
        left, right = carray(left_, count), carray(right_, count)
        _clear(flux, count)
        if stated:
            for i in range(count):
                left[i] = phi(u[i], c, i, n)
            for i in range(count):
                flux[i] = w[i] * (left[i] - phi(u[i + apart], c, i, n))
        for i in range(count):
            left[i] = k(u[i], c, i, n)
        for i in range(count):
            right[i] = k(u[i + apart], c, i, n)
        if not stated:
            for i in range(count):
                flux[i] = w[i] * integral(u[i], u[i + apart], left[i], right[i], c, i, n)
        for i in range(count):
            left[i], right[i] = w[i] * left[i], w[i] * right[i]

    return Kernel(faces, cache=False)


@lru_cache(maxsize=256)
def source_kernel(source: Call) -> Kernel:
    """The kernel of a source."""
    value, slope, columns = value_of(source), slope_of(source), len(source.columns)

    def sources(u_, p_, _a, _b, s_, slope_, _c, count, stride):
        u, c, s, by_state = carray(u_, count), carray(p_, columns * stride), carray(s_, count), carray(slope_, count)
        _clear(s, count)
        for i in range(count):
            s[i] = value(u[i], c, i, stride)
        for i in range(count):
            by_state[i] = slope(u[i], c, i, stride)

    return Kernel(sources, cache=False)


@lru_cache(maxsize=256)
def riemann_kernel(flux: Call, stationary: tuple[float, ...] | None, inflection: tuple[float, ...] | None) -> Kernel:
    """The kernel of a convective law, with Godunov's flux by stationary points or else Rusanov's.

    Speeds are those of ``schemes.fastest``.
    """
    f, speed, godunov, known = value_of(flux), slope_of(flux), stationary is not None, inflection is not None
    turns, bends, columns = np.array(stationary or (), float), np.array(inflection or (), float), len(flux.columns)

    def fastest(low: float, high: float, c: Any, i: int, n: int) -> float:
        most = max(abs(speed(low, c, i, n)), abs(speed(high, c, i, n)))
        if not known:
            for k in range(1, 9):
                most = max(most, abs(speed(low + k / 9.0 * (high - low), c, i, n)))
            return 1.1 * most
        for state in bends:
            most = max(most, abs(speed(min(high, max(low, state)), c, i, n)))
        return most

    quick = _plain(fastest)

    def faces(left_, right_, before_, behind_, p_, out_, fast_, count, apart):
        n = count + apart
        left, right, before, behind = (
            carray(left_, count),
            carray(right_, count),
            carray(before_, count),
            carray(behind_, count),
        )
        c, out, fast = carray(p_, columns * n), carray(out_, count), carray(fast_, count)
        _clear(fast, count)
        for i in range(count):
            low, high = min(left[i], right[i]), max(left[i], right[i])
            first, last = f(left[i], c, i, n), f(right[i], c, i, n)
            if godunov:
                smallest, largest = min(first, last), max(first, last)
                for state in turns:
                    inside = f(min(high, max(low, state)), c, i, n)
                    smallest, largest = min(smallest, inside), max(largest, inside)
                out[i] = smallest if left[i] <= right[i] else largest
            else:
                out[i] = 0.5 * (first + last - quick(low, high, c, i, n) * (right[i] - left[i]))
            low, high = min(low, min(before[i], behind[i])), max(high, max(before[i], behind[i]))
            fast[i] = quick(low, high, c, i, n)

    return Kernel(faces, cache=False)
