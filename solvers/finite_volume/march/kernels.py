"""Functions of one signature that compiled steps call: laws and sources, compiled or in Python.

Compiled steps see a law as the address of a function of one type, so that they are compiled once for all laws. All
arrays are flat, and neighbours along an axis are a fixed distance ``apart``:

* laws with diffusion: (u, p, w, workspace, flux, left, right, faces, apart): at the faces between u[i] and
  u[i + apart] the flux, weighted by w, and its derivative by the state before and minus that by the state behind, both
  ≥ 0; the flux alone where ``apart`` is negative; where ``faces`` is negative, ``workspace`` is that of the last call,
  with the same states and parameters along another axis;
* laws with convection: (left, right, before, after, p, flux, speed, faces, apart): Godunov's or Rusanov's flux between
  two states, and the largest speed of signals of these and of the two averages;
* sources: (u, p, –, –, s, slope, –, cells, stride): s(u) and ∂s/∂u;
* limiters: (v, –, –, –, half, –, –, count, apart): half of the slopes of v[i + apart], by its neighbours;
* systems: (u, p, –, –, out, –, –, count, axis): fluxes of states and the slowest and fastest wave, NaN where a state is
  not admissible; or states as a wall mirrors them; or whether they are admissible, with a thin depth after p.

Row k of the parameters p begins at k · (faces + apart), for sources at k · stride. ``workspace`` has two rows.
"""

import ctypes
from collections.abc import Callable
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic
from numba.np.numpy_support import carray as carray

from solvers._compiled import c_function

Array = np.ndarray
_LINE = 8
_NUMBERS = types.CPointer(types.float64)
KERNEL = types.void(*[_NUMBERS] * 7, types.int64, types.int64)
_POINTER = ctypes.POINTER(ctypes.c_double)
_FUNCTION = ctypes.CFUNCTYPE(None, *[_POINTER] * 7, ctypes.c_int64, ctypes.c_int64)
_ADDRESSES = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 7, ctypes.c_int64, ctypes.c_int64)


class Kernel:
    """A compiled function of the one signature, compiled when it is first used.

    Args:
        function: The function.
        cache: Whether to keep the machine code on disk: for functions of this package alone, since numba does not see
            that a function has changed that another one calls.
    """

    def __init__(self, function: Callable[..., None], *, cache: bool = True) -> None:
        self._function, self._cache = function, cache

    @cached_property
    def address(self) -> int:
        """Where the function is."""
        self._compiled = c_function(KERNEL, self._function, cache=self._cache)
        return self._compiled.address


class Callback:
    """A Python function in the place of a kernel; what it raises is kept, and ends the steps.

    Args:
        function: Called with seven addresses and two integers.
        errors: Where to keep what it raises.
    """

    def __init__(self, function: Callable[..., None], errors: list[BaseException]) -> None:
        def guarded(*arguments: Any) -> None:
            try:
                if not errors:
                    function(*arguments)
            except BaseException as raised:
                errors.append(raised)

        self._kept = _ADDRESSES(guarded)
        self.address: int = ctypes.cast(self._kept, ctypes.c_void_p).value  # type: ignore[assignment]


def _function_at(_context: Any, address: Any) -> Any:
    """The kernel at an address, in compiled code, which takes numbers from Python sooner than functions of ctypes."""
    function = types.ExternalFunctionPointer(KERNEL, None)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return function(address), code


function_at: Any = intrinsic(_function_at)


def call_from_python(address: int, arrays: Any, count: int, apart: int) -> None:
    """Calls a kernel with seven contiguous arrays and two integers."""
    _FUNCTION(address)(*(array.ctypes.data_as(_POINTER) for array in arrays), count, apart)


def zeros(*shape: int) -> Array:
    """Zeros from a whole cache line on: vectors that straddle two lines take up to twice as long."""
    count = prod(shape)
    numbers = np.zeros(count + _LINE)
    first = -(numbers.ctypes.data // numbers.itemsize) % _LINE
    return numbers[first : first + count].reshape(shape)


def numbers_at(address: int, *shape: int) -> Array:
    """The numbers at an address, as an array of a shape."""
    count = prod(shape)
    return np.ctypeslib.as_array((ctypes.c_double * count).from_address(address)).reshape(shape)


def _nothing(_a, _b, _c, _d, _e, _f, _g, _count, _apart):
    pass


NOTHING = Kernel(_nothing)
"""In the place of a law or source that is absent."""
