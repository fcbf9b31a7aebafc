"""One call for operations element by element on arrays that need no second look.

Nearly all arrays that callers give are NumPy's own, alike in dtype and shape, whole and in order.
Compiled code sees that from their objects, takes their addresses and calls the kernel, all in the
time that Python takes to look at one attribute or two. It says so where they are not such, having
touched nothing; then `blocks` takes them apart, or says what is wrong.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Callable, Sequence

import numpy as np
from llvmlite import ir

from . import objects
from .emit import I32, I64, NAME, POINTER, Kernel, integer
from .operations import ELEMENTS_PER_THREAD
from .support import define_denormals

_WORD_BYTES = 8
_HEAD = object.__basicsize__ // _WORD_BYTES
"""Words of an object's head; the last is its type."""
_DATA, _AXES, _LENGTHS, _DTYPE, _FLAGS = 0, 1, 2, 5, 6
"""Words of ``PyArrayObject_fields``, of NumPy's binary interface, behind the object's head."""
_WHOLE = 0x0001 | 0x0100 | 0x0400
"""Flags of an array that is C-contiguous, aligned and writeable."""


def apply_to_plain(pattern: str, kernel: int, arrays: Sequence[np.ndarray], *integers: int) -> bool:
    """Call a kernel on arrays alike, as one long row, if they are plain and it is for one thread.

    Parameters
    ----------
    pattern : str
        The kernel's arguments, a letter each: ``a`` for the address of the next array, ``n`` for
        the number of elements, ``i`` for the next of the integers, ``0`` and ``1`` for themselves.
    kernel : int
        Its address; for the dtype of the first array.
    arrays : sequence
        As many as the pattern has.
    *integers : int

    Returns
    -------
    bool
        Whether it was done; if not, some of them are not NumPy's own arrays, differ, are not
        contiguous, aligned and writeable, or too large for one thread.
    """
    call, pack = _caller(pattern)
    return call(pack(id(np.ndarray), kernel, *map(id, arrays), *integers)) == 1


@functools.cache
def _caller(pattern: str) -> tuple[Callable[[bytes], int], Callable[..., bytes]]:
    name = f"plain {pattern} {object.__basicsize__}"
    address = objects.build_part(name, lambda: _module(pattern))[NAME]
    words = 2 + pattern.count("a") + pattern.count("i")
    call = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_char_p)(address)
    return call, struct.Struct(f"{words}q").pack


def _module(pattern: str) -> ir.Module:
    """Returns 1 once a kernel is called, 0 where the arrays are not plain and alike.

    Argument: words in a row, the type of NumPy's arrays, the kernel, the arrays, the integers.
    """
    module = ir.Module(NAME)
    flush, restore = define_denormals(module)
    kernel = Kernel(module, NAME, "p", "float32", 4, returns=True)
    builder, count = kernel.builder, pattern.count("a")

    def word(base: ir.Value, number: ir.Value | int, kind: ir.Type = I64) -> ir.Value:
        return kernel.load(kernel.at(base, number, element=I64), kind)

    (given,) = kernel.arguments
    arrays = [word(given, 2 + number, POINTER) for number in range(count)]
    size = _size_alike(kernel, word, word(given, 0), arrays)
    values = {
        "a": iter([word(array, _HEAD + _DATA) for array in arrays]),
        "i": iter([word(given, 2 + count + number) for number in range(pattern.count("i"))]),
    }
    constants = {"n": size, "0": integer(0), "1": integer(1)}
    arguments = [
        constants[letter] if letter in constants else next(values[letter]) for letter in pattern
    ]
    function = ir.FunctionType(I64, [I64] * len(arguments)).as_pointer()
    saved = builder.call(flush, [])
    builder.call(builder.inttoptr(word(given, 1), function), arguments)
    builder.call(restore, [saved])
    kernel.finish(integer(1))
    return module


def _size_alike(
    kernel: Kernel, word: Callable[..., ir.Value], ndarray: ir.Value, arrays: list[ir.Value]
) -> ir.Value:
    """The elements of each array; the function returns 0 from here where they are not alike."""
    builder = kernel.builder

    def require(holds: ir.Value) -> None:
        with builder.if_then(builder.not_(holds), likely=False):
            builder.ret(integer(0))

    def equal(a: ir.Value, b: ir.Value) -> ir.Value:
        return builder.icmp_signed("==", a, b)

    for array in arrays:
        require(equal(word(array, _HEAD - 1), ndarray))
    axes = word(arrays[0], _HEAD + _AXES, I32)
    for array in arrays:
        flags = builder.and_(word(array, _HEAD + _FLAGS, I32), I32(_WHOLE))
        require(equal(flags, I32(_WHOLE)))
        require(equal(word(array, _HEAD + _DTYPE), word(arrays[0], _HEAD + _DTYPE)))
        require(equal(word(array, _HEAD + _AXES, I32), axes))
    size = kernel.variable(integer(1))
    lengths = [word(array, _HEAD + _LENGTHS, POINTER) for array in arrays]
    with kernel.loop(builder.sext(axes, I64)) as axis:
        first = word(lengths[0], axis)
        for others in lengths[1:]:
            require(equal(word(others, axis), first))
        kernel.store(builder.mul(kernel.load(size, I64), first), size)
    result = kernel.load(size, I64)
    require(builder.icmp_signed("<", result, integer(2 * ELEMENTS_PER_THREAD)))
    return result
