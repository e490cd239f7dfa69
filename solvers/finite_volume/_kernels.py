"""Kernels: functions that compiled steps call by their addresses, so that their types do not depend on a law.

All have one signature, ``kernel(a, b, out, extra, numbers, count, stride)``: pointers to float64 and two integers. The
code of the steps is so kept on disk for every law, and tensors enter by the same signature as a callback of ctypes.
Rows stand side by side in the lanes of a tile, interleaved; a callback reads and writes those lanes that hold rows.
"""

import ctypes
from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import cfunc, types
from numba.core import cgutils
from numba.extending import intrinsic

_NUMBERS = types.CPointer(types.float64)
KERNEL = types.void(*[_NUMBERS] * 5, types.int64, types.int64)

_CALLBACK = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 5, ctypes.c_int64, ctypes.c_int64)


@intrinsic
def _call(typingctx: Any, address: Any, arrays: Any, counts: Any) -> Any:  # noqa: ARG001 - numba's signature
    """Calls the function at an address with the data of a tuple of arrays and a tuple of integers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        passed = []
        for k, kind in enumerate(signature.args[1].types):
            array = cgutils.create_struct_proxy(kind)(context, builder, builder.extract_value(arguments[1], k))
            passed.append(builder.bitcast(array.data, byte))
        passed += [builder.extract_value(arguments[2], k) for k in range(signature.args[2].count)]
        function = ir.FunctionType(ir.VoidType(), [value.type for value in passed])
        builder.call(builder.inttoptr(arguments[0], function.as_pointer()), passed)
        return context.get_dummy_value()

    return types.void(address, arrays, counts), generate


call: Any = _call


def kernel(signature: Any, function: Callable[..., None], *, cache: bool = True) -> Any:
    """A function compiled for calls by its ``address``; its code is kept on disk as by ``compiled``, if ``cache``."""
    try:
        return cfunc(signature, cache=cache, error_model="numpy")(function)
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        return cfunc(signature, error_model="numpy")(function)


class Callback:
    """A Python function as a kernel. What it raises is kept, and ends the time steps.

    Args:
        function: Called with the arguments of a kernel.
        error: Where to keep what it raises.
    """

    def __init__(self, function: Callable[..., None], error: list[BaseException]) -> None:
        def guarded(*arguments: Any) -> None:
            try:
                if not error:
                    function(*arguments)
            except BaseException as raised:
                error.append(raised)

        self._kept = _CALLBACK(guarded)
        self.address = ctypes.cast(self._kept, ctypes.c_void_p).value or 0


def call_from_python(compiled_kernel: Any, arrays: Any, count: int) -> None:
    """Calls a kernel with contiguous arrays."""
    _CALLBACK(compiled_kernel.address)(*(array.ctypes.data for array in arrays), count, count)


@lru_cache(maxsize=256)
def numbers_at(address: int, *shape: int) -> np.ndarray:
    """The numbers at an address, as an array of a shape."""
    return np.ctypeslib.as_array((ctypes.c_double * prod(shape)).from_address(address)).reshape(shape)


class Lanes(NamedTuple):
    """The lanes of a tile that hold rows.

    Attributes:
        places: Their places in the tile.
        rows: The rows.
        times: Their times.
    """

    places: np.ndarray | slice
    rows: np.ndarray
    times: np.ndarray

    def read(self, pointer: Any, size: int, width: int) -> np.ndarray:
        """Values ``(rows, size)`` of an interleaved array."""
        return np.ascontiguousarray(numbers_at(pointer, size, width)[:, self.places].T)

    def write(self, pointer: Any, values: np.ndarray, width: int) -> None:
        """Writes values ``(rows, size)`` to an interleaved array."""
        numbers_at(pointer, values.shape[1], width)[:, self.places] = values.T


def lanes_of(info: Any, width: int) -> Lanes:
    """The lanes by rows, times and marks ``(3, width)``."""
    rows, times, marks = numbers_at(info, 3, width)
    places = marks.nonzero()[0]
    if len(places) == width:
        return Lanes(slice(None), rows.astype(np.int64), times.copy())
    return Lanes(places, rows[places].astype(np.int64), times[places])
