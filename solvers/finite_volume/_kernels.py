"""Kernels: functions that compiled steps call by their addresses, so that their types do not depend on a law.

Most have one signature, ``kernel(a, b, out, extra, numbers, count, stride)``: pointers to float64 and two integers. The
code of the steps is so kept on disk for every law, and tensors enter by the same signature as a callback of ctypes.
Rows stand side by side in the lanes of a tile, interleaved; a callback reads and writes those lanes that hold rows.

Kernels of rates get a record of arrays besides, ``rates(u, info, rate, flow, data, record, cells, rows)``: states
``(rows, cells)``; row, time and mark ``(3, rows)``; rates, and those by sources alone ``(2, rows, cells)``; fluxes
through the sides, integral of the source, speed and Euler's rate ``(rows, 2d + 3)``; and side data ``(rows, S)``. They
leave rows with mark 0 alone, and give Euler's rate, half the spectral radius of diffusion, where the mark is 2.
"""

import ctypes
import itertools
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache, partial
from math import prod
from typing import Annotated, Any, NamedTuple, Self, get_args, get_origin, get_type_hints

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from solvers._compiled import compiled

_NUMBERS = types.CPointer(types.float64)
_INTEGERS = types.CPointer(types.int64)
NO_RECORD = np.zeros(1, np.int64)
KERNEL = types.void(*[_NUMBERS] * 5, types.int64, types.int64)
RATES = types.void(*[_NUMBERS] * 5, _INTEGERS, types.int64, types.int64)

PART = types.void(_INTEGERS, types.int64, types.int64, types.int64)

_ARGUMENTS = "a, b, out, extra, numbers, count, stride"
_CALLBACK = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 5, ctypes.c_int64, ctypes.c_int64)
_RATES = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 6, ctypes.c_int64, ctypes.c_int64)
_PART = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int64] * 3)
_WANTED, _BOUNDED = 1.0, 2.0


@intrinsic
def _call(typingctx: Any, address: Any, arrays: Any, counts: Any) -> Any:  # noqa: ARG001 - numba's signature
    """Calls the function at an address with the data of a tuple of arrays, or pointers, and a tuple of integers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        passed = []
        for k, kind in enumerate(signature.args[1].types):
            data = builder.extract_value(arguments[1], k)
            if isinstance(kind, types.Array):
                data = cgutils.create_struct_proxy(kind)(context, builder, data).data
            passed.append(builder.bitcast(data, byte))
        passed += [builder.extract_value(arguments[2], k) for k in range(signature.args[2].count)]
        function = ir.FunctionType(ir.VoidType(), [value.type for value in passed])
        builder.call(builder.inttoptr(arguments[0], function.as_pointer()), passed)
        return context.get_dummy_value()

    integers = types.UniTuple(types.int64, counts.count) if counts.count else counts
    return types.void(address, arrays, integers), generate


call: Any = _call


def _array_over(context: Any, builder: Any, kind: Any, data: Any, shape: list[Any]) -> Any:
    """A contiguous array over memory that is not numba's."""
    eight, model = context.get_constant(types.intp, 8), context.data_model_manager[kind]
    strides, count = [eight], shape[0]
    for size in reversed(shape[1:]):
        strides.insert(0, builder.mul(size, strides[0]))
        count = builder.mul(size, count)
    array = ir.Constant(model.get_value_type(), None)
    if isinstance(data.type, ir.IntType):
        data = builder.inttoptr(data, model.get_value_type().elements[model.get_field_position("data")])
    parts = {"nitems": count, "itemsize": eight, "data": data}
    parts |= {"shape": cgutils.pack_array(builder, shape), "strides": cgutils.pack_array(builder, strides)}
    for name, value in parts.items():
        array = model.set(builder, array, value, model.get_field_position(name))
    return array


@intrinsic
def _array_at(_context: Any, pointer: Any, _size: Any) -> Any:
    """The numbers or integers at a pointer, as an array; ``carray`` compiles longer."""
    kind = types.Array(pointer.dtype, 1, "C")

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _array_over(context, builder, kind, arguments[0], [arguments[1]])

    return kind(pointer, types.int64), generate


