"""The operations that generated loops are made of, for numba.

Tensors are given as addresses, so that one compiled loop serves any memory; the types are those of
checkpoints. Rounding is to nearest, ties to even, as torch rounds.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["NAMES"]

_SINGLE = ir.FloatType()
_DOUBLE = ir.DoubleType()
_HALF = ir.HalfType()
_WORD = ir.IntType(32)
_LONG = ir.IntType(64)
_SHORT = ir.IntType(16)
_TRUE = ir.Constant(ir.IntType(1), 1)

Convert = Callable[[Any, Any], Any]


def _at(builder: Any, kind: Any, address: Any, index: Any) -> Any:
    """Return a pointer to an element of a type."""
    return builder.gep(builder.inttoptr(address, kind.as_pointer()), [index])


def _reader(kind: Any, result: Any, convert: Convert) -> Any:
    @intrinsic
    def read(_context: Any, address: Any, index: Any) -> Any:
        def code(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            value = builder.load(_at(builder, kind, *arguments))
            value.align = 1
            return convert(builder, value)

        return result(types.int64, types.uint64), code

    return read


def _writer(kind: Any, source: Any, convert: Convert) -> Any:
    @intrinsic
    def write(_context: Any, address: Any, index: Any, value: Any) -> Any:
        def code(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            *place, number = arguments
            builder.store(convert(builder, number), _at(builder, kind, *place), align=1)

        return types.void(types.int64, types.uint64, source), code

    return write


def _unary(result: Any, argument: Any, convert: Convert) -> Any:
    @intrinsic
    def operate(_context: Any, value: Any) -> Any:
        def code(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return convert(builder, arguments[0])

        return result(argument), code

    return operate


def _word(value: int) -> Any:
    return ir.Constant(_WORD, value)


def _from_bfloat16(builder: Any, value: Any) -> Any:
    wide = builder.shl(builder.zext(value, _WORD), _word(16))
    return builder.bitcast(wide, _SINGLE)


def _to_bfloat16(builder: Any, value: Any) -> Any:
    bits = builder.bitcast(value, _WORD)
    odd = builder.and_(builder.lshr(bits, _word(16)), _word(1))
    rounded = builder.add(builder.add(bits, _word(0x7FFF)), odd)
    return builder.trunc(builder.lshr(rounded, _word(16)), _SHORT)


def _from_float16(builder: Any, value: Any) -> Any:
    return builder.fpext(value, _SINGLE)


def _to_float16(builder: Any, value: Any) -> Any:
    return builder.fptrunc(value, _HALF)


def _same(_builder: Any, value: Any) -> Any:
    return value


def _larger() -> Any:
    @intrinsic
    def larger(_context: Any, one: Any, other: Any) -> Any:
        def code(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.select(builder.icmp_signed(">", *arguments), *arguments)

        return types.int32(types.int32, types.int32), code

    return larger


def _select() -> Any:
    @intrinsic
    def where(_context: Any, condition: Any, yes: Any, no: Any) -> Any:
        def code(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.select(*arguments)

        return types.float32(types.boolean, types.float32, types.float32), code

    return where


def _clamp() -> Any:
    @intrinsic
    def at_least(_context: Any, value: Any, bound: Any) -> Any:
        def code(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            number, least = arguments
            # What is not a number stays one.
            return builder.select(builder.fcmp_ordered("<", number, least), least, number)

        return types.float32(types.float32, types.float32), code

    return at_least


def _quotient() -> Any:
    @intrinsic
    def quotient(_context: Any, number: Any, by: Any) -> Any:
        def code(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            # Half a step from the next whole number, no rounding crosses it; compilers make no
            # vectors of an integer division.
            above, below = (builder.sitofp(value, _DOUBLE) for value in arguments)
            one, half = (ir.Constant(_DOUBLE, value) for value in (1.0, 0.5))
            value = builder.fmul(builder.fadd(above, half), builder.fdiv(one, below))
            return builder.fptosi(value, _WORD)

        return types.int32(types.int32, types.int32), code

    return quotient


def _rounder(kind: str) -> Any:
    back, forth = _FLOATS[kind]
    return _unary(types.float32, types.float32, lambda b, v: back(b, forth(b, v)))


_KINDS = {"float32": _SINGLE, "bfloat16": _SHORT, "float16": _HALF}
_FLOATS: dict[str, tuple[Convert, Convert]] = {
    "float32": (_same, _same),
    "bfloat16": (_from_bfloat16, _to_bfloat16),
    "float16": (_from_float16, _to_float16),
}

_INTEGERS = {
    "int16": (_SHORT, types.int32, lambda b, v: b.sext(v, _WORD), lambda b, v: b.trunc(v, _SHORT)),
    "int32": (_WORD, types.int32, _same, _same),
    "uint32": (_WORD, types.uint32, _same, _same),
    "uint64": (_LONG, types.uint64, _same, _same),
    "int64": (_LONG, types.int64, _same, _same),
}

NAMES: dict[str, Any] = {
    "F": np.float32,
    "I": np.int32,
    **{name: getattr(numba, name) for name in ("float64", "int64", "uint32", "uint64")},
    "where": _select(),
    "at_least": _clamp(),
    "larger": _larger(),
    "quotient": _quotient(),
    "lowest_bit": _unary(types.uint64, types.uint64, lambda b, v: b.cttz(v, _TRUE)),
    "as_float": _unary(types.float32, types.int32, lambda b, v: b.bitcast(v, _SINGLE)),
    "bits": _unary(types.int32, types.float32, lambda b, v: b.bitcast(v, _WORD)),
    "as_double": _unary(types.float64, types.int64, lambda b, v: b.bitcast(v, _DOUBLE)),
    "double_bits": _unary(types.int64, types.float64, lambda b, v: b.bitcast(v, _LONG)),
    "read_float64": _reader(_DOUBLE, types.float64, _same),
    "write_float64": _writer(_DOUBLE, types.float64, _same),
    **{f"read_{n}": _reader(kind, types.float32, _FLOATS[n][0]) for n, kind in _KINDS.items()},
    **{f"write_{n}": _writer(kind, types.float32, _FLOATS[n][1]) for n, kind in _KINDS.items()},
    **{f"rounded_{n}": _rounder(n) for n in _KINDS},
    **{f"read_{n}": _reader(kind, value, to) for n, (kind, value, to, _) in _INTEGERS.items()},
    **{f"write_{n}": _writer(kind, value, to) for n, (kind, value, _, to) in _INTEGERS.items()},
}
"""What the text of a loop may name: `read_TYPE(address, index)`, `write_TYPE(address, index,
value)`, `rounded_TYPE(value)`, a float32 of a value that the type has, `bits(value)` and back
`as_float(bits)`, …"""
