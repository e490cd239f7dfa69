"""Eight float64 lanes as one value in compiled code, for recursions along an axis that many rows run side by side.

``load(array, i, like)`` and ``store`` move one number or eight consecutive ones, by the type of ``like``, so that one
function serves a single row and a tile of eight with the same arithmetic and hence the same bits.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

WIDTH = 8

_intrinsic: Any = intrinsic

_DOUBLE = ir.DoubleType()
_VECTOR = ir.VectorType(_DOUBLE, WIDTH)


class Lanes(types.Type):
    """Numba type of eight float64 numbers."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


lanes = Lanes()


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


@_intrinsic
def broadcast(_: Any, _value: Any) -> Any:
    """Eight copies of a number."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        first = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), args[0], ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
        return builder.shuffle_vector(first, first, zeros)

    return lanes(types.float64), generate


@_intrinsic
def load(_: Any, array: Any, index: Any, like: Any) -> Any:
    """One number or eight of a contiguous array from a position on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, signature, args)
        return builder.load(pointer, align=8)

    return like(array, index, like), generate


@_intrinsic
def store(_: Any, array: Any, index: Any, value: Any) -> Any:
    """Writes one number or eight to a contiguous array from a position on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _pointer(context, builder, signature, args), align=8)
        return context.get_dummy_value()

    return types.void(array, index, value), generate


def _pointer(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    array = cgutils.create_struct_proxy(signature.args[0])(context, builder, args[0])
    pointer = builder.gep(array.data, [args[1]], source_etype=_DOUBLE)
    kind = _VECTOR if signature.args[2] == lanes else _DOUBLE
    return builder.bitcast(pointer, kind.as_pointer())


@_intrinsic
def sum_of_lanes(_: Any, _value: Any) -> Any:
    """Sum of eight lanes, from the first to the last."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        total = builder.extract_element(args[0], ir.Constant(ir.IntType(32), 0))
        for lane in range(1, WIDTH):
            total = builder.fadd(total, builder.extract_element(args[0], ir.Constant(ir.IntType(32), lane)))
        return total

    return types.float64(lanes), generate


@_intrinsic
def magnitude(_: Any, value: Any) -> Any:
    """|value| of one number or eight."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        integer, mask = ir.IntType(64), (1 << 63) - 1
        wide = args[0].type == _VECTOR
        bits = ir.VectorType(integer, WIDTH) if wide else integer
        kept = builder.and_(builder.bitcast(args[0], bits), ir.Constant(bits, [mask] * WIDTH if wide else mask))
        return builder.bitcast(kept, args[0].type)

    return value(value), generate


def _operation(name: str) -> Any:
    @_intrinsic
    def apply(_: Any, _left: Any, _right: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            return getattr(builder, name)(*args)

        return lanes(lanes, lanes), generate

    return apply


def _overload(symbol: Callable[..., Any], name: str) -> None:
    apply = _operation(name)

    def combine(left: Any, right: Any) -> Any:
        return apply(left, right)

    @overload(symbol)
    def choose(left: Any, right: Any) -> Any:
        return combine if isinstance(left, Lanes) and isinstance(right, Lanes) else None


for _symbol, _name in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _overload(_symbol, _name)