def _array_of_record(number: Any) -> Any:
    """An intrinsic function that finds an array of a ``RecordKernel`` by its place in the record."""
    kind = types.Array(number, 1, "C")

    @intrinsic
    def array(_context: Any, _record: Any, _place: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            record, place = arguments
            at = builder.gep(record, [builder.shl(place, place.type(1))])
            size = builder.load(builder.gep(at, [place.type(1)]))
            return _array_over(context, builder, kind, builder.load(at), [size])

        return kind(_INTEGERS, types.int64), generate

    return array


array_at: Any = _array_at
floats: Any = _array_of_record(types.float64)
integers: Any = _array_of_record(types.int64)


Array = np.ndarray
Line = Annotated[np.ndarray, types.float64[::1]]
Table = Annotated[np.ndarray, types.float64[:, ::1]]
Block = Annotated[np.ndarray, types.float64[:, :, ::1]]
Places = Annotated[np.ndarray, types.int64[::1]]
PlaceTable = Annotated[np.ndarray, types.int64[:, ::1]]
"""Fields of what parts of a loop share: arrays with one to three axes, and integers."""


def _kind_of(field: Any) -> Any:
    """Numba's type of a field: an array, a number, an integer, or a named tuple of those."""
    if get_origin(field) is Annotated:
        return get_args(field)[1]
    if isinstance(field, type) and issubclass(field, tuple):
        return types.BaseTuple.from_types(
            list(map(_kind_of, get_type_hints(field, include_extras=True).values())), field
        )
    return types.float64 if field is float else types.int64


def reader(shared: type) -> Any:
    """An intrinsic function that finds what parts of a loop share, a named tuple, by the address of its record."""
    whole = _kind_of(shared)

    @intrinsic
    def read(_context: Any, _record: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            places = itertools.count()

            def word() -> Any:
                return builder.load(builder.gep(arguments[0], [ir.IntType(64)(next(places))]))

            def build(kind: Any) -> Any:
                if hasattr(kind, "instance_class"):
                    return context.make_tuple(builder, kind, [build(part) for part in kind])
                if isinstance(kind, types.Array):
                    return _array_over(context, builder, kind, word(), [word() for _ in range(kind.ndim)])
                return builder.bitcast(word(), ir.DoubleType()) if kind == types.float64 else word()

            return build(whole)

        return whole(_INTEGERS), generate

    return read


class Shared:
    """What the parts of a loop share, a nested named tuple of arrays and numbers, with the record of where it is.

    The parts are kernels ``part(record, first, second, third)``, called by address: so each is optimised once, and not
    again in all that call it. Arrays change in place; numbers stay.

    Args:
        values: The named tuple.
        owner: What owns the kernels whose addresses are among the values; it lives as long as this.
    """

    def __init__(self, values: Any, owner: object) -> None:
        self._values, self._owner = values, owner
        self._record = np.array(_words(values), np.int64)

    def run(self, part: "Kernel", *integers: int) -> None:
        """Runs a part with three integers."""
        _PART(part.address)(self._record.ctypes.data, *integers)


def _words(value: Any) -> list[int]:
    """Address and shape of an array, or the bits of a number."""
    if isinstance(value, tuple):
        return [word for part in value for word in _words(part)]
    if isinstance(value, np.ndarray):
        assert value.flags.c_contiguous
        assert value.dtype in (np.float64, np.int64)
        return [value.ctypes.data, *value.shape]
    return [int(np.float64(value).view(np.int64)) if isinstance(value, float) else int(value)]


class Kernel:
    """A function for calls by address, compiled when that is first asked for.

    Args:
        signature: ``KERNEL``, or another one.
        function: The function.
        cache: Whether to keep the machine code on disk, where a cache can be written; see ``compiled``.
    """

    def __init__(self, signature: Any, function: Callable[..., None], *, cache: bool = True) -> None:
        self._signature, self._function, self._cache = signature, function, cache

    @cached_property
    def address(self) -> int:
        """Where it is."""
        # njit puts the wrapper for C into the library of the function; cfunc compiles a second one around it
        options = {"signature": self._signature, "no_cpython_wrapper": True, "cache": self._cache}
        self._kept = compiled(self._function, **options)
        result = self._kept.overloads[self._signature.args]
        return result.library.get_pointer_to_function(result.fndesc.llvm_cfunc_wrapper_name)

    def ready(self) -> Self:
        """The same, compiled now, so that an error of numba comes here."""
        _ = self.address
        return self


def kernel(signature: Any) -> Callable[[Callable[..., None]], Kernel]:
    """A decorator that makes a kernel of a function."""
    return partial(Kernel, signature)


def written_kernel(name: str, lines: Sequence[str], names: dict[str, Any], *, cache: bool) -> Kernel:
    """A kernel from the lines of its body, which may call the compiled functions ``names``.

    Its name differs for every body and every set of functions if it is kept on disk. That is for functions of this
    package alone, since numba does not see that a function has changed that a kernel calls.
    """
    source = "\n    ".join([f"def {name}({_ARGUMENTS}):", *lines])
    names["__name__"] = __name__  # where numba looks for the globals of code that it kept
    exec(compile(source, __file__, "exec"), names)
    return Kernel(KERNEL, names[name], cache=cache)


class RecordKernel:
    """A compiled kernel and the record of arrays that it reads.

    Args:
        kernel: The kernel.
        arrays: The arrays, of float64 or int64.
    """

    def __init__(self, kernel: Any, *arrays: np.ndarray) -> None:
        self.arrays = [np.ascontiguousarray(array) for array in arrays]
        self.address, self._kept = kernel.address, kernel
        self.record = np.array([[array.ctypes.data, array.size] for array in self.arrays], np.int64).reshape(-1)

    def __call__(self, arrays: Sequence[np.ndarray], first: int, second: int) -> None:
        """Calls it with five contiguous arrays and two numbers."""
        call_rates(self.address, (*arrays, self.record), first, second)


def call_rates(address: int, arrays: Sequence[np.ndarray], first: int, second: int) -> None:
    """Calls a kernel of rates with six contiguous arrays and two numbers."""
    _RATES(address)(*(each.ctypes.data for each in arrays), first, second)


def rates_of(kernel: RecordKernel, u: np.ndarray, data: np.ndarray, sides: int, *, bound: bool = False) -> Any:
    """Rates ``(rows, cells)`` and flow ``(rows, sides + 3)`` of all rows, with Euler's rate if ``bound``."""
    (rows, cells), info = u.shape, np.zeros((3, len(u)))
    info[0], info[2] = np.arange(rows), _BOUNDED if bound else _WANTED
    rate, flow = np.empty((rows, cells)), np.zeros((rows, sides + 3))
    kernel((np.ascontiguousarray(u), info, rate, flow, np.ascontiguousarray(data)), cells, rows)
    return rate, flow


class Callback:
    """A Python function as a kernel. What it raises is kept, and ends the time steps.

    Args:
        function: Called with the arguments of a kernel.
        error: Where to keep what it raises.
        rates: Whether these are the arguments of a kernel of rates, or others with a record.
    """

    def __init__(self, function: Callable[..., None], error: list[BaseException], *, rates: bool = False) -> None:
        def guarded(*arguments: Any) -> None:
            try:
                if not error:
                    function(*arguments)
            except BaseException as raised:
                error.append(raised)

        self._kept = (_RATES if rates else _CALLBACK)(guarded)
        self.address = ctypes.cast(self._kept, ctypes.c_void_p).value or 0


def call_from_python(compiled_kernel: Any, arrays: Any, count: int, stride: int | None = None) -> None:
    """Calls a kernel with contiguous arrays; the stride is the count unless given."""
    addresses = (array.ctypes.data for array in arrays)
    _CALLBACK(compiled_kernel.address)(*addresses, count, count if stride is None else stride)


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
