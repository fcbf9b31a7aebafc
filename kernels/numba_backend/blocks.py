"""Callers' arrays as kernels see them: checked, then addresses, strides and counts.

A kernel believes the integers it is given, so nothing gets past here that would let it read or
write outside the caller's arrays.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any, NamedTuple

import numpy as np

from ..alignment import address
from ..contract import DTYPES

_DTYPES = {np.dtype(name): name for name in DTYPES}
_ITEMSIZES = {name: np.dtype(name).itemsize for name in DTYPES}
_NUMBERS = {"float32": ctypes.c_float, "float64": ctypes.c_double}


class Block(NamedTuple):
    """Rows of numbers in memory; ``stride`` counts elements from one row to the next."""

    address: int
    stride: int
    rows: int
    columns: int
    itemsize: int
    dtype: str

    @property
    def size(self) -> int:
        """Elements in all."""
        return self.rows * self.columns

    def at(self, row: int, column: int = 0) -> int:
        """The address of an element."""
        return self.address + (row * self.stride + column) * self.itemsize


_make = functools.partial(tuple.__new__, Block)  # in half of the time that Block(...) takes

NOTHING = Block(0, 0, 0, 0, 0, "")
"""Stands for an array that was not given: each of its addresses is null."""


def block(
    name: str, array: np.ndarray | None, like: Block | None = None, *, written: bool = False
) -> Block:
    """An array of any shape as rows: as its last axis has them, all other axes in one.

    Parameters
    ----------
    name : str
        The argument's name, for messages.
    array : ndarray
        Of at most two dimensions, or contiguous; the last axis contiguous.
    like : Block or None
        The dtype must be the same.
    written : bool
        Whether a kernel writes to it.

    Raises
    ------
    TypeError
        Not an array of float32 or float64, or not of the other's dtype.
    ValueError
        Not laid out so, or read-only where it is written.
    """
    dtype = dtype_name(array)
    if array is None or dtype is None or (like is not None and dtype != like.dtype):
        expected = " or ".join(DTYPES) if like is None else like.dtype
        raise TypeError(f"{name} must be an array of {expected}, got {_describe(array)}")
    shape, flags, itemsize = array.shape, array.flags, _ITEMSIZES[dtype]
    if len(shape) == 2:
        rows, columns = shape
    else:
        columns = shape[-1] if shape else 1
        rows = array.size // columns if columns else 0
    stride = columns if flags.c_contiguous else _stride(name, array, itemsize)
    if written and not flags.writeable:
        raise ValueError(f"{name} is written in place, but it is read-only")
    return _make((address(array), stride, rows, columns, itemsize, dtype))


def _stride(name: str, array: np.ndarray, itemsize: int) -> int:
    """Elements from one row of an array to the next, where rows lie apart."""
    lies_well = False
    if array.ndim == 2:
        (rows, columns), (row_bytes, step) = array.shape, array.strides
        row_lies_well = columns <= 1 or step == itemsize
        lies_well = not rows or (row_lies_well and (rows == 1 or row_bytes % itemsize == 0))
    if not lies_well:
        raise ValueError(
            f"{name} must be contiguous in its last axis (and wholly, beyond two dimensions),"
            f" got strides {array.strides} for shape {array.shape} of {array.dtype}"
        )
    return row_bytes // itemsize


def matrix(
    name: str,
    array: np.ndarray,
    shape: tuple[int | None, int | None] = (None, None),
    like: Block | None = None,
    *,
    written: bool = False,
) -> Block:
    """A block of an array of two dimensions; ``shape`` has None where any length will do."""
    result = block(name, array, like, written=written)
    rows, columns = shape
    fits = (rows is None or rows == result.rows) and (columns is None or columns == result.columns)
    if array.ndim != 2 or not fits:
        expected = ", ".join("any" if length is None else str(length) for length in shape)
        raise ValueError(f"{name} must have shape ({expected}), got {array.shape}")
    return result


def vector(
    name: str, array: np.ndarray, length: int, like: Block, *, written: bool = False
) -> Block:
    """A block of one contiguous row of ``length`` numbers."""
    result = block(name, array, like, written=written)
    if array.shape != (length,):
        raise ValueError(f"{name} must have shape ({length},), got {array.shape}")
    return result


def alike(writes: tuple[str, ...], **arrays: np.ndarray | None) -> list[Block]:
    """Blocks of arrays that have the first one's shape and dtype; NOTHING for None."""
    blocks: list[Block] = []
    like, shape = None, ()
    for name, array in arrays.items():
        if array is None and blocks:
            blocks.append(NOTHING)
            continue
        found = block(name, array, like, written=name in writes)
        assert array is not None  # or it was refused
        if like is None:
            like, shape = found, array.shape
        elif array.shape != shape:
            raise ValueError(
                f"{name} must have {next(iter(arrays))}'s shape {shape}, got {array.shape}"
            )
        blocks.append(found)
    return blocks


def joined(blocks: list[Block]) -> list[Block]:
    """The same blocks as one long row each, if no row of any is apart from the next."""
    first = blocks[0]
    if first.rows == 1:
        return blocks
    for b in blocks:
        if b.stride != b.columns and b.rows > 1:
            return blocks
    size = first.size
    return [_make((b.address, size, 1, size, b.itemsize, b.dtype)) for b in blocks]


def dtype_name(array: object) -> str | None:
    """The name of an array's dtype; None for anything that kernels cannot take."""
    return _DTYPES.get(array.dtype) if isinstance(array, np.ndarray) else None


def number(value: float, dtype: str) -> Any:
    """A C number of ``dtype``; its address is ``ctypes.addressof`` it, for as long as it lives."""
    return _NUMBERS[dtype](value)


def _describe(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"dtype {value.dtype} (shape {value.shape})"
    return type(value).__name__
