"""Kernels: what is particular to a law, as functions that the compiled core calls by their addresses.

All have one signature, ``kernel(a, b, out, extra, numbers, count, stride)``: pointers to float64, ``count`` states of c
components, those of one component next to each other and the components ``stride`` apart. ``numbers`` holds a scale of
the states, the length of a cell and then the law's parameters. So the core's types do not depend on the law, its code
is kept on disk for every law, and tensors enter by the same signature as a callback of ctypes.

* faces: states left (a) and right (b) of faces → flux (out) and largest speed (extra).
* check: whether states (a) are admissible → 1 or 0 (extra). It may mend their round-off, b being those before the step.
* reflect: states (a) → as a wall mirrors them (out).
* slopes: cells (a) → half the limited slopes of all but the first and the last (out), of one component.
* given: times (a) of some entries (b) → nothing; the states at the sides are where the core reads them.
"""

import ctypes
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import cfunc, types
from numba.core import cgutils
from numba.extending import intrinsic

from solvers.finite_volume.convection.reconstruction_kernels import LIMITERS

_NUMBERS = types.CPointer(types.float64)
KERNEL = types.void(*[_NUMBERS] * 5, types.int64, types.int64)
SWEEP = types.void(*[_NUMBERS] * 7, types.CPointer(types.int64))

_POINTER = ctypes.POINTER(ctypes.c_double)
_CALLBACK = ctypes.CFUNCTYPE(None, *[_POINTER] * 5, ctypes.c_int64, ctypes.c_int64)


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
    """A function compiled for calls by address.

    Args:
        signature: ``KERNEL`` or ``SWEEP``.
        function: The function.
        cache: Whether to keep the machine code on disk, where a cache can be written; see ``compiled``.

    Returns:
        The compiled function; ``address`` is where it is.
    """
    try:
        return cfunc(signature, cache=cache, error_model="numpy")(function)
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        return cfunc(signature, error_model="numpy")(function)


_ARGUMENTS = "a, b, out, extra, numbers, count, stride"


def written_kernel(name: str, lines: Sequence[str], names: dict[str, Any], *, cache: bool) -> Any:
    """A kernel from the lines of its body.

    Args:
        name: Name of the kernel, different for every body and every set of functions if it is kept on disk.
        lines: Lines of the body.
        names: Compiled functions that the lines call.
        cache: Whether to keep the machine code on disk: for functions of this package alone, since numba does not
            see that a function has changed that a kernel calls.

    Returns:
        The kernel.
    """
    source = "\n    ".join([f"def {name}({_ARGUMENTS}):", *lines])
    names["__name__"] = __name__  # where numba looks for the globals of code that it kept
    exec(compile(source, __file__, "exec"), names)
    return kernel(KERNEL, names[name], cache=cache)


@lru_cache
def slopes_kernel(limiter: Any) -> Any:
    """Half the slopes by a limiter."""
    lines = [
        "for k in range(count):",
        "    out[k] = 0.5 * limiter(a[k + 1] - a[k], a[k + 2] - a[k + 1])",
    ]
    ours = limiter in LIMITERS
    name = f"slopes_{limiter.__name__}" if ours else "slopes"
    return written_kernel(name, lines, {"limiter": limiter}, cache=ours)


class Callback:
    """A Python function as a kernel. What it raises is kept, and ends the time steps since nothing is admissible.

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


def call_from_python(compiled_kernel: Any, arrays: Sequence[np.ndarray], count: int) -> None:
    """Calls a kernel with contiguous arrays."""
    _CALLBACK(compiled_kernel.address)(*(array.ctypes.data_as(_POINTER) for array in arrays), count, count)


def view(pointer: Any, components: int, count: int, stride: int) -> np.ndarray:
    """States behind a pointer ``(components, count)``."""
    flat = np.ctypeslib.as_array(pointer, shape=(components * stride,))
    return flat.reshape(components, stride)[:, :count]
